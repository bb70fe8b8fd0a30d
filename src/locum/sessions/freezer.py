"""Freezes programs: a cgroup v2 freezer, or SIGSTOP for a process where that is not to be had.

A process moves into a cgroup of ours *below its own*, so that its limits go on and its service manager still counts it; the
way back is the parent directory, and `recover` finds what a killed daemon left by name. Stopped processes are in a
journal instead. This module must not know why a program is frozen.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

_SETTLE = 1.0  # seconds a freeze may take: a few ms, longer for a task in an uninterruptible wait
_STEP = 0.001
_GONE = (FileNotFoundError, ProcessLookupError)


class FreezeError(Exception):
    """A program could not be frozen; it and those of the same call run on."""


class Freezer:
    """Freezes and thaws whole processes by pid; `name` tells the nodes of one host apart.

    `signals` forces SIGSTOP. `state_dir` keeps its journal. Each call takes milliseconds and at most a second.
    """

    def __init__(self, name: str, state_dir: Path = Path("/run/locum"), *, signals: bool = False) -> None:
        self._prefix = f"locum-{name}-"
        self._journal = state_dir / f"stopped-{name}.json"
        self._root = None if signals else unified_root()
        self._cgroups: dict[int, Path] = {}
        self._stopped: dict[int, int] = {}  # pid -> start time, against reuse of the pid

    @property
    def frozen(self) -> frozenset[int]:
        """The pids frozen by this object."""
        return frozenset(self._cgroups) | frozenset(self._stopped)

    def freeze(self, pids: Collection[int]) -> None:
        """Returns when all of them stand still; those that are frozen or gone are passed over. Raises FreezeError."""
        asked = [pid for pid in pids if pid not in self.frozen]
        try:
            for pid in asked:
                with suppress(*_GONE):
                    self._freeze(pid)
            for pid in asked:
                self._await(pid)
        except (OSError, FreezeError) as error:
            self.thaw(asked)
            raise error if isinstance(error, FreezeError) else FreezeError(str(error)) from error

    def thaw(self, pids: Collection[int]) -> None:
        """Lets them run on, each in the cgroup it came from; those not frozen here are passed over."""
        for pid in pids:
            cgroup = self._cgroups.pop(pid, None)
            if cgroup is not None:
                _give_back(cgroup)
            started = self._stopped.pop(pid, None)
            if started is not None:
                if _start_time(pid) == started:
                    os.kill(pid, signal.SIGCONT)
                self._write_journal()

    def recover(self) -> frozenset[int]:
        """Thaws what an earlier run under this name left frozen; the pids that run again.

        A socket that is in repair mode gives its program EPERM: bring sockets back (or resume them) first, and use
        `adopt` to keep their programs frozen meanwhile.
        """
        found = self.adopt()
        self.thaw(found)
        return found

    def adopt(self) -> frozenset[int]:
        """Takes over what an earlier run under this name left frozen, still frozen."""
        for root, names, _ in os.walk(self._root) if self._root else ():
            for name in names:
                pid = name.removeprefix(self._prefix)
                if pid != name and pid.isdigit():
                    self._cgroups[int(pid)] = Path(root) / name
        with suppress(FileNotFoundError, ValueError):
            entries = json.loads(self._journal.read_text())
            for pid, started in entries.items():
                if _start_time(int(pid)) == started:
                    self._stopped[int(pid)] = started
        return self.frozen

    def _freeze(self, pid: int) -> None:
        if self._root is not None:
            # No cgroup v2 there for this process: a threaded one, or another namespace's.
            with suppress(OSError):
                self._move(pid, self._root)
                return
        self._stop(pid)

    def _move(self, pid: int, root: Path) -> None:
        cgroup = root / _cgroup_of(pid) / f"{self._prefix}{pid}"
        cgroup.mkdir(exist_ok=True)
        try:
            (cgroup / "cgroup.procs").write_text(str(pid))
            (cgroup / "cgroup.freeze").write_text("1")
        except OSError:
            _give_back(cgroup)
            raise
        self._cgroups[pid] = cgroup

    def _stop(self, pid: int) -> None:
        started = _start_time(pid)
        if started is None or _state(pid) in "tT":  # gone, or stopped by somebody else who will continue it
            return
        self._stopped[pid] = started
        self._write_journal()
        os.kill(pid, signal.SIGSTOP)

    def _await(self, pid: int) -> None:
        cgroup = self._cgroups.get(pid)
        if cgroup is not None:
            _poll(lambda: "frozen 1" in (cgroup / "cgroup.events").read_text(), pid)
        elif pid in self._stopped:
            _poll(lambda: all(state in "tTZX" for state in _thread_states(pid)), pid)

    def _write_journal(self) -> None:
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        new = self._journal.with_suffix(".new")
        new.write_text(json.dumps(self._stopped))
        new.rename(self._journal)


def unified_root() -> Path | None:
    """The mount point of the cgroup v2 tree, pure or hybrid; None without one."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(where)
    return None


def _give_back(cgroup: Path) -> None:
    """Moves what is in the cgroup to its parent, which runs it, and removes it."""
    with suppress(*_GONE):
        for pid in (cgroup / "cgroup.procs").read_text().split():
            with suppress(*_GONE):
                (cgroup.parent / "cgroup.procs").write_text(pid)
        (cgroup / "cgroup.freeze").write_text("0")
        cgroup.rmdir()


def _cgroup_of(pid: int) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            path = line[4:]
            if path.startswith(".."):
                raise OSError(f"process {pid} is in another cgroup namespace")
            return path
    raise OSError(f"process {pid} is in no cgroup of version 2")


def _poll(done: Callable[[], bool], pid: int) -> None:
    deadline = time.monotonic() + _SETTLE
    while not done():
        if time.monotonic() > deadline:
            raise FreezeError(f"process {pid} does not stand still after {_SETTLE} s")
        time.sleep(_STEP)


def _stat_fields(path: Path) -> list[str]:
    return path.read_text().rpartition(")")[2].split()  # the name before may hold anything


def _state(pid: int) -> str:
    return _stat_fields(Path(f"/proc/{pid}/stat"))[0]


def _start_time(pid: int) -> int | None:
    try:
        return int(_stat_fields(Path(f"/proc/{pid}/stat"))[19])
    except _GONE:
        return None


def _thread_states(pid: int) -> list[str]:
    states = []
    with suppress(*_GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_GONE):
                states.append(_stat_fields(task / "stat")[0])
    return states
