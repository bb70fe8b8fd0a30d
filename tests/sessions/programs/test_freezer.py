"""Programs stand still, come back where they were, and a killed daemon leaves none behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.sessions.programs.freezer import Freezer, unified_root
from locum.sessions.programs.process import Process, process

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

    @property
    def named(self) -> Process:
        found = process(self.pid)
        assert found is not None
        return found

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

    def directory(self) -> Path:
        """Of its cgroup of version 2."""
        return directory(self.cgroup())


def directory(lines: str) -> Path:
    root = unified_root()
    assert root is not None
    return root / next(line[4:] for line in lines.splitlines() if line.startswith("0::/"))


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[list[Busy]]:
    made = [Busy(tmp_path / f"busy{number}") for number in range(2)]
    yield made
    for program in made:
        program.process.kill()
        program.process.wait()
    for where, names, _ in os.walk(unified_root() or tmp_path):
        for name in names:
            if name.startswith("locum-") and f"{os.getpid()}-" in name:  # of a test that failed
                (Path(where) / name).rmdir()


def cgroups(name: str) -> list[str]:
    root = unified_root()
    assert root
    return [entry for _, names, _ in os.walk(root) for entry in names if entry.startswith(f"locum-{name}-")]


@pytest.mark.parametrize("signals", [False, True])
def test_freeze_and_thaw(busy: list[Busy], tmp_path: Path, signals: bool) -> None:
    freezer = Freezer(f"f{os.getpid()}", tmp_path, signals=signals)
    before = [program.cgroup() for program in busy]
    assert not freezer.freeze([program.named for program in busy])
    assert not freezer.freeze([busy[0].named, (999_999_999, 1)])
    assert freezer.frozen == {program.named for program in busy}
    assert all(program.stands_still() for program in busy)
    freezer.thaw([busy[0].named])
    busy[0].wait_for_progress()
    assert busy[1].stands_still()
    freezer.thaw([busy[1].named])
    busy[1].wait_for_progress()
    assert [program.cgroup() for program in busy] == before
    assert not cgroups(f"f{os.getpid()}")


@pytest.mark.parametrize("signals", [False, True])
def test_later_run_thaws_frozen_programs(busy: list[Busy], tmp_path: Path, signals: bool) -> None:
    name = f"g{os.getpid()}"
    Freezer(name, tmp_path, signals=signals).freeze([program.named for program in busy])
    busy[1].process.kill()  # dies frozen
    busy[1].process.wait()
    later = Freezer(name, tmp_path, signals=signals)
    assert busy[0].named in later.adopt()
    assert busy[0].stands_still()
    later.recover()
    busy[0].wait_for_progress()
    assert not cgroups(name)
    assert not later.frozen


def test_program_stopped_by_another_stays_stopped(busy: list[Busy], tmp_path: Path) -> None:
    os.kill(busy[0].pid, 19)
    freezer = Freezer(f"h{os.getpid()}", tmp_path, signals=True)
    time.sleep(0.05)
    failures = freezer.freeze([busy[0].named, busy[1].named])
    assert failures.keys() == {busy[0].named} and "has stopped it" in failures[busy[0].named]
    assert freezer.frozen == {busy[1].named}
    freezer.thaw([busy[0].named, busy[1].named])
    assert busy[0].stands_still()


def test_a_process_that_cannot_be_frozen_fails_alone(busy: list[Busy], tmp_path: Path) -> None:
    """The parent of a vfork waits uninterruptibly for its child; SIGSTOP does not stand it still before that has ended."""
    script = "import ctypes; libc = ctypes.CDLL(None); libc.vfork() or libc.pause()"
    waiting = subprocess.Popen([sys.executable, "-c", script])
    proc = Path(f"/proc/{waiting.pid}")
    children = proc / "task" / str(waiting.pid) / "children"
    # Waiting for a disk is the same state: only with a child it waits for that.
    while not children.read_text() or "D" not in (proc / "stat").read_text().rpartition(")")[2]:
        time.sleep(0.01)
    try:
        stuck = process(waiting.pid)
        assert stuck is not None
        freezer = Freezer(f"i{os.getpid()}", tmp_path, signals=True)
        failures = freezer.freeze([busy[0].named, stuck, busy[1].named])
        assert set(failures) == {stuck} and "does not stand still" in failures[stuck]
        assert freezer.frozen == {busy[0].named, busy[1].named}
        assert busy[0].stands_still() and busy[1].stands_still()
        freezer.thaw(freezer.frozen)
        busy[0].wait_for_progress()
    finally:
        for child in children.read_text().split():
            os.kill(int(child), 9)
        waiting.kill()
        waiting.wait()


@pytest.mark.parametrize("signals", [False, True])
def test_a_reused_process_number_is_not_frozen(busy: list[Busy], tmp_path: Path, signals: bool) -> None:
    freezer = Freezer(f"j{os.getpid()}", tmp_path, signals=signals)
    pid, started = busy[0].named
    assert not freezer.freeze([(pid, started - 1)])
    assert not freezer.frozen
    busy[0].wait_for_progress()


def test_cgroup_of_an_earlier_process_is_thawed_and_removed(busy: list[Busy], tmp_path: Path) -> None:
    """The process that a killed daemon froze has ended; its child, or a process that has its number now, runs."""
    name = f"k{os.getpid()}"
    pid, started = busy[0].named
    here = busy[0].directory()
    earlier, empty = here / f"locum-{name}-{pid}-{started - 1}", here / f"locum-{name}-1-1"
    for cgroup in (earlier, empty):
        cgroup.mkdir()
        (cgroup / "cgroup.freeze").write_text("1")
    (earlier / "cgroup.procs").write_text(str(pid))
    assert busy[0].stands_still()
    assert not Freezer(name, tmp_path).freeze([busy[1].named])
    later = Freezer(name, tmp_path)
    assert later.adopt() == {busy[1].named}
    busy[0].wait_for_progress()
    assert busy[1].stands_still()
    later.thaw(later.frozen)
    assert not cgroups(name)


def test_empty_cgroups_of_an_interrupted_lab_are_removed(tmp_path: Path) -> None:
    here = directory(Path("/proc/self/cgroup").read_text())
    old, new = here / f"locum-l{os.getpid()}-77", here / f"locum-l{os.getpid()}-78-9"
    for program in (old, new):
        program.mkdir()
    os.utime(old, (1, 1))
    try:
        Freezer(f"m{os.getpid()}", tmp_path).adopt()
        assert not old.exists()
        assert new.exists(), "another daemon may be about to use it"
    finally:
        for program in (old, new):
            if program.exists():
                program.rmdir()


def test_cgroup_only_freezer_sends_no_stop_signal(
    busy: list[Busy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("locum.sessions.programs.freezer.unified_root", lambda: None)
    freezer = Freezer(f"y{os.getpid()}", tmp_path, cgroups=True)
    (reason,) = freezer.freeze([busy[0].named]).values()
    assert "in no cgroup" in reason
    busy[0].wait_for_progress()
    assert not freezer.frozen


def test_a_process_that_was_moved_meanwhile_is_frozen_again(busy: list[Busy], tmp_path: Path) -> None:
    freezer = Freezer(f"n{os.getpid()}", tmp_path)
    assert not freezer.freeze([busy[0].named])
    parent = busy[0].directory().parent
    (parent / "cgroup.procs").write_text(str(busy[0].pid))
    busy[0].wait_for_progress()
    assert not freezer.freeze([busy[0].named])
    assert busy[0].stands_still()
    (parent / "cgroup.procs").write_text(str(busy[0].pid))
    freezer.thaw([busy[0].named])
    busy[0].wait_for_progress()
    assert not cgroups(f"n{os.getpid()}")


def test_child_of_a_frozen_program_returns_to_its_cgroup(busy: list[Busy], tmp_path: Path) -> None:
    """It was born in the parent's cgroup of ours, and is frozen by itself then."""
    freezer = Freezer(f"o{os.getpid()}", tmp_path)
    before = busy[1].cgroup()
    assert not freezer.freeze([busy[0].named])
    (busy[0].directory() / "cgroup.procs").write_text(str(busy[1].pid))
    assert not freezer.freeze([busy[1].named])
    freezer.thaw([busy[0].named])
    assert busy[1].stands_still()
    freezer.thaw([busy[1].named])
    busy[1].wait_for_progress()
    assert busy[1].cgroup() == before and not cgroups(f"o{os.getpid()}")


