"""A device follows logind and NetworkManager on a real bus; its sleeps and wakes are recorded."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from locum.node.control.server import RequestFailed
from locum.node.events import EventStream
from locum.node.moving.following import FollowingHost
from locum.node.moving.suspending import Suspending
from locum.node.store import Store
from locum.node.tables import HostTable
from tests.node.moving.host import Host


class Device:
    """Awake until it is told to sleep."""

    def __init__(self) -> None:
        self.now, self.calls = "awake", list[str]()
        self.slow, self.wakes_that_fail = 0.0, 0

    async def sleep(self, seconds: Any) -> Mapping[str, Any]:
        self.calls.append("sleep")
        try:
            await asyncio.sleep(self.slow)
        except asyncio.CancelledError:
            self.calls.append("turned back")
            raise
        self.now = "asleep"
        return {"report": {"went": 1, "stayed": 0, "sessions": []}}

    async def wake(self) -> Mapping[str, Any]:
        self.calls.append("wake")
        if self.wakes_that_fail:
            self.wakes_that_fail -= 1
            self.now = "waking"
            raise RequestFailed("still waking after 30 s; it goes on")
        self.now = "awake"
        return {"report": {"returned": 1, "lost": 0, "sessions": []}}

    def state(self) -> Mapping[str, Any]:
        return {"state": self.now}


class Followed:
    """The device, what it said, and how often WireGuard was told of a move."""

    def __init__(self, folder: Path, closers: AsyncExitStack) -> None:
        self.device, self.moves = Device(), 0
        self.events = EventStream("mn")
        self.store = Store(folder / "mn.db")
        closers.push_async_callback(self.store.close)
        self.suspending = Suspending(self.device, self.store, self.events, time.monotonic)
        self.host = FollowingHost("mn", self.suspending, self.events, self._moved)
        self._closers = closers

    def _moved(self) -> None:
        self.moves += 1

    def begin(self) -> None:
        self.host.begin()
        self._closers.push_async_callback(self.host.close)

    async def event(self, kind: str, number: int = 1) -> None:
        await wait(lambda: self.events.counts[kind] >= number)


async def wait(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


def play(folder: Path, story: Callable[[Followed], Awaitable[None]]) -> None:
    async def played() -> None:
        async with AsyncExitStack() as closers:
            await story(Followed(folder, closers))

    asyncio.run(played())


async def lock_is(host: Host, held: bool) -> None:
    async with asyncio.timeout(20):
        while bool(await asyncio.to_thread(host.locks)) is not held:
            await asyncio.sleep(0.02)


def test_a_suspend_hands_over_and_releases_its_lock(host: Host, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        it.begin()
        await it.event("suspend-followed")
        (lock,) = await asyncio.to_thread(host.locks)
        assert list(lock[:2]) == ["sleep", "locum mn"] and lock[3] == "delay"
        await asyncio.to_thread(host.prepare, sleep=True)
        await lock_is(host, False)
        assert it.device.now == "asleep" and it.events.counts["suspend-asleep"] == 1
        await asyncio.to_thread(host.prepare, sleep=False)
        await it.event("resumed")
        await lock_is(host, True)
        assert it.device.calls == ["sleep", "wake"] and it.moves == 1
        await it.store.durable()
        assert it.store.rows(HostTable.SUSPEND) == {}

    play(tmp_path, story)


def test_a_slow_hand_over_does_not_hold_the_host_up(host: Host, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        await asyncio.to_thread(host.delay, 1.0)
        it.device.slow = 60.0
        it.begin()
        await it.event("suspend-followed")
        began = time.monotonic()
        await asyncio.to_thread(host.prepare, sleep=True)
        await it.event("suspend-awake")
        await lock_is(host, False)
        assert time.monotonic() - began < 5.0
        assert it.device.calls == ["sleep", "turned back"]

    play(tmp_path, story)


def test_a_suspend_that_is_called_off_wakes_the_device(host: Host, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        it.device.slow = 60.0
        it.begin()
        await it.event("suspend-followed")
        await asyncio.to_thread(host.prepare, sleep=True)
        await wait(lambda: it.device.calls == ["sleep"])
        await asyncio.to_thread(host.prepare, sleep=False)
        await it.event("resumed")
        assert it.device.calls == ["sleep", "turned back", "wake"]
        await lock_is(host, True)

    play(tmp_path, story)


def test_a_wake_goes_on_and_a_network_that_is_back_hurries_it(host: Host, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        await asyncio.to_thread(host.start, "networkmanager")
        await asyncio.to_thread(host.connectivity, 2)
        it.device.wakes_that_fail = 1
        it.begin()
        await it.event("connectivity")
        assert it.host.status()["connectivity"] == "portal"
        await asyncio.to_thread(host.prepare, sleep=True)
        await it.event("suspend-asleep")
        await asyncio.to_thread(host.prepare, sleep=False)
        await it.event("resume-waits")
        await asyncio.to_thread(host.connectivity, 4)
        await it.event("resumed")
        assert it.device.calls == ["sleep", "wake", "wake"]
        assert it.host.status() == {"followed": True, "reason": None, "connectivity": "full"}

    play(tmp_path, story)


def test_logind_and_the_bus_may_end_and_come_back(host: Host, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        it.begin()
        await it.event("suspend-followed")
        await asyncio.to_thread(host.stop, "logind")
        await it.event("suspend-unfollowed")
        assert it.host.status()["followed"] is False
        await asyncio.to_thread(host.start, "logind")
        await it.event("suspend-followed", 2)
        await lock_is(host, True)
        await asyncio.to_thread(host.stop_all)
        await it.event("suspend-unfollowed", 2)
        await asyncio.to_thread(host.start_bus)
        await asyncio.to_thread(host.start, "logind")
        await it.event("suspend-followed", 3)
        await asyncio.to_thread(host.prepare, shutdown=True)
        await it.event("host-shuts-down")
        assert it.device.calls == []

    play(tmp_path, story)


@pytest.mark.parametrize("bus", [True, False])
def test_a_daemon_restarted_after_the_resume_wakes(host: Host, tmp_path: Path, bus: bool) -> None:
    if not bus:
        host.stop_all()

    async def story(it: Followed) -> None:
        it.store.put(HostTable.SUSPEND, "suspended", {})
        await it.store.durable()
        it.device.now = "asleep"
        it.begin()
        await it.event("resumed")
        assert it.device.calls == ["wake"]

    play(tmp_path, story)


def test_a_daemon_restarted_within_a_suspend_sleeps(host: Host, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        await asyncio.to_thread(host.prepare, sleep=True)
        it.begin()
        await it.event("suspend-asleep")
        await asyncio.to_thread(host.prepare, sleep=False)
        await it.event("resumed")
        assert it.device.calls == ["sleep", "wake"]

    play(tmp_path, story)
