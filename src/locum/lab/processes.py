"""Starts and stops daemons and stock programs inside a node's namespace; keeps their output in files.

A process is started by `nsenter`, which becomes the program itself: its pid is the program's. Only processes
started here are ever signalled, by pid.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.errors import LabError
from locum.lab.network.namespaces import inside
from locum.lab.network.place import LabPlace, cgroup_of
from locum.lab.patience import patient


@dataclass(slots=True)
class Program:
    """A running program of a node. `log` has its stdout (unless taken) and stderr."""

    name: str
    node: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a crash would end it; returns when it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self, patience: float = 5.0) -> int:
        """SIGTERM, then SIGKILL when patience (seconds) runs out. Returns the exit status."""
        if self.running:
            self.process.terminate()
            try:
                return self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def wait(self, patience: float) -> int:
        """Wait for it to end by itself. Raises LabError with the end of its log when patience runs out."""
        longest = patient(patience)
        try:
            return self.process.wait(longest)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} still runs after {longest:.0f} s; {self.complaint()}") from None

    def complaint(self) -> str:
        """The end of its log, for a message to a person."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return (
            f"its log {self.log} ends:\n" + "\n".join(lines[-8:]) if lines else f"its log {self.log} is empty"
        )


@dataclass(slots=True)
class Processes:
    """Every program of one lab, in the order of their start."""

    place: LabPlace
    logs: Path
    programs: list[Program] = field(default_factory=list)

    def start(
        self,
        node: str,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> Program:
        """Start a command in a node's namespace. `stdout` PIPE hands its output to the caller."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("ab") as sink:
            try:
                process = subprocess.Popen(
                    [*inside(self.place, node), *command],
                    stdin=stdin,
                    stdout=sink if stdout is None else stdout,
                    stderr=sink,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,  # Ctrl-C is for the lab, which then ends them in order
                )
            except FileNotFoundError as missing:
                raise LabError(f"{missing.filename} is not installed") from None
        program = Program(name, node, process, log)
        self.programs.append(program)
        return program

    def run(
        self, node: str, command: Sequence[str], patience: float = 20.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a short command of a node to its end, with its output."""
        longest = patient(patience)
        try:
            return subprocess.run(
                [*inside(self.place, node), *command], capture_output=True, text=True, timeout=longest
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{' '.join(command)} in {node} did not end within {longest:.0f} s") from None

    def stop_all(self, patience: float = 5.0) -> None:
        """End everything, the latest first; all of it together has `patience` seconds until SIGKILL."""
        for program in reversed(self.programs):
            if program.running:
                with contextlib.suppress(ProcessLookupError):
                    program.process.send_signal(signal.SIGCONT)
                    program.process.terminate()
        deadline = time.monotonic() + patience
        for program in reversed(self.programs):
            program.stop(max(0.0, deadline - time.monotonic()))
        self.programs.clear()


def wait_until(condition: str, test: Callable[[], bool], patience: float = 10.0, pause: float = 0.02) -> None:
    """Poll a fact about the outside world. Raises LabError naming the condition when patience runs out."""
    longest = patient(patience)
    deadline = time.monotonic() + longest
    while not test():
        if time.monotonic() > deadline:
            raise LabError(f"waited {longest:.0f} s for {condition}")
        time.sleep(pause)


def state_of(pid: int) -> str:
    """The state letter of a process (R, S, D, T, Z, ...); empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_frozen(pid: int) -> bool:
    """True if a process cannot run: stopped by a signal, or in a cgroup that the kernel reports frozen."""
    if state_of(pid) in ("T", "t"):
        return True
    group = cgroup_of(pid)
    while group is not None and (events := group / "cgroup.events").exists():
        if "frozen 1" in events.read_text():
            return True
        group = group.parent
    return False
