"""The node's clock: steady seconds for every lifetime and timer, and how far the wall clock is ahead of them.

Steady seconds are CLOCK_BOOTTIME plus a constant: time spent suspended counts, and setting the wall clock moves nothing. The
constant is chosen so that they are seconds since 1970 when a node starts for the first time, and is kept in the store,
so that times in rows mean the same after a restart. After a reboot they go on from where they were, plus the time that
the wall clock says has passed since (none if it went back: a machine without a battery-backed clock begins in 1970 or
at its last shutdown). Only what others read as a time is wall-clock time: timestamps on the wire (RFC 5944 section
5.7, 622 and 624), events, and displayed times.
"""

import asyncio
import ctypes
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from locum.node.tables import HostStore, HostTable

KEY = "steady"
STEP = 0.5  # seconds; less is the time between two readings on a busy machine
# Seconds; matters after a reboot with a wall clock that went back: so much may count twice
KEEP_EVERY = 600.0
FINE = 0.001  # seconds; a step that matters where a device listens for milliseconds
_READINGS = 5  # of both clocks: a pause of the process falls on few of them
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_libc = ctypes.CDLL(None, use_errno=True)
_CANCEL_ON_SET = 3  # TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, see timerfd_create(2)
_FAR = (1 << (8 * ctypes.sizeof(ctypes.c_long) - 1)) - 1


def boot_seconds() -> float:
    """Seconds since this machine booted, suspended time included (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_milliseconds() -> int:
    """The same in whole milliseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def utc_offset() -> int:
    """Whole minutes that this host's local time is ahead of UTC now."""
    return time.localtime().tm_gmtoff // 60


class BootTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers count suspended time. It has to be woken after a suspension: see `WallClockWatch`."""

    def time(self) -> float:
        """Seconds of CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """The clock of one node; `wall` and `boot` are its sources."""

    def __init__(
        self,
        store: HostStore,
        *,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = boot_seconds,
        boot_id: str | None = None,
    ) -> None:
        """`boot_id` names the boot that `boot` counts from; None: the kernel's. Raises StoreError."""
        self._store, self._wall, self._boot = store, wall, boot
        self._boot_id = _this_boot() if boot_id is None else boot_id
        self._origin = self._find_origin()  # steady seconds at which this machine booted
        self.ahead = self._compared()  # seconds that the wall clock is ahead, as it was last looked at

    def now(self) -> float:
        """Steady seconds."""
        return self._origin + self._boot()

    def stepped(self, now: float, least: float = STEP) -> bool:
        """True if the wall clock was set, by `least` seconds, since the last call; then `ahead` is new."""
        if -least < self._wall() - now - self.ahead < least:
            return False
        ahead = self._compared()
        if -least < ahead - self.ahead < least:
            return False
        self.ahead = ahead
        return True

    def _compared(self) -> float:
        """Seconds that the wall clock is ahead, from the readings with the shortest pause between them."""
        best, ahead = STEP / 2, None
        tries = 0
        while ahead is None or tries < _READINGS:
            before, wall, after = self.now(), self._wall(), self.now()
            tries += 1
            if after - before < best:
                best, ahead = after - before, wall - before
        return ahead

    def for_people(self, at: float | None) -> float | None:
        """The wall-clock seconds of a steady time, as the wall clock stands now; the same each time unless it was set."""
        if at is None:
            return None
        compared = self._compared()
        return at + (self.ahead if -STEP < compared - self.ahead < STEP else compared)

    def keep(self) -> None:
        """Write down where the clock is, for the next run."""
        row = {"boot": self._boot_id, "origin": self._origin, "seen": self.now(), "ahead": self.ahead}
        self._store.put(HostTable.CLOCK, KEY, row)

    def _find_origin(self) -> float:
        row = self._store.rows(HostTable.CLOCK).get(KEY, {})
        boot, wall = self._boot(), self._wall()
        try:
            origin, seen, ahead = (float(row[key]) for key in ("origin", "seen", "ahead"))
        except (KeyError, TypeError, ValueError):
            return wall - boot  # the first run
        same = row.get("boot") == self._boot_id and self._boot_id != ""
        if same and origin + boot >= seen - STEP:  # else CLOCK_BOOTTIME began anew: another time namespace
            return origin
        return seen + max(0.0, wall - (seen + ahead)) - boot


class ClockKeeper:
    """Keeps a clock every KEEP_EVERY seconds in a running event loop, and once more when it is closed."""

    def __init__(self, clock: SteadyClock) -> None:
        self._clock = clock
        self._keep()

    def _keep(self) -> None:
        self._clock.keep()
        self._timer = asyncio.get_running_loop().call_later(KEEP_EVERY, self._keep)

    def close(self) -> None:
        """Keep the clock a last time."""
        self._timer.cancel()
        self._clock.keep()


def _this_boot() -> str:
    """Empty where the kernel's name of this boot cannot be read: then every start counts as one after a reboot."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class WallClockWatch:
    """Calls `told` when the wall clock is set, and after a suspension, in a running event loop.

    A timer of CLOCK_REALTIME that never expires is cancelled by the kernel in both cases (TFD_TIMER_CANCEL_ON_SET).
    """

    def __init__(self, told: Callable[[], object]) -> None:
        """Raises OSError."""
        self._told = told
        self._timer = _libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise _failure("timerfd_create")
        try:
            self._arm()
            asyncio.get_running_loop().add_reader(self._timer, self._cancelled)
        except BaseException:
            os.close(self._timer)
            raise

    def _arm(self) -> None:
        never = (ctypes.c_long * 4)(0, 0, _FAR, 0)  # interval, expiry: seconds and nanoseconds of each
        failed = _libc.timerfd_settime(self._timer, _CANCEL_ON_SET, never, None)
        if failed and ctypes.get_errno() != errno.ECANCELED:  # which is: set meanwhile; the timer stands
            raise _failure("timerfd_settime")

    def _cancelled(self) -> None:
        try:
            os.read(self._timer, 8)
        except OSError as problem:
            if problem.errno != errno.ECANCELED:
                return
        self._arm()
        self._told()

    def close(self) -> None:
        """End all reports."""
        asyncio.get_running_loop().remove_reader(self._timer)
        os.close(self._timer)


def _failure(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
