"""Freezes programs: a cgroup v2 freezer, or SIGSTOP for a process where that is not to be had.

A process moves into a cgroup of ours *below its own*, so that its limits go on and its service manager still counts it; the
way back is the parent directory, and `adopt` finds what a killed daemon left by name. Stopped processes are in a journal
instead. A process that cannot be frozen fails alone. This module must not know why a program is frozen.
"""

import errno
import json
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from locum.sessions.programs.process import GONE, Process, lives, stat_fields

# Seconds a freeze may take for all together: a few ms, longer for a task in an uninterruptible wait
_SETTLE = 2.0
_STEP = 0.001
_ABANDONED = 60.0  # seconds: an empty cgroup of another name is not one that is being filled
_OURS = re.compile(r"locum-.*-\d+")
_UNDER_OURS = re.compile(r"(?:^|/)locum-[^/]*-\d+(?=/|$)")
_UNTIL_EMPTY = 16  # looks at a cgroup while its processes leave; frozen ones start no others
_NO_CGROUP = 'it is in no cgroup that can be frozen from here, and freeze = "cgroup" allows nothing else'
_STOPPED = "tTZX"
_STOPPED_ALREADY = "its user or a debugger has stopped it, and may let it run at any time"


class Freezer:
    """Freezes and thaws whole processes; `name` distinguishes the nodes of one host.

    `signals` forces SIGSTOP, `cgroups` the cgroup freezer: a process without one fails. `state_dir` keeps its journal. A call takes milliseconds, and two seconds at most where a
    process does not stand still.
    """

    def __init__(
        self, name: str, state_dir: Path = Path("/run/locum"), *, signals: bool = False, cgroups: bool = False
    ) -> None:
        self._prefix = f"locum-{name}-"
        self._journal = state_dir / f"stopped-{name}.json"
        self._only_cgroups = cgroups
        self._root = None if signals else unified_root()
        self._cgroups: dict[Process, Path] = {}
        self._stopped: set[Process] = set()

    @property
    def frozen(self) -> frozenset[Process]:
        """The processes frozen by this object."""
        return frozenset(self._cgroups) | frozenset(self._stopped)

    def freeze(self, processes: Iterable[tuple[int, int]]) -> dict[Process, str]:
        """Freeze all of them; processes that cannot be frozen run on and are returned, each with the reason.

        Returns when the others stand still. Those that are frozen or gone (or whose number another process has now)
        are passed over.
        """
        asked = [
            process for pair in processes if not self._stands(process := Process(*pair)) and lives(*process)
        ]
        failures: dict[Process, str] = {}
        to_stop: list[Process] = []
        for process in asked:
            try:
                if self._moved(process):
                    continue
                if self._only_cgroups:
                    failures[process] = _NO_CGROUP
                else:
                    to_stop.append(process)
            except GONE:
                continue
        failures |= self._stop(to_stop)
        failures |= self._await([process for process in asked if process not in failures])
        self.thaw(failures)
        return failures

    def thaw(self, processes: Collection[tuple[int, int]]) -> None:
        """Lets them run on, each in the cgroup it came from; those not frozen here are passed over."""
        wrote = False
        for pair in processes:
            process = Process(*pair)
            cgroup = self._cgroups.pop(process, None)
            if cgroup is not None:
                _give_back(cgroup)
            if process in self._stopped:
                self._stopped.discard(process)
                wrote = True
                if lives(*process):
                    with suppress(OSError):
                        os.kill(process.pid, signal.SIGCONT)
        if wrote:
            with suppress(OSError):  # a named process that runs is only continued once more
                self._write_journal()

    def recover(self) -> frozenset[Process]:
        """Thaw processes that an earlier run under this name left frozen; return those that run again.

        A socket that is in repair mode gives its program EPERM: bring sockets back (or resume them) first, and use
        `adopt` to keep their programs frozen meanwhile.
        """
        found = self.adopt()
        self.thaw(found)
        return found

    def adopt(self) -> frozenset[Process]:
        """Take over processes that an earlier run under this name left frozen, still frozen.

        A cgroup without the process that it was made for is removed, and what else is in it runs. So is one that another
        run left empty.
        """
        for cgroup in list(self._left_over()):
            self._adopt(cgroup)
        with suppress(FileNotFoundError, ValueError):
            entries = [
                Process(int(pid), int(started)) for pid, started in json.loads(self._journal.read_text())
            ]
            self._stopped |= {entry for entry in entries if lives(*entry)}
        return self.frozen

    def _left_over(self) -> Iterator[Path]:
        for where, names, _ in os.walk(self._root) if self._root else ():
            for name in names:
                if _OURS.fullmatch(name):
                    yield Path(where) / name

    def _adopt(self, cgroup: Path) -> None:
        if not cgroup.name.startswith(self._prefix):
            with suppress(OSError):  # of another node, which may be alive: only if it is empty, and will be
                if time.time() - cgroup.stat().st_mtime > _ABANDONED:
                    cgroup.rmdir()
            return
        parts = cgroup.name.removeprefix(self._prefix).split("-")
        named = (
            Process(int(parts[0]), int(parts[1])) if len(parts) == 2 and all(map(_is_number, parts)) else None
        )
        if named is not None and lives(*named) and named.pid in _members(cgroup):
            self._cgroups[named] = cgroup
        else:
            _give_back(cgroup)

    def _stands(self, process: Process) -> bool:
        """True if we have frozen it, and it is still in our cgroup."""
        cgroup = self._cgroups.get(process)
        if cgroup is None:
            return process in self._stopped
        if process.pid in _members(cgroup):
            return True
        del self._cgroups[process]
        _give_back(cgroup)
        return False

    def _moved(self, process: Process) -> bool:
        """Move it into a frozen cgroup; False if that is impossible: a threaded one, or another namespace's.

        Nor is there for a process whose first thread has ended while others run.
        """
        if self._root is None or _state(process.pid) == "Z":  # it would not be listed in its new cgroup
            return False
        try:
            parent = self._root / _UNDER_OURS.sub("", _cgroup_of(process.pid)).lstrip("/")
            cgroup = parent / f"{self._prefix}{process.pid}-{process.started}"
            cgroup.mkdir(exist_ok=True)
        except OSError as problem:
            if problem.errno == errno.ESRCH:
                raise
            return False
        try:
            (cgroup / "cgroup.procs").write_text(str(process.pid))
            (cgroup / "cgroup.freeze").write_text("1")
        except OSError as problem:
            _give_back(cgroup)
            if problem.errno == errno.ESRCH:
                raise
            return False
        self._cgroups[process] = cgroup
        return True

    def _stop(self, processes: Collection[Process]) -> dict[Process, str]:
        """Stop by signal. A process stopped by another program is left to it: it may continue at any time."""
        states = {process: _state(process.pid) for process in processes}
        failures = {process: _STOPPED_ALREADY for process, state in states.items() if state in ("t", "T")}
        asked = [process for process, state in states.items() if state and process not in failures]
        if not asked:
            return failures
        self._stopped |= set(asked)
        try:
            self._write_journal()  # first: a run after us finds what we stopped
        except OSError as problem:
            self._stopped -= set(asked)
            return failures | dict.fromkeys(
                asked, f"it cannot be written down that it is stopped: {problem.strerror}"
            )
        for process in asked:
            try:
                os.kill(process.pid, signal.SIGSTOP)
            except GONE:
                self._stopped.discard(process)
            except OSError as problem:
                failures[process] = f"it cannot be stopped: {problem.strerror}"
        return failures

    def _await(self, processes: Collection[Process]) -> dict[Process, str]:
        """Waits until they stand still, all within one bound; those that do not."""
        waiting: dict[Process, Callable[[], bool]] = {}
        for process in processes:
            cgroup = self._cgroups.get(process)
            if cgroup is not None:
                waiting[process] = lambda cgroup=cgroup: _is_frozen(cgroup)  # type: ignore[misc]
            elif process in self._stopped:
                waiting[process] = lambda pid=process.pid: all(
                    state in _STOPPED for state in _thread_states(pid)
                )  # type: ignore[misc]
        deadline = time.monotonic() + _SETTLE
        while waiting := {process: done for process, done in waiting.items() if not done()}:
            if time.monotonic() > deadline:
                return {process: _why_running(process.pid) for process in waiting if lives(*process)}
            time.sleep(_STEP)
        return {}

    def _write_journal(self) -> None:
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        new = self._journal.with_suffix(".new")
        new.write_text(json.dumps(sorted(self._stopped)))
        new.rename(self._journal)


