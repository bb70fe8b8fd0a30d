"""A flood to one held home address: the longest time that the daemon's event loop stands still, and packets that others lose.

The flood is as fast as one processor sends; the daemon has the last one. Another address gets packets at an even pace meanwhile. The
baseline is the same without a flood: the machine's own share. The release of all held packets at the end counts as well.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.holder import PORT
from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed, Namespace, bpf_filesystem, join, namespaces, stop
from bench.report import quantity

_FLOODED, _QUIET = IPv4Address("10.99.9.5"), IPv4Address("10.99.9.6")
_SENDER, _HOLDER = IPv4Address("10.99.1.1"), IPv4Address("10.99.1.2")
_PACE = 0.005
"""Seconds between two packets to the quiet address."""


@dataclass(slots=True)
class Totals:
    """Packets of all floods, and milliseconds of the processor's time in the longest turn of the event loop."""

    sent: int = 0
    quiet: int = 0
    lost: int = 0
    dropped: int = 0
    ordered: bool = True
    work: float = 0.0


@contextmanager
def _network() -> Iterator[tuple[Namespace, Namespace, str]]:
    """(sender, holder, link-layer address of the holder); the holder has both home addresses."""
    with namespaces("sender", "holder") as (sender, holder):
        join(sender, "out", holder, "in")
        sender.ip(f"addr add {_SENDER}/24 dev out")
        holder.ip(f"addr add {_HOLDER}/24 dev in")
        for home in (_FLOODED, _QUIET):
            holder.ip(f"addr add {home}/32 dev lo")
        sender.ip(f"route add 10.99.9.0/24 via {_HOLDER}")
        sender.run("ping", "-c", "1", "-W", "5", str(_HOLDER))
        link = json.loads(holder.ip("-j link show in"))
        yield sender, holder, link[0]["address"]


def _line(process: subprocess.Popen[str], doing: str) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise CommandFailed(f"{doing} ended early")
    return line


def _sample(
    sender: Namespace, holder: Namespace, hardware: str, pins: Path, seconds: float, totals: Totals | None
) -> float:
    """The longest stall in milliseconds; with `totals` under a flood."""
    daemon = holder.start(sys.executable, "-m", "bench.holder", str(pins), "in", str(_FLOODED), str(_QUIET))
    flood = None
    try:
        _line(daemon, "the holder")
        with sender.entered():
            mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if totals is not None:
            flood = sender.start(
                sys.executable, "-m", "bench.flood", "out", hardware, str(_SENDER), str(_FLOODED)
            )
            _line(flood, "the flood")
        number = int(seconds / _PACE)
        with mouth:
            for place in range(number):
                mouth.sendto(place.to_bytes(4, "big"), (str(_QUIET), PORT))
                time.sleep(_PACE)
        assert daemon.stdin is not None
        daemon.stdin.write("release\n")
        daemon.stdin.flush()
        if flood is not None and totals is not None:
            time.sleep(0.2)  # the release is under the flood too
            totals.sent += int(flood.communicate(timeout=20)[0])
        found = json.loads(_line(daemon, "the holder"))
        daemon.wait(20)  # it takes its data plane away
        if totals is not None:
            totals.quiet += number
            totals.lost += number - found["quiet"]
            totals.ordered &= found["ordered"]
            totals.work = max(totals.work, found["work"])
            counters = found["counters"]
            totals.dropped += counters["hold-share"] + counters["hold-queue-share"]
            totals.lost += counters["hold-overflow"] + counters["hold-queue-overflow"]
        return float(found["stall"])
    finally:
        if flood is not None:
            stop(flood)
        stop(daemon)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row `hold_flood`. Raises CommandFailed."""
    totals = Totals()
    with (
        tempfile.TemporaryDirectory() as directory,
        _network() as (sender, holder, hardware),
        bpf_filesystem(Path(directory) / "bpf") as pins,
    ):
        values, baselines = in_turns(
            settings.long_rounds,
            lambda: _sample(sender, holder, hardware, pins, settings.seconds, totals),
            lambda: _sample(sender, holder, hardware, pins, settings.seconds, None),
        )
    note = (
        f"the longest of all: {max(values):.0f} ms, and in one turn {totals.work:.0f} ms of the processor's time; {quantity(totals.sent)} packets to the flooded address, "
        f"{quantity(totals.dropped)} of them beyond its share; of {totals.quiet:,} packets to the other "
        f"{totals.lost:,} were lost, {'all' if totals.ordered else 'not all'} in order"
    )
    return [Measurement("hold_flood", "ms", values, baselines, (note,))]
