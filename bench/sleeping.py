"""Time that a device with 1, 100 and 1,000 idle connections takes to fall asleep and to wake.

Times are those of the daemon, from the request on its control socket to the answer, in a lab with all its daemons on this
machine. The baseline of a row is the row with fewer connections, so that the ratio tells how the time grows: ten times the
connections take at most about ten times as long.
"""

import tempfile
import time
from collections.abc import Collection
from itertools import count
from pathlib import Path

from bench.measurement import Measurement, Settings
from bench.namespaces import CommandFailed
from locum.lab.errors import LabError
from locum.lab.steps.gathering import gather
from locum.lab.world import Lab
from locum.node.control.client import NodeClient, NodeRefused, NodeUnreachable

COUNTS = (1, 100, 1_000)
NAMES = tuple(f"{verb}_{number}" for verb in ("sleep", "wake") for number in COUNTS)
_ANSWER_SECONDS = 120.0
_PORT = 60_001
_SETTLE_SECONDS = 0.5  # between opening, sleep and wake


def _timed(lab: Lab, request: str) -> float:
    """Seconds until the mobile node has done it."""
    with NodeClient(lab.configuration.socket("mn"), _ANSWER_SECONDS) as client:
        begin = time.perf_counter()
        client.request(request)
        return time.perf_counter() - begin


def _nap(lab: Lab, port: int, number: int) -> tuple[float, float]:
    """Seconds to fall asleep and to wake with so many idle connections, each of which works afterwards."""
    crowd = gather(lab, port, number)
    time.sleep(_SETTLE_SECONDS)
    asleep = _timed(lab, "sleep")
    if (held := len(lab.sessions())) != number:
        raise CommandFailed(f"the stand-in holds {held} of {number} sessions")
    time.sleep(_SETTLE_SECONDS)
    awake = _timed(lab, "wake")
    crowd.tell("all")
    if crowd.heard() != number or crowd.end() != (0, 0):
        raise CommandFailed(f"not all of {number} sessions work after waking")
    return asleep, awake


def _samples(rounds: int) -> dict[str, tuple[float, ...]]:
    """Samples of every row, taken in turns in one lab; the first sleep warms up."""
    taken: dict[str, list[float]] = {name: [] for name in NAMES}
    ports = count(_PORT)
    with (
        tempfile.TemporaryDirectory(prefix="locum-bench-") as folder,
        Lab("sleeping", Path(folder), captures=False) as lab,
    ):
        lab.wait_registered()
        _nap(lab, next(ports), 1)
        for _ in range(rounds):
            for number in COUNTS:
                for verb, seconds in zip(("sleep", "wake"), _nap(lab, next(ports), number), strict=True):
                    taken[f"{verb}_{number}"].append(seconds)
    return {name: tuple(samples) for name, samples in taken.items()}


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows of NAMES that are wanted."""
    try:
        samples = _samples(settings.long_rounds)
    except (LabError, NodeRefused, NodeUnreachable) as error:
        raise CommandFailed(f"sleep and wake: {error}") from error
    rows = []
    for name in NAMES:
        verb, number = name.split("_")
        place = COUNTS.index(int(number))
        fewer = COUNTS[place - 1] if place else None
        note = (
            f"baseline: {fewer} of the same connections" if fewer else "one connection: the hand-over itself",
        )
        baseline = samples[f"{verb}_{fewer}"] if fewer else None
        rows.append(Measurement(name, "s", samples[name], baseline, note))
    return [row for row in rows if row.name in wanted]
