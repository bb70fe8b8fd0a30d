"""Processes of this host by number and start time, so that a number that was used again is not taken for its former owner.

Read only (/proc). It must not know why somebody asks.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

GONE = (FileNotFoundError, ProcessLookupError)
_NAME_BYTES = 15  # TASK_COMM_LEN without its terminator


class Process(NamedTuple):
    """`started` is field 22 of /proc/PID/stat (proc(5)): clock ticks from the boot to the start."""

    pid: int
    started: int


def process(pid: int) -> Process | None:
    """The process that has this number now; None without one."""
    started = start_time(pid)
    return None if started is None else Process(pid, started)


def lives(pid: int, started: int) -> bool:
    """Whether this process, and no later one of its number, is there."""
    return start_time(pid) == started


def start_time(pid: int) -> int | None:
    """When the process began, as in `Process`; None when it has gone."""
    try:
        return int(stat_fields(Path(f"/proc/{pid}/stat"))[19])
    except GONE:
        return None


def stat_fields(path: Path) -> list[str]:
    """The fields of a stat file from the third on: state first. The name before may hold anything."""
    return path.read_text().rpartition(")")[2].split()


def program_name(pid: int) -> str:
    """The name that the program goes by, at most 15 bytes (/proc/PID/comm); empty when it has gone."""
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes()
    except (*GONE, PermissionError):
        return ""
    text = name.removesuffix(b"\n")[:_NAME_BYTES].decode(errors="replace")
    return "".join(each if each.isprintable() else "?" for each in text)


def program_names(pids: Iterable[int]) -> tuple[str, ...]:
    """Of these processes, each name once, in their order."""
    return tuple(name for name in dict.fromkeys(map(program_name, pids)) if name)
