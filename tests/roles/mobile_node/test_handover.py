"""SLEEP and WAKE with everything that can go wrong: no byte twice or missing, never two owners (C2, C3, C12, A12)."""

from ipaddress import IPv4Network
from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    ClearFlow,
    FlowVerdict,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    RemoveOutbound,
    SetFlow,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.action_values.sessions import Capture, DrainRound, FindSessions, Freeze, InjectData
from locum.roles.mnps.configuration import StandInConfiguration
from locum.roles.mnps.role import StandIn
from locum.roles.mobile_node.partial_handovers import NotPossible
from locum.roles.mobile_node.states import Down, Up
from locum.security.association import Replay
from locum.wire.control import (
    Fetch,
    Finish,
    Notice618,
    Reclaim,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_634,
    encode_618,
    encode_634,
)
from locum.wire.control.trigger import Reason, decode_trigger
from tests.roles.world import AN1, AN3, COLOCATED, HA, HOA, STAND_IN, World, flow


def asleep(**options: object) -> World:
    world = World(**options)  # type: ignore[arg-type]
    world.advance(3)
    world.peer_sends(0, 5000)
    world.sleep()
    world.advance(2)
    assert isinstance(world.device.state, Down)
    return world


def returned(world: World) -> bool:
    """Everything is the device's again and the stand-in has forgotten it."""
    state = world.device.state
    quiet = not world.mn.flows and not world.frozen
    stand_in = not world.mnps.rows and not world.mnps.flows and not world.mnps.bindings
    for session in world.sessions.values():
        assert (
            session.at_device == session.sent and session.captured_at is None and not session.held_by_stand_in
        )
    return isinstance(state, Up) and quiet and stand_in and world.path_of_data() == "mn"


def kind_of(body: bytes, *kinds: type) -> bool:
    return isinstance(decode_634(body), kinds)


def test_asleep_the_stand_in_owns_the_flows() -> None:
    world = asleep(sessions=3)
    assert world.path_of_data() == "mnps"
    assert set(world.mnps.flows.values()) == {FlowVerdict.DELIVER}
    assert set(world.mn.flows.values()) == {FlowVerdict.SUSPEND}
    assert world.frozen == {100, 101, 102}
    assert world.mnps.bindings[HOA].verdict is Verdict.GUARD
    world.cut("radio0")
    world.cut("radio1")
    sent = len(world.mn.events)
    for _ in range(30):
        world.peer_sends(0, 1_000_000)
        world.advance(1)
    assert world.sessions[flow(0)].at_stand_in == 30_000_000
    assert not [event for event in world.mn.events[sent:] if event.kind == "sent"]


def test_wake_brings_every_byte_back() -> None:
    world = asleep()
    for _ in range(30):
        world.peer_sends(0, 1_000_000)
        world.advance(1)
    world.wake()
    for _ in range(50):
        world.peer_sends(0, 10_000)
        world.advance(0.02)
    world.advance(5)
    assert returned(world)
    assert world.sessions[flow(0)].at_device > 30_000_000


def test_three_sleeps_in_one_session() -> None:
    world = World()
    world.advance(3)
    for _ in range(3):
        world.sleep()
        world.advance(2)
        world.peer_sends(0, 700_000)
        world.wake()
        world.advance(5)
        assert returned(world)


def test_sleep_for_wakes_by_itself() -> None:
    world = World()
    world.advance(3)
    world.sleep(wake_after=20.0)
    world.advance(15)
    assert isinstance(world.device.state, Down)
    world.advance(10)
    assert returned(world)


def test_more_data_than_the_receive_buffer_holds() -> None:
    world = asleep()
    world.sessions[flow(0)].room = 1_000_000
    for _ in range(30):
        world.peer_sends(0, 1_000_000)
        world.advance(1)
    world.wake()
    world.advance(20)
    assert returned(world)


def test_program_that_does_not_read_delays_only_itself() -> None:
    world = asleep(sessions=4, unread_beyond=0)
    idle = world.sessions[flow(0)]
    idle.room, idle.reads = 1_000_000, False
    for number in (0, 1, 2):  # 0 and 2 share a process
        world.peer_sends(number, 5_000_000)
    world.advance(1)
    world.wake()
    world.advance(20)
    assert set(world.mn.flows) == {flow(0)} and isinstance(world.device.state, Up)
    assert world.frozen <= set(idle.pids)
    assert all(session.captured_at is None for session in world.sessions.values() if session is not idle)
    fetches = sum(event.detail.get("request") == "fetch" for event in world.mn.events)
    world.advance(60)
    again = sum(event.detail.get("request") == "fetch" for event in world.mn.events) - fetches
    assert again == 0, "what the program does not read is fetched over and over"
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(20)
    assert world.frozen <= set(idle.pids)
    idle.reads = True
    world.advance(20)
    assert returned(world)


