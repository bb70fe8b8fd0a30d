"""Unclaimed sessions: bounds of time, number and bytes for each device, most idle first; and restarts."""

from dataclasses import replace
from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.forwarding import FlowEntry, FlowVerdict, ReleaseHeld, SetFlow
from locum.roles.action_values.sessions import (
    DropSessions,
    Fetched,
    HeldSession,
    Measured,
    Restored,
    RestoreSessions,
    ResumeSessions,
    SessionFinal,
    SessionUse,
    Stopped,
    StopSessions,
    Surveyed,
    SurveySessions,
)
from locum.roles.mnps.configuration import Quota
from locum.roles.mnps.giving_back import STOPPED_TIMEOUT
from locum.roles.mnps.quotas import LONGEST_PAUSE
from locum.roles.mnps.role import StandIn
from locum.wire.control import Cancel, Done, Fetch, Finish, Reclaim, Status, TakeoverPrepare, TakeoverTransfer
from tests.roles.mnps.test_giving_up import FIRST, SECOND, Device, answers, drops
from tests.roles.world import HOA, START, flow

HOUR, DAY = 3600.0, 86400.0
THIRD = b"\x03" * 16


def device_with(quota: Quota) -> Device:
    device = Device()
    role = device.world.mnps.role
    assert isinstance(role, StandIn)
    configuration = replace(role.configuration, quota=quota)
    device.world.mnps.make = lambda: StandIn(configuration, Random(1))
    device.restart()
    return device


def use(handover: bytes, session: int, idle: float, stored: int = 0) -> SessionUse:
    return SessionUse(handover, session, idle, stored)


def events(actions: list[a.Action], kind: str) -> list[a.Emit]:
    return [action for action in actions if isinstance(action, a.Emit) and action.kind == kind]


def reclaimed(device: Device, handover: bytes, *held: int) -> dict[int, tuple[Status, str]]:
    device.ask(Reclaim(handover, (HOA,)))
    measured = Measured(handover, tuple(HeldSession(number, flow(number), 0) for number in held))
    (answer,) = answers(device.tell(measured))
    return {session.session: (session.status, session.reason) for session in answer.sessions}


def test_sessions_are_surveyed_while_any_exist() -> None:
    device = device_with(Quota())
    assert device.role.deadline() is None
    device.hand_over(FIRST, 0)
    assert device.role.deadline() == START + LONGEST_PAUSE
    assert device.at(LONGEST_PAUSE) == [SurveySessions()]
    assert device.role.deadline() == START + 2 * LONGEST_PAUSE
    device.stop(FIRST, 0)
    device.ask(Done(FIRST))
    assert device.role.deadline() is None


def test_long_idle_session_is_reset_and_reported() -> None:
    device = device_with(Quota(held_seconds=7 * DAY))
    device.hand_over(FIRST, 0, 1)
    actions = device.tell(Surveyed((use(FIRST, 0, 7 * DAY), use(FIRST, 1, 7 * DAY - 1))))
    assert drops(actions) == [DropSessions(FIRST, (0,), reset=True)]
    assert [event.flow for event in events(actions, "session-expired")] == [flow(0)]
    device.restart()
    status, reason = reclaimed(device, FIRST, 1)[0]
    assert status is Status.REFUSED and "7 days" in reason
    device.ask(Finish(FIRST))
    last = device.tell(Stopped(FIRST, (SessionFinal(1, flow(1), 0),)))
    assert [state.session for state in answers(last)[0].final] == [1]


def test_idle_time_is_measured_on_the_steady_clock() -> None:
    device = device_with(Quota(held_seconds=2 * HOUR))
    world = device.world
    world.advance(3)
    world.sleep()
    world.advance(2)
    world.advance(HOUR)
    world.peer_sends(1, 10)
    world.advance(1.1 * HOUR)
    assert world.sessions[flow(0)].reset and not world.sessions[flow(1)].reset
    world.wake()
    world.advance(20)
    assert world.sessions[flow(0)].lost and not world.sessions[flow(1)].lost
    assert not world.mnps.rows


def test_most_idle_sessions_are_evicted_for_new_ones() -> None:
    device = device_with(Quota(sessions=3))
    device.hand_over(FIRST, 0, 1)
    device.tell(Surveyed((use(FIRST, 0, 10), use(FIRST, 1, 500))))
    actions = device.hand_over(SECOND, 2, 3, others=(FIRST,))
    assert drops(actions) == [DropSessions(FIRST, (1,), reset=True)]
    assert [event.flow for event in events(actions, "session-evicted")] == [flow(1)]
    assert next(n for n, action in enumerate(actions) if isinstance(action, DropSessions)) < next(
        n for n, action in enumerate(actions) if isinstance(action, RestoreSessions)
    )


def test_excess_sessions_of_a_handover_stay_and_say_why() -> None:
    device = device_with(Quota(sessions=2))
    (answer,) = answers(
        device.ask(TakeoverPrepare(FIRST, (HOA,), tuple(flow(number) for number in range(4))))
    )
    assert [session.status for session in answer.sessions] == [
        Status.OK,
        Status.OK,
        Status.REFUSED,
        Status.REFUSED,
    ]
    assert "at most 2 sessions" in answer.sessions[3].reason


