"""Programs that fork: every holder of a captured socket is frozen, and all of them run again."""

import asyncio
import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from locum.node.sessions.device import SessionCapture
from locum.node.sessions.trickle import Trickle
from locum.node.store import Store
from locum.node.tables import StoreError
from locum.roles import actions as do
from locum.roles.action_values.sessions import (
    AbandonSessions,
    AnswerPeers,
    Capture,
    Captured,
    DrainRound,
    FindSessions,
    Finished,
    FinishSessions,
    Freeze,
    HasRoom,
    InjectData,
    Injected,
    Loosen,
    Process,
    ReleaseCaptured,
    SessionFinal,
    SessionsFound,
    Thaw,
    Tighten,
    Tightened,
    WatchReading,
)
from locum.sessions.programs.process import process
from locum.sessions.record import SessionRecord
from locum.sessions.tcp.live import LiveSocket
from locum.wire.control import Flow
from tests.sessions.ends import connect
from tests.sessions.sleepworld import HOME4, Network, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    network = Network()
    made = World(network, tmp_path)
    yield made
    made.close()
    network.close()


class Device:
    """A capturing node on the device of that world, without a role: `told` are the events for it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.told: list[do.Event] = []
        self.store = Store(folder / "store.db")
        self.session_capture = SessionCapture(
            f"t{os.getpid()}", folder, "auto", self.store, self.told.append, lambda packet: None
        )
        self.session_capture._worker.submit(self._enter).result()

    def _enter(self) -> None:
        self.inside = self.world.network.inside("device")
        self.inside.__enter__()  # the thread that looks for sockets stays there

    async def do(self, action: object) -> object:
        pending = self.session_capture.handlers()[type(action)](action)
        if pending is not None:
            await pending
        return self.told[-1] if self.told else None

    async def heard(self, event: object) -> None:
        """Wait until the role would have got this event."""
        async with asyncio.timeout(20):
            while event not in self.told:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.session_capture._worker.submit(self.inside.__exit__, None, None, None).result()
        await self.session_capture.close()
        await self.store.close()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def named(*pids: int) -> tuple[Process, ...]:
    return tuple(Process(*pair) for pair in map(process, pids) if pair is not None)


def stands_still(pid: int) -> bool:
    """In a frozen cgroup, or stopped."""
    groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line[4:] for line in groups if line.startswith("0::/"))
    roots = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
    events = [root / path.lstrip("/") / "cgroup.events" for root in roots]
    return any("frozen 1" in event.read_text() for event in events if event.exists())


async def test_programs_that_fork_before_and_between_rounds(world: World, tmp_path: Path) -> None:
    program, _ = connect(world, 4)
    parent = program.process.pid
    device = Device(world, tmp_path)
    try:
        found = await device.do(FindSessions((HOME4,)))
        assert isinstance(found, SessionsFound)
        (session,) = found.sessions
        assert session.pids == (parent,)
        program.ask("fork")
        await device.do(Freeze(session.processes))
        found = await device.do(FindSessions((HOME4,)))
        assert isinstance(found, SessionsFound)
        (first,) = children(parent)
        assert set(found.sessions[0].pids) == {parent, first}
        await device.do(Freeze(named(first)))
        captured = await device.do(Capture((session.flow,)))
        assert isinstance(captured, Captured) and not captured.failures

        program.begin("fork")  # it will, as soon as it runs
        await device.do(InjectData(((session.flow, b"x" * 1000),)))
        await device.do(DrainRound((session.flow,), named(parent, first), 0.5))
        pids = {parent, *children(parent)}
        assert len(pids) == 3 and all(map(stands_still, pids))
        assert device.session_capture.frozen == pids

        await device.do(ReleaseCaptured((session.flow,)))
        await device.do(Thaw(named(parent, first)))  # the role does not know of the second child
        assert not device.session_capture.frozen and not any(map(stands_still, pids))
        await device.store.durable()
        assert not device.store.rows("parked")
    finally:
        await device.close()
        for pid in children(parent):
            os.kill(pid, 9)


async def test_a_restart_frees_what_no_handover_claims(world: World, tmp_path: Path) -> None:
    """Killed in the middle of a capture: no record of its progress exists."""
    program, peer = connect(world, 4)
    device = Device(world, tmp_path)
    found = await device.do(FindSessions((HOME4,)))
    assert isinstance(found, SessionsFound)
    (session,) = found.sessions
    await device.do(Freeze(session.processes))
    await device.do(Capture((session.flow,)))
    assert stands_still(program.process.pid)
    await device.close()
    device = Device(world, tmp_path)
    try:
        with world.network.inside("device"):
            device.session_capture.adopt({})
        assert not device.session_capture.frozen and not device.session_capture.captured()
        assert peer.send(b"y" * 500)
        assert program.ask("receive", 500).startswith("500 ")
        assert program.ask("options") == "1 77000"
        await device.store.durable()
        assert not device.store.rows("parked")
    finally:
        await device.close()


async def test_loose_program_reads_while_its_peer_is_answered(world: World, tmp_path: Path) -> None:
    """Data still to come after a wake: the program runs, and is frozen only while data is put in."""
    program, peer = connect(world, 4)
    device = Device(world, tmp_path)
    taken: dict[Flow, object] = {}
    device.session_capture._trickle._answers._divert = lambda flow, take: taken.update({flow: take})
    try:
        found = await device.do(FindSessions((HOME4,)))
        assert isinstance(found, SessionsFound)
        (session,) = found.sessions
        flow = session.flow
        await device.do(Freeze(session.processes))
        await device.do(Capture((flow,)))
        tight = await device.do(Tighten((flow,)))
        assert tight == Tightened((flow,), ((flow, 0),))
        final = SessionFinal(0, flow, 2000, timestamp=7_000_000)
        await device.do(AnswerPeers((final,)))
        assert taken[flow] is not None
        await device.do(InjectData(((flow, b"x" * 1500),)))
        await device.do(Loosen((flow,), session.processes))
        assert not device.session_capture.frozen and not stands_still(program.process.pid)
        await device.do(WatchReading((flow,)))
        program.begin("receive", 2000)
        await device.heard(HasRoom((flow,)))
        again = await device.do(Tighten((flow,)))
        assert again == Tightened((flow,), ((flow, 1500),)) and stands_still(program.process.pid)
        assert await device.do(InjectData(((flow, b"x" * 500),))) == Injected(((flow, 500),))
        ended = await device.do(FinishSessions((SessionFinal(0, flow, 2000),)))
        assert ended == Finished((flow,)) and taken[flow] is None
        await device.do(Thaw(session.processes))
        assert program.answer().startswith("2000 ")
        assert peer.receive() == 0
    finally:
        await device.close()


async def test_a_restart_lets_loose_programs_run(world: World, tmp_path: Path) -> None:
    """Also when it was killed after they had been frozen again."""
    program, _ = connect(world, 4)
    device = Device(world, tmp_path)
    found = await device.do(FindSessions((HOME4,)))
    assert isinstance(found, SessionsFound)
    (session,) = found.sessions
    await device.do(Freeze(session.processes))
    await device.do(Capture((session.flow,)))
    await device.close()
    device = Device(world, tmp_path)
    try:
        with world.network.inside("device"):
            device.session_capture.adopt({session.flow: True})
        assert not device.session_capture.frozen and device.session_capture.captured() == (session.flow,)
        assert program.ask("options")
        tight = await device.do(Tighten((session.flow,)))
        assert tight == Tightened((session.flow,), ((session.flow, 0),))
        assert stands_still(program.process.pid)
        program.close()
        tight = await device.do(Tighten((session.flow,)))
        assert isinstance(tight, Tightened) and tight.gone == (session.flow,)
    finally:
        await device.close()


async def test_sockets_of_an_earlier_boot_are_not_touched(world: World, tmp_path: Path) -> None:
    program, _ = connect(world, 4)
    device = Device(world, tmp_path)
    found = await device.do(FindSessions((HOME4,)))
    assert isinstance(found, SessionsFound)
    (session,) = found.sessions
    await device.do(Freeze(session.processes))
    await device.do(Capture((session.flow,)))
    await device.store.durable()
    (key,) = device.store.rows("parked")
    stored = device.store.rows("parked")[key] | {"boot": "another"}
    await device.do(ReleaseCaptured((session.flow,)))
    await device.do(Thaw(session.processes))
    device.store.put("parked", key, stored)
    await device.store.durable()
    await device.close()
    device = Device(world, tmp_path)
    try:
        with world.network.inside("device"):
            device.session_capture.adopt({})
        await device.store.durable()
        assert not device.store.rows("parked") and not device.session_capture.captured()
        assert program.ask("options") == "1 77000"
    finally:
        await device.close()


async def test_a_daemon_killed_in_a_capture_leaves_no_option_behind(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program's own settings are stored before any of them changes."""
    program, peer = connect(world, 4)
    device = Device(world, tmp_path)
    found = await device.do(FindSessions((HOME4,)))
    assert isinstance(found, SessionsFound)
    (session,) = found.sessions
    await device.do(Freeze(session.processes))
    capture = LiveSocket.capture

    def killed(live: LiveSocket) -> SessionRecord:
        capture(live)
        raise RuntimeError("killed")

    monkeypatch.setattr(LiveSocket, "capture", killed)
    with pytest.raises(RuntimeError, match="killed"):
        await device.do(Capture((session.flow,)))
    monkeypatch.undo()
    await device.close()
    gc.collect()  # the socket that the killed daemon had open
    device = Device(world, tmp_path)
    try:
        with world.network.inside("device"):
            device.session_capture.adopt({})
        assert peer.send(b"y" * 500)
        assert program.ask("receive", 500).startswith("500 ")
        assert program.ask("options") == "1 77000"
        await device.store.durable()
        assert not device.store.rows("parked")
    finally:
        await device.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system that a test can fill."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "junk").open("wb", buffering=0) as junk:
        while junk.write(b"x" * 4096):
            pass


