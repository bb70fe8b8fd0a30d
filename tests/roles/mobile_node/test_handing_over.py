"""Sessions that fall asleep, those that stay, and reports: new and ending connections, refusals."""

import sys
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.roles.action_values.sessions import FoundSession, LeftSession, SessionRecordItem, SessionsFound
from locum.roles.mnps.role import StandIn
from locum.roles.mobile_node.departing import STANDS_STILL, Departure, choose
from locum.roles.mobile_node.fitting import fitting
from locum.roles.mobile_node.selection import EVERYTHING, Selection, with_companions
from locum.roles.mobile_node.states import Down
from locum.roles.session_report import Fate
from locum.wire.control import (
    MAX_BODY,
    MAX_SESSIONS,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_634,
    encode_634,
)
from tests.roles.world import HOA, STAND_IN, Session, World, asleep, awake, flow, processes


def fates(world: World) -> dict[int, tuple[Fate, str | None]]:
    """By the number of the connection."""
    return {fate.flow.local_port - 40000: (fate.fate, fate.reason) for fate in world.device.slept.fates}


def went(world: World) -> set[int]:
    return {number for number, (fate, _) in fates(world).items() if fate is Fate.WENT}


def back(world: World) -> bool:
    """After a wake: everything that is not lost is the device's, and the stand-in has nothing."""
    world.wake()
    world.advance(5)
    whole = all(
        session.at_device == session.sent and not session.held_by_stand_in
        for session in world.sessions.values()
    )
    return whole and awake(world) and not world.frozen and not world.mnps.flows and not world.mn.flows


def opens(world: World, number: int, *pids: int) -> None:
    world.sessions[flow(number)] = Session(flow(number), pids)


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("pids", [(100,), (150,)], ids=["of a program with others", "of a program without"])
def test_connection_opened_before_its_program_is_frozen(pids: tuple[int, ...], registers: bool) -> None:
    world = World(registers=registers, default=not registers)
    world.advance(3)
    world.sleep()
    world.at(0.015, lambda: opens(world, 7, *pids))
    world.advance(3)
    assert asleep(world)
    assert world.sessions[flow(7)].held_by_stand_in
    assert world.frozen == {100, 101, *pids}
    assert fates(world) == {number: (Fate.WENT, None) for number in (0, 1, 7)}
    world.peer_sends(7, 3000)
    assert world.sessions[flow(7)].at_stand_in == 3000
    assert back(world) and world.sessions[flow(7)].at_device == 3000


@pytest.mark.parametrize("registers", [False, True])
def test_connections_opened_in_every_round_of_freezing(registers: bool) -> None:
    world = World(registers=registers, default=not registers)
    world.advance(3)
    numbers = iter(range(10, 15))

    def opened() -> None:
        if (number := next(numbers, None)) is not None:
            opens(world, number, 300 + number)

    world.after_freeze = opened
    world.sleep()
    world.advance(5)
    assert asleep(world)
    assert went(world) == {0, 1, *range(10, 15)}
    assert back(world)


def test_full_stand_in_leaves_only_the_newest_sessions() -> None:
    world = World()
    world.advance(3)
    prepares: list[TakeoverPrepare] = []
    role = world.mnps.role
    assert isinstance(role, StandIn)

    def watch(body: bytes) -> bool:
        request = decode_634(body)
        if isinstance(request, TakeoverPrepare):
            prepares.append(request)
            if len(request.flows) > 2:
                taking_over = role.taking_over
                taking_over.configuration = replace(taking_over.configuration, max_sessions=2)
        return False

    world.drop_634 = watch
    world.sleep()
    world.at(0.015, lambda: opens(world, 7, 100))
    world.advance(3)
    assert asleep(world) and len(prepares[-1].flows) == 3
    assert prepares[-1].flows[:2] == prepares[0].flows, "those that were asked for before come again"
    fate, reason = fates(world)[7]
    assert fate is Fate.STAYED and reason is not None
    assert "limit" in reason and reason.endswith(STANDS_STILL)
    assert world.sessions[flow(0)].held_by_stand_in and world.sessions[flow(1)].held_by_stand_in
    assert back(world)


def test_connection_ended_before_the_freeze_is_not_reported() -> None:
    world = World(sessions=3)
    world.advance(3)
    world.sleep()
    world.at(0.015, lambda: world.sessions.__delitem__(flow(1)))
    world.advance(3)
    assert asleep(world)
    assert set(fates(world)) == {0, 2} and "session-stays" not in world.mn.kinds()
    assert world.frozen == {100, 102}, "its program has no session any more"
    assert back(world)


