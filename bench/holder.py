"""A host that holds the packets of two home addresses, as a daemon does: the event loop of a node, and its data plane.

Run inside a namespace as `python -m bench.holder BPF_DIRECTORY LINK FLOODED QUIET`; both addresses are the host's own. Prints `ready`, holds until
a line comes in, releases both, and prints one JSON line: milliseconds that the event loop stood still at most (`stall`),
and those of the processor's time in its longest turn (`work`), packets of the quiet address that came out again (`quiet`, and in their order: `ordered`), packets held at the release, and the data plane's counters.
"""

import asyncio
import gc
import json
import os
import socket
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, cast

from locum.dataplane.plane import DataPlane
from locum.node.plane.readers import PlaneReaders
from locum.roles.action_values.forwarding import (
    BindingEntry,
    InstallBinding,
    ReleaseHeld,
    RemoveBinding,
    Verdict,
)

if TYPE_CHECKING:
    from locum.node.events import EventStream

PORT = 9
_BEAT = 0.001
"""Seconds between two looks at the clock."""
_SETTLE = 1.0
"""Seconds after the release in which held packets may come out."""
_RCVBUFFORCE = 33


class Pulse:
    """Looks at the clock all the time; `longest` is how long it could not, in seconds, and `work` of the processor's time."""

    def __init__(self) -> None:
        self.longest = self.work = 0.0
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        last, worked = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(_BEAT)
            now, working = time.monotonic(), time.thread_time()
            self.longest = max(self.longest, now - last - _BEAT)
            self.work = max(self.work, working - worked)
            last, worked = now, working


async def hold(plane: DataPlane, flooded: IPv4Address, quiet: IPv4Address) -> dict[str, object]:
    """Hold until a line comes in, then release; see the module."""
    loop = asyncio.get_running_loop()
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 64 << 20)
    ear.bind((str(quiet), PORT))
    ear.setblocking(False)
    plane.apply([InstallBinding(BindingEntry(home, Verdict.HOLD)) for home in (flooded, quiet)])
    readers = PlaneReaders(plane, cast("EventStream", None), lambda _opening: None)
    readers.open()
    told = asyncio.Event()
    loop.add_reader(sys.stdin, told.set)
    pulse = Pulse()
    print("ready", flush=True)
    await told.wait()
    loop.remove_reader(sys.stdin)
    held = plane.held.waiting()
    for home in (quiet, flooded):
        plane.apply([RemoveBinding(home), ReleaseHeld(home)])
    await asyncio.sleep(_SETTLE)
    readers.close()
    numbers = []
    with ear:
        while (datagram := _received(ear)) is not None:
            numbers.append(int.from_bytes(datagram, "big"))
    return {
        "stall": pulse.longest * 1000,
        "work": pulse.work * 1000,
        "quiet": len(numbers),
        "ordered": numbers == sorted(numbers),
        "held": held["packets"],
        "counters": plane.counters(),
    }


def _received(ear: socket.socket) -> bytes | None:
    try:
        return ear.recv(100)
    except BlockingIOError:
        return None


def main() -> None:
    """Hold with the command line's addresses."""
    directory, link, flooded, quiet = sys.argv[1:]
    os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    plane = DataPlane.open("bench-holder", (link,), bpf_root=Path(directory))
    gc.set_threshold(20_000, 20, 50)  # as the daemon does
    gc.freeze()
    try:
        print(json.dumps(asyncio.run(hold(plane, IPv4Address(flooded), IPv4Address(quiet)))), flush=True)
    finally:
        plane.remove()


if __name__ == "__main__":
    main()
