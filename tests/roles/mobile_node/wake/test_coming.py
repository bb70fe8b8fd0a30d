"""A program that does not read keeps neither a wake nor the next sleep waiting (C3): its session comes beside everything else."""

import pytest

from locum.roles import actions as a
from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.sessions import DrainRound
from locum.roles.flow_rows import TABLE
from locum.roles.mobile_node.handover import OwnStandIn
from locum.roles.mobile_node.partial_handovers import NotPossible
from locum.roles.mobile_node.states import ComingUp, Down, Up
from locum.roles.mobile_node.wake.coming import SIGN_OF_LIFE
from locum.roles.session_report import Fate
from locum.wire.control import Cancel, Done, Fetch, decode_634
from tests.roles.mobile_node.test_handover import asleep, kind_of, returned
from tests.roles.world import HOA, World, awake, flow
from tests.roles.world import asleep as at_rest

SLOW = flow(1)


def coming(**options: object) -> World:
    """Three sessions, of which one program has stopped reading with much to come: more than may go beyond its buffer."""
    world = asleep(**{"sessions": 3, "unread_beyond": 500_000, **options})
    slow = world.sessions[SLOW]
    slow.room, slow.reads = 1_000_000, False
    for number in range(3):
        world.peer_sends(number, 5_000_000)
    world.wake()
    world.advance(8)
    return world


def comes(world: World) -> bool:
    slow = world.sessions[SLOW]
    others = [session for session in world.sessions.values() if session is not slow]
    assert all(other.captured_at is None and not other.held_by_stand_in for other in others)
    assert slow.captured_at is not None and slow.stopped and not slow.tight and not world.frozen
    assert world.mn.flows == {SLOW: FlowVerdict.SUSPEND} and world.answering == {SLOW}
    return isinstance(world.device.state, Up) and world.path_of_data() == "mn"


def reads(world: World) -> None:
    world.sessions[SLOW].reads = True
    world.advance(60)


def test_wake_ends_although_a_program_does_not_read() -> None:
    world = coming()
    assert comes(world)
    fates = {fate.flow: fate.fate for fate in world.device.woken.fates}
    assert fates == {flow(0): Fate.RETURNED, SLOW: Fate.COMING, flow(2): Fate.RETURNED}
    world.peer_sends(0, 1000)
    fetches = [event for event in world.mn.events if event.detail.get("request") == "fetch"]
    world.advance(60)
    again = [event for event in world.mn.events if event.detail.get("request") == "fetch"]
    assert again == fetches, "what the program does not read is fetched over and over"
    reads(world)
    assert returned(world) and not world.answering
    assert world.device.woken.fates[1].fate is Fate.RETURNED


@pytest.mark.parametrize("later", [0, 300_000])
def test_data_below_the_limit_does_not_wait_for_the_program(later: int) -> None:
    world = asleep(sessions=3)
    slow = world.sessions[SLOW]
    slow.room, slow.reads = 1_000_000, False
    for number in range(3):
        world.peer_sends(number, 5_000_000)
    drained: list[a.Action] = []

    def watch(action: a.Action) -> None:
        if isinstance(action, DrainRound) and not drained:
            drained.append(action)
            world.peer_sends(1, later)

    world.watch = watch
    world.wake()
    world.advance(8)
    assert returned(world) and slow.buffered == 5_000_000 + later
    assert {fate.fate for fate in world.device.woken.fates} == {Fate.RETURNED}


def test_sessions_beyond_the_total_come() -> None:
    world = asleep(sessions=6, unread_beyond=5_000_000)  # and 20,000,000 in all
    for number, session in enumerate(world.sessions.values()):
        session.room, session.reads = 1_000_000, False
        world.peer_sends(number, 5_500_000)
    world.wake()
    world.advance(20)
    fates = [fate.fate for fate in world.device.woken.fates]
    assert (fates.count(Fate.RETURNED), fates.count(Fate.COMING)) == (4, 2)
    for session in world.sessions.values():
        session.reads = True
    world.advance(60)
    assert returned(world)


def test_lack_of_kernel_memory_does_not_delay_a_wake() -> None:
    world = asleep(sessions=3)
    slow = world.sessions[SLOW]
    slow.room, slow.reads, slow.memory = 1_000_000, False, 2_000_000
    world.peer_sends(1, 5_000_000)
    world.wake()
    world.advance(8)
    assert comes(world)
    reads(world)
    assert returned(world)


def test_a_program_that_reads_slowly_gets_everything() -> None:
    world = coming()
    for _ in range(12):
        world.sessions[SLOW].reads = True
        world.advance(0.4)
        world.sessions[SLOW].reads = False
        world.advance(20)
    reads(world)
    assert returned(world)


def test_new_sleep_returns_coming_data_for_the_next_wake() -> None:
    world = coming()
    world.sleep()
    world.advance(3)
    assert isinstance(world.device.state, Down) and not world.answering
    assert world.frozen == {100, 101, 102}
    assert all(session.held_by_stand_in and not session.stopped for session in world.sessions.values())
    assert len({session.handover for session in world.sessions.values()}) == 2
    for number in range(3):
        world.peer_sends(number, 2_000_000)
    world.wake()
    world.advance(10)
    assert comes(world)
    world.sleep()
    world.advance(3)
    assert isinstance(world.device.state, Down)
    world.sessions[SLOW].reads = True
    world.wake()
    world.advance(20)
    assert returned(world) and world.sessions[SLOW].at_device == 7_000_000


