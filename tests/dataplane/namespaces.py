"""Real networks for the data plane's tests: namespaces in a chain, joined by veth, each with its own bpffs directory."""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def run(command: str) -> str:
    result = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if result.returncode:
        raise AssertionError(f"{command}: {result.stderr}{result.stdout}")
    return result.stdout


class Namespace:
    """One network namespace."""

    def __init__(self, label: str) -> None:
        self.name = f"lt-{os.getpid()}-{label}-{next(_numbers)}"
        self.path = Path("/var/run/netns") / self.name
        run(f"ip netns add {self.name}")
        self.run("ip link set lo up")
        # Before any link: an address that is still being checked neither answers nor asks.
        self.run("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")

    def run(self, command: str) -> str:
        return run(f"nsenter --net={self.path} {command}")

    def start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", f"--net={self.path}", *command.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            assert _libc.setns(there, 0) == 0
            yield
        finally:
            assert _libc.setns(before, 0) == 0
            os.close(before)
            os.close(there)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def join(one: Namespace, end: str, other: Namespace, other_end: str, mtu: int = 1500) -> None:
    """A veth pair between two namespaces, up."""
    run(
        f"ip link add {end} netns {one.name} mtu {mtu} type veth peer {other_end} netns {other.name} mtu {mtu}"
    )
    one.run(f"ip link set {end} up")
    other.run(f"ip link set {other_end} up")


@contextmanager
def bpffs(directory: Path) -> Iterator[Path]:
    """A private bpffs on `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    run(f"mount -t bpf none {directory}")
    try:
        yield directory
    finally:
        run(f"umount {directory}")
