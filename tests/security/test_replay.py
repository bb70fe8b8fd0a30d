"""Timestamps and nonces (RFC 5944 section 5.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.security.replay import (
    DEFAULT_TOLERANCE,
    NonceWindow,
    TimestampWindow,
    Verdict,
    answers,
    difference,
    home_nonce,
    mismatch_identification,
    mobile_nonce,
    next_identification,
    nonce_identification,
    ntp64,
    wall_of,
)

NOW = 1_800_000_000.25
WRAP = 2_085_978_496.0  # 7 February 2036: the NTP seconds start again at 0
walls = st.floats(0, 2**32, allow_nan=False)
u64 = st.integers(0, (1 << 64) - 1)


def test_ntp_vectors() -> None:
    assert ntp64(0) == 2_208_988_800 << 32
    assert ntp64(0.5) == 2_208_988_800 << 32 | 1 << 31
    assert ntp64(946_684_800) == 0xBC17C200_00000000  # 1 January 2000
    assert ntp64(WRAP) == 0 and ntp64(WRAP - 1) == 0xFFFFFFFF_00000000


@given(walls)
def test_ntp_round_trip(wall: float) -> None:
    assert wall_of(ntp64(wall), near=wall + 1000) == pytest.approx(wall, abs=1e-5)


@given(u64, u64)
def test_difference_is_antisymmetric(one: int, other: int) -> None:
    if difference(one, other) != -(1 << 63):
        assert difference(one, other) == -difference(other, one)
    assert (other + difference(one, other)) % (1 << 64) == one


@pytest.mark.parametrize(
    ("off", "verdict"), [(0, "OK"), (6.9, "OK"), (-6.9, "OK"), (7.1, "MISMATCH"), (-7.1, "MISMATCH")]
)
def test_tolerance(off: float, verdict: str) -> None:
    assert DEFAULT_TOLERANCE == 7
    assert TimestampWindow().check(ntp64(NOW + off), NOW, None) is Verdict[verdict]


def test_a_timestamp_is_accepted_once_and_never_behind_the_last() -> None:
    window = TimestampWindow()
    stamp = ntp64(NOW)
    assert window.check(stamp, NOW, None) is Verdict.OK
    assert window.check(stamp, NOW, stamp) is Verdict.MISMATCH
    assert window.check(stamp - 1, NOW, stamp) is Verdict.MISMATCH
    assert window.check(stamp + 1, NOW, stamp) is Verdict.OK


def test_the_window_works_across_2036() -> None:
    window = TimestampWindow()
    before, after = ntp64(WRAP - 1), ntp64(WRAP + 1)
    assert after < before
    assert window.check(after, WRAP + 1, before) is Verdict.OK
    assert window.check(before, WRAP + 1, after) is Verdict.MISMATCH
    assert next_identification(WRAP + 1, before) == after


def test_tolerance_is_configurable() -> None:
    assert TimestampWindow(1.0).check(ntp64(NOW + 2), NOW, None) is Verdict.MISMATCH
    assert TimestampWindow(30.0).check(ntp64(NOW + 29), NOW, None) is Verdict.OK


@given(u64, walls, st.none() | u64)
def test_any_identification_gets_a_verdict(identification: int, wall: float, last: int | None) -> None:
    verdict = TimestampWindow().check(identification, wall, last)
    if verdict is Verdict.OK:
        assert abs(wall_of(identification, near=wall) - wall) <= 7.001
        assert last is None or difference(identification, last) > 0


def test_identifications_grow_while_the_clock_stands_still() -> None:
    first = next_identification(NOW, None)
    second = next_identification(NOW, first)
    third = next_identification(NOW - 3600, second)
    assert first < second < third


def test_resynchronisation() -> None:
    """A node whose clock is wrong learns ours from the refusal, and is accepted with its next request (5.7.1)."""
    wrong = ntp64(NOW - 3600)
    assert TimestampWindow().check(wrong, NOW, None) is Verdict.MISMATCH
    reply = mismatch_identification(wrong, NOW)
    assert answers(wrong, reply) and reply >> 32 == ntp64(NOW) >> 32
    offset = wall_of(reply, near=NOW) - (NOW - 3600)
    assert TimestampWindow().check(next_identification(NOW - 3600 + offset, wrong), NOW, None) is Verdict.OK


def test_nonces() -> None:
    window = NonceWindow()
    request = nonce_identification(7, 1)
    assert window.check(request, None) is Verdict.MISMATCH
    reply = nonce_identification(0xFFFFFFFF, mobile_nonce(request))
    assert answers(request, reply)
    following = nonce_identification(home_nonce(reply), 2)
    assert window.check(following, home_nonce(reply)) is Verdict.OK
    assert window.check(request, home_nonce(reply)) is Verdict.MISMATCH
    assert not answers(following, reply)


@given(u64)
def test_nonce_halves(identification: int) -> None:
    assert nonce_identification(home_nonce(identification), mobile_nonce(identification)) == identification
