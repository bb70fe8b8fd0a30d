"""Received bytes on their way to a proxy: counted in packets, copied bytes and lent ones."""

import asyncio
import os
import signal
from collections import deque
from pathlib import Path
from typing import cast

import pytest

from locum.node.apps import attending
from locum.node.apps.process import WINDOW, AppProcess
from locum.node.apps.running import Attended, Running, answered
from locum.node.apps.shown import showing
from locum.node.apps.shown.showing import CHUNK, LENT, ON_THE_WAY, show
from locum.roles.action_values.apps import StartApps
from locum.sessions.tcp.spool import Budget, Lent, Spool
from tests.node.apps.driven import Driven
from tests.node.apps.world import ECHO, HANDOVER, HOME, Connection, Standing, install


class Process:
    """The stand-in's end of a process that answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, int]] = []  # name, session, bytes
        self.unanswered: deque[tuple[object, ...]] = deque()

    @property
    def free(self) -> bool:
        return len(self.unanswered) < WINDOW

    def on_the_way(self, session: int) -> int:
        return sum(packet[1] == session for packet in self.unanswered)

    def send(self, *packet: object) -> bool:
        name, number, data = packet
        size = len(data) if isinstance(data, bytes) else 0
        return self._sent(str(name), cast(int, number), size, packet)

    def lend(self, session: int, lent: Lent) -> int:
        with os.fdopen(lent.descriptor, "rb") as file:
            assert len(os.pread(file.fileno(), lent.length, lent.place)) == lent.length
        self._sent("stored", session, lent.length, ("stored", session, lent.place, lent.length))
        return lent.length

    def _sent(self, name: str, session: int, size: int, packet: tuple[object, ...]) -> bool:
        self.sent.append((name, session, size))
        self.unanswered.append(packet)
        return True


class Bulk(Connection):
    """A connection whose stand-in has stored much."""

    def __init__(self, directory: Path, number: int = 0, *, memory: int = 1 << 30) -> None:
        super().__init__(directory, number)
        self.spool = Spool(
            f"b{number}",
            self.held.record,  # type: ignore[arg-type]
            memory_dir=directory / "memory",
            disk_dir=directory / "disk",
            budget=Budget(memory, 1 << 30),
        )
        self.held.spool = self.spool

    def stores(self, data: bytes) -> None:
        rest = data
        while rest:
            self.peer.sendall(rest[: 64 << 10])
            wanted, rest = self.spool.total + len(rest[: 64 << 10]), rest[64 << 10 :]
            while self.spool.total < wanted:
                self.spool.drain(self.held.socket)


def attended(*connections: Bulk) -> tuple[Running, Process]:
    """A proxy that has begun, and is behind in all these sessions."""
    process = Process()
    sessions = {one.held.key[1]: Attended(one.held) for one in connections}
    app = Running(HANDOVER, HOME, ECHO, sessions, {}, process=cast(AppProcess, process), begun=True)
    app.behind = dict.fromkeys(sessions)
    return app, process


def shown(app: Running, process: Process) -> list[tuple[str, int, int]]:
    """Packets of one turn."""
    process.sent.clear()
    show(app, cast(AppProcess, process))
    return process.sent


async def test_much_is_lent_and_no_byte_of_it_copied(tmp_path: Path) -> None:
    bulk = Bulk(tmp_path)
    bulk.stores(bytes(3 * LENT + 100))
    app, process = attended(bulk)
    assert shown(app, process) == [("stored", 0, LENT)] * ON_THE_WAY
    assert shown(app, process) == [], "a slow proxy gets no more"
    process.unanswered.popleft()
    assert shown(app, process) == [("stored", 0, LENT)]
    process.unanswered.clear()
    assert shown(app, process) == [("received", 0, 100)]
    assert not app.behind
    assert answered(app) == {0: 3 * LENT}
    bulk.close()


async def test_bytes_behind_a_packet_make_up_the_next_one(tmp_path: Path) -> None:
    bulk = Bulk(tmp_path)
    app, process = attended(bulk)
    bulk.stores(b"a")
    assert shown(app, process) == [("received", 0, 1)]
    for _ in range(50):
        bulk.stores(b"b")
        app.behind[0] = None
        assert shown(app, process) == []
    process.unanswered.popleft()
    assert shown(app, process) == [("received", 0, 50)]
    bulk.close()


async def test_stream_without_a_pause_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that answers at once is woken once for many arrivals; the last bytes follow by themselves."""
    monkeypatch.setattr(showing, "PACE", 3600.0)
    bulk = Bulk(tmp_path)
    app, process = attended(bulk)
    app.sessions[0].shown_at = asyncio.get_running_loop().time()
    for _ in range(LENT // (2 * CHUNK) - 1):
        bulk.stores(bytes(2 * CHUNK))
        app.behind[0] = None
        assert shown(app, process) == []
    bulk.stores(bytes(2 * CHUNK))
    assert shown(app, process) == [("stored", 0, LENT)]
    bulk.close()
    monkeypatch.setattr(showing, "PACE", 0.01)
    rest = Bulk(tmp_path, 1)
    rest.stores(bytes(2 * CHUNK))
    app, process = attended(rest)
    app.sessions[1].shown_at = asyncio.get_running_loop().time()
    assert shown(app, process) == []
    async with asyncio.timeout(60):
        while not process.sent:
            await asyncio.sleep(0.01)
    assert process.sent == [("stored", 1, 2 * CHUNK)]
    rest.close()


async def test_one_session_leaves_room_for_the_others(tmp_path: Path) -> None:
    first, second = Bulk(tmp_path, 0), Bulk(tmp_path, 1)
    first.stores(bytes(4 * LENT))
    second.stores(b"ping")
    app, process = attended(first, second)
    assert ("received", 1, 4) in shown(app, process)
    first.close()
    second.close()


async def test_bytes_on_disk_are_lent_as_well(tmp_path: Path) -> None:
    """A packet never has bytes of two files."""
    bulk = Bulk(tmp_path, memory=2 * CHUNK)
    bulk.stores(bytes(5 * CHUNK))
    app, process = attended(bulk)
    assert shown(app, process) == [("stored", 0, 2 * CHUNK)]
    process.unanswered.clear()
    app.sessions[0].shown_at = 0.0
    assert shown(app, process) == [("stored", 0, 3 * CHUNK)]
    bulk.close()


async def test_descriptor_only_reads_and_keeps_no_room(tmp_path: Path) -> None:
    bulk = Bulk(tmp_path)
    bulk.stores(bytes(CHUNK))
    lent = bulk.spool.lend(0, CHUNK)
    assert lent is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(lent.descriptor, b"x")
    assert os.fstat(lent.descriptor).st_size == CHUNK
    bulk.spool.remove()
    assert os.fstat(lent.descriptor).st_size == 0
    os.close(lent.descriptor)
    bulk.close()


async def test_proxy_killed_in_the_middle_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part of a lent packet counts as soon as its effects are carried out: every byte is answered, and once."""
    install(tmp_path, monkeypatch)
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.01)
    bulk = Bulk(tmp_path)
    standing = Standing(bulk.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = standing.apps.all()
    sent = b"".join(b"%07d\n" % number for number in range(40_000))
    bulk.stores(sent)
    standing.apps.moved(bulk.held)
    await standing.until(lambda: bool(bulk.spool.said.data))
    assert app.process is not None
    os.kill(app.process.pid, signal.SIGKILL)
    heard = await bulk.hears(len(sent))
    assert heard == sent.upper()
    await standing.until(lambda: app.followed(0) == len(sent))
    assert bulk.spool.said.data == sent.upper()
    standing.apps.close()
    bulk.close()


async def test_session_dropped_before_it_is_read_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are gone when the process comes to them: it goes on with its other sessions."""
    install(tmp_path, monkeypatch)
    dropped, other = Bulk(tmp_path, 0), Bulk(tmp_path, 1)
    standing = Standing(dropped.held, other.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.begun)
    process = app.process
    dropped.stores(bytes(LENT))
    standing.apps.moved(dropped.held)
    standing.apps.dropped(dropped.held)
    dropped.spool.remove()
    other.stores(b"ping")
    standing.apps.moved(other.held)
    await standing.until(lambda: bool(other.spool.said.data) or app.process is not process)
    assert app.process is process, list(app.lines)
    standing.apps.close()
    for one in (dropped, other):
        one.close()


async def test_part_of_no_packet_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    driven = Driven(tmp_path / "data", wayward="parts_oddly")
    await driven.process_ready()
    reason = await asyncio.wait_for(asyncio.shield(driven.reason), 60)
    assert "something wrong" in reason, reason