@pytest.mark.parametrize("ending", [AbandonSessions, ReleaseCaptured])
async def test_programs_run_although_the_disk_is_full(world: World, small: Path, ending: Any) -> None:
    """A row that is out of date harms less than a program that stands still for ever."""
    program, _ = connect(world, 4)
    device = Device(world, small)
    try:
        found = await device.do(FindSessions((HOME4,)))
        assert isinstance(found, SessionsFound)
        (session,) = found.sessions
        await device.do(Freeze(session.processes))
        await device.do(Capture((session.flow,)))
        fill(small)
        await device.do(ending((session.flow,)))
        with pytest.raises(StoreError):  # it is told
            await device.do(Thaw(session.processes))
        assert not device.session_capture.frozen and not stands_still(program.process.pid)
        assert program.ask("options")
    finally:
        (small / "junk").unlink()
        await device.close()


async def test_a_full_disk_leaves_a_connection_as_it_was(world: World, small: Path) -> None:
    """The record for restoring it in a later run cannot be stored."""
    program, peer = connect(world, 4)
    before = program.ask("options")
    device = Device(world, small)
    try:
        found = await device.do(FindSessions((HOME4,)))
        assert isinstance(found, SessionsFound)
        (session,) = found.sessions
        await device.do(Freeze(session.processes))
        fill(small)
        with pytest.raises(StoreError):
            await device.do(Capture((session.flow,)))
        assert not device.session_capture.captured()
        with suppress(StoreError):  # a deletion may still find room
            await device.do(Thaw(session.processes))
        assert program.ask("options") == before
        assert peer.send(b"y" * 500)
        assert program.ask("receive", 500).startswith("500 ")
    finally:
        (small / "junk").unlink()
        await device.close()


