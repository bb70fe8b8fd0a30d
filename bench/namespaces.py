"""Network namespaces for a measurement: made, joined by veth pairs, entered, and always removed.

Knows nothing of Locum. A name starts with `lb-<pid>-`, so that two runs never meet. Programs enter by `nsenter --net`,
which leaves mounts (and thus bpffs) as they are; `ip netns exec` does not.
"""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000


class CommandFailed(Exception):
    """A command of the measurement's set-up failed; the message has its output."""


def run(*command: str, timeout: float = 60.0) -> str:
    """Run a command to its end and return its output. Raises CommandFailed; `timeout` in seconds."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        detail = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"`{' '.join(command)}` ended with {done.returncode}: {detail}")
    return done.stdout


def _set_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace, by its name under /var/run/netns."""

    name: str

    def enter(self, *command: str) -> tuple[str, ...]:
        """The command line that runs `command` inside."""
        return ("nsenter", f"--net={self._path}", "--", *command)

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run a command inside to its end. Raises CommandFailed."""
        return run(*self.enter(*command), timeout=timeout)

    def ip(self, line: str) -> str:
        """Run `ip LINE` inside."""
        return run("ip", "-n", self.name, *line.split())

    def sysctl(self, settings: Mapping[str, str]) -> None:
        """Set network sysctls inside, by their names below net/."""
        self.run("sysctl", "-q", "-w", *(f"net.{name}={value}" for name, value in settings.items()))

    def start(
        self, *command: str, output: int = subprocess.PIPE, errors: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a program inside; standard input and, unless `output` says otherwise, output are pipes of text."""
        return subprocess.Popen(
            self.enter(*command), stdin=subprocess.PIPE, stdout=output, stderr=errors, text=True
        )

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside meanwhile; sockets that it makes then stay inside."""
        here, there = (os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", self._path))
        try:
            _set_namespace(there)
            try:
                yield
            finally:
                _set_namespace(here)
        finally:
            os.close(here)
            os.close(there)

    @property
    def _path(self) -> str:
        return f"/var/run/netns/{self.name}"


@contextlib.contextmanager
def namespaces(*roles: str) -> Iterator[tuple[Namespace, ...]]:
    """One namespace for each role name, with `lo` up; all removed at the end, also after an error."""
    with contextlib.ExitStack() as stack:
        made = []
        for role in roles:
            space = Namespace(f"lb-{os.getpid()}-{role}")
            run("ip", "netns", "add", space.name)
            stack.callback(run, "ip", "netns", "delete", space.name)
            space.ip("link set lo up")
            made.append(space)
        yield tuple(made)


def join(left: Namespace, left_link: str, right: Namespace, right_link: str, *, mtu: int = 1500) -> None:
    """A veth pair between two namespaces, both ends up, with `mtu` bytes."""
    left.ip(f"link add {left_link} mtu {mtu} type veth peer name {right_link} mtu {mtu} netns {right.name}")
    left.ip(f"link set {left_link} up")
    right.ip(f"link set {right_link} up")


def stop(process: subprocess.Popen[str], *, patience: float = 10.0) -> None:
    """End a program we started: SIGTERM, and SIGKILL after `patience` seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


@contextlib.contextmanager
def bpf_filesystem(directory: Path) -> Iterator[Path]:
    """A bpffs of our own at `directory`, unmounted at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "bpf", "none", str(directory))
    try:
        yield directory
    finally:
        run("umount", str(directory))


def require_programs(names: Sequence[str]) -> None:
    """Raise CommandFailed naming the programs that are not installed."""
    folders = os.get_exec_path()
    missing = [name for name in names if not any(os.access(Path(f) / name, os.X_OK) for f in folders)]
    if missing:
        raise CommandFailed(f"not installed: {', '.join(missing)}")