def test_a_program_forks_while_it_is_frozen() -> None:
    world = World()
    world.advance(3)
    born = iter((500, 501))

    def fork() -> None:
        if (child := next(born, None)) is not None:
            world.sessions[flow(1)].pids += (child,)

    world.after_freeze = fork
    world.sleep()
    world.advance(2)
    assert isinstance(world.device.state, Down) and world.frozen == {100, 101, 500, 501}
    world.wake()
    world.advance(5)
    assert returned(world)


@pytest.mark.parametrize("kind", [FindSessions, Freeze, Capture])
def test_failed_step_of_falling_asleep(kind: type) -> None:
    world = World()
    world.advance(3)
    world.fail = kind
    world.sleep()
    world.advance(5)
    world.fail = None
    assert "sleep-failed" in world.mn.kinds()
    world.advance(60)
    assert returned(world)
    world.sleep()
    world.advance(5)
    assert isinstance(world.device.state, Down)


@pytest.mark.parametrize("kind", [InjectData, DrainRound])
def test_failed_step_of_waking(kind: type) -> None:
    world = asleep()
    world.peer_sends(0, 5_000_000)
    world.sessions[flow(0)].room = 1_000_000
    world.wake()
    world.fail = kind
    world.advance(5)
    world.fail = None
    world.advance(60)
    assert isinstance(world.device.state, Up) and not world.frozen and not world.mn.flows
    assert world.sessions[flow(0)].lost == (kind is InjectData)


def test_wake_at_the_other_access_node() -> None:
    world = asleep()
    world.cut("radio0")
    world.peer_sends(1, 123_456)
    world.advance(30)
    world.wake()
    world.advance(10)
    assert returned(world)
    assert world.mn.via is not None and world.mn.via.link == "radio1"


def test_no_sessions_at_all() -> None:
    world = World(sessions=0)
    world.advance(3)
    world.sleep()
    world.advance(2)
    assert isinstance(world.device.state, Down) and world.path_of_data() == "mnps"
    world.wake()
    world.advance(5)
    assert returned(world)


def test_unsuitable_commands_are_refused() -> None:
    world = World()
    world.advance(3)
    with pytest.raises(NotPossible):
        world.wake()
    world.sleep()
    with pytest.raises(NotPossible):
        world.sleep()
    world.advance(2)
    with pytest.raises(NotPossible):
        world.sleep()


def test_with_a_colocated_care_of_address() -> None:
    world = asleep(colocated=True)
    world.peer_sends(0, 2_000_000)
    world.wake()
    world.advance(10)
    assert returned(world)
    assert world.ha.bindings[HOA].tunnels == (Tunnel(HA, COLOCATED),)


@pytest.mark.parametrize("replay", Replay)
def test_keyed_agents_challenges_and_both_replay_protections(replay: Replay) -> None:
    world = asleep(agents_keyed=True, challenge=True, replay=replay)
    world.peer_sends(1, 2_000_000)
    world.wake()
    world.advance(10)
    assert returned(world)


def test_stand_in_with_a_colocated_care_of_address() -> None:
    """Fig. 8: the tunnel of the default care-of address ends at the stand-in itself."""
    configuration = StandInConfiguration(
        STAND_IN, AN3, (IPv4Network("10.50.0.0/16"),), colocated_home_agent=HA
    )
    role = StandIn(configuration, Random(1))
    assert role.restore([], now=0.0) == [LocalEndpoint(STAND_IN)]
    body = encode_634(TakeoverPrepare(bytes(16), (HOA,), (flow(0),)))
    actions = role.happened(a.Asked(1, "634", body, HOA, (HOA,)), now=1.0)
    accepted = TunnelAcceptance(HA, HOA, Side.TO_HOME_ADDRESS, end=STAND_IN)
    assert AcceptTunnel(accepted) in actions
    assert InstallOutbound(OutboundEntry(HOA, None, Tunnel(STAND_IN, HA))) in actions
    kinds = [type(action) for action in actions]
    assert kinds.index(a.Persist) < kinds.index(SetFlow) < kinds.index(a.Answer)
    ended = role.timeout(now=100.0)
    assert RemoveOutbound(HOA) in ended and ClearFlow(flow(0)) in ended


# Sleep that fails ----------------------------------------------------------------------------------------------------


def test_stand_in_does_not_answer_prepare() -> None:
    world = World()
    world.advance(3)
    world.stand_in_silent = True
    world.sleep()
    world.advance(30)
    assert returned(world)
    assert "sleep-failed" in world.mn.kinds() and world.path_of_data() == "mn"


