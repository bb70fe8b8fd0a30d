"""Files of proxies in a real process: kept over its death, bounded also against one that does not count (A1)."""

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest

from locum.node.apps import process, room
from locum.node.config.settings import AppLimits
from tests.node.apps.driven import Driven
from tests.node.apps.world import install


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_files_are_there_for_the_next_process(data: Path) -> None:
    first = await Driven(data).begin()
    first.do(["Append", "a", "hello"], ["Sync", "a"], ["Append", "b", "x"], ["Rename", "b", "c"])
    assert await first.wait("Synced") == {"file": "a", "size": 5}
    os.kill(first.process.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(first.reason), 60)
    (data / ".sent.part").write_bytes(b"upload under way")
    second = Driven(data)
    await second.process_ready()
    assert (await second.wait("Files"))["files"] == [["a", 5], ["c", 1]]
    second.do(["Append", "a", "!"], ["Load", "a", 1, 100], ["Remove", "c"])
    assert await second.wait("Loaded") == {"file": "a", "offset": 1, "data": "ello!", "length": 5}
    await second.end()
    assert sorted(os.listdir(data)) == [".sent.part", "a"]


async def test_failures_name_file_and_error(data: Path) -> None:
    driven = await Driven(data, AppLimits(disk=1 << 20)).begin()
    driven.do(
        ["Truncate", "a", 2 << 20], ["Append", "../b", "x"], ["Load", "c", 0, 1], ["Truncate", "d", 1 << 20]
    )
    assert await driven.wait("Failed", file="a") == {"file": "a", "error": errno.ENOSPC}
    assert await driven.wait("Failed", file="../b") == {"file": "../b", "error": errno.EINVAL}
    assert await driven.wait("Failed", file="c") == {"file": "c", "error": errno.ENOENT}
    driven.do(["Append", "e", "x"])
    assert await driven.wait("Failed", file="e") == {"file": "e", "error": errno.ENOSPC}
    await driven.end()


async def test_outcome_of_a_deadline_waits_for_no_packet(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "IDLE", 1000.0)
    driven = await Driven(data, later=[["Load", "a", 0, 1]]).begin()
    assert await driven.wait("Failed") == {"file": "a", "error": errno.ENOENT}
    await driven.end()


@pytest.mark.parametrize(
    "way, word",
    [
        ("hoards", "its files take"),
        ("hides", "its files take"),
        ("digs", "something else than a file: 'cellar'"),
        ("scatters", "more than 256 files"),
    ],
)
async def test_process_that_does_not_count_is_ended(
    data: Path, way: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK", 0.2)
    driven = await Driven(data, AppLimits(disk=1 << 20), wayward=way).begin()
    watch = room.Watch(data, lambda: driven.process.pid, 1 << 20, driven.process.stop)
    assert word in await asyncio.wait_for(asyncio.shield(driven.reason), 60)
    watch.close()
    again = await Driven(data).begin()  # what was no file is gone
    assert not (data / "cellar").exists()
    await again.end()


async def test_one_file_grows_to_the_room_and_no_further(data: Path) -> None:
    driven = await Driven(data, AppLimits(disk=1 << 20), wayward="grows").begin()
    assert [effect[1] for effect in driven.others] == [f"errno {errno.EFBIG}"]
    assert (data / "large").stat().st_size == 1 << 20
    await driven.end()