@pytest.mark.parametrize("kind", [Done, Cancel, Fetch])
def test_the_stand_in_is_silent_for_a_while(kind: type) -> None:
    world = coming()
    world.drop_634 = lambda body: kind_of(body, kind)
    if kind is Cancel:
        world.sleep()
        world.advance(30)
        assert not world.sessions[SLOW].lost
    else:
        world.sessions[SLOW].reads = True
        world.advance(30)
    world.drop_634 = lambda body: False
    world.sessions[SLOW].reads = True
    world.advance(120)
    if isinstance(world.device.state, Down):
        world.wake()
        world.advance(60)
    assert returned(world)


@pytest.mark.parametrize("when", [0.0, 0.04, 0.33])
@pytest.mark.parametrize("name", ["mn", "mnps"])
@pytest.mark.parametrize("sleeping", [False, True])
def test_restart_while_sessions_come(name: str, when: float, sleeping: bool) -> None:
    world = coming()
    if sleeping:
        world.sleep()
    else:
        world.sessions[SLOW].reads = True
    world.advance(when)
    host = next(host for host in world.hosts if host.name == name)
    world.kill(host)
    world.advance(0.05)
    world.start(host)
    world.advance(90)
    if isinstance(world.device.state, Down):
        world.peer_sends(1, 10_000)
        world.wake()
    reads(world)
    world.advance(60)
    assert returned(world) and not any(session.lost for session in world.sessions.values())


def test_a_killed_device_lets_the_programs_run() -> None:
    world = coming()
    world.kill(world.mn)
    world.start(world.mn)
    assert not world.frozen
    world.advance(10)
    assert comes(world)
    reads(world)
    assert returned(world)


def test_device_sends_signs_of_life_to_the_stand_in() -> None:
    world = coming()
    asked: list[object] = []
    world.watch = lambda action: asked.append(decode_634(action.body)) if isinstance(action, a.Ask) else None
    world.advance(6 * SIGN_OF_LIFE)
    assert 5 <= sum(isinstance(request, Fetch) for request in asked) <= 7
    assert comes(world), "the stand-in has forgotten a device that was there"
    reads(world)
    assert returned(world)


def test_program_ends_while_its_session_comes() -> None:
    world = coming()
    world.sessions[SLOW].closed = True
    world.advance(30)
    assert world.sessions[SLOW].reset and not world.mn.flows and not world.mnps.rows
    assert not any(session.reset for session in world.sessions.values() if session.flow != SLOW)
    assert {fate.flow: fate.fate for fate in world.device.woken.fates}[SLOW] is Fate.CLOSED


def test_coming_session_can_be_abandoned() -> None:
    world = coming()
    world.abandon()
    world.advance(10)
    assert world.sessions[SLOW].lost and world.sessions[SLOW].reset and not world.mn.flows
    assert not any(
        session.lost or session.reset for session in world.sessions.values() if session.flow != SLOW
    )
    assert not world.mnps.rows and not any(table == TABLE for table, _ in world.mn.rows)


def test_sleep_at_another_stand_in_while_sessions_come() -> None:
    world = coming()
    world.device.stand_ins += (OwnStandIn("two", HOA),)
    with pytest.raises(NotPossible, match="still coming from"):
        world.sleep(to="two")
    assert comes(world)


def test_cancelled_sleep_takes_returned_sessions_back() -> None:
    world = coming()
    world.sleep()
    world.advance(0.005)
    world.perform(world.mn, world.device.cancel(now=world.now))
    world.advance(15)
    assert comes(world)
    reads(world)
    assert returned(world)


def test_with_a_stand_in_that_registers() -> None:
    world = coming(registers=True, default=False)
    assert world.sessions[SLOW].captured_at is not None and awake(world)
    assert not world.frozen
    world.sleep()
    world.advance(4)
    assert at_rest(world) and world.path_of_data(1) == "mnps"
    world.peer_sends(1, 500_000)
    world.wake()
    world.advance(10)
    reads(world)
    assert awake(world) and not world.mn.flows and not world.frozen
    assert world.sessions[SLOW].at_device == world.sessions[SLOW].sent == 5_500_000


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("moment", [0.02, 0.05, 0.06])
def test_wake_with_returned_sessions_survives_a_restart(registers: bool, moment: float) -> None:
    """A new sleep must not wake the stand-in's copy of a session that lives here."""
    world = asleep(sessions=2, registers=registers, default=not registers)
    slow, back = world.sessions[flow(0)], world.sessions[flow(1)]
    slow.room, slow.reads = 500, False
    world.peer_sends(0, 1000)
    world.wake()
    while not (isinstance(world.device.state, ComingUp) and world.device.state.machine.handover.returned):
        world.advance(0.002)
    asked: list[object] = []

    def watch(action: a.Action) -> None:
        if isinstance(action, a.Ask) and action.path == "634":
            asked.append(decode_634(action.body))

    world.watch = watch
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(moment)
    world.sleep()
    world.advance(20)
    assert isinstance(asked[0], Done) and asked[0].sessions
    assert not any(isinstance(request, Cancel) for request in asked) and not back.held_by_stand_in
    before = back.sent
    world.peer_sends(1, 5000)
    slow.room, slow.reads = 1 << 40, True
    world.advance(60)
    assert awake(world) and not world.mn.flows and not world.mnps.flows
    assert not slow.held_by_stand_in and (slow.at_device, back.at_device) == (slow.sent, before + 5000)