def test_answer_to_prepare_is_lost_and_the_stand_in_forgets() -> None:
    world = World()
    world.advance(3)
    world.drop_632 = lambda body: True
    world.sleep()
    world.advance(30)
    world.drop_632 = lambda body: False
    world.advance(90)
    assert returned(world)


def test_not_authorised() -> None:
    world = World()
    world.advance(3)
    world.authorised = ()
    world.sleep()
    world.advance(10)
    assert returned(world)
    assert world.mnps.counts["takeover-not-authorised"] >= 1


def test_registration_is_not_answered() -> None:
    world = World()
    world.advance(3)
    world.sleep()
    world.advance(0.022)
    world.kill(world.ha)
    world.advance(20)
    world.start(world.ha)
    world.advance(60)
    assert returned(world)
    assert "sleep-failed" in world.mn.kinds()


def test_registration_is_denied() -> None:
    world = World()
    world.advance(3)
    world.sleep()
    agent = world.an1.role
    world.an1.role._admission._registration_lifetime = 0  # type: ignore[attr-defined]
    world.an2.role._admission._registration_lifetime = 0  # type: ignore[attr-defined]
    world.advance(2)
    assert "sleep-failed" in world.mn.kinds()
    agent._admission._registration_lifetime = 1800  # type: ignore[attr-defined]
    world.advance(60)
    assert returned(world)


def test_link_lost_while_leaving() -> None:
    world = World()
    world.advance(3)
    world.sleep()
    world.advance(0.03)
    world.cut("radio0")
    world.cut("radio1")
    world.advance(20)
    assert isinstance(world.device.state, Up) and not world.frozen
    world.mend("radio0")
    world.advance(90)
    assert returned(world)


def test_transfer_is_lost() -> None:
    world = World()
    world.advance(3)
    world.drop_634 = lambda body: kind_of(body, TakeoverTransfer)
    world.sleep()
    world.advance(90)
    assert returned(world)
    assert not any(session.lost for session in world.sessions.values())


def test_answer_to_transfer_is_lost() -> None:
    world = World()
    world.advance(3)
    dropped: list[bytes] = []

    def first_after_restore(body: bytes) -> bool:
        held = any(session.held_by_stand_in for session in world.sessions.values())
        if held and not dropped:
            dropped.append(body)
        return bool(dropped) and body == dropped[0]

    world.drop_632 = first_after_restore
    world.sleep()
    world.advance(1)
    world.peer_sends(0, 400_000)
    world.advance(120)
    assert dropped and world.sessions[flow(0)].at_device == 400_000
    assert returned(world)


def test_link_lost_during_transfer() -> None:
    world = World()
    world.advance(3)
    world.drop_634 = lambda body: kind_of(body, TakeoverTransfer)
    world.sleep()
    world.advance(0.2)
    world.cut("radio0")
    world.cut("radio1")
    world.drop_634 = lambda body: False
    world.advance(120)
    assert not world.frozen and world.sessions[flow(0)].captured_at is not None
    assert "programs-run" in world.mn.kinds()
    world.mend("radio1")
    world.advance(60)
    assert returned(world)


def test_unsuitable_sessions_stay() -> None:
    world = World(sessions=4)
    world.advance(3)
    world.refuse_restore = {flow(1)}
    world.refuse_capture = {flow(2)}
    world.sleep()
    world.advance(2)
    assert set(world.mnps.flows) == {flow(0), flow(3)}
    assert set(world.mn.flows) == {flow(0), flow(3)}
    assert world.mn.kinds().count("session-stays") == 2
    world.wake()
    world.advance(5)
    assert returned(world)


@pytest.mark.parametrize("when", [0.0, 0.005, 0.015, 0.025, 0.045, 0.065, 0.075, 0.085, 0.1])
def test_cancel_at_any_moment(when: float) -> None:
    world = World()
    world.advance(3)
    world.sleep()
    world.advance(when)
    world.perform(world.mn, world.device.cancel(now=world.now))
    world.advance(20)
    if isinstance(world.device.state, Down):
        world.wake()
        world.advance(10)
    assert returned(world)


# Wake that fails -----------------------------------------------------------------------------------------------------


def test_no_agent_for_a_while() -> None:
    world = asleep()
    world.cut("radio0")
    world.cut("radio1")
    world.advance(20)
    world.wake()
    world.advance(4)
    assert world.frozen
    world.advance(96)
    assert not world.frozen and set(world.mn.flows.values()) == {FlowVerdict.SUSPEND}
    world.mend("radio0")
    world.advance(20)
    assert returned(world)


@pytest.mark.parametrize("kind", [Reclaim, Fetch, Finish])
def test_stand_in_is_silent_in_the_middle(kind: type) -> None:
    world = asleep()
    world.peer_sends(0, 3_000_000)
    world.drop_634 = lambda body: kind_of(body, kind)
    world.wake()
    world.advance(100)
    assert not isinstance(world.device.state, Up)
    world.drop_634 = lambda body: False
    world.advance(60)
    assert returned(world)