def test_byte_quota_evicts_idle_but_not_recent_sessions() -> None:
    device = device_with(Quota(stored=1000))
    device.hand_over(FIRST, 0, 1, 2, 3)
    full = (
        use(FIRST, 0, 5 * HOUR, 100),
        use(FIRST, 1, 9 * HOUR, 300),
        use(FIRST, 2, 10 * HOUR, 0),
        use(FIRST, 3, 5, 600),
    )
    actions = device.tell(Surveyed(full))
    assert drops(actions) == [DropSessions(FIRST, (1,), reset=True)]
    assert events(actions, "session-evicted")[0].detail["reason"]
    busy = (use(FIRST, 0, 60, 400), use(FIRST, 3, 5, 600))
    assert not drops(device.tell(Surveyed(busy)))


def test_handover_without_live_sessions_is_removed() -> None:
    device = device_with(Quota(held_seconds=DAY))
    device.hand_over(FIRST, 0)
    device.tell(Surveyed((use(FIRST, 0, DAY),)))
    assert not events(device.tell(Surveyed(()), DAY - 1), "handover-forgotten")
    assert events(device.tell(Surveyed(()), DAY), "handover-forgotten")
    assert not device.role.handovers()


def test_command_drops_sessions() -> None:
    device = device_with(Quota())
    device.hand_over(FIRST, 0, 1)
    actions = device.role.drop([(FIRST, 1), (SECOND, 0)], now=START)
    assert drops(actions) == [DropSessions(FIRST, (1,), reset=True)]
    assert reclaimed(device, FIRST, 0)[1][1].startswith("it was dropped")


# The device takes its time -------------------------------------------------------------------------------------------


def test_stopped_session_waits_until_its_data_is_fetched() -> None:
    device = device_with(Quota(held_seconds=7 * DAY))
    device.hand_over(FIRST, 0)
    device.ask(Finish(FIRST))
    device.tell(Stopped(FIRST, (SessionFinal(0, flow(0), 500, tail_offset=500),)))
    assert not drops(device.at(5 * STOPPED_TIMEOUT))
    device.ask(Fetch(FIRST, 0, 0, 500), 6 * STOPPED_TIMEOUT)
    assert device.tell(Fetched(device.exchange, bytes(500)), 6 * STOPPED_TIMEOUT)
    device.ask(Reclaim(FIRST, (HOA,)), 6 * STOPPED_TIMEOUT)
    assert not drops(device.at(6.5 * STOPPED_TIMEOUT))
    assert drops(device.at(7 * STOPPED_TIMEOUT)) == [DropSessions(FIRST)]  # all was given: the device has it


def test_unfetched_stopped_session_is_reset_in_the_end() -> None:
    device = device_with(Quota(held_seconds=7 * DAY))
    device.hand_over(FIRST, 0)
    device.ask(Finish(FIRST))
    device.tell(Stopped(FIRST, (SessionFinal(0, flow(0), 500, tail_offset=500),)))
    assert drops(device.at(7 * DAY)) == [DropSessions(FIRST, reset=True)]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_stopped_session_can_be_resumed_hours_later(restarted: bool) -> None:
    device = device_with(Quota())
    device.hand_over(FIRST, 0)
    device.stop(FIRST, 0)
    if restarted:
        again = device.restart()
        assert SetFlow(FlowEntry(flow(0), FlowVerdict.HOLD)) in again
        assert ResumeSessions(FIRST) not in again
    actions = device.ask(Cancel(FIRST), 5 * HOUR)
    resumed = actions.index(ResumeSessions(FIRST))
    delivered = actions.index(SetFlow(FlowEntry(flow(0), FlowVerdict.DELIVER)))
    assert resumed < delivered < actions.index(ReleaseHeld(HOA))
    assert [handover.state for handover in device.role.handovers()] and answers(actions)[
        0
    ].status is Status.OK


def test_the_last_state_is_read_again_after_a_restart() -> None:
    device = device_with(Quota())
    device.hand_over(FIRST, 0)
    device.stop(FIRST, 0)
    device.restart()
    asked = device.ask(Finish(FIRST))
    assert any(isinstance(action, StopSessions) for action in asked)
    last = device.tell(Stopped(FIRST, (SessionFinal(0, flow(0), 10),)))
    assert [state.received for state in answers(last)[0].final] == [10]


def test_a_stop_that_was_cut_off_by_a_restart_is_undone() -> None:
    device = device_with(Quota())
    device.hand_over(FIRST, 0)
    device.ask(Finish(FIRST))
    again = device.restart()
    assert ResumeSessions(FIRST) in again
    assert SetFlow(FlowEntry(flow(0), FlowVerdict.DELIVER)) in again


def test_a_stopped_hand_over_and_new_ones_stand_side_by_side() -> None:
    device = device_with(Quota())
    device.hand_over(FIRST, 0)
    device.stop(FIRST, 0)
    device.hand_over(SECOND, 1, others=(FIRST,))
    prepared = device.ask(TakeoverPrepare(THIRD, (HOA,), (flow(2), flow(0))))
    assert [session.status for session in answers(prepared)[0].sessions] == [Status.OK, Status.REFUSED]
    device.ask(TakeoverTransfer(THIRD, ({0: flow(2).to_cbor()},), others=(FIRST, SECOND)))
    assert answers(device.ask(Cancel(FIRST)))[0].status is Status.OK
    restored = device.tell(Restored(THIRD, (0,)))
    assert answers(restored)[0].status is Status.OK
    device.restart()
    states = {handover.identifier: type(handover.state).__name__ for handover in device.role.handovers()}
    assert states == {FIRST: "Holding", SECOND: "Holding", THIRD: "Holding"}
    assert {session.flow for taken in device.role.handovers() for session in taken.held} == {
        flow(0),
        flow(1),
        flow(2),
    }
