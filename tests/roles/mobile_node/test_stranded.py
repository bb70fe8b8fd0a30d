"""Programs are no hostages of the network or of the stand-in (C3): they run after a while, and a person can give up."""

from collections import Counter

import pytest

from locum.roles import actions as a
from locum.roles.action_values.apps import AppOrder
from locum.roles.action_values.forwarding import FlowVerdict, SetFlow
from locum.roles.action_values.sessions import FinishSessions, Freeze, Tighten
from locum.roles.flow_rows import TABLE
from locum.roles.mobile_node.partial_handovers import NotPossible
from locum.roles.mobile_node.states import ComingUp, Down, Up
from locum.roles.mobile_node.wake.states import Returning as Going
from locum.roles.session_report import Fate
from locum.wire.control import Done, Fetch, Finish, Flow, Reclaim, decode_634
from tests.roles.mobile_node.test_handover import asleep, kind_of, returned
from tests.roles.world import STAND_IN, World, flow


def stranded(world: World) -> bool:
    """Programs run, and nothing of theirs comes or goes."""
    suspended = set(world.mn.flows.values()) == {FlowVerdict.SUSPEND}
    return not world.frozen and world.device.stranded and suspended


@pytest.mark.parametrize("kind", [Reclaim, Fetch, Finish])
def test_programs_run_while_the_stand_in_is_silent(kind: type) -> None:
    world = asleep()
    world.peer_sends(0, 3_000_000)
    world.drop_634 = lambda body: kind_of(body, kind)
    world.wake()
    world.advance(4)
    assert world.frozen and not world.device.stranded
    world.advance(20)
    assert stranded(world) and world.mn.kinds().count("programs-run") == 1
    world.peer_sends(0, 100_000)
    world.drop_634 = lambda body: False
    world.advance(40)
    assert returned(world) and world.sessions[flow(0)].at_device > 3_000_000


def test_programs_run_without_a_network_and_after_a_restart() -> None:
    world = asleep()
    world.peer_sends(1, 2_000_000)
    world.cut("radio0")
    world.cut("radio1")
    world.wake()
    world.advance(10)
    assert stranded(world)
    world.kill(world.mn)
    world.advance(1)
    world.start(world.mn)
    world.advance(30)
    assert stranded(world)
    world.mend("radio1")
    world.advance(20)
    assert returned(world)


def test_programs_run_if_a_wakes_registration_is_unanswered() -> None:
    world = asleep()
    world.peer_sends(0, 900_000)
    world.wake()
    for _ in range(400):
        world.advance(0.001)
        state = world.device.state
        if isinstance(state, ComingUp) and isinstance(state.machine.state, Going):
            break
    world.kill(world.ha)
    world.advance(20)
    assert stranded(world)
    world.start(world.ha)
    world.advance(60)
    assert returned(world)


def test_programs_run_though_proxies_may_have_spoken() -> None:
    """The sockets agree with the proxies before the first byte comes, though the programs may have written."""
    world = World()
    world.apps = (AppOrder("mqtt", "keepalive"),)
    world.start(world.mn)
    world.advance(3)
    world.sleep()
    world.advance(2)
    world.peer_sends(0, 50_000)
    world.spoken, world.surplus = {0: b"word"}, {1: -7}
    world.stand_in_silent = True
    world.wake()
    world.advance(20)
    assert stranded(world) and not any(told.spoken or told.surplus for told in world.agreed)
    world.stand_in_silent = False
    world.advance(40)
    assert returned(world)
    told = [(dict(tight.spoken), dict(tight.surplus)) for tight in world.agreed if tight.spoken]
    assert told and {text for spoken, _ in told for text in spoken.values()} == {b"word"}
    assert {count for _, surplus in told for count in surplus.values()} == {-7}


def test_sleep_again_from_a_stranded_wake_freezes_the_programs() -> None:
    world = asleep()
    world.stand_in_silent = True
    world.wake()
    world.advance(20)
    assert stranded(world)
    world.sleep()
    world.advance(1)
    assert isinstance(world.device.state, Down) and world.frozen == {100, 101}
    world.stand_in_silent = False
    world.advance(5)
    world.peer_sends(0, 70_000)
    world.wake()
    world.advance(10)
    assert returned(world)


def test_time_until_stranded_is_configured() -> None:
    world = World()
    world.stranded = 30.0
    world.start(world.mn)
    world.advance(3)
    world.sleep()
    world.advance(2)
    world.stand_in_silent = True
    world.wake()
    world.advance(29)
    assert world.frozen
    world.advance(2)
    assert stranded(world)


def test_socket_closed_while_stranded_is_not_lost() -> None:
    world = asleep()
    world.peer_sends(0, 50_000)
    world.stand_in_silent = True
    world.wake()
    world.advance(10)
    assert stranded(world)
    world.sessions[flow(0)].closed = world.sessions[flow(1)].closed = True
    world.stand_in_silent = False
    world.advance(40)
    assert isinstance(world.device.state, Up) and not world.frozen and not world.mn.flows
    fates = {fate.flow: fate.fate for fate in world.device.woken.fates}
    assert fates == {flow(0): Fate.CLOSED, flow(1): Fate.CLOSED}
    # The peer of the incomplete one gets a reset; the other ends with a FIN of its own.
    assert world.sessions[flow(0)].reset and not world.sessions[flow(1)].reset
    assert not world.mnps.rows


# PartialHandovers up -------------------------------------------------------------------------------------------------------------


def given_up(world: World) -> bool:
    for session in world.sessions.values():
        assert session.lost and session.captured_at is None
    return isinstance(world.device.state, Up) and not world.frozen and not world.mn.flows


