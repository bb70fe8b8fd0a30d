"""Number of echo requests that are answered, by the stock ping: a late answer is one too.

Without a deadline, ping waits for the last answer as long as between two requests, which a busy machine may miss. With one it
sends on until there are enough answers; those to additional requests do not count.
"""

import re
from collections.abc import Sequence

from locum.lab.errors import LabError
from locum.lab.patience import patient
from locum.lab.processes import Processes

PATIENCE = 5
"""Seconds for all answers on a quiet machine."""


def command(target: str, count: int, interval: float, *options: str) -> Sequence[str]:
    """The ping command; `interval` in seconds."""
    return [
        "ping",
        "-n",
        "-c",
        str(count),
        "-i",
        str(interval),
        "-w",
        str(round(patient(PATIENCE))),
        *options,
        target,
    ]


def answered_of(output: str, count: int) -> int:
    """Number of answers to the first `count` requests in ping's output."""
    numbers = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+) ttl=", output)}
    return sum(number <= count for number in numbers)


def answered(
    processes: Processes, node: str, target: str, count: int, *options: str, interval: float = 0.1
) -> int:
    """Number of answered echo requests, out of `count`. Raises LabError if ping does not run."""
    done = processes.run(node, command(target, count, interval, *options), 2 * PATIENCE)
    if "packets transmitted" not in done.stdout:
        raise LabError(f"ping at {node} failed: {(done.stderr or done.stdout).strip()}")
    return answered_of(done.stdout, count)
