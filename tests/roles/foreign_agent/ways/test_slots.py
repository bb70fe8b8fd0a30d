"""Times of calls to devices that listen in slots: within the slot for every clock that the guard allows (P13)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.roles.foreign_agent.ways.slots import Slots
from locum.wire.control.paging.way import MAX_CYCLE, Way

NOW = 1_796_000_000_000.0  # milliseconds since 1970


@st.composite
def slots(draw: st.DrawFn) -> Slots:
    cycle = draw(st.integers(1, 20_000) | st.integers(1, MAX_CYCLE))
    length = draw(st.integers(max(1, cycle // 500), cycle))
    guard = draw(st.floats(0, cycle / 2) | st.just(0.0) | st.just(2.0))
    return Slots(cycle, draw(st.integers(0, cycle - 1)), length, guard)


def listens(slots: Slots, at: float) -> bool:
    """True if the device listens at this time of its own clock."""
    return (at - slots.offset) % slots.cycle < slots.length


@given(slots(), st.floats(NOW, NOW + 1e9), st.floats(-1, 1))
def test_one_slot_reaches_every_clock_within_the_guard(one: Slots, at: float, part: float) -> None:
    error = one.guard * part * 0.999  # of the device's clock; the guard is at most half a cycle, and 16 calls
    begin = one.first(at)
    calls = [begin]
    while (then := one.after(calls[-1])) is not None:
        calls.append(then)
    assert any(listens(one, call + error + 0.001) for call in calls)
    assert len(calls) <= len(one.instants) <= 16


@given(slots(), st.floats(NOW, NOW + 1e9))
def test_next_call_is_never_early_and_at_most_a_cycle_away(one: Slots, at: float) -> None:
    following, first = one.next(at), one.first(at)
    assert at <= following <= at + one.cycle + 0.01
    assert at - 0.01 <= first <= at + one.cycle + 0.01
    assert one.in_time(following) and one.in_time(first)
    assert following <= first + 0.01


@given(slots(), st.floats(NOW, NOW + 1e9))
def test_calls_of_one_slot_are_apart_by_less_than_it_lasts(one: Slots, at: float) -> None:
    assert all(0 <= later - earlier <= one.length + 0.001 for earlier, later in pairwise(one.instants))


def test_call_is_sent_at_the_beginning_of_the_slot() -> None:
    one = Slots(320, 100, 20)
    assert one.instants == (0.0,)
    assert one.next(NOW) % 320 == 100 and not one.in_time(one.next(NOW) - 1)
    assert Slots(320, 100, 20, 2.0).next(NOW) % 320 == 102, "one call reaches clocks 2 ms apart"
    assert len(Slots(320, 100, 20, 30.0).instants) == 4, "clocks 30 ms apart need several"


def test_late_call_is_sent_if_it_still_reaches_the_device() -> None:
    one = Slots(1000, 0, 20, 2.0)
    begin = one.first(NOW) - 2.0
    assert one.in_time(begin + 17) and not one.in_time(begin + 19) and not one.in_time(begin + 500)


@pytest.mark.parametrize("cycle", [0, 320])
def test_device_without_a_cycle_has_no_slots(cycle: int) -> None:
    way = Way("link", b"", cycle, 0, 20 if cycle else 0)
    assert (Slots.of(way, 0.002) is None) is (cycle == 0)
