"""Runs in a virtual machine: sets its wall clock, suspends it, and prints the reaction of a node's clock.

The machine's files are gone after a suspension (9p has no way back from it), so everything is in memory before, and the
last words are those to the kernel.
"""

import asyncio
import ctypes
import sys
import threading
import time
from pathlib import Path

from locum.node.clock import BootTimeLoop, WallClockWatch, boot_seconds

STEPS = (3600, -7200, 3600)  # seconds
DUE = 4.0  # seconds; less than the suspension lasts
_ALL_MEMORY = 3  # MCL_CURRENT | MCL_FUTURE
_POWER_OFF = 0x4321FEDC  # reboot(2)
_libc = ctypes.CDLL(None)


def in_test_machine() -> bool:
    """True on a machine started by tests/kernels: its first process is the one started there."""
    return Path("/proc/1/cmdline").read_bytes() == b"/bin/sh\0/run/start\0"


def say(what: str, *values: object) -> None:
    print("clock:", what, *values, flush=True)


async def steps(told: asyncio.Event) -> None:
    """Each step of the wall clock is reported, and nothing else is."""
    for seconds in STEPS:
        await asyncio.sleep(0.1)
        say("told before the step", told.is_set())
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
        await told.wait()
        told.clear()
        say("told of the step", seconds)


async def suspension(told: asyncio.Event) -> None:
    """A timer due in DUE seconds fires after a longer suspension; a CLOCK_MONOTONIC wait does not end."""
    fired: list[str] = []
    both = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fire(which: str) -> None:
        fired.append(which)
        if len(fired) == 2:
            both.set()

    ahead = boot_seconds() - time.monotonic()
    loop.call_later(DUE, fire, "steady")
    threading.Timer(DUE - 1, lambda: loop.call_soon_threadsafe(fire, "monotonic")).start()
    Path("/sys/module/suspend/parameters/pm_test_delay").write_text("12")
    Path("/sys/power/pm_test").write_text("core")  # goes to sleep, waits for so many seconds and comes back
    Path("/sys/power/state").write_text("mem")
    await both.wait()
    say("suspended", boot_seconds() - time.monotonic() - ahead > DUE)
    say("told of the suspension", told.is_set())
    say("fired", *fired)


async def main() -> None:
    told = asyncio.Event()
    watch = WallClockWatch(told.set)
    await steps(told)
    await suspension(told)
    watch.close()


if __name__ == "__main__":
    if not in_test_machine():
        sys.exit("this sets the machine's clock; it is for a virtual machine of tests/kernels only")
    _libc.mlockall(_ALL_MEMORY)
    with asyncio.Runner(loop_factory=BootTimeLoop) as runner:
        runner.run(main())
    say("end")
    _libc.reboot(_POWER_OFF)
