"""A device around a suspend of its host: sessions go to the stand-in before it, and come back after it.

A sleep that does not fit into the delay of logind is called off: the sessions stay in their programs, and the host is suspended.
A row in the store tells the next daemon that a suspend put the device to sleep.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from locum.node.control.server import RequestFailed
from locum.node.events import EventStream
from locum.node.tables import HostStore, HostTable

log = logging.getLogger("locum.suspend")
_ROW = "suspended"
_AGAIN = 2.0  # seconds between wakes that failed at once; a network that is back ends the wait
_LEAST, _SHARE = 0.2, 0.8  # of logind's delay: the rest is for turning back and for the release


class Sleeper(Protocol):
    """The commands of a device."""

    async def sleep(self, seconds: Any) -> Mapping[str, Any]: ...
    async def wake(self) -> Mapping[str, Any]: ...
    def state(self) -> Mapping[str, Any]: ...


class Suspending:
    """The suspends of one device's host."""

    def __init__(
        self, device: Sleeper, store: HostStore, events: EventStream, clock: Callable[[], float]
    ) -> None:
        self._device, self._store, self._events, self._clock = device, store, events, clock
        self._sleep: asyncio.Task[None] | None = None
        self._wake: asyncio.Task[None] | None = None
        self._network_back = asyncio.Event()

    def begins(self, delay: float, release: Callable[[], None]) -> None:
        """The host will be suspended at the latest after `delay` seconds; `release` lets it."""
        if self._sleep is not None and not self._sleep.done():
            return
        self._end(self._wake)
        self._store.put(HostTable.SUSPEND, _ROW, {})
        self._sleep = asyncio.get_running_loop().create_task(self._fall_asleep(delay, release))

    def ended(self) -> None:
        """The host is back, or was not suspended after all."""
        if self._wake is None or self._wake.done():
            self._wake = asyncio.get_running_loop().create_task(self._wake_up())

    def adopt(self) -> None:
        """The host is not being suspended: wake if an earlier daemon fell asleep for a suspend."""
        if self._store.rows(HostTable.SUSPEND):
            self.ended()

    def network_back(self) -> None:
        """Packets may get through again: try at once."""
        self._network_back.set()

    async def close(self) -> None:
        """End; a sleep in progress is called off."""
        await self._ended(self._sleep)
        await self._ended(self._wake)

    async def _fall_asleep(self, delay: float, release: Callable[[], None]) -> None:
        began, limit = self._clock(), max(delay * _SHARE, _LEAST)
        try:
            async with asyncio.timeout(limit):
                fell = await self._device.sleep(None)
            report = fell.get("report", {})
            detail = {
                "went": report.get("went", 0),
                "stayed": report.get("stayed", 0),
                "seconds": round(self._clock() - began, 3),
            }
            self._events.emit("suspend-asleep", detail=detail)
            for session in report.get("sessions", ()):
                if session["fate"] == "stayed":
                    log.warning("stayed at the suspend: %s: %s", session["flow"], session["reason"])
        except TimeoutError:
            self._not_asleep(f"not handed over within {limit:g} s; InhibitDelayMaxSec of logind allows more")
        except RequestFailed as problem:
            self._not_asleep(str(problem))
        finally:
            release()

    def _not_asleep(self, reason: str) -> None:
        self._events.emit("suspend-awake", detail={"reason": reason})
        log.warning("suspended without handing over: %s", reason)

    async def _wake_up(self) -> None:
        await self._ended(self._sleep)
        began, waits = self._clock(), ""
        report: Mapping[str, Any]
        reason: str | None
        while True:
            self._network_back.clear()
            try:
                report = (await self._device.wake()).get("report", {})
                reason = None
                break
            except RequestFailed as problem:
                if (state := self._device.state()["state"]) == "awake":
                    report, reason = {}, str(problem)
                    break
                if state in (
                    "asleep",
                    "falling-asleep",
                ):  # a command, or the next suspend, called the wake off
                    return
                if waits != str(problem):
                    waits = str(problem)
                    self._events.emit("resume-waits", detail={"reason": waits})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN):
                    await self._network_back.wait()
        self._store.forget(HostTable.SUSPEND, _ROW)
        detail = {
            "returned": report.get("returned", 0),
            "lost": report.get("lost", 0),
            "seconds": round(self._clock() - began, 3),
            "reason": reason,
        }
        self._events.emit("resumed", detail=detail)
        for session in report.get("sessions", ()):
            if session["fate"] == "lost":
                log.warning("lost at the resume: %s: %s", session["flow"], session["reason"])

    @staticmethod
    def _end(task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()

    async def _ended(self, task: asyncio.Task[None] | None) -> None:
        self._end(task)
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
