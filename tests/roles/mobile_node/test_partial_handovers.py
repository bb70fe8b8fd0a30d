"""Some flows at the stand-in, by its own registration, while the device is awake (R4, R7, R19, C12; Figs. 7 and 10)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles.mobile_node.partial_handovers import NotPossible
from locum.roles.mobile_node.selection import Selection
from locum.security.association import Replay
from locum.wire.control import Done, Fetch, Finish, Reclaim, TakeoverPrepare, TakeoverTransfer, decode_634
from locum.wire.mobile_ip.extensions import FlowBinding, Multipath, VendorNormal
from locum.wire.mobile_ip.registration import RegistrationRequest
from locum.wire.mobile_ip.vendor import MnpsRole, TransferContext, decode_vendor
from locum.wire.takes import Takes
from tests.roles.world import AN1, HA, HOA, PEER, STAND_IN, World, asleep, awake, flow

FIRST = Selection(flow=flow(0))
SECOND = Selection(flow=flow(1))


def registering(**options: object) -> World:
    world = World(**{"registers": True, "default": False, **options})  # type: ignore[arg-type]
    world.advance(3)
    return world


def at_stand_in(world: World) -> set[int]:
    return {n for n, session in enumerate(world.sessions.values()) if session.held_by_stand_in}


def at_rest(world: World) -> bool:
    """Everything is at the device, and no state of the hand-over is left."""
    for session in world.sessions.values():
        assert session.at_device == session.sent and session.captured_at is None and not session.lost
    stand_in = not world.mnps.flows and not world.mnps.bindings
    rows = [key for key in world.mnps.rows if key[0] == "handover"]
    entry = world.ha.bindings[HOA]
    return stand_in and not rows and not world.frozen and not world.mn.flows and not entry.rules


def test_one_flow_is_given_and_the_other_stays() -> None:
    world = registering()
    before = [row for key, row in world.ha.rows.items() if key[0] == "binding"]
    world.hand_over(FIRST)
    world.advance(2)
    assert awake(world)
    assert at_stand_in(world) == {0} and world.frozen == {100}
    assert (world.path_of_data(0), world.path_of_data(1), world.path_of_data()) == ("mnps", "mn", "mn")
    assert [row for key, row in world.ha.rows.items() if key[0] == "binding"] == before
    world.peer_sends(0, 7000)
    world.peer_sends(1, 5000)
    assert world.sessions[flow(0)].at_stand_in == 7000 and world.sessions[flow(1)].at_device == 5000
    world.take_back(FIRST)
    world.advance(2)
    assert at_rest(world) and world.sessions[flow(0)].at_device == 7000


def test_stand_in_registers_rules_for_the_given_flows() -> None:
    world = registering()
    world.ha.sent.clear()
    world.hand_over(FIRST)
    world.advance(1)
    (said,) = [RegistrationRequest.decode(message) for message in world.ha.sent]
    assert (said.home_address, said.home_agent, said.lifetime) == (HOA, HA, 300)
    assert [extension.binding for extension in said.all(Multipath)] == [1]
    vendor = [decode_vendor(extension) for extension in said.all(VendorNormal)]
    assert MnpsRole(STAND_IN, Takes.RULED) in vendor and TransferContext(AN1) in vendor
    (rule,) = said.all(FlowBinding)
    assert rule.bindings == (1,) and isinstance(rule.selector.source, tuple)  # type: ignore[union-attr]
    assert rule.selector.source == (PEER, PEER)  # type: ignore[union-attr]


def test_back_and_forth_several_times() -> None:
    world = registering(sessions=3)  # the first and the third share a program
    for turn in range(4):
        world.hand_over(SECOND if turn % 2 else FIRST)
        world.advance(1)
        assert at_stand_in(world) == ({1} if turn % 2 else {0, 2})
        for n in range(3):
            world.peer_sends(n, 1_000_000)
        world.hand_over(FIRST if turn % 2 else SECOND)
        world.advance(1)
        assert at_stand_in(world) == {0, 1, 2} and len(world.mnps.rows) == 3
        for n in range(3):
            world.peer_sends(n, 300_000)
        world.take_back(SECOND)
        world.advance(2)
        assert at_stand_in(world) == {0, 2} and world.frozen == {100, 102}
        world.take_back()
        world.advance(2)
        assert at_rest(world)
    assert all(session.at_device == 4 * 1_300_000 for session in world.sessions.values())


def test_wake_returns_only_what_the_sleep_handed_over() -> None:
    world = registering()
    world.hand_over(FIRST)
    world.advance(1)
    world.sleep()
    world.advance(2)
    assert asleep(world) and at_stand_in(world) == {0, 1}
    assert world.path_of_data() == world.path_of_data(0) == world.path_of_data(1) == "mnps"
    world.cut("radio0")
    world.cut("radio1")
    for _ in range(10):
        world.peer_sends(0, 100_000)
        world.peer_sends(1, 100_000)
        world.advance(60)
    assert world.path_of_data() == "mnps", "the stand-in renews what it has registered"
    world.mend("radio0")
    world.wake()
    world.advance(5)
    assert awake(world) and at_stand_in(world) == {0}
    assert (world.path_of_data(0), world.path_of_data(1)) == ("mnps", "mn")
    world.take_back()
    world.advance(3)
    assert at_rest(world) and world.sessions[flow(0)].at_device == 1_000_000


def test_stand_in_without_registration_is_given_no_session() -> None:
    world = World()
    world.advance(3)
    with pytest.raises(NotPossible, match="register"):
        world.hand_over(FIRST)
    with pytest.raises(NotPossible, match="none of"):
        world.device.give(FIRST, now=world.now, to="nobody")


def test_unsuitable_commands_are_refused() -> None:
    world = registering()
    with pytest.raises(NotPossible):
        world.take_back()
    world.hand_over(FIRST)
    for command in (world.hand_over, world.take_back, world.sleep):
        with pytest.raises(NotPossible):
            command()
    world.advance(2)
    world.hand_over(Selection(port=9))
    world.advance(1)
    assert (
        world.device.partial_handovers.idle
        and world.device.partial_handovers.last == "there is no such session"
    )
    assert at_stand_in(world) == {0}
    world.take_back()
    world.advance(2)
    assert at_rest(world)


def test_the_home_agent_does_not_answer_the_stand_in() -> None:
    world = registering()
    world.kill(world.ha)
    world.hand_over(FIRST)
    world.advance(9)
    assert "switch-failed" in world.mnps.kinds() and "give-failed" in world.mn.kinds()
    world.start(world.ha)
    world.advance(120)
    assert at_rest(world)
    world.hand_over(FIRST)
    world.advance(2)
    assert at_stand_in(world) == {0}


@pytest.mark.parametrize("replay", list(Replay))
@pytest.mark.parametrize("seed", range(4))
def test_a_lossy_path(seed: int, replay: Replay) -> None:
    """Requests and replies of the registration are lost and doubled; the result is right in the end."""
    world = registering(seed=seed, replay=replay)
    world.loss, world.duplicate = 0.2, 0.2
    for number, selection in ((0, FIRST), (1, SECOND)) * 3:
        if world.device.partial_handovers.idle and number not in at_stand_in(world):
            world.hand_over(selection)
        world.advance(30)
    assert at_stand_in(world), "one of three attempts comes through"
    world.loss = 0.0
    world.advance(120)
    for n in range(2):
        world.peer_sends(n, 50_000)
    world.take_back()
    world.advance(200)
    assert at_rest(world)


@pytest.mark.parametrize("name", ["mn", "mnps", "ha", "an3"])
@pytest.mark.parametrize("when", [0.005, 0.045, 0.07, 1.0])
def test_restart_in_the_middle_of_a_give(when: float, name: str) -> None:
    world = registering()
    world.hand_over(FIRST)
    world.advance(when)
    host = next(host for host in world.hosts if host.name == name)
    world.kill(host)
    world.advance(0.2)
    world.start(host)
    world.advance(120)
    world.peer_sends(0, 9000)
    if at_stand_in(world):
        world.take_back()
        world.advance(120)
    assert at_rest(world)


@pytest.mark.parametrize("name", ["mn", "mnps", "ha", "an3"])
@pytest.mark.parametrize("when", [0.005, 0.06, 0.1, 0.3])
def test_restart_in_the_middle_of_a_take(when: float, name: str) -> None:
    world = registering()
    world.hand_over()
    world.advance(2)
    world.peer_sends(0, 900_000)
    world.take_back()
    world.advance(when)
    host = next(host for host in world.hosts if host.name == name)
    world.kill(host)
    world.advance(0.2)
    world.start(host)
    world.advance(300)
    if at_stand_in(world):
        world.take_back()
        world.advance(120)
    assert at_rest(world)


@pytest.mark.parametrize("kind", [TakeoverPrepare, TakeoverTransfer, Reclaim, Fetch, Finish, Done])
def test_an_answer_is_lost(kind: type) -> None:
    world = registering()
    world.drop_634 = lambda body: isinstance(decode_634(body), kind)
    world.hand_over()
    world.advance(20)
    if at_stand_in(world):
        world.peer_sends(0, 900_000)
        if world.device.partial_handovers.idle:
            world.take_back()
        world.advance(30)
    world.drop_634 = lambda body: False
    world.advance(300)
    if at_stand_in(world):
        world.take_back()
        world.advance(60)
    assert at_rest(world)


def test_more_flows_than_one_request_takes() -> None:
    world = registering(sessions=40)
    world.hand_over()
    world.advance(5)
    assert len(at_stand_in(world)) == 40
    assert len(world.ha.bindings[HOA].rules) == 40
    assert max(len(message) for message in world.ha.sent) < 1400
    world.take_back()
    world.advance(10)
    assert at_rest(world)


def test_stand_in_limits_the_number_of_rules() -> None:
    world = registering(sessions=61)
    world.hand_over()
    world.advance(3)
    assert world.device.partial_handovers.last is not None and "limit" in world.device.partial_handovers.last
    assert at_rest(world)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.03, 0.1, 2.0, 15.0])),
        st.tuples(st.sampled_from(["give", "take"]), st.sampled_from([0.0, 1.0])),
        st.tuples(st.sampled_from(["sleep", "wake", "cancel"]), st.just(0.0)),
        st.tuples(st.just("data"), st.sampled_from([0.0, 1.0])),
        st.tuples(st.sampled_from(["cut", "mend"]), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("restart"), st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        st.tuples(st.just("loss"), st.sampled_from([0.0, 0.3])),
    ),
    max_size=20,
)


def step(world: World, what: str, how: float) -> None:
    try:
        match what:
            case "wait":
                world.advance(how)
            case "give":
                world.hand_over(SECOND if how else FIRST)
            case "take":
                world.take_back(SECOND if how else FIRST)
            case "sleep" | "wake":
                world.sleep() if what == "sleep" else world.wake()
            case "cancel":
                world.perform(world.mn, world.device.cancel(now=world.clock(world.mn)))
            case "data":
                world.peer_sends(int(how), 300_000)
            case "cut":
                world.cut(f"radio{int(how)}")
            case "mend":
                world.mend(f"radio{int(how)}")
            case "restart":
                host = world.hosts[int(how)]
                world.kill(host)
                world.start(host)
            case "loss":
                world.loss = how
    except NotPossible:
        assert what in ("give", "take", "sleep", "wake")


@given(st.integers(0, 1 << 20), STEPS)
@settings(max_examples=15, deadline=None)
def test_every_timeline_ends_well(seed: int, steps: list[tuple[str, float]]) -> None:
    world = registering(seed=seed, duplicate=0.1)
    for what, how in steps:
        step(world, what, how)
        world.check()
    world.loss = 0.0
    world.mend("radio0")
    world.mend("radio1")
    world.advance(300)
    if asleep(world):
        world.wake()
        world.advance(200)
    assert awake(world), world.device.state
    assert world.device.partial_handovers.idle
    if world.device.partial_handovers.handovers:
        world.take_back()
        world.advance(200)
    world.advance(70)
    assert at_rest(world)
    assert world.path_of_data() == "mn"
