"""New connections to a sleeping device's ports: decisions on each SYN, and bounds of number and rate."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import cast

import pytest

from locum.node.sessions.openings import MOST_IN_ALL, MOST_PER_SECOND, Openings
from locum.roles.action_values.addresses import Addr
from locum.sessions.listening import accepting
from locum.sessions.record import SessionRecord
from locum.sessions.tcp import stand_in
from locum.wire.control import Flow, Listener, Policy
from locum.wire.ip.opening import Opening
from locum.wire.ip.packet import build_tcp
from locum.wire.ip.transport import TcpFlag

HOME, PEER = ip_address("10.9.0.5"), ip_address("10.1.0.2")
ONE = b"\1" * 16
SSH = Listener(HOME, 22, Policy.ACCEPT, 2, 0x8000)
WEB = Listener(HOME, 80, Policy.REFUSE, 1, 0x8000)


class Desk:
    """An `Openings` whose listeners, clock and raw socket are the test's; `waiting` is how many are held already."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.injected: list[Opening] = []
        self.refused: list[Opening] = []
        self.kept: list[object] = []
        self.counts: Counter[str] = Counter()
        self.events: list[str] = []
        self.waiting, self.now, self.failing = 0, 100.0, False
        self.arrived: list[socket.socket] = []
        self.reset: list[object] = []
        patch.setattr(accepting, "listen", self.listen)
        patch.setattr(accepting, "accept", lambda _: (self.arrived.pop(), object()) if self.arrived else None)
        patch.setattr(stand_in, "reset", self.reset.append)
        patch.setattr(Openings, "_refuse", lambda _, opening: self.refused.append(opening))
        self.openings = Openings(
            lambda packet: self.injected.append(Opening.parse(packet)),
            self.keep,
            lambda *_: self.waiting,
            lambda reason: self.counts.update([reason]),
            lambda told: self.events.append(told.kind),
            clock=lambda: self.now,
        )

    def listen(self, *_: object, **__: object) -> socket.socket:
        if self.failing:
            raise OSError(98, "Address already in use")
        return socket.socketpair()[0]

    def keep(self, _handover: bytes, sock: socket.socket, _record: SessionRecord) -> None:
        self.kept.append(sock)
        self.waiting += 1

    def syn(self, port: int, flags: TcpFlag = TcpFlag.SYN, home: Addr = HOME) -> None:
        flow = Flow(6, home, port, PEER, 40_000)
        self.openings.came(build_tcp(flow, seq=7, ack=0, flags=flags))


def run(patch: pytest.MonkeyPatch, test: Callable[[Desk], None]) -> Desk:
    async def inside() -> Desk:
        desk = Desk(patch)
        test(desk)
        desk.openings.close()
        return desk

    return asyncio.run(inside())


def test_each_port_has_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    def test(desk: Desk) -> None:
        desk.openings.open(ONE, (SSH, WEB))
        for port in (22, 80, 443):
            desk.syn(port)
        desk.syn(22, TcpFlag.ACK)
        desk.openings.close(b"\2" * 16)
        desk.syn(22)

    desk = run(monkeypatch, test)
    assert [opening.flow.local_port for opening in desk.injected] == [22, 22]
    assert [opening.flow.local_port for opening in desk.refused] == [80]
    assert desk.counts == {"opening-ignored": 1, "opening-range": 1}


def test_connections_of_a_port_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def test(desk: Desk) -> None:
        desk.openings.open(ONE, (SSH,))
        desk.arrived = [cast("socket.socket", name) for name in ("third", "second", "first")]
        desk.openings.close(ONE)  # takes what the kernel has
        desk.openings.open(ONE, (SSH,))
        desk.syn(22)

    desk = run(monkeypatch, test)
    assert desk.kept == ["first", "second"]
    assert desk.reset == ["third"]
    assert not desk.injected
    assert desk.counts == {"opening-ignored": 2}


def test_flood_is_limited_by_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def test(desk: Desk) -> None:
        desk.openings.open(ONE, (SSH,))
        for _ in range(3 * MOST_PER_SECOND):
            desk.syn(22)
        desk.now += 0.5
        for _ in range(MOST_PER_SECOND):
            desk.syn(22)

    desk = run(monkeypatch, test)
    assert len(desk.injected) == MOST_PER_SECOND * 3 // 2
    assert desk.counts["opening-too-many"] == MOST_PER_SECOND * 5 // 2


def test_flood_of_one_address_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [HOME + number for number in range(2 * MOST_IN_ALL // MOST_PER_SECOND)]

    def test(desk: Desk) -> None:
        for number, home in enumerate(homes):
            desk.openings.open(bytes([number]) * 16, (replace(SSH, address=home),))
        for _ in range(3 * MOST_IN_ALL):
            desk.syn(22)
        for _ in range(5):
            desk.syn(22, home=homes[1])

    desk = run(monkeypatch, test)
    assert [opening.flow.local for opening in desk.injected].count(homes[1]) == 5

    def everywhere(desk: Desk) -> None:
        test(desk)
        for home in homes:
            for _ in range(MOST_PER_SECOND):
                desk.syn(22, home=home)

    assert len(run(monkeypatch, everywhere).injected) == MOST_IN_ALL


def test_unopenable_port_is_reported_and_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    def test(desk: Desk) -> None:
        desk.failing = True
        desk.openings.open(ONE, (SSH,))
        desk.syn(22)

    desk = run(monkeypatch, test)
    assert desk.events == ["listen-failed"]
    assert desk.counts == {"opening-ignored": 1}