def test_called_off_before_the_finish() -> None:
    world = asleep()
    world.peer_sends(0, 9_000_000)
    world.wake()
    world.advance(0.06)
    world.sleep()
    world.advance(2)
    assert isinstance(world.device.state, Down)
    world.advance(30)
    assert world.path_of_data() == "mnps"
    world.peer_sends(0, 1_000_000)
    world.wake()
    world.advance(10)
    assert returned(world)
    assert world.sessions[flow(0)].at_device == 10_005_000


def test_stand_in_lost_everything() -> None:
    world = asleep()
    world.mnps.rows.clear()
    world.start(world.mnps)
    for session in world.sessions.values():
        session.held_by_stand_in = False
    world.wake()
    world.advance(10)
    assert isinstance(world.device.state, Up) and not world.frozen
    assert all(session.lost for session in world.sessions.values())
    assert world.mn.kinds().count("session-lost") == 2


# Restarts ------------------------------------------------------------------------------------------------------------


def test_every_role_restarts_from_its_rows_while_asleep() -> None:
    world = asleep()
    for host in (world.ha, world.an1, world.an2, world.an3, world.mnps, world.mn):
        before = host.tables()
        world.kill(host)
        world.start(host)
        assert host.tables() == before, host.name
        world.peer_sends(0, 50_000)
    world.advance(3)
    world.wake()
    world.advance(10)
    assert returned(world)


@pytest.mark.parametrize("when", [0.0, 0.005, 0.015, 0.025, 0.045, 0.06, 0.065, 0.07, 0.08, 0.1, 0.2])
@pytest.mark.parametrize("name", ["ha", "an1", "an3", "mnps", "mn"])
def test_restart_in_the_middle_of_sleep(when: float, name: str) -> None:
    world = World()
    world.advance(3)
    world.sleep()
    world.advance(when)
    host = next(host for host in world.hosts if host.name == name)
    world.kill(host)
    world.advance(0.05)
    world.start(host)
    world.advance(120)
    if isinstance(world.device.state, Down):
        world.peer_sends(0, 10_000)
        world.wake()
        world.advance(30)
    assert returned(world)
    assert not any(session.lost for session in world.sessions.values())


@pytest.mark.parametrize("when", [0.0, 0.01, 0.03, 0.05, 0.07, 0.09, 0.12, 0.15, 0.2])
@pytest.mark.parametrize("name", ["ha", "an1", "an3", "mnps", "mn"])
def test_restart_in_the_middle_of_wake(when: float, name: str) -> None:
    world = asleep()
    world.peer_sends(0, 5_000_000)
    world.wake()
    world.advance(when)
    host = next(host for host in world.hosts if host.name == name)
    world.kill(host)
    world.advance(0.05)
    world.start(host)
    world.advance(120)
    assert returned(world)
    assert not any(session.lost for session in world.sessions.values())


def test_unused_prepare_expires() -> None:
    world = World()
    world.advance(3)
    world.drop_632 = lambda body: True
    world.sleep()
    world.advance(0.05)
    assert isinstance(world.mnps.role, StandIn) and len(world.mnps.role.handovers()) == 1
    world.kill(world.mn)
    world.advance(61)
    assert world.mnps.rows == {} and world.mnps.flows == {} and world.mnps.bindings == {}
    assert "handover-forgotten" in world.mnps.kinds()


def test_path_through_the_access_nodes() -> None:
    world = asleep()
    assert world.ha.bindings[HOA].tunnels[0].destination == AN3
    world.tell(world.an3, a.DeliveryMoved(HOA, True))
    world.advance(0.1)
    assert any(event.message == "618" for event in world.mnps.events)
    assert AN1 in {outer for outer, *_ in world.ha.acceptances}


def test_release_follows_the_question_of_a_stand_in() -> None:
    world = World()
    world.advance(3)
    question = encode_618(Notice618(HOA, True, STAND_IN))
    asks = [
        action
        for action in world.mn.role.happened(a.Asked(7, "618", question, STAND_IN, (HOA,)), now=3.0)
        if isinstance(action, a.Ask)
    ]
    assert [(ask.peer, decode_trigger(ask.body).reason) for ask in asks] == [(STAND_IN, Reason.BACK)]


def test_stand_in_learns_a_home_address_by_prepare() -> None:
    world = World()
    seen: list[object] = []

    def look(body: bytes) -> bool:
        seen.append(decode_634(body))
        return False

    world.drop_634 = look
    world.advance(3)
    world.sleep()
    world.advance(2)
    assert isinstance(seen[0], TakeoverPrepare) and HOA in seen[0].home_addresses
