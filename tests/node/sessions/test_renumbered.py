"""Sockets that go on where proxies have left their connections, by a node that is killed in between or has no room on its disk."""

import errno
import hashlib
import socket
from pathlib import Path

import pytest

from locum.node.sessions.renumbered import Renumberings
from locum.node.tables import StoreError
from locum.roles.action_values.sessions import (
    Capture,
    FindSessions,
    Finished,
    FinishSessions,
    FoundSession,
    Freeze,
    InjectData,
    Injected,
    SessionFinal,
    SessionsFound,
    Thaw,
    Tighten,
    Tightened,
)
from locum.sessions.tcp import renumbering, repair
from tests.node.sessions.test_device import Device, world
from tests.sessions.ends import Peer, Program, connect
from tests.sessions.sleepworld import HOME4, World

__all__ = ["world"]

SAID, ADDED = b"said by a proxy", b"put in by a proxy"


class Killed(Exception):
    """The daemon ends here."""


async def _asleep(device: Device) -> FoundSession:
    found = await device.do(FindSessions((HOME4,)))
    assert isinstance(found, SessionsFound)
    (session,) = found.sessions
    await device.do(Freeze(session.processes))
    await device.do(Capture((session.flow,)))
    return session


def _tighten(session: FoundSession, said: bytes = SAID) -> Tighten:
    return Tighten((session.flow,), ((session.flow, said),), ((session.flow, len(ADDED)),))


async def _wakes(device: Device, session: FoundSession, program: Program, peer: Peer) -> None:
    """The rest of a wake, and both ends go on."""
    flow = session.flow
    assert await device.do(_tighten(session)) == Tightened((flow,), ((flow, 0),))
    folder = device.session_capture._renumberings._directory
    assert not [*folder.iterdir()], "everything is in the rows"
    assert await device.do(InjectData(((flow, ADDED),))) == Injected(((flow, len(ADDED)),))
    assert await device.do(FinishSessions((SessionFinal(0, flow, len(ADDED)),))) == Finished((flow,))
    await device.do(Thaw(session.processes))
    assert peer.send(b"and on")
    text = ADDED + b"and on"
    assert program.ask("receive", len(text)) == f"{len(text)} {hashlib.sha256(text).hexdigest()} more"
    device.world.until(lambda: peer.receive() == len(SAID))
    assert peer.received.digest() == hashlib.sha256(SAID).digest()


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("done", ["nothing", "disconnected", "everything"])
async def test_next_run_ends_what_was_begun(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: str, loose: bool
) -> None:
    program, peer = connect(world, 4)
    device = Device(world, tmp_path)
    session = await _asleep(device)
    carry_out = renumbering.Renumbering.carry_out

    def killed(begun: renumbering.Renumbering, sock: socket.socket) -> None:
        if done == "disconnected":
            repair.disconnect(sock)
        if done == "everything":
            carry_out(begun, sock)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(renumbering.Renumbering, "carry_out", killed)
        with pytest.raises(Killed):
            await device.do(_tighten(session))
    await device.close()
    device = Device(world, tmp_path)
    try:
        with world.network.inside("device"):
            device.session_capture.adopt({session.flow: loose})
        assert device.session_capture.captured() == (session.flow,)
        await _wakes(device, session, program, peer)
    finally:
        await device.close()


async def test_full_disk_changes_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, peer = connect(world, 4)
    device = Device(world, tmp_path)
    session = await _asleep(device)

    def full(_directory: Path, _begun: renumbering.Begun) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(renumbering, "store", full)
        with pytest.raises(StoreError, match="No space left on device; make room"):
            await device.do(_tighten(session))
    try:
        await _wakes(device, session, program, peer)
    finally:
        await device.close()


def test_files_that_cannot_be_read_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "renumberings"
    folder.mkdir()
    (folder / f"1{renumbering.SUFFIX}").write_bytes(b"\x80")
    (folder / f"2{renumbering.SUFFIX}").write_bytes(b"not CBOR")
    found = Renumberings(folder)
    assert found.end({}) == {}
    found.clear()
    assert not [*folder.iterdir()]
