"""Connections of proxies at the device: the first program that waits gets one, and nobody keeps one for ever."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from locum.node.control.client import NodeClient, NodeRefused
from locum.node.control.server import ControlSocket, Passed
from locum.node.sessions import waiting
from locum.node.sessions.waiting import NoSuchConnection, WaitingConnections
from locum.roles.action_values.handed import RestoreHanded
from locum.roles.action_values.listeners import Replayed
from locum.sessions.record import SessionRecord
from locum.wire.control import FinalState, Flow, Handed
from tests.sessions.test_record import PLAIN

FINAL = FinalState(0, None, 5, 5)


class Fake:
    """A socket in the place of `Restored`; real ones are in tests/sessions/handed."""

    def __init__(self, record: SessionRecord, final: FinalState, data: bytes) -> None:
        self.flow = record.flow
        self.socket, self.peer = socket.socketpair()

    def ending(self) -> tuple[bytes, ...]:
        return (b"fin",)

    def nudge(self) -> tuple[bytes, ...]:
        return (b"nudge",)


class Room:
    """A room, what it said, and the packets that it delivered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 60.0) -> None:
        monkeypatch.setattr(waiting, "Restored", Fake)
        monkeypatch.setattr("locum.sessions.tcp.stand_in.reset", lambda sock: sock.close())
        self.fed: list[object] = []
        self.packets: list[bytes] = []
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.connections = WaitingConnections(self.fed.append, self.packets.append, self._emit, seconds)

    def _emit(self, kind: str, *rest: Any) -> None:
        self.told.append((kind, rest[-1]))

    async def comes(self, label: str = "chat") -> None:
        (restore,) = self.connections.handlers().values()
        restore(RestoreHanded(PLAIN.flow, Handed(label, PLAIN.to_cbor()), FINAL, b"hello"))
        assert self.fed.pop() == Replayed(PLAIN.flow)
        await asyncio.sleep(0)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


async def test_first_program_that_waits_gets_it(room: Room) -> None:
    programs = [asyncio.create_task(room.connections.claim("chat", wait=True)) for _ in range(2)]
    other = asyncio.create_task(room.connections.claim("other", wait=True))
    await asyncio.sleep(0)
    await room.comes()
    first = await programs[0]
    assert not programs[1].done() and not other.done() and room.connections.rows() == []
    assert room.packets == [b"fin"]
    room.connections.given(first)
    assert room.packets == [b"fin", b"nudge"] and first.restored.socket.fileno() == -1
    assert room.told == [("session-claimed", {"label": "chat"})]
    await room.comes()
    assert (await programs[1]).label == "chat"
    other.cancel()
    with suppress(asyncio.CancelledError):
        await other
    await room.comes("other")
    assert [row["label"] for row in room.connections.rows()] == ["other"]
    room.connections.close()


async def test_program_that_comes_later_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(monkeypatch, 0.3)
    with pytest.raises(NoSuchConnection, match="--wait"):
        await room.connections.claim("chat", wait=False)
    await room.comes()
    found = await room.connections.claim("chat", wait=False)
    room.connections.give_back(found)  # the program died before it had the descriptor
    assert len(room.connections.rows()) == 1
    async with asyncio.timeout(30):
        while room.connections.rows():
            await asyncio.sleep(0.02)
    assert room.told == [("session-unclaimed", {"label": "chat", "seconds": 0.3})]
    assert found.restored.socket.fileno() == -1


async def test_program_without_a_label_takes_the_oldest_of_all(room: Room) -> None:
    await room.comes("late")
    await room.comes("chat")
    late = await room.connections.claim(None, wait=False)
    room.connections.give_back(late)  # it stays the oldest
    assert (await room.connections.claim(None, wait=False)).label == "late"
    assert (await room.connections.claim(None, wait=True)).label == "chat"
    with pytest.raises(NoSuchConnection, match=r"^no connection waits; --wait waits for one$"):
        await room.connections.claim(None, wait=False)
    anyone = asyncio.create_task(room.connections.claim(None, wait=True))
    named = asyncio.create_task(room.connections.claim("chat", wait=True))
    await asyncio.sleep(0)
    await room.comes("chat")
    await room.comes("other")
    assert (await named).label == "chat" and (await anyone).label == "other"
    room.connections.close()


async def test_program_that_goes_in_the_very_moment_loses_nothing(room: Room) -> None:
    program = asyncio.create_task(room.connections.claim("chat", wait=True))
    await asyncio.sleep(0)
    room.connections.handlers()[RestoreHanded](
        RestoreHanded(PLAIN.flow, Handed("chat", PLAIN.to_cbor()), FINAL, b"")
    )
    asyncio.get_running_loop().call_soon(program.cancel)
    with pytest.raises(asyncio.CancelledError):
        await program
    assert len(room.connections.rows()) == 1
    room.connections.close()


async def test_too_many_programs_are_refused(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITERS", 1)
    program = asyncio.create_task(room.connections.claim("chat", wait=True))
    await asyncio.sleep(0)
    with pytest.raises(NoSuchConnection, match="1 programs wait"):
        await room.connections.claim("chat", wait=True)
    room.connections.close()
    with pytest.raises(asyncio.CancelledError):
        await program


@pytest.mark.parametrize("wrong", ["flow", "record"])
async def test_wrong_records_fail_alone(wrong: str) -> None:
    fed: list[object] = []
    connections = WaitingConnections(fed.append, lambda _: None, lambda *_: None)
    flow = Flow(6, ip_address("10.0.9.1"), 1, ip_address("192.0.2.1"), 2)
    record = PLAIN.to_cbor() if wrong == "flow" else {0: 1}
    (restore,) = connections.handlers().values()
    restore(RestoreHanded(flow, Handed("chat", record), FINAL, b""))
    (failed,) = fed
    assert isinstance(failed, Replayed) and failed.flow == flow and failed.error


async def test_descriptor_comes_over_the_control_socket(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    said: list[str] = []

    async def answer(request: str, arguments: Mapping[str, Any]) -> Any:
        passed: Callable[[str], Any] = lambda how: partial(said.append, how)  # noqa: E731
        return (
            Passed({"label": "chat"}, theirs, passed("given"), passed("kept"))
            if arguments["label"] == "a"
            else {}
        )

    server = ControlSocket(tmp_path / "s", answer, lambda _: lambda: None)
    await server.open()

    def ask(label: str) -> socket.socket:
        with NodeClient(tmp_path / "s") as client:
            sock, answer = client.request_socket("accept", label=label)
            assert answer == {"label": "chat"}
            return sock

    got = await asyncio.to_thread(ask, "a")
    assert said == ["given"] and os.fstat(got.fileno()).st_ino == os.fstat(theirs.fileno()).st_ino
    with pytest.raises(NodeRefused, match="no connection"):
        await asyncio.to_thread(ask, "b")
    await server.close()
    for sock in (got, ours, theirs):
        sock.close()