def test_a_program_without_a_session_that_goes_runs_at_once() -> None:
    world = World(sessions=5)
    world.advance(3)
    world.refuse_capture, world.refuse_restore = {flow(1)}, {flow(3)}
    world.sleep()
    world.advance(3)
    assert isinstance(world.device.state, Down)
    assert world.frozen == {100, 102, 204}
    assert world.device.state.handover.processes == processes((100, 102, 204))
    assert fates(world)[1] == (Fate.STAYED, "not supported")
    assert fates(world)[3][0] is Fate.STAYED
    (told,) = [event.detail for event in world.mn.events if event.kind == "asleep"]
    assert told == {"sessions": 3, "stayed": 2}
    assert back(world)


def test_unfreezable_process_keeps_only_its_own_sessions() -> None:
    world = World(sessions=5)
    world.advance(3)
    world.unfreezable = {102}  # holds 2, which it shares with 100; 100 holds 0 as well
    world.sleep()
    world.advance(3)
    assert asleep(world)
    assert went(world) == {0, 1, 3, 4}
    reason = "process 102 cannot be frozen: it waits for a disk" + STANDS_STILL
    assert fates(world)[2] == (Fate.STAYED, reason)
    assert world.frozen == {100, 101, 203, 204}
    assert back(world)


def test_unsuitable_sessions_are_reported_by_program_name() -> None:
    world = World(sessions=1)
    world.advance(3)
    world.left = (
        LeftSession(flow(8), "it is still being opened", (100,), ("curl",)),
        LeftSession(flow(9), "excluded: program resolved", (900,), ("resolved",)),
    )
    world.sleep()
    world.advance(3)
    stays = {event.flow: event.detail for event in world.mn.events if event.kind == "session-stays"}
    assert stays == {
        flow(8): {"reason": "it is still being opened" + STANDS_STILL, "programs": ["curl"]},
        flow(9): {"reason": "excluded: program resolved", "programs": ["resolved"]},
    }
    assert world.frozen == {100}
    assert fates(world)[9] == (Fate.STAYED, "excluded: program resolved")


def test_give_reports_only_the_selected_sessions() -> None:
    world = World(registers=True, default=False, sessions=2)
    world.advance(3)
    world.left = (LeftSession(flow(8), "no", (100,)), LeftSession(flow(9), "no", (900,)))
    world.hand_over(Selection(flow=flow(0)))
    world.advance(3)
    assert [event.flow for event in world.mn.events if event.kind == "session-stays"] == [flow(8)]
    world.hand_over(Selection(flow=flow(9)))
    world.advance(3)
    assert world.device.partial_handovers.last == "the session stays: no"


def test_sessions_beyond_the_limit_of_a_handover_stay() -> None:
    found = tuple(FoundSession(flow(number), processes((number,))) for number in range(MAX_SESSIONS + 3))
    choice = choose(Departure(STAND_IN), (HOA,), SessionsFound(found))
    assert [session.flow for session in choice.going] == [session.flow for session in found[:MAX_SESSIONS]]
    assert [session.flow for session in choice.staying] == [session.flow for session in found[MAX_SESSIONS:]]
    assert all(str(MAX_SESSIONS) in session.reason for session in choice.staying)


sessions = st.lists(st.sets(st.integers(1, 9), max_size=3), max_size=12)


@given(sessions, st.integers(1, 9))
def test_companions_share_a_process_with_the_selection(held: list[set[int]], pid: int) -> None:
    found = [FoundSession(flow(n), processes(tuple(pids))) for n, pids in enumerate(held)]
    reached, before = {pid}, set[int]()
    while reached != before:
        before = set(reached)
        reached |= {companion for pids in held if pids & reached for companion in pids}
    wanted = [session for session, pids in zip(found, held, strict=True) if pids & reached]
    assert with_companions(Selection(pid=pid), found) == wanted
    assert with_companions(EVERYTHING, found) == found


def test_selection_cost_is_linear_in_sessions() -> None:
    """Four times the sessions, in as many programs: about four times the steps, not sixteen."""

    def steps(number: int) -> int:
        found = tuple(
            FoundSession(flow(place), processes((place // 2, place // 3))) for place in range(number)
        )
        taken = count()

        def trace(*_: object) -> None:
            next(taken)

        before = sys.getprofile()
        sys.setprofile(trace)
        try:
            choose(Departure(STAND_IN, Selection(port=80)), (HOA,), SessionsFound(found))
        finally:
            sys.setprofile(before)
        return next(taken)

    assert steps(800) < 6 * steps(200)


def test_a_transfer_leaves_the_largest_records_out() -> None:
    sizes = (5 << 20, 30 << 20, 1, 20 << 20, 30 << 20)
    records = [
        SessionRecordItem(n, flow(n), {0: flow(n).to_cbor(), 5: bytes(size)}) for n, size in enumerate(sizes)
    ]
    kept, left = fitting(records)
    assert len(left) == 1 and left[0] in (flow(1), flow(4))
    request = TakeoverTransfer(
        bytes(16), tuple(session.record for session in kept), others=(bytes(16),) * 256
    )
    assert len(encode_634(request)) <= MAX_BODY
    assert fitting([]) == ((), ())