def test_a_program_of_a_container_that_shares_the_hosts_network(tmp_path: Path) -> None:
    """It has other process numbers and another view of cgroups inside; the host sees it like any other."""
    path = tmp_path / "inside"
    with path.open("wb") as output:
        container = subprocess.Popen(
            ["unshare", "--pid", "--cgroup", "--fork", "--kill-child", sys.executable, "-c", COUNTER],
            stdout=output,
        )
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    try:
        while not path.stat().st_size:
            time.sleep(0.01)
        inside = process(int(children.read_text()))
        assert inside is not None
        freezer = Freezer(f"p{os.getpid()}", tmp_path)
        before = Path(f"/proc/{inside.pid}/cgroup").read_text()
        assert not freezer.freeze([inside]) and freezer.frozen == {inside}
        size = path.stat().st_size
        time.sleep(0.05)
        assert path.stat().st_size == size
        freezer.thaw([inside])
        while path.stat().st_size == size:
            time.sleep(0.01)
        assert Path(f"/proc/{inside.pid}/cgroup").read_text() == before
    finally:
        container.kill()
        container.wait()


def test_many_processes_are_frozen_together(tmp_path: Path) -> None:
    """Each is moved, then all are waited for within one bound."""
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(60)]
    try:
        named = [found for found in map(process, (sleeper.pid for sleeper in sleepers)) if found is not None]
        freezer = Freezer(f"q{os.getpid()}", tmp_path)
        assert not freezer.freeze(named) and freezer.frozen == set(named)
        freezer.thaw(named)
        assert not freezer.frozen and not cgroups(f"q{os.getpid()}")
    finally:
        for sleeper in sleepers:
            sleeper.kill()
        for sleeper in sleepers:
            sleeper.wait()


def test_program_runs_although_the_disk_is_full(busy: list[Busy], tmp_path: Path) -> None:
    freezer = Freezer(f"w{os.getpid()}", tmp_path / "state", signals=True)
    assert not freezer.freeze([busy[0].named])
    journal = tmp_path / "state" / f"stopped-w{os.getpid()}.json"
    journal.with_suffix(".new").mkdir()
    failures = freezer.freeze([busy[1].named])
    assert "written down" in failures[busy[1].named]
    busy[1].wait_for_progress()
    freezer.thaw(freezer.frozen)
    busy[0].wait_for_progress()
    assert not freezer.frozen
