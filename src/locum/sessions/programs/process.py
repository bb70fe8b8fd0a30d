"""Processes of this host by number and start time, so that a number that was used again is not taken for its former owner.

Read only (/proc). It must not know the caller's purpose.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
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
    """True if this process, and no later one of its number, exists."""
    return start_time(pid) == started


def start_time(pid: int) -> int | None:
    """Start time of the process, as in `Process`; None if it has gone."""
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
    return "".join(header if header.isprintable() else "?" for header in text)


def program_names(pids: Iterable[int]) -> tuple[str, ...]:
    """Of these processes, each name once, in their order."""
    return tuple(name for name in dict.fromkeys(map(program_name, pids)) if name)


def executable(pid: int) -> str:
    """The name of the file that the process runs, without its directory; empty when that cannot be seen."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return ""


def users(pid: int) -> tuple[int, ...]:
    """Real and effective user id; none when it has gone."""
    values = _status(pid, "Uid:")
    return tuple(dict.fromkeys(int(value) for value in values[:2]))


def units(pid: int) -> tuple[str, ...]:
    """The names on the path to the process's cgroup: slices, services and scopes, outermost first."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (*GONE, PermissionError):
        return ()
    names = (name for line in lines for name in line.split(":", 2)[2].split("/"))
    return tuple(dict.fromkeys(name for name in names if name))


def holders(inodes: Collection[int]) -> dict[int, list[tuple[int, int]]]:
    """(pid, descriptor) of every descriptor that refers to one of these sockets; one look at each process.

    Processes that vanish or may not be looked into are passed over.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    if not inodes:
        return found
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            for descriptor, inode in _sockets_of(entry, wanted):
                found.setdefault(inode, []).append((int(entry), descriptor))
    return found


def holds(pid: int, descriptor: int, inode: int) -> bool:
    """True if this descriptor of the process refers to this socket."""
    for folder in (f"/proc/{pid}/fd", *_of_threads(str(pid))):
        with suppress(OSError):
            if os.readlink(f"{folder}/{descriptor}") == f"socket:[{inode}]":
                return True
    return False


def any_holds(pids: Iterable[int], inode: int) -> bool:
    """True if one of these processes has the socket open."""
    wanted = {f"socket:[{inode}]": inode}
    return any(_sockets_of(str(pid), wanted) for pid in pids)


def _sockets_of(pid: str, wanted: Mapping[str, int]) -> dict[tuple[int, int], None]:
    """Sockets of the process; if its first thread has ended, those seen at the others."""
    found, any_there = _sockets_in(f"/proc/{pid}/fd", wanted)
    for folder in () if any_there else _of_threads(pid):
        found |= _sockets_in(folder, wanted)[0]
    return found


def _of_threads(pid: str) -> list[str]:
    """The descriptor tables of a process's threads, which are mostly the process's own; none if its first thread lives."""
    try:
        if stat_fields(Path(f"/proc/{pid}/stat"))[0] != "Z":
            return []
        return [
            f"/proc/{pid}/task/{thread}/fd" for thread in os.listdir(f"/proc/{pid}/task") if thread != pid
        ]
    except OSError:
        return []


def _sockets_in(path: str, wanted: Mapping[str, int]) -> tuple[dict[tuple[int, int], None], bool]:
    """(descriptor, inode) of those of the sockets that are in a descriptor table, and whether anything is."""
    found: dict[tuple[int, int], None] = {}
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (*GONE, PermissionError):
        return found, False
    names: list[str] = []
    try:
        names = os.listdir(folder)
        for name in names:
            with suppress(*GONE, PermissionError):
                inode = wanted.get(os.readlink(name, dir_fd=folder))
                if inode is not None:
                    found[int(name), inode] = None
    except (*GONE, PermissionError):
        pass
    finally:
        os.close(folder)
    return found, bool(names)


def _status(pid: int, field: str) -> list[str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except (*GONE, PermissionError):
        return []
    return next((line.split()[1:] for line in lines if line.startswith(field)), [])
