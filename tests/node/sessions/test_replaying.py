"""Connections that go into programs' queues one by one: the end of a daemon waits for no program."""

import asyncio
import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from locum.node.sessions import replaying
from locum.node.sessions.replaying import Replaying
from locum.roles.action_values.listeners import ReplayAccepted
from locum.sessions.listening import replay as replays
from locum.sessions.listening.replay import Accepted, Interrupted, replay
from locum.wire.control import Flow, Handshake

GREETING = Handshake(5, 6, 1460, True, 64240)


def call(number: int) -> Flow:
    return Flow(6, ip_address("10.0.9.1"), 22, ip_address("192.0.2.77"), 40_000 + number)


def test_shutdown_waits_for_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting replays go on in the next run: the role must not see them as failed."""
    begun: list[Flow] = []
    told: list[object] = []

    def slow(accepted: Accepted, _: object, *, stopping: Callable[[], bool], **_others: object) -> None:
        begun.append(accepted.flow)
        while not stopping():
            time.sleep(0.005)
        raise Interrupted

    async def run() -> None:
        one = Replaying(told.append, lambda _: None, frozenset)
        begin = one.handlers()[ReplayAccepted]
        for number in range(40):
            begin(ReplayAccepted(call(number), GREETING, b"request", False))
        while not begun:
            await asyncio.sleep(0.005)
        await one.close()

    monkeypatch.setattr(replaying, "replay", slow)
    asyncio.run(asyncio.wait_for(run(), 60))
    assert 1 <= len(begun) <= 4
    assert not told


def test_interrupted_replay_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Accepted] = []
    monkeypatch.setattr(replays, "impossible", lambda _: None)
    monkeypatch.setattr(replays, "look", lambda _: None)
    monkeypatch.setattr(replays, "_exists", lambda _: True)
    monkeypatch.setattr(replays, "_position", lambda _: 0)
    monkeypatch.setattr(replays, "_close", lambda accepted, _: closed.append(accepted))
    with pytest.raises(Interrupted):
        replay(Accepted(call(0), GREETING, b"request"), lambda _: None, patience=600.0, stopping=lambda: True)
    assert not closed
