"""Kinds of proxies that a test writes, and processes of them."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from locum.node.apps.process import AppProcess
from locum.node.apps.starts.starting import Starts
from tests.node.apps.world import LIMITS, ROOT

KIND = """
import os, random, ssl

class Kind:
    def __init__(self, settings, randomness):
        self.settings_given = settings

    @classmethod
    def settings(cls, table):
        return dict(table)

    @staticmethod
    def wants(settings, flow):
        return False

    def begin(self, sessions, state, *, now):
        return []

    def timeout(self, *, now):
        return []

    def deadline(self):
        return None

    def end(self, *, now):
        chance = [random.random(), ssl.RAND_bytes(8).hex(), os.urandom(8).hex()]
        return {"result": {"chance": chance, "version": VERSION, "parent": os.getppid()}}
"""


class Kinds:
    """A package of proxies in a directory; each kind is a module of its own."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory / "packages"
        self._information = self._directory / "invented-1.dist-info"
        self._information.mkdir(parents=True)
        (self._information / "METADATA").write_text("Metadata-Version: 2.1\nName: invented\nVersion: 1\n")
        self._kinds: list[str] = []
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(self._directory), str(ROOT))))

    def write(self, kind: str, beginning: str = "", version: str = "1") -> None:
        """Install this kind, whose module begins with these lines, or replace it."""
        (self._directory / f"invented_{kind}.py").write_text(f"{beginning}\nVERSION = {version!r}\n{KIND}")
        if kind not in self._kinds:
            self._kinds.append(kind)
            lines = [f"{name} = invented_{name}:Kind" for name in self._kinds]
            (self._information / "entry_points.txt").write_text("\n".join(["[locum.apps]", *lines, ""]))


class Invented:
    """One process of such a kind."""

    def __init__(self, starts: Starts | None, kind: str) -> None:
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Event()
        self.process = AppProcess(
            kind, LIMITS, lambda _: None, self.ready.set, self.reason.set_result, starts=starts
        )

    async def begin(self, **settings: Any) -> "Invented":
        """Until it is ready, with these settings."""
        await until(lambda: self.ready.is_set() or self.reason.done())
        assert not self.reason.done(), self.reason.result()
        assert self.process.send("begin", settings, {})
        return self

    async def result(self) -> Mapping[str, Any]:
        """Of its end."""
        state = await self.process.end()
        result = state["result"]
        assert isinstance(result, dict)
        return result


async def until(done: Callable[[], bool]) -> None:
    """Wait for it."""
    async with asyncio.timeout(120):
        while not done():
            await asyncio.sleep(0.01)


def children() -> set[int]:
    """Of this process, dead ones that nobody has waited for among them."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def status(pid: int, *names: str) -> dict[str, str]:
    """Lines of the kernel's report about a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {name: found[name] for name in names}


def alive(pid: int) -> bool:
    """False for one that has ended."""
    try:
        return status(pid, "State")["State"][0] not in "ZX"
    except (OSError, KeyError):
        return False