@pytest.mark.parametrize("waking", [False, True])
def test_abandon_reaches_a_dead_stand_in_later(waking: bool) -> None:
    world = asleep()
    world.kill(world.mnps)
    if waking:
        world.wake()
        world.advance(20)
    world.abandon()
    world.advance(1)
    assert given_up(world)
    assert [fate.fate for fate in world.device.woken.fates] == [Fate.LOST, Fate.LOST]
    world.advance(100)
    assert any(table == TABLE for table, _ in world.mn.rows), "the stand-in has not heard of it"
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(30)
    assert given_up(world)
    world.start(world.mnps)
    world.advance(150)
    assert not world.mnps.rows and all(session.reset for session in world.sessions.values())
    assert not any(table == TABLE for table, _ in world.mn.rows)
    assert "abandoned" in world.mn.kinds() and world.path_of_data() == "mn"


def test_returned_sessions_are_not_abandoned() -> None:
    world = asleep(sessions=3, unread_beyond=0)
    slow = world.sessions[flow(1)]
    slow.room, slow.reads = 1_000_000, False
    world.peer_sends(1, 5_000_000)
    world.wake()
    world.advance(20)
    world.abandon()
    world.advance(10)
    assert slow.lost and slow.reset
    assert not any(
        session.lost or session.reset for session in world.sessions.values() if session is not slow
    )
    assert isinstance(world.device.state, Up) and not world.mnps.rows and not world.mn.flows


def test_abandon_is_refused_while_awake_or_falling_asleep() -> None:
    world = World()
    world.advance(3)
    world.abandon()
    world.advance(1)
    assert returned(world)
    world.sleep()
    with pytest.raises(NotPossible):
        world.abandon()


# Another boot ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waking", [False, True])
def test_after_a_reboot_programs_run_and_peers_are_reset(waking: bool) -> None:
    world = asleep()
    if waking:
        world.stand_in_silent = True
        world.wake()
        world.advance(1)
        world.stand_in_silent = False
    performed: list[a.Action] = []
    world.watch = performed.append
    world.boot_again()
    assert not world.frozen and not world.mn.flows
    world.advance(60)
    assert not any(isinstance(action, Freeze | Tighten | SetFlow) for action in performed)
    assert given_up(world) and not world.mnps.rows
    assert all(session.reset for session in world.sessions.values())
    (told,) = [event for event in world.mn.events if event.kind == "sessions-lost"]
    assert told.detail == {"sessions": 2, "reason": "the device restarted"}
    world.sessions[flow(7)] = type(world.sessions[flow(0)])(flow(7), (700,))
    world.sleep()
    world.advance(2)
    assert isinstance(world.device.state, Down) and world.frozen == {700}


def test_a_row_of_an_earlier_version_counts_as_another_boot() -> None:
    world = asleep()
    for key, row in list(world.mn.rows.items()):
        if key[0] == TABLE:
            old = {name: json for name, json in row.value.items() if name not in ("boot", "processes")}
            world.mn.rows[key] = a.Persist(row.table, row.key, old)
    world.frozen.clear()
    for session in world.sessions.values():
        session.lost, session.captured_at, session.tight = True, None, False
    world.start(world.mn)
    world.advance(60)
    assert given_up(world) and not world.mnps.rows


# Many ------------------------------------------------------------------------------------------------------------------


def cost(sessions: int) -> Counter[str]:
    """Actions of a wake of so many sessions, each with a little data."""
    world = asleep(sessions=sessions)
    for number in range(sessions):
        world.peer_sends(number, 1000)
    performed: list[a.Action] = []
    world.watch = performed.append
    world.wake()
    world.advance(5)
    assert returned(world)
    counts = Counter(type(action).__name__ for action in performed)
    rows = [action for action in performed if isinstance(action, a.Persist) and action.table == TABLE]
    counts["row-sessions"] = sum(len(row.value["sessions"]) for row in rows)  # type: ignore[arg-type,misc]
    return counts


def test_many_sessions_cost_one_step_and_no_row_per_session() -> None:
    few, many = cost(100), cost(400)
    assert many["Persist"] <= few["Persist"] + 2
    assert many["row-sessions"] <= 3 * 400
    assert many["InjectData"] + many["DrainRound"] <= 0.05 * 400
    assert many["Ask"] <= few["Ask"] + 400 + 10


def test_a_session_that_fails_leaves_the_others_alone() -> None:
    world = asleep(sessions=5)
    for number in range(5):
        world.peer_sends(number, 1_000_000)
    world.refuse_inject = {flow(1)}
    world.unfreezable = {201 + 2}  # the process of another
    world.wake()
    world.advance(20)
    assert world.sessions[flow(1)].lost and world.sessions[flow(1)].reset
    whole = [
        session for session in world.sessions.values() if session.captured_at is None and not session.lost
    ]
    assert len(whole) >= 3
    world.unfreezable = set()
    world.advance(20)
    assert isinstance(world.device.state, Up)
    assert [session.lost for session in world.sessions.values()] == [False, True, False, False, False]


def test_wake_counts_without_sessions() -> None:
    """Without received data: one reclaim, one finish, one step that gives all back."""
    world = asleep(sessions=300)
    performed: list[a.Action] = []
    world.watch = performed.append
    world.wake()
    world.advance(5)
    assert returned(world)
    asked = [
        decode_634(action.body)
        for action in performed
        if isinstance(action, a.Ask) and action.peer == STAND_IN
    ]
    assert [type(request) for request in asked] == [Reclaim, Finish, Done]
    finished = [action for action in performed if isinstance(action, FinishSessions)]
    assert [len(action.finals) for action in finished] == [300]
    flows: list[Flow] = [final.flow for final in finished[0].finals]
    assert len(set(flows)) == 300
