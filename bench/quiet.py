"""Activity of other programs during a run: figures from a busy machine are marked."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

QUIET_SHARE = 0.10
"""Other programs may use this share of one processor before the machine counts as busy."""
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Activity:
    """Activity of the machine during a pause: busy processors, stolen ones, and the busiest programs."""

    busy: float
    stolen: float
    programs: tuple[tuple[str, float], ...]

    @property
    def quiet(self) -> bool:
        """True if a measurement has the machine to itself."""
        return self.busy + self.stolen < QUIET_SHARE

    def __str__(self) -> str:
        word = "quiet" if self.quiet else "BUSY"
        names = ", ".join(f"{name} {share:.2f}" for name, share in self.programs if share >= 0.02)
        return f"{word}: {self.busy:.2f} processors in use, {self.stolen:.2f} stolen{f' ({names})' if names else ''}"


def _used(line: str) -> tuple[float, float]:
    user, nice, system, _idle, _wait, hard, soft, steal = map(int, line.split()[1:9])
    return (user + nice + system + hard + soft) / _TICK, steal / _TICK


def _processors() -> tuple[float, float]:
    return _used(Path("/proc/stat").read_text().splitlines()[0])


def last_processor() -> float:
    """Seconds that the last processor has been in use since boot."""
    lines = [line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    return _used(lines[-1])[0]


def _programs() -> dict[tuple[int, str], float]:
    used = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue  # it ended while we looked
            fields = rest.split()
            used[int(entry.name), name] = (int(fields[11]) + int(fields[12])) / _TICK
    return used


def observe(seconds: float = 1.0) -> Activity:
    """Sleep for `seconds` and return the machine's activity meanwhile."""
    begin, (busy, stolen), programs = time.monotonic(), _processors(), _programs()
    time.sleep(seconds)
    elapsed, (busy_then, stolen_then) = time.monotonic() - begin, _processors()
    shares = [
        (name, (used - programs.get((pid, name), used)) / elapsed)
        for (pid, name), used in _programs().items()
    ]
    greediest = tuple(sorted(shares, key=lambda item: -item[1])[:3])
    return Activity((busy_then - busy) / elapsed, (stolen_then - stolen) / elapsed, greediest)
