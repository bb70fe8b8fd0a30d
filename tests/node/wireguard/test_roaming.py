"""The way back to a peer, on a virtual clock."""

from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as some

from locum.node.wireguard.roaming import (
    LATE,
    LONGEST_RENEWAL,
    MOST_UNANSWERED,
    SILENCE,
    Act,
    Roaming,
    Seeking,
    Settled,
)


def run(roaming: Roaming, until: float) -> list[tuple[float, Act]]:
    """Acts and their times, without any answer."""
    done = []
    while (at := roaming.deadline()) is not None and at <= until:
        done += [(at, act) for act in roaming.timeout(now=at)]
    return done


def test_move_calls_and_asks_at_once() -> None:
    roaming = Roaming()
    assert roaming.moved(now=100.0, handshake_age=30.0) == [Act.CALL, Act.ECHO]
    assert roaming.answered(now=100.04) == [Act.BACK]
    assert isinstance(roaming.state, Settled) and round(roaming.state.took, 3) == 0.04
    assert roaming.deadline() is None and roaming.answered(now=101.0) == []


def test_old_session_is_begun_anew_after_a_sleep() -> None:
    roaming = Roaming()
    assert roaming.moved(now=9000.0, handshake_age=7200.0) == [Act.RENEW, Act.ECHO]
    assert Roaming().moved(now=0.0, handshake_age=inf) == [Act.RENEW, Act.ECHO]


def test_silent_peer_is_renewed_ever_more_slowly() -> None:
    roaming = Roaming()
    roaming.moved(now=0.0, handshake_age=10.0)
    done = run(roaming, 200.0)
    renewals = [at for at, act in done if act is Act.RENEW]
    assert renewals[:5] == [1.0, 3.0, 7.0, 15.0, 31.0]
    gaps = [later - earlier for earlier, later in pairwise(renewals[4:])]
    assert gaps and all(gap == LONGEST_RENEWAL for gap in gaps)
    assert [at for at, act in done if act is Act.ECHO][:4] == [0.1, 0.25, 0.5, 1.0]
    assert [at for at, act in done if act is Act.LATE] == [LATE]


def test_second_move_keeps_the_time_of_the_first() -> None:
    roaming = Roaming()
    roaming.moved(now=0.0, handshake_age=10.0)
    assert roaming.moved(now=0.6, handshake_age=10.0) == [Act.CALL, Act.ECHO]
    roaming.answered(now=0.7)
    assert isinstance(roaming.state, Settled) and roaming.state.took == 0.7


def test_silence_is_suspicious_if_we_send() -> None:
    roaming = Roaming()
    roaming.counted(1000, 1000, now=0.0)
    assert roaming.counted(1000, 1000 + MOST_UNANSWERED, now=SILENCE) == []
    assert roaming.counted(1000, 1001 + MOST_UNANSWERED, now=SILENCE - 1) == []
    assert roaming.counted(1000, 1001 + MOST_UNANSWERED, now=SILENCE) == [Act.ECHO]
    assert isinstance(roaming.state, Seeking)


def test_received_bytes_end_the_silence() -> None:
    roaming = Roaming()
    roaming.counted(1000, 1000, now=0.0)
    roaming.counted(1032, 5000, now=SILENCE)
    assert roaming.counted(1032, 5000, now=2 * SILENCE) == []


@given(
    some.lists(
        some.tuples(some.sampled_from(["moved", "answered", "counted", "timeout"]), some.floats(0, 60))
    )
)
def test_no_order_of_events_makes_a_busy_loop(steps: list[tuple[str, float]]) -> None:
    """Each timeout at its deadline moves the deadline on; an answer always settles."""
    roaming, now = Roaming(), 0.0
    for step, wait in steps:
        now += wait
        match step:
            case "moved":
                roaming.moved(now=now, handshake_age=wait * 10)
            case "answered":
                roaming.answered(now=now)
                assert isinstance(roaming.state, Settled)
            case "counted":
                roaming.counted(0, int(now * 100), now=now)
            case "timeout":
                roaming.timeout(now=now)
        if (at := roaming.deadline()) is not None:
            acts = roaming.timeout(now=at)
            later = roaming.deadline()
            assert acts and later is not None and later >= at
