"""A virtual machine with another kernel that runs one command on this machine's files, and its exit code.

QEMU emulates the processor, so that any host will do. The command sees every file of the host where it is; its changes
stay in the memory of the virtual machine. It has no network but the namespaces that it makes.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernels.archive import archive
from tests.kernels.kernel import Kernel

MEMORY = "3G"
_ROOT = Path(__file__).parents[2]
_FIRST = Path(__file__).with_name("first.sh")
_DIRECTORIES = ("bin", "proc", "sys", "dev", "modules", "host", "changes", "new")
_END = "the command has ended with"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a command."""

    code: int | None  # its exit code; None when the machine stopped before it ended
    output: str  # everything on the console, the kernel's warnings too


def run(
    kernel: Kernel,
    command: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    seconds: float,
    listener: Callable[[str], object] | None = None,
) -> Outcome:
    """Boot `kernel`, run `command` in `directory`, switch the machine off; at most `seconds`.

    `listener` is called with each line of the console.
    """
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise FileNotFoundError("qemu-system-x86_64 is missing: apt-get install qemu-system-x86")
    with tempfile.NamedTemporaryFile(suffix=".cpio") as first:
        first.write(_first_files(kernel, _script(command, directory, environment)))
        first.flush()
        lines = list(
            _console([qemu, *_machine(kernel, first.name)], seconds, listener or (lambda line: None))
        )
    ended = [line.removeprefix(_END) for line in lines if line.startswith(_END)]
    return Outcome(int(ended[-1]) if ended else None, "\n".join(lines))


def _console(command: list[str], seconds: float, listener: Callable[[str], object]) -> Iterator[str]:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as machine:
        late = threading.Timer(seconds, machine.kill)
        late.start()
        try:
            assert machine.stdout
            for line in machine.stdout:
                listener(line.rstrip())
                yield line.rstrip()
        finally:
            late.cancel()
            machine.kill()


def _script(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> str:
    given = {"PATH": os.environ["PATH"], "HOME": "/run", "TMPDIR": "/run/tests"} | dict(environment)
    words = [f"{name}={value}" for name, value in given.items()]
    return (
        "ip link set lo up\n"
        "ulimit -n 65536\n"  # the first program of a machine has 4,096 at most
        f"cd {shlex.quote(str(directory))} && env -i {shlex.join(words)} {shlex.join(command)}\n"
        f'echo "\n{_END} $?"\n'
        "/run/busybox poweroff -f\n"
    )


def _first_files(kernel: Kernel, script: str) -> bytes:
    modules = {f"modules/{n:03}": path.read_bytes() for n, path in enumerate(kernel.modules)}
    programs = {"init": _FIRST.read_bytes(), "bin/busybox": kernel.busybox, "start": script.encode()}
    return archive(programs | modules, _DIRECTORIES)


def _machine(kernel: Kernel, first: str) -> list[str]:
    console = "console=ttyS0 quiet loglevel=4 panic=-1"  # a kernel that panics ends the machine
    return [
        "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY,
        "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
        "-kernel", str(kernel.image), "-initrd", first, "-append", console,
    ]  # fmt: skip


def pytest_on(
    kernel: Kernel, arguments: Sequence[str], *, listener: Callable[[str], object] | None = None
) -> Outcome:
    """Run this repository's tests on `kernel`; the first line of the output names the kernel that runs."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *arguments]
    shell = ["sh", "-c", f"uname -sr && exec {shlex.join(command)}"]
    return run(kernel, shell, directory=_ROOT, environment={}, seconds=7000, listener=listener)