async def test_a_program_that_has_shut_both_sides_counts_as_closed(world: World, tmp_path: Path) -> None:
    """It keeps its descriptor, and will never read the data still to come."""
    program, _ = connect(world, 4)
    device = Device(world, tmp_path)
    try:
        found = await device.do(FindSessions((HOME4,)))
        assert isinstance(found, SessionsFound)
        (session,) = found.sessions
        flow = session.flow
        await device.do(Freeze(session.processes))
        await device.do(Capture((flow,)))
        await device.do(Loosen((flow,), session.processes))
        program.ask("shutdown-both")
        await device.do(Tighten((flow,)))
        assert await device.do(InjectData(((flow, b"x"),))) == Injected((), (), (flow,))
        await device.do(AbandonSessions((flow,)))
        await device.do(Thaw(session.processes))
        assert program.ask("receive", 1).startswith("0 ")
    finally:
        await device.close()


async def test_socket_without_room_is_retried_with_backoff() -> None:
    """Each time its programs are frozen."""
    flow = Flow(6, HOME4, 1, HOME4, 2)
    live = SimpleNamespace(unread=lambda: 0, position=lambda: 5)
    captured = SimpleNamespace(live={flow: live}, has_program=lambda flow: True)
    again = WatchReading((flow,))
    tried: list[do.Event] = []

    def feed(event: do.Event) -> None:
        tried.append(event)
        asyncio.get_running_loop().call_soon(watch, again)

    trickle = Trickle(cast(Any, captured), cast(Any, None), feed, cast(Any, None))
    watch = trickle.handlers()[WatchReading]
    watch(again)
    await asyncio.sleep(1)
    await trickle.close()
    assert len(tried) < 10  # 40 without a pause
    live.position = lambda: 6  # it took something
    before = len(tried)
    watch(again)
    async with asyncio.timeout(20):
        while len(tried) == before:
            await asyncio.sleep(0.01)
    await trickle.close()
