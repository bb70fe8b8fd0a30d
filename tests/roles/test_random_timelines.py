"""Random timelines: the invariants of World.check hold, every change is in a state table, and calm heals everything."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles.mobile_node.partial_handovers import NotPossible
from locum.roles.mobile_node.states import ComingUp, Down, GoingDown, Up
from tests.roles.world import World, asleep, awake, flow

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.03, 0.1, 0.5, 2.0, 15.0])),
        st.tuples(st.just("data"), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("sleep"), st.just(0.0)),
        st.tuples(st.just("wake"), st.just(0.0)),
        st.tuples(st.just("cancel"), st.just(0.0)),
        st.tuples(st.just("cut"), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("mend"), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("restart"), st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0])),
        st.tuples(st.just("loss"), st.sampled_from([0.0, 0.3])),
        st.tuples(st.just("reads"), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("sleep with data"), st.sampled_from([0.3, 1.0, 3.0])),
    ),
    max_size=25,
)


def step(world: World, what: str, how: float) -> None:
    match what:
        case "wait":
            world.advance(how)
        case "data":
            world.peer_sends(int(how), 300_000)
        case "sleep" | "wake":
            try:
                world.sleep() if what == "sleep" else world.wake()
            except NotPossible:
                assert isinstance(world.device.state, Up | Down | GoingDown | ComingUp)
        case "sleep with data":
            step(world, "sleep", 0.0)
            world.advance(how)
            for number in range(2):
                world.peer_sends(number, 2_000_000)
            step(world, "wake", 0.0)
        case "cancel":
            world.perform(world.mn, world.device.cancel(now=world.clock(world.mn)))
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
        case "reads":
            session = world.sessions[flow(int(how))]
            session.reads = not session.reads


@given(st.integers(0, 1 << 20), STEPS, st.booleans(), st.sampled_from([1 << 40, 100_000]))
@settings(max_examples=40, deadline=None)
def test_every_timeline_ends_well(
    seed: int, steps: list[tuple[str, float]], registers: bool, room: int
) -> None:
    """`registers`: the stand-in registers itself; `room`: bytes that a socket takes before its program must read."""
    world = World(seed, duplicate=0.1, registers=registers, unread_beyond=room // 2)
    for session in world.sessions.values():
        session.room = room
    world.advance(3)
    for what, how in steps:
        step(world, what, how)
        world.check()
    world.loss = 0.0
    for session in world.sessions.values():
        session.reads = True
    world.mend("radio0")
    world.mend("radio1")
    world.advance(150)
    if asleep(world):
        world.wake()
    world.advance(200)
    assert awake(world), world.device.state
    assert not world.frozen and not world.mn.flows
    assert world.path_of_data() == "mn"
    assert not any(session.lost for session in world.sessions.values())
    world.advance(60)
    assert all(table == "registration" for table, _ in world.mnps.rows)
    assert not world.mnps.flows and not world.mnps.bindings


@pytest.mark.parametrize("waits", [0.01, 0.02, 0.03, 0.05])
def test_prepare_that_arrives_after_its_cancel_is_harmless(waits: float) -> None:
    """The first prepare is lost and sent again when the device has long prepared, and slept, anew."""
    world = World(0, duplicate=0.1)
    world.advance(3)
    steps = [("sleep", 0.0), ("cut", 0.0), ("wait", waits), ("wake", 0.0), ("sleep", 0.0)]
    for what, how in steps:
        step(world, what, how)
    world.mend("radio0")
    world.advance(60)
    assert asleep(world)
    assert {session.held_by_stand_in for session in world.sessions.values()} == {True}
    world.wake()
    world.advance(60)
    assert awake(world)
    assert not any(session.lost for session in world.sessions.values())
    assert not world.mnps.rows and not world.mnps.flows and not world.mnps.bindings
