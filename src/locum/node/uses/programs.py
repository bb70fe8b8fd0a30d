"""Control groups of programs that `locum run` starts: one for each command, below the group that it came from.

The programs of `bpf/uses.bpf.c` are attached to each, so children and setuid programs are marked too. A group goes when its
last process has ended; groups of an earlier run of the daemon are taken over. The name is none that the freezer uses, whose
groups lie below: a frozen program keeps its marks.
"""

import asyncio
import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from locum.dataplane.emitting.control_group import own_directory
from locum.dataplane.emitting.marking import Marking
from locum.sessions.programs.freezer import unified_root
from locum.sessions.programs.process import lives, program_name, start_time, users

MOST = 1024
"""Commands at a time."""
_PERIOD = 0.5  # seconds between looks at the groups
_OURS = re.compile(r"/locum(\.run\.[^/]+|-[^/]*-\d+)(?=/|$).*")
_SIDES = {False: "home", True: "around"}

Tell = Callable[[str, dict[str, Any]], None]


class NotRun(Exception):
    """Reason why a program cannot be run so; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Run:
    """One command."""

    group: Path
    pid: int
    program: str
    around: bool


class Programs:
    """The commands of one node; `name` distinguishes the nodes of this host."""

    def __init__(self, name: str, pins: Path, tell: Tell) -> None:
        """`tell` gets kinds and details of events. Raises DataPlaneError where the kernel forbids marks."""
        self._prefix = f"locum.run.{name}."
        self._tell = tell
        self.marking = Marking(pins)
        self.runs: list[Run] = []
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Take over groups of an earlier run, and watch all of them."""
        self.runs = [run for group in self._left_over() if (run := self._known(group)) is not None]
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="programs")

    def _left_over(self) -> Iterator[Path]:
        root = unified_root()
        for where, names, _ in os.walk(root) if root is not None else ():
            yield from (Path(where) / name for name in names if name.startswith(self._prefix))

    def _known(self, group: Path) -> Run | None:
        side, _, rest = group.name.removeprefix(self._prefix).partition(".")
        pid = rest.partition(".")[0]
        if side not in _SIDES.values() or not pid.isdigit():
            return None
        return Run(group, int(pid), program_name(int(pid)), side == "around")

    async def close(self) -> None:
        """End. Groups with programs in them stay, and the next run of the daemon takes them over."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._look()
        if self.runs:
            self.marking.close()
        else:
            self.marking.remove()

    def resolve(self, *, home: IPv4Address | None, around: IPv4Address | None) -> None:
        """Ask these resolvers for the names that programs of each side want; None: as the programs say."""
        self.marking.resolve(home=home, around=around)

    def take(self, pid: int, user: int, *, around: bool) -> None:
        """Put this process of that user into a group of its own. Raises NotRun, DataPlaneError or OSError."""
        if len(self.runs) >= MOST:
            raise NotRun(f"{MOST} commands run already; end some")
        started = start_time(pid) if pid else None
        if started is None:
            raise NotRun("the daemon cannot see this process: it is in another container, or has ended")
        if os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino:
            raise NotRun("this process is in another network namespace, where the home address is not")
        if user not in users(pid):
            raise NotRun("this process has another user by now")
        group = self._place(pid) / f"{self._prefix}{_SIDES[around]}.{pid}.{started}"
        group.mkdir(exist_ok=True)
        try:
            self.marking.attach(group, around=around)
            (group / "cgroup.procs").write_text(str(pid))
            if not lives(pid, started):
                raise NotRun("this process has ended")
        except BaseException:
            if not _ended(group):  # a process that is ending is still counted, or another one has its number
                self.runs.append(Run(group, pid, "", around))
            raise
        self.runs.append(Run(group, pid, program_name(pid), around))
        self._tell("program-run", {"pid": pid, "user": user, "around": around})

    @staticmethod
    def _place(pid: int) -> Path:
        """The group that the process is in, or came from when it is in one of ours."""
        return Path(_OURS.sub("", str(own_directory(own=Path(f"/proc/{pid}/cgroup")))))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            self._look()

    def _look(self) -> None:
        for run in tuple(self.runs):
            if _ended(run.group):
                self.runs.remove(run)
                self._tell("program-ended", {"pid": run.pid, "around": run.around})


def _ended(group: Path) -> bool:
    """True if no process is left in the group, which is then removed with those below it."""
    try:
        if "populated 0" not in (group / "cgroup.events").read_text():
            return False
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):  # ENODEV: it went while it was read
            raise
        return True
    for where, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(where)
    return not group.exists()
