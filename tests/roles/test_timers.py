"""Deadlines of many keys against a dictionary of them, and their memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from locum.roles.timers import Deadlines

KEYS = st.integers(0, 7)
TIMES = st.one_of(st.integers(0, 40).map(lambda number: number / 8), st.sampled_from((1e6, float("inf"))))
SET, CANCEL, NEXT, DUE = range(4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just(SET), KEYS, TIMES),
        st.tuples(st.just(CANCEL), KEYS, st.just(0.0)),
        st.tuples(st.just(NEXT), st.just(0), st.just(0.0)),
        st.tuples(st.just(DUE), st.just(0), TIMES),
    ),
    max_size=60,
)


@given(STEPS)
def test_keys_become_due_once_in_order(steps: list[tuple[int, int, float]]) -> None:
    """Every key at its last deadline, unless it was cancelled."""
    deadlines: Deadlines[int] = Deadlines()
    plain: dict[int, float] = {}
    for step, key, at in steps:
        if step == SET:
            deadlines.set(key, at)
            plain[key] = at
        elif step == CANCEL:
            deadlines.cancel(key)
            plain.pop(key, None)
        elif step == NEXT:
            assert deadlines.next() == min(plain.values(), default=None)
        else:
            due = [*deadlines.due(at)]
            assert sorted(due) == sorted(key for key, when in plain.items() if when <= at)
            times = [plain.pop(key) for key in due]
            assert times == sorted(times)
    assert deadlines.next() == min(plain.values(), default=None)


def test_many_renewals_leave_the_entries_bounded() -> None:
    """A key that comes earlier and earlier, or is cancelled and set again, leaves no entries behind."""
    deadlines: Deadlines[int] = Deadlines()
    tracemalloc.start()
    try:
        for number in range(20_000):
            deadlines.cancel(0)
            deadlines.set(0, 1e6 - number)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert deadlines.next() == 1e6 - 19_999


def test_far_deadlines_take_little_memory() -> None:
    """A list and a dictionary: also when one far ahead of the others was the first."""
    keys, times = [object() for _ in range(10_000)], [1800.0 + number / 1000 for number in range(10_000)]
    deadlines: Deadlines[object] = Deadlines()
    tracemalloc.start()
    try:
        deadlines.set(keys[0], 65_534.0)
        assert deadlines.next() == 65_534.0
        for key, at in zip(keys, times, strict=True):
            deadlines.set(key, at)
            deadlines.next()
        assert tracemalloc.get_traced_memory()[0] < 100 * len(keys)
    finally:
        tracemalloc.stop()
    assert [*deadlines.due(1800.001)] == keys[:2]
