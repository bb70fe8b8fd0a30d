"""Private network namespaces for tests, removed always."""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)
_CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace with a unique name."""

    def __init__(self, label: str) -> None:
        self.name = f"lt-{os.getpid()}-{next(_numbers)}-{label}"
        self.path = f"/var/run/netns/{self.name}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link set lo up")
        for which in ("all", "default"):
            self.run("sysctl", "-q", f"net.ipv6.conf.{which}.accept_dad=0")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, without the mounts of `ip netns exec`."""
        return subprocess.run(
            ["nsenter", f"--net={self.path}", *command], check=check, capture_output=True, text=True
        )

    def ip(self, arguments: str) -> str:
        return self.run("ip", *arguments.split()).stdout

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside for the time of the block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            assert _libc.setns(there, _CLONE_NEWNET) == 0
            yield
        finally:
            assert _libc.setns(home, _CLONE_NEWNET) == 0
            os.close(there)
            os.close(home)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@pytest.fixture
def namespace() -> Iterator[Callable[[str], Namespace]]:
    """Makes namespaces that are gone after the test."""
    made: list[Namespace] = []

    def make(label: str) -> Namespace:
        made.append(Namespace(label))
        return made[-1]

    yield make
    for space in made:
        space.remove()


def join(first: Namespace, first_name: str, second: Namespace, second_name: str) -> None:
    """A cable between two namespaces."""
    subprocess.run(
        ["ip", "link", "add", first_name, "netns", first.name, "type", "veth",
         "peer", "name", second_name, "netns", second.name],
        check=True,
    )  # fmt: skip
    first.ip(f"link set {first_name} up")
    second.ip(f"link set {second_name} up")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a node's configuration file; a secret is beside it, as `key`."""
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("00112233445566778899aabbccddeeff\n")

    def write(text: str) -> Path:
        path = tmp_path / "node.toml"
        path.write_text(text)
        return path

    return write
