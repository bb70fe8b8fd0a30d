"""Looks for obstacles on the host at a node's start and while it runs, and tells of those that come and go."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from locum.node.config.settings import Settings
from locum.node.events import EventStream
from locum.node.host.arrivals import expecting
from locum.node.host.obstacles import Obstacle, find, lacks_renewal, served

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane

PERIOD = 60.0  # seconds between two looks
_SHARE = 50  # a look that takes long is followed by a pause that many times as long

log = logging.getLogger("locum.host")


class Surroundings:
    """The obstacles of one node."""

    def __init__(self, settings: Settings, plane: "DataPlane", events: EventStream) -> None:
        self._settings, self._plane, self._events = settings, plane, events
        self._task: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        self._homes, self._expected_on = served(settings), expecting(settings)
        self.obstacles: tuple[Obstacle, ...] = ()

    def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="surroundings")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def look(self) -> tuple[Obstacle, ...]:
        """Look now; events tell of changes."""
        async with self._one:
            plane = self._plane
            of_host = await find(
                plane.interfaces,
                plane.device,
                forwards=self._settings.is_router,
                homes=self._homes,
                expected_on=self._expected_on,
            )
            found = (*of_host, *lacks_renewal(plane.renewal.missing))
            kept = [
                old for old in self.obstacles if any(new.hides(old) for new in found) and old not in found
            ]
            found += tuple(kept)
            for obstacle in found:
                if obstacle not in self.obstacles:
                    self._events.emit("obstacle-found", detail=said(obstacle))
                    log.warning("%s", obstacle)
            for obstacle in self.obstacles:
                if obstacle not in found:
                    self._events.emit("obstacle-gone", detail=said(obstacle))
            self.obstacles = found
        return found

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self.look()
            except Exception as problem:  # the next look follows
                log.warning("cannot look for obstacles: %s", problem)
            await asyncio.sleep(max(PERIOD, _SHARE * (loop.time() - began)))


def said(obstacle: Obstacle) -> dict[str, str]:
    """For users and events."""
    return {"where": obstacle.where, "problem": obstacle.problem, "remedy": obstacle.remedy}
