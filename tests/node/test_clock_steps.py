"""Real daemons whose clocks are set, or that were suspended, while they run: renewals go on.

A preloaded library moves what one daemon sees of the wall clock and of CLOCK_BOOTTIME; the machine's stay. Time passes
when a test says so, by moving both.
"""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace
from tests.node.test_real_nodes import World

HOUR = 3600
LIFETIME, RENEWED = 600, 450  # seconds; a registration is renewed after two thirds of its lifetime
BOUND = ["10.2.0.2"]


class Clocks:
    """Clocks of one daemon, as seconds away from the machine's."""

    def __init__(self, path: Path) -> None:
        self.path, self.wall, self.boot = path, 0, 0
        path.write_bytes(struct.pack("ll", 0, 0))

    def set(self, seconds: int) -> None:
        """Set the wall clock ahead, or back."""
        self._move(seconds, 0)

    def passed(self, seconds: int) -> None:
        """So much time has passed, or was spent suspended."""
        self._move(seconds, seconds)

    def _move(self, wall: int, boot: int) -> None:
        self.wall, self.boot = self.wall + wall, self.boot + boot
        with self.path.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("ll", self.wall, self.boot))


class ClockWorld(World):
    """The daemons of test_real_nodes, each with clocks of its own."""

    def __init__(self, folder: Path, make: Callable[[str], Namespace]) -> None:
        super().__init__(folder, make)
        device = folder / "mn.toml"
        device.write_text(device.read_text().replace("lifetime = 60\n", f"lifetime = {LIFETIME}\n"))
        self.shim = folder / "shim.so"
        source = Path(__file__).with_name("clock_shim.c")
        subprocess.run(["clang", "-shared", "-fPIC", "-O2", "-o", self.shim, source], check=True)
        self.clocks = {name: Clocks(folder / f"{name}.clocks") for name in ("ha", "an", "mn")}

    def start(self, name: str) -> None:
        preloaded = {"LD_PRELOAD": str(self.shim), "LOCUM_TEST_CLOCKS": str(self.clocks[name].path)}
        self.daemons[name] = subprocess.Popen(
            ["nsenter", f"--net={self.spaces[name].path}", sys.executable, "-m", "locum", "node", "run",
             str(self.folder / f"{name}.toml")],
            stderr=(self.folder / f"{name}.err").open("ab"),
            env={**os.environ, **preloaded},
        )  # fmt: skip
        self.until(lambda: self.ask(name, "status"), f"{name} to start", 40.0)

    def passed(self, seconds: int) -> None:
        for clock in self.clocks.values():
            clock.passed(seconds)

    def kinds(self, name: str) -> list[str]:
        lines = (self.folder / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line)["kind"] for line in lines]

    def fresh(self) -> bool:
        """True if the device shows a registration younger than RENEWED."""
        expires_at = self.ask("mn", "status")["mobile_node"]["expires_at"]
        there = time.time() + self.clocks["mn"].wall
        assert expires_at is None or expires_at - there <= LIFETIME
        return expires_at is not None and expires_at - there > LIFETIME - RENEWED

    def renewed(self) -> None:
        """Advance until the next renewal."""
        self.passed(RENEWED)
        self.until(self.fresh, "the renewal", 60.0)
        assert self.care_of() == BOUND
        assert "registration-expired" not in self.kinds("mn")
        assert "expired" not in self.kinds("ha") and "visitor-expired" not in self.kinds("an")


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[ClockWorld]:
    made = ClockWorld(tmp_path, namespace)
    yield made
    made.close()


def test_renewals_go_on_over_steps_and_suspensions(world: ClockWorld) -> None:
    for name in world.clocks:
        world.start(name)
    world.until(world.fresh, "the registration", 60.0)
    for name in ("mn", "ha", "an"):
        for step in (-HOUR, HOUR, HOUR, -HOUR):
            world.clocks[name].set(step)
            world.renewed()
        assert world.kinds(name).count("clock-stepped") == 4
    # A daemon that is dead while its clock is set keeps its promises.
    for step in (-HOUR, HOUR):
        world.kill("ha")
        world.clocks["ha"].set(step)
        world.start("ha")
        world.renewed()
    suspensions(world)
    assert "Traceback" not in world.complaints(), world.complaints()


def suspensions(world: ClockWorld) -> None:
    """The device alone, then everything: expired state ends at once, and is renewed."""
    world.clocks["mn"].passed(3 * HOUR)
    world.until(world.fresh, "the device to register again", 60.0)
    assert "registration-expired" in world.kinds("mn") and "expired" not in world.kinds("ha")
    world.passed(3 * HOUR)
    world.until(world.fresh, "the device to register again", 60.0)
    assert world.care_of() == BOUND
