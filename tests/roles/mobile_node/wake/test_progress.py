"""The progress of the sessions of a wake: one value each, and views that agree with all values."""

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from locum.roles.mobile_node.handover import AwaySession
from locum.roles.mobile_node.wake.progress import Progress, Room, SessionProgress
from locum.wire.control import Flow

COUNT = 4
SESSIONS = [
    AwaySession(number, Flow(6, ip_address("10.0.0.1"), 1000 + number, ip_address("10.9.9.9"), 80), (), ())
    for number in range(COUNT)
]
FLOWS = [session.flow for session in SESSIONS]
which, amount = st.sampled_from(FLOWS), st.integers(0, 10)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("aim"), which, amount),
        st.tuples(st.just("place"), which, amount),
        st.tuples(st.just("gone"), which, st.just(0)),
        st.tuples(st.just("took"), which, amount),
        st.tuples(st.just("rested"), which, st.integers(0, 1)),
        st.tuples(st.just("pass over"), which, st.just(0)),
        st.tuples(st.just("try again"), which, st.just(0)),
        st.tuples(st.just("beyond"), which, amount),
        st.tuples(st.just("number"), which, st.integers(100, 103)),
        st.tuples(st.just("remove"), which, st.just(0)),
    )
)


def step(progress: Progress, what: str, flow: Flow, how: int) -> None:
    there = flow in progress
    match what:
        case "aim":
            progress.aim({flow: how})
        case "place":
            progress.place([(flow, how)], [])
        case "gone":
            progress.place([], [flow])
        case "took" if there:
            progress.took(flow, how, 10)
        case "rested":
            progress.rested([(flow, how)])
        case "pass over" if there:
            progress.pass_over(flow)
        case "try again":
            progress.try_again()
        case "beyond" if there:
            progress.go_beyond({flow: how})
        case "number" if all(progress.session(key).session != how for key in progress.flows):
            progress.number({flow: how})
        case "remove":
            progress.remove([flow])


def check(progress: Progress) -> None:
    """Every view agrees with the values of the sessions."""
    values = {flow: progress[flow] for flow in progress.flows}
    assert progress.behind == {flow for flow, value in values.items() if value.offset < value.target}
    assert set(progress.complete) == values.keys() - progress.behind
    for view, room in ((progress.full, Room.FULL), (progress.slow, Room.SLOW), (progress.gone, Room.GONE)):
        assert view == {flow for flow, value in values.items() if value.room is room}
    taking = {value.session.flow for value in progress.taking()}
    assert taking == progress.behind - progress.full - progress.slow - progress.gone
    assert progress.remaining() == sum(values[flow].target - values[flow].offset for flow in taking)
    for value in values.values():
        assert progress.numbered(value.session.session) == value


@given(STEPS)
def test_views_follow_from_the_values(steps: list[tuple[str, Flow, int]]) -> None:
    progress = Progress(SESSIONS)
    for what, flow, how in steps:
        gone = set(progress.gone)
        step(progress, what, flow, how)
        check(progress)
        assert gone & set(progress.flows) <= progress.gone  # nothing brings a program back


AT_WORK = SessionProgress(SESSIONS[0], offset=0, target=10)


def test_socket_that_took_less_waits_for_its_program() -> None:
    full = AT_WORK.took(4, 6)
    assert (full.offset, full.room, full.taking) == (4, Room.FULL, False)
    assert full.after_rest(3).room is Room.SLOW
    read = full.after_rest(0)
    assert read.taking and read.rested


def test_program_that_had_its_time_and_takes_nothing_is_slow() -> None:
    read = AT_WORK.took(4, 6).after_rest(0)
    assert read.took(0, 6).room is Room.SLOW
    assert read.took(1, 6).room is Room.FULL  # it does read
    assert read.took(6, 6).room is Room.OPEN


def test_slow_program_that_has_read_everything_takes_again() -> None:
    slow = AT_WORK.took(4, 6).after_rest(3)
    assert slow.unread
    again = slow.after_rest(0)
    assert again.taking and again.unread


def test_tail_is_gone_when_the_socket_took_less() -> None:
    here = replace(AT_WORK, tail=True)
    assert here.took(6, 6).tail
    assert not here.took(4, 6).tail
