"""The node's steady seconds over steps of the wall clock, restarts and reboots; and the loop that counts suspended time."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from locum.node.clock import FINE, KEY, STEP, BootTimeLoop, SteadyClock, WallClockWatch, boot_seconds
from locum.node.store import Store
from locum.node.tables import HostTable

NOW, HOUR = 1_790_000_000.0, 3600.0


@dataclass
class Machine:
    """The kernel's clocks, and the node's file."""

    path: Path
    wall: float = NOW
    boot: float = 100.0
    boot_id: str = "first"

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def reboot(self, boot_id: str, wall: float) -> None:
        self.boot_id, self.boot, self.wall = boot_id, 5.0, wall

    def clock(self, store: Store) -> SteadyClock:
        return SteadyClock(store, wall=lambda: self.wall, boot=lambda: self.boot, boot_id=self.boot_id)

    def started(self, run: float = 0.0, *, keep: bool = True) -> SteadyClock:
        """A run of the node that lasts so long; its clock as it was at the end."""

        async def lasts() -> SteadyClock:
            store = Store(self.path)
            clock = self.clock(store)
            clock.keep()
            self.run(run)
            if keep:
                clock.keep()
            await store.close()
            return clock

        return asyncio.run(lasts())

    def now(self) -> float:
        return self.started().now()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "node.db")


def test_steady_seconds_start_at_wall_time_and_ignore_steps(machine: Machine) -> None:
    clock = machine.started()
    assert clock.now() == NOW and clock.ahead == 0.0 and not clock.stepped(clock.now())
    for step in (HOUR, -2 * HOUR):
        machine.wall += step
        assert clock.now() == NOW and clock.for_people(NOW) == machine.wall
        assert clock.stepped(clock.now()) and not clock.stepped(clock.now())
    assert clock.ahead == -HOUR
    assert clock.for_people(NOW + 10) == machine.wall + 10 and clock.for_people(None) is None
    machine.run(50)
    assert clock.now() == NOW + 50 and not clock.stepped(clock.now())


def test_small_corrections_add_up_to_a_step(machine: Machine) -> None:
    clock = machine.started()
    machine.wall += STEP / 2
    assert not clock.stepped(clock.now())
    machine.wall += STEP
    assert clock.stepped(clock.now()) and clock.ahead == pytest.approx(1.5 * STEP)


@pytest.mark.parametrize("step", [0.2, -0.2, 2 * FINE])
def test_small_steps_are_seen_where_the_kernel_tells_of_them(machine: Machine, step: float) -> None:
    clock = machine.started()
    machine.wall += step
    assert not clock.stepped(clock.now())
    assert clock.stepped(clock.now(), FINE) and clock.ahead == pytest.approx(step, abs=1e-6)
    assert not clock.stepped(clock.now(), FINE)
    machine.wall += FINE / 4
    assert not clock.stepped(clock.now(), FINE), "the time between two readings"


def test_pause_between_two_readings_is_no_step(machine: Machine) -> None:
    """The process waits for its processor for 2 s after it has read the one clock and before it reads the other."""
    clock = machine.started()
    begun = clock.now()
    machine.run(2)
    assert not clock.stepped(begun)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_restart_within_a_boot_ignores_wall_clock_steps(machine: Machine, step: float) -> None:
    machine.started(run=60)
    machine.run(30)  # stopped or suspended
    machine.wall += step
    clock = machine.started()
    assert clock.now() == NOW + 90 and clock.ahead == step


def test_after_a_reboot_the_time_without_power_has_passed(machine: Machine) -> None:
    machine.started(run=60)
    machine.reboot("second", wall=NOW + 60 + HOUR)
    clock = machine.started()
    assert clock.now() == NOW + 60 + HOUR and clock.ahead == 0.0
    machine.run(10)
    assert machine.now() == NOW + 70 + HOUR


def test_after_a_reboot_of_a_killed_node_too(machine: Machine) -> None:
    machine.started(run=300, keep=False)
    machine.reboot("second", wall=NOW + 300 + HOUR)
    assert machine.now() == NOW + 300 + HOUR


def test_steps_before_a_reboot_are_not_time_that_passed(machine: Machine) -> None:
    clock = machine.started()
    machine.wall += HOUR
    assert clock.stepped(clock.now())
    machine.started(run=60)
    machine.reboot("second", wall=machine.wall + 20)
    clock = machine.started()
    assert clock.now() == NOW + 80 and clock.ahead == HOUR


@pytest.mark.parametrize("wall", [5.0, NOW - HOUR])
def test_wall_clock_that_a_reboot_sets_back_stops_nothing(machine: Machine, wall: float) -> None:
    """A machine without a battery-backed clock: a timer of a minute ends in a minute, not in years."""
    machine.started(run=60)
    machine.reboot("second", wall=wall)
    clock = machine.started()
    assert clock.now() == NOW + 60
    machine.wall += NOW - wall + 500  # NTP
    assert clock.now() == NOW + 60 and clock.stepped(clock.now()) and clock.ahead == pytest.approx(440.0)


def test_other_time_namespace_counts_as_a_reboot(machine: Machine) -> None:
    machine.started(run=60)
    machine.run(40)
    machine.boot = 5.0
    assert machine.now() == NOW + 100


def test_boot_without_a_name_is_never_the_same(machine: Machine) -> None:
    machine.boot_id = ""
    machine.started(run=60)
    machine.reboot("", wall=NOW + 100)
    machine.boot = HOUR
    assert machine.now() == NOW + 100


@pytest.mark.parametrize("row", [{}, {"origin": "soon", "seen": 1, "ahead": 0}, {"origin": None}])
def test_foreign_rows_start_the_clock_anew(machine: Machine, row: dict[str, Any]) -> None:
    async def spoil() -> None:
        store = Store(machine.path)
        store.put(HostTable.CLOCK, KEY, row)
        await store.close()

    asyncio.run(spoil())
    assert machine.now() == NOW


def test_sources_are_those_of_this_machine(tmp_path: Path) -> None:
    async def compare() -> None:
        store = Store(tmp_path / "node.db")
        clock = SteadyClock(store)
        assert clock.now() == pytest.approx(time.time(), abs=5)
        assert boot_seconds() >= time.monotonic() - 1
        await store.close()

    asyncio.run(compare())


def test_loop_counts_from_boot_and_its_timers_work() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        assert loop.time() == pytest.approx(boot_seconds(), abs=5)
        begin = loop.time()
        await asyncio.sleep(0.02)
        return loop.time() - begin

    with asyncio.Runner(loop_factory=BootTimeLoop) as runner:
        assert runner.run(wait()) >= 0.02


def test_loop_fires_timers_that_came_due_during_a_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = 0.0
    monkeypatch.setattr(BootTimeLoop, "time", lambda loop: time.monotonic() + suspended)

    async def suspend() -> None:
        nonlocal suspended
        fired = asyncio.Event()
        asyncio.get_running_loop().call_later(HOUR, fired.set)
        await asyncio.sleep(0)
        assert not fired.is_set()
        suspended = 3 * HOUR
        await asyncio.wait_for(fired.wait(), 60)

    with asyncio.Runner(loop_factory=BootTimeLoop) as runner:
        runner.run(suspend())


def test_no_report_without_a_wall_clock_step() -> None:
    async def watch() -> list[str]:
        told: list[str] = []
        watching = WallClockWatch(lambda: told.append("set"))
        await asyncio.sleep(0.05)
        watching.close()
        return told

    assert asyncio.run(watch()) == []


def test_a_time_reads_the_same_each_time_it_is_shown(machine: Machine) -> None:
    """The two clocks are read one after the other, so their difference is never quite the same."""
    clock = machine.started()
    shown = set()
    for _ in range(5):
        machine.wall += 1e-6
        shown.add(clock.for_people(NOW))
    assert shown == {NOW}
