"""Follows the host by its system bus: suspends by systemd-logind, the network by NetworkManager.

Both may be missing, come later, end and return. Without logind nothing holds a suspend up, and the commands do.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from locum.node.events import EventStream
from locum.node.moving import connectivity as network
from locum.node.moving import logind
from locum.node.moving.bus import BusFailed, Signal, SystemBus
from locum.node.moving.connectivity import Connectivity
from locum.node.moving.logind import Logind
from locum.node.moving.suspending import Suspending

log = logging.getLogger("locum.suspend")
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds until the bus is tried again


class FollowingHost:
    """One device's view of its host, from `begin` to `close`."""

    def __init__(
        self, node: str, suspending: Suspending, events: EventStream, moved: Callable[[], None]
    ) -> None:
        self._node, self._suspending, self._events, self._moved = node, suspending, events, moved
        self._task: asyncio.Task[None] | None = None
        self._absent: str | None = "not asked yet"  # why suspends are not followed; None: they are
        self._connectivity: Connectivity | None = None
        self._shutting_down = False

    def begin(self) -> None:
        """Follow, in a task of its own: a start does not wait for a bus."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="system bus")

    async def close(self) -> None:
        """Give the lock back and end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._suspending.close()

    def status(self) -> dict[str, Any]:
        """Tell whether suspends are followed, and the connectivity by NetworkManager."""
        connectivity = None if self._connectivity is None else self._connectivity.value
        return {"followed": self._absent is None, "reason": self._absent, "connectivity": connectivity}

    async def _run(self) -> None:
        wait, first = _FIRST_WAIT, True
        while True:
            try:
                bus = await SystemBus.open()
                try:
                    wait = _FIRST_WAIT
                    await self._follow(bus, first)
                finally:
                    await bus.close()
            except BusFailed as problem:
                self._unfollowed(str(problem))
                if first:  # nothing holds a suspend up now: an earlier daemon's is over
                    self._suspending.adopt()
            except Exception:
                log.exception("the system bus is not followed for a while")
                self._unfollowed("an internal error, which the daemon's log has")
            first = False
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _follow(self, bus: SystemBus, first: bool) -> None:
        """Until the bus is lost. Raises BusFailed then."""
        manager = Logind(bus, self._node)
        try:
            await manager.follow()
            await self._join(manager, first)
            if (connectivity := await network.follow(bus)) is not None:
                self._reaches(connectivity)
            while True:
                await self._told(manager, await bus.signal())
        finally:
            manager.release()

    async def _join(self, manager: Logind, first: bool) -> None:
        """Take the lock of a logind that is there, and see what it is about. Others are waited for."""
        try:
            await manager.take()
            preparing = await manager.preparing()
        except BusFailed as problem:
            self._unfollowed(str(problem))
            if first:
                self._suspending.adopt()
            return
        self._followed()
        if preparing:  # since before our lock: there is no time to count on
            self._suspending.begins(await manager.delay(), manager.release)
        elif first:
            self._suspending.adopt()

    async def _told(self, manager: Logind, signal: Signal) -> None:
        if (begins := logind.sleep_told(signal)) is not None:
            await (self._suspend(manager) if begins else self._resume(manager))
        elif (ends := logind.shutdown_told(signal)) is not None:
            self._shutdown(ends)
        elif (there := logind.owner_told(signal)) is not None:
            manager.release()
            if there:
                await self._join(manager, first=False)
            else:
                self._unfollowed(f"{logind.SERVICE} has ended")
        elif (connectivity := network.told(signal)) is not None:
            self._reaches(connectivity)

    async def _suspend(self, manager: Logind) -> None:
        self._events.emit("suspend-begins")
        self._suspending.begins(await manager.delay(), manager.release)

    async def _resume(self, manager: Logind) -> None:
        self._events.emit("suspend-ended")
        self._moved()
        self._suspending.ended()
        manager.release()
        await self._join(manager, first=False)

    def _shutdown(self, ends: bool) -> None:
        if ends != self._shutting_down:
            self._shutting_down = ends
            self._events.emit("host-shuts-down" if ends else "host-stays")

    def _reaches(self, connectivity: Connectivity) -> None:
        before, self._connectivity = self._connectivity, connectivity
        if connectivity is before:
            return
        self._events.emit("connectivity", detail={"state": connectivity.value})
        if connectivity.may_reach and before is not None:
            self._moved()
            self._suspending.network_back()

    def _followed(self) -> None:
        if self._absent is not None:
            self._absent = None
            self._events.emit("suspend-followed")

    def _unfollowed(self, reason: str) -> None:
        if self._absent != reason:
            self._absent = reason
            self._events.emit("suspend-unfollowed", detail={"reason": reason})