def unified_root() -> Path | None:
    """The mount point of the cgroup v2 tree, pure or hybrid; None without one."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(where)
    return None


def _give_back(cgroup: Path) -> None:
    """Move the cgroup's processes to its parent, which runs them, and remove it; thaws it in any case."""
    for _ in range(_UNTIL_EMPTY):
        members = _members(cgroup)
        for pid in members:
            with suppress(OSError):
                (cgroup.parent / "cgroup.procs").write_text(str(pid))
        if not members:
            break
    with suppress(OSError):
        (cgroup / "cgroup.freeze").write_text("0")
    with suppress(
        OSError
    ):  # a process that is ending may still be counted; `adopt` of the next run removes it
        cgroup.rmdir()


def _members(cgroup: Path) -> list[int]:
    try:
        return [int(word) for word in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _is_frozen(cgroup: Path) -> bool:
    try:
        events = (cgroup / "cgroup.events").read_text()
    except OSError:
        return True  # it has gone, with its process
    return "frozen 1" in events or "populated 0" in events


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _cgroup_of(pid: int) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            path = line[4:]
            if path.startswith(".."):
                raise OSError(f"process {pid} is in another cgroup namespace")
            return path
    raise OSError(f"process {pid} is in no cgroup of version 2")


def _why_running(pid: int) -> str:
    if "D" in _thread_states(pid):
        return f"it does not stand still within {_SETTLE:g} s: it waits for a device or a file system"
    return f"it does not stand still within {_SETTLE:g} s"


def _state(pid: int) -> str:
    try:
        return stat_fields(Path(f"/proc/{pid}/stat"))[0]
    except GONE:
        return ""


def _thread_states(pid: int) -> list[str]:
    states = []
    with suppress(*GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*GONE):
                states.append(stat_fields(task / "stat")[0])
    return states
