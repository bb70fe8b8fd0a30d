"""Proxies with a network at the stand-in: a reclaim, a crash, ports of held listeners, and connections that are left over (A1)."""

import contextlib
import os
import signal
import socket
import subprocess
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from locum.node.apps import attending
from locum.node.apps.outlet import MAX_NUMBER, Outlet, number_besides
from locum.node.apps.silence import silence
from locum.node.config.settings import AppLimits
from locum.roles.action_values.apps import AppOrder, AppsPaused, AppTold, PauseApps, StartApps
from tests.node.apps.driven import HERE, LoopbackOutlet
from tests.node.apps.peers import Server, dialled, free_port
from tests.node.apps.world import HANDOVER, Standing, install


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setattr("locum.node.apps.outlets.Outlet", LoopbackOutlet)
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.01)


def order(**settings: Any) -> AppOrder:
    return AppOrder("one", "puppet", settings)


def told(standing: Standing, kind: str) -> int:
    return sum(isinstance(event, AppTold) and event.kind == kind for event in standing.events)


async def started(standing: Standing, **settings: Any) -> None:
    await standing.perform(StartApps(HANDOVER, HERE, (order(**settings),), {}, (HERE,)))


def sockets(port: int) -> str:
    command = ["ss", "-tanH", f"( sport = :{port} or dport = :{port} )"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def speaking(port: int) -> list[str]:
    return [
        line for line in sockets(port).splitlines() if line.split()[0] in ("FIN-WAIT-1", "ESTAB", "LAST-ACK")
    ]


async def test_listener_returns_after_a_crash_and_goes_with_a_reclaim() -> None:
    port, standing = free_port(), Standing()
    await started(standing, echo=True, begin=[["Listen", 1, port]])
    (app,) = standing.apps.all()
    await standing.until(lambda: told(standing, "Opened") == 1)
    peer = await dialled(port)
    await peer.says(b"one")
    assert await peer.hears(3) == b"one"
    assert app.process is not None
    os.kill(app.process.pid, signal.SIGKILL)
    with contextlib.suppress(ConnectionResetError):
        assert await peer.hears(1) == b"", "a crash ends its connections"
    await standing.until(lambda: told(standing, "Opened") == 2)
    peer = await dialled(port)
    await peer.says(b"two")
    assert await peer.hears(3) == b"two"
    await standing.perform(PauseApps(HANDOVER))
    assert isinstance(standing.events[-1], AppsPaused)
    assert await peer.hears(1) == b""
    with pytest.raises(ConnectionRefusedError):
        await dialled(port)
    ours = [line for line in speaking(port) if line.split()[3].endswith(f":{port}")]
    assert ours == [], "a peer's own socket may repeat its end to a proxy that has crashed"


async def test_stopped_process_leaves_nothing_that_speaks() -> None:
    """Its kernel would send what a slow peer has not taken, and the FIN, for minutes."""
    server, standing = Server(), Standing()
    begin = [["Truncate", "zeros", 64 << 20], ["Connect", 1, "127.0.0.1", server.port]]
    await started(standing, begin=[*begin, ["SendFile", 1, "zeros", 0, 64 << 20]])
    peer = await server.accept()
    (app,) = standing.apps.all()
    await standing.until(lambda: told(standing, "Opened") == 1)
    assert app.process is not None
    os.kill(app.process.pid, signal.SIGSTOP)  # it does not end by itself
    await standing.perform(PauseApps(HANDOVER))
    with pytest.raises(ConnectionResetError):
        await peer.hears(1 << 30)
    assert speaking(server.port) == []


async def test_silence_resets_connections_of_one_proxy_alone(tmp_path: Path) -> None:
    server = Server()
    made = {}
    for number in (7001, 7002):
        outlet = Outlet((HERE,), number, tmp_path, AppLimits())
        made[number] = outlet.made(HERE, socket.SOCK_STREAM)
        with contextlib.suppress(BlockingIOError):
            made[number].connect(("127.0.0.1", server.port))
    ends = [await server.accept() for _ in made]
    assert len(ends) == 2
    assert silence({7001, 7003}) == 1 and silence({7003}) == 0
    assert made[7001].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
    assert made[7002].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert silence({7001, 7002}) == 1


class Lending:
    """Ports of held listeners."""

    def __init__(self) -> None:
        self.lent: list[tuple[object, int]] = []

    def lend(self, address: object, port: int) -> None:
        self.lent.append((address, port))

    def give_back(self, address: object, port: int) -> None:
        self.lent.remove((address, port))


async def test_port_of_a_held_listener_is_lent_while_the_proxy_runs(tmp_path: Path) -> None:
    port, lending = free_port(), Lending()
    outlet = LoopbackOutlet((HERE,), 1, tmp_path, AppLimits(), lending)
    answer = await outlet.ask("listen", port, 6)
    assert answer.told == [""] and lending.lent == [(HERE, port)]
    again = await outlet.ask("listen", port, 6)
    assert again.told == ["Address already in use"]
    for sock in answer.sockets:
        sock.close()
    assert (await outlet.ask("listen", port, 6)).told == [""] and lending.lent == [(HERE, port)]
    outlet.close()
    assert lending.lent == []


@pytest.mark.parametrize("port, protocol", [(0, 6), (-1, 17), (65536, 6), (80, 1)])
async def test_ports_that_are_none_have_a_reason(tmp_path: Path, port: int, protocol: int) -> None:
    outlet = LoopbackOutlet((HERE,), 1, tmp_path, AppLimits())
    assert (await outlet.ask("listen", port, protocol)).told == ["there is no such port"]
    if protocol == 6:
        assert (await outlet.ask("connect", "127.0.0.1", port, 0)).told == ["there is no such port"]


async def test_addresses_of_the_stand_in_are_not_reached(tmp_path: Path) -> None:
    own, home = IPv4Address("192.0.2.7"), IPv4Address("10.99.0.5")
    outlet = Outlet((home,), 1, tmp_path, AppLimits(), is_local=lambda address: address == own)
    for address in (own, home):
        answer = await outlet.ask("connect", str(address), 80, 0)
        assert answer.told == ["it cannot be reached from a home address"] and not answer.sockets


@pytest.mark.parametrize("question", [(), ("connect",), ("listen", "80", 6), ("connect", "a", 1, None)])
async def test_questions_that_make_no_sense(tmp_path: Path, question: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="no such question"):
        Outlet((IPv4Address("127.0.0.1"),), 1, tmp_path, AppLimits()).ask(*question)


def test_numbers_are_given_again_as_late_as_possible() -> None:
    assert number_besides({}, 0) == 1 and number_besides({1: 0, 2: 0}, 0) == 3
    assert number_besides({}, MAX_NUMBER) == 1 and number_besides({1: 0}, MAX_NUMBER) == 2
    with pytest.raises(OSError, match="65535 proxies"):
        number_besides(dict.fromkeys(range(1, MAX_NUMBER + 1)), 5)
