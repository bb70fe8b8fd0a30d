"""Processes of proxies: confined, watched, and replaced when they fail (A1)."""

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from locum.node.apps import process
from locum.node.apps.process import AppProcess
from locum.node.apps.starts.starting import Starts
from locum.node.config.settings import AppLimits
from tests.node.apps.world import LIMITS, install

STARTS: list[Starts] = []
"""Those of the present test."""


@pytest.fixture(autouse=True, params=[False, True], ids=["anew", "forked"])
async def starts(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Starts]:
    """A process is confined and watched in the same way, however it begins."""
    install(tmp_path, monkeypatch)
    STARTS[:] = [Starts(fork=request.param)]
    yield STARTS[0]
    STARTS[0].close()


class Watched:
    """One process and everything that it says."""

    def __init__(self, way: str, limits: AppLimits = LIMITS) -> None:
        self.packets: list[list[Any]] = []
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Event()
        self.process = AppProcess(
            "wayward",
            limits,
            self.packets.append,
            self.ready.set,
            self.reason.set_result,
            starts=STARTS[0],
        )
        self._way = way

    async def begin(self) -> None:
        await asyncio.wait_for(self.ready.wait(), 60)
        assert self.process.send("begin", {"way": self._way}, {})

    async def outcome(self) -> Mapping[str, object]:
        await self.begin()
        async with asyncio.timeout(60):
            while not self.packets:
                await asyncio.sleep(0.01)
        return await self.process.end()


async def test_it_runs_as_a_user_of_its_own_and_returns_its_state() -> None:
    watched = Watched("well")
    assert await watched.outcome() == {"result": "True 65534"}
    assert [effect[0] for effect in watched.packets[0]] == ["note", "keep"]
    with pytest.raises(ProcessLookupError):
        os.kill(watched.process.pid, 0)


@pytest.mark.parametrize(
    "way, outcome",
    [
        ("forks", "BlockingIOError"),
        ("connects", "OSError"),
        ("leaks", "MemoryError"),
        ("writes", "FileNotFoundError"),
        ("makes", "FileNotFoundError"),
        ("reads", "FileNotFoundError"),
    ],
)
async def test_confinement(way: str, outcome: str) -> None:
    """Each of these fails inside the process, which goes on."""
    assert (await Watched(way).outcome())["result"] == outcome


async def test_it_reaches_no_service_by_a_path() -> None:
    path = Path("/tmp/locum-wayward")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        path.chmod(0o777)
        service.listen()
        try:
            assert (await Watched("reaches").outcome())["result"] == "FileNotFoundError"
        finally:
            path.unlink()


@pytest.mark.parametrize(
    "way, word",
    [("raises", "ValueError: on purpose"), ("exits", "status 3"), ("chatters", "at most 10000 effects")],
)
async def test_failures_are_reported_with_their_reason(way: str, word: str) -> None:
    watched = Watched(way)
    await watched.begin()
    assert word in await asyncio.wait_for(watched.reason, 60)


async def test_nothing_waits_for_a_process_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes a while for its memory: it is awaited only when it is gone."""
    waited: list[bool] = []

    def reap(pid: int) -> None:
        waited.append(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
        os.waitpid(pid, 0)

    monkeypatch.setattr(process, "end", reap)
    assert await Watched("well").outcome() == {"result": "True 65534"}
    late = Watched("hangs")
    monkeypatch.setattr(process, "ENDING", 0.2)
    await late.begin()
    assert await late.process.end() == {}
    assert waited == [True, True]


async def test_silent_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    watched = Watched("hangs")
    await watched.begin()
    assert "has not answered" in await asyncio.wait_for(watched.reason, 60)
    with pytest.raises(ProcessLookupError):
        os.kill(watched.process.pid, 0)


async def test_killed_process_is_reported() -> None:
    watched = Watched("well")
    await watched.begin()
    os.kill(watched.process.pid, signal.SIGKILL)
    assert "SIGKILL" in await asyncio.wait_for(watched.reason, 60)


async def test_flooding_process_waits_until_there_is_time_for_it() -> None:
    """It is heard a few times a second, and still ends well."""
    watched = Watched("floods")
    await watched.begin()
    begun = time.monotonic()
    await asyncio.sleep(1.5)
    heard = len(watched.packets)
    assert heard < process.UNASKED_AT_ONCE + (time.monotonic() - begun + 1) * process.UNASKED_A_SECOND
    assert await watched.process.end() == {"result": "nothing"}


async def test_it_ends_no_other_proxy() -> None:
    victim = Watched("well")
    await victim.begin()
    outcome = await Watched(f"kills_{victim.process.pid}").outcome()
    assert outcome == {"result": "PermissionError"}
    assert (await victim.process.end())["result"] and not victim.reason.done()


@pytest.mark.parametrize("call", ["pipe2", "posix_spawn", "pidfd_open"])
async def test_process_that_cannot_start_leaves_nothing(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no descriptor for it; it is tried again."""

    def refused(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    children = Path(f"/proc/self/task/{os.getpid()}/children")
    already, before = children.read_text(), os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, call, refused)
    watched = Watched("well")
    assert "too many open files" in await asyncio.wait_for(watched.reason, 60)
    assert os.listdir("/proc/self/fd") == before
    assert children.read_text() == already
