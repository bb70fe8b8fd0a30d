"""The file system of the spools is full: the store can still be written, and every session can be given back."""

import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from locum.roles.action_values.sessions import (
    DropSessions,
    Measured,
    MeasureSessions,
    ResumeSessions,
    Stopped,
    StopSessions,
)
from locum.sessions.reserve import reserve
from tests.sessions.lodging import HANDOVER, lodging
from tests.sessions.sleepworld import Network

MEG = 1 << 20


@contextmanager
def small_disk(path: Path, size: str = "8m") -> Iterator[None]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Fill the disk to the last byte."""
    with (path / "junk").open("wb", buffering=0) as junk, pytest.raises(OSError, match="No space"):
        while True:
            junk.write(bytes(4096))


def test_reserve_is_a_bounded_share_of_the_file_system() -> None:
    assert reserve(8 * MEG) == MEG
    assert reserve(1 << 40) == 64 * MEG


async def test_spools_leave_room_for_the_store(network: Network, tmp_path: Path) -> None:
    """Both are in one directory by default."""
    node = tmp_path / "node"
    with small_disk(node):
        async with lodging(network, node, session_least=64 * MEG) as here:
            here.stand_in._spools._budget.memory_bound = 0
            (one,) = here.connect()
            await here.take_over([one])
            await here.fill(one.peer, 64 * MEG)
            assert [event.kind for event in here.told] == ["spool-full"]
            assert here.stand_in.sessions()[0]["spilled"] > 2 * MEG
            free = os.statvfs(node)
            assert free.f_bavail * free.f_frsize >= MEG
            here.store.put("oscore", "a peer", {"reserved": "x" * 100_000})
            await here.store.durable()


async def test_reset_on_a_full_disk_does_not_block_the_wake(network: Network, tmp_path: Path) -> None:
    async with lodging(network, tmp_path) as here:
        await here.shut()
        with small_disk(tmp_path / "spool", "64k"):
            await here.open()
            two = here.connect(2)
            await here.take_over(two)
            fill(tmp_path / "spool")
            two[1].peer.send(b"hello")
            await here.until(lambda: here.stand_in.sessions()[1]["received"] == 5)
            two[0].peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            two[0].peer.close()
            await here.until(lambda: [event.kind for event in here.told] == ["spool-full"])
            assert here.stand_in.sessions()[0]["error"] == 0  # the kernel still has it
            finals = (await here.ask(StopSessions(HANDOVER, (), MEG), Stopped)).finals
            assert [(final.error, final.tail) for final in finals] == [(errno.ECONNRESET, b""), (0, b"hello")]
            await here.perform(DropSessions(HANDOVER))


async def test_a_session_that_fails_fails_alone(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with lodging(network, tmp_path) as here:
        two = here.connect(2)
        await here.take_over(two)
        spool = here.stand_in._held[HANDOVER][0].spool
        with monkeypatch.context() as patch:
            patch.setattr(spool, "waiting", broken)
            patch.setattr(spool, "stop", broken)
            measured = await here.ask(MeasureSessions(HANDOVER), Measured)
            assert len(measured.sessions) == 2
            stopped = await here.ask(StopSessions(HANDOVER, (), MEG), Stopped)
            assert [final.session for final in stopped.finals] == [1]
        await here.ask(StopSessions(HANDOVER, (), MEG), Stopped)
        with monkeypatch.context() as patch:
            patch.setattr(spool, "resume", broken)
            await here.perform(ResumeSessions(HANDOVER))
        two[1].peer.send(b"goes on")
        await here.until(lambda: here.stand_in.sessions()[1]["received"] == 7)
        with monkeypatch.context() as patch:
            patch.setattr(spool, "remove", broken)
            await here.perform(DropSessions(HANDOVER, reset=True))
        assert here.stand_in.sessions() == []
        with pytest.raises(ConnectionResetError):
            two[1].peer.recv(1)
