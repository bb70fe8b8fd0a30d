"""The driver keeps each role's timer and goes on after a failed step."""

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from locum.node.clock import SteadyClock
from locum.node.driver import Driver, Slot
from locum.node.events import EventStream
from locum.node.tables import RoleTables
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import ForwardGroup
from locum.roles.action_values.forwarding import LocalEndpoint
from locum.roles.actions import Action, Count, Event, LinkDown, Persist, WallClockStepped


class Time:
    """Seconds of the event loop and of the node, which pass only in `reach`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ahead = 1000.0  # of the wall clock
        asyncio.get_running_loop().time = lambda: self.now  # type: ignore[method-assign]

    async def reach(self, now: float) -> None:
        """Let time pass, a second at a time."""
        for _ in range(3):
            await asyncio.sleep(0)
        while self.now < now:
            self.now = min(now, self.now + 1.0)
            for _ in range(3):
                await asyncio.sleep(0)


class EmptyStore:
    """A store that keeps nothing."""

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        return {}

    def put(self, table: str, key: str, value: Any) -> None:
        pass


class FakeRole:
    """A role with one deadline; `event` gives its actions."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.called: list[float] = []
        self.heard: list[Event] = []
        self.event: Callable[[], Sequence[Action]] = list
        self.restored: list[Action] = []

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        return self.restored

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        return []

    def happened(self, event: Event, *, now: float) -> list[Action]:
        self.heard.append(event)
        return [*self.event()]

    def timeout(self, *, now: float) -> list[Action]:
        self.called.append(now)
        self.due = None
        return []

    def deadline(self) -> float | None:
        return self.due


class FakePerformer:
    """Keeps the actions that it is given."""

    def __init__(self) -> None:
        self.performed: list[Action] = []

    def perform(self, actions: Sequence[Action]) -> None:
        self.performed += actions


class Bench:
    """A driver with one role."""

    def __init__(self) -> None:
        self.time, self.events, self.role, self.performer = (
            Time(),
            EventStream("n"),
            FakeRole(),
            FakePerformer(),
        )
        clock = SteadyClock(
            cast(Any, EmptyStore()),
            wall=lambda: self.time.now + self.time.ahead,
            boot=lambda: self.time.now,
            boot_id="one",
        )
        self.origin = clock.now()
        self.driver = Driver(clock, self.events)
        self.slot = self.driver.slots["role"] = Slot("role", self.role, cast(Any, self.performer))

    def move(self, due: float | None) -> None:
        """Let an event move the deadline, in seconds since the start."""
        self.role.due = None if due is None else self.origin + due
        self.driver.feed("role", WallClockStepped(0.0))

    @property
    def called(self) -> list[float]:
        """Seconds since the start at which the role's `timeout` was called."""
        return [at - self.origin for at in self.role.called]


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_timer_is_brought_forward(bench: Bench) -> None:
    bench.move(100)
    await bench.time.reach(1)
    bench.move(5)
    await bench.time.reach(120)
    assert bench.called == [5]


async def test_a_deadline_that_moves_back_is_kept(bench: Bench) -> None:
    bench.move(5)
    await bench.time.reach(1)
    bench.move(100)
    await bench.time.reach(120)
    assert bench.called == [100]


async def test_a_deadline_that_is_gone_calls_nothing(bench: Bench) -> None:
    bench.move(5)
    await bench.time.reach(1)
    bench.move(None)
    await bench.time.reach(120)
    assert bench.called == []


async def test_a_stopped_driver_calls_nothing(bench: Bench) -> None:
    bench.move(5)
    await bench.time.reach(1)
    bench.driver.stop()
    bench.move(3)
    await bench.time.reach(120)
    assert bench.called == []


async def test_a_failed_step_is_counted_and_later_steps_go_on(bench: Bench) -> None:
    def fail() -> Sequence[Action]:
        raise ZeroDivisionError

    bench.role.event = fail
    bench.move(5)
    assert bench.events.reasons == {"internal-error": 1}
    assert bench.performer.performed == []
    bench.role.event = lambda: [Count("seen")]
    bench.move(5)
    assert bench.performer.performed == [Count("seen")]
    await bench.time.reach(10)
    assert bench.called == [5]
    assert bench.events.reasons == {"internal-error": 1}


async def test_a_timer_goes_on_after_a_failed_timeout(bench: Bench) -> None:
    timeout = bench.role.timeout
    failed: list[float] = []

    def fail_twice(*, now: float) -> list[Action]:
        if len(failed) < 2:
            failed.append(now - bench.origin)
            raise ValueError("a fault of the role")
        return timeout(now=now)

    bench.role.timeout = fail_twice  # type: ignore[method-assign]
    bench.move(5)
    await bench.time.reach(120)
    assert (failed, bench.called) == ([5, 6], [7])
    assert bench.events.reasons == {"internal-error": 2}


async def test_steps_of_the_wall_clock_are_told_before_an_event(bench: Bench) -> None:
    bench.time.ahead += 60
    bench.driver.feed("role", LinkDown("radio0"))
    told, event = bench.role.heard
    assert isinstance(told, WallClockStepped)
    assert event == LinkDown("radio0")


async def test_small_step_that_the_kernel_tells_of_is_told(bench: Bench) -> None:
    """Devices listen for milliseconds: a step of a fifth of a second moves their slots."""
    bench.time.ahead += 0.2
    bench.driver.feed("role", LinkDown("radio0"))
    assert bench.role.heard == [LinkDown("radio0")], "no step, as far as lifetimes are concerned"
    bench.driver.clock_set()
    told = bench.role.heard[-1]
    assert isinstance(told, WallClockStepped) and len(bench.role.heard) == 2
    bench.driver.clock_set()
    assert len(bench.role.heard) == 2


async def test_restored_actions_go_as_they_are_taken() -> None:
    """Those of many bindings together would take more memory than the bindings."""
    bench = Bench()
    store = cast(Any, EmptyStore())
    forwarding = [LocalEndpoint(IPv4Address("10.5.0.1") + number) for number in range(3)]
    group = ForwardGroup(IPv4Address("239.1.2.3"), "out0", ("lan0",))
    bench.role.restored = [*forwarding, Count("once"), group]
    others: dict[str, list[Action]] = {}
    taken = bench.driver.restored(lambda role: RoleTables(role, store, store), others, 0.0)
    for number, action in enumerate(forwarding):
        assert next(taken) == action
        assert len(bench.role.restored) == 4 - number
    assert [*taken] == [group] and not bench.role.restored
    assert others == {"role": [Count("once"), group]}
