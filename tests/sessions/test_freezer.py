"""Programs stand still, come back where they were, and a killed daemon leaves none behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.sessions.freezer import Freezer, unified_root

COUNTER = "import sys,time\nwhile True: sys.stdout.write('x'); sys.stdout.flush(); time.sleep(0.002)"


class Busy:
    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("wb") as output:
            self.process = subprocess.Popen([sys.executable, "-c", COUNTER], stdout=output)
        self.wait_for_progress()

    @property
    def pid(self) -> int:
        return self.process.pid

    def count(self) -> int:
        return self.path.stat().st_size

    def stands_still(self) -> bool:
        before = self.count()
        time.sleep(0.05)
        return self.count() == before

    def wait_for_progress(self) -> None:
        before, deadline = self.count(), time.monotonic() + 10
        while self.count() == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def cgroup(self) -> str:
        return Path(f"/proc/{self.pid}/cgroup").read_text()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[list[Busy]]:
    made = [Busy(tmp_path / f"busy{number}") for number in range(2)]
    yield made
    for each in made:
        each.process.kill()
        each.process.wait()


def cgroups(name: str) -> list[str]:
    root = unified_root()
    assert root
    return [each for _, names, _ in os.walk(root) for each in names if each.startswith(f"locum-{name}-")]


@pytest.mark.parametrize("signals", [False, True])
def test_freeze_and_thaw(busy: list[Busy], tmp_path: Path, signals: bool) -> None:
    freezer = Freezer(f"f{os.getpid()}", tmp_path, signals=signals)
    before = [each.cgroup() for each in busy]
    freezer.freeze([each.pid for each in busy])
    freezer.freeze([busy[0].pid, 999_999_999])
    assert freezer.frozen == {each.pid for each in busy}
    assert all(each.stands_still() for each in busy)
    freezer.thaw([busy[0].pid])
    busy[0].wait_for_progress()
    assert busy[1].stands_still()
    freezer.thaw([busy[1].pid])
    busy[1].wait_for_progress()
    assert [each.cgroup() for each in busy] == before
    assert not cgroups(f"f{os.getpid()}")


@pytest.mark.parametrize("signals", [False, True])
def test_a_later_run_finds_what_was_left(busy: list[Busy], tmp_path: Path, signals: bool) -> None:
    name = f"g{os.getpid()}"
    Freezer(name, tmp_path, signals=signals).freeze([each.pid for each in busy])
    busy[1].process.kill()  # dies frozen
    busy[1].process.wait()
    later = Freezer(name, tmp_path, signals=signals)
    assert busy[0].pid in later.adopt()
    assert busy[0].stands_still()
    later.recover()
    busy[0].wait_for_progress()
    assert not cgroups(name)
    assert not later.frozen


def test_somebody_elses_stop_is_left(busy: list[Busy], tmp_path: Path) -> None:
    os.kill(busy[0].pid, 19)
    freezer = Freezer(f"h{os.getpid()}", tmp_path, signals=True)
    time.sleep(0.05)
    freezer.freeze([busy[0].pid])
    freezer.thaw([busy[0].pid])
    assert busy[0].stands_still()
