"""The context at the stand-in's access node (C7), and packets in flight to it and back (C5)."""

from collections.abc import Mapping
from typing import Any

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import FilterPlace, FilterRule, FilterVerdict
from locum.roles.action_values.forwarding import Side
from locum.roles.foreign_agent.contexts.context import preconfigured
from locum.roles.profile import Policing, Profile
from locum.wire.control.context import (
    Context624,
    ContextRequest622,
    ContextStatus,
    Onward,
    decode_624,
    decode_acknowledgement_622,
    encode_624,
    encode_request_622,
)
from locum.wire.control.context_blocks import BlockKind
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.foreign_agent.contexts.test_transfer import Recorder, at, in_order
from tests.roles.moving_world import MovingWorld
from tests.roles.world import AN1, AN3, HOA

DROP = FilterRule(1, Ipv4Selector(destination_port=(9, 9), protocol=(17, 17)), FilterVerdict.DROP)
PROFILED: Mapping[Addr, Mapping[str, Any]] = {
    AN1: {"contexts": {HOA: preconfigured(Profile(to_visitor=Policing((DROP,))))}}
}


def policy_at(world: MovingWorld, host: str) -> bool:
    agent = world.agent(getattr(world, host))
    return agent.contexts.content(HOA, BlockKind.POLICY) is not None


def asked(world: MovingWorld, onward: Onward) -> Context624:
    """Answer of the first access node to the third one."""
    registered = int(world.clock(world.an1) * 1000)
    body = encode_request_622(ContextRequest622(HOA, registered, onward=onward))
    return decode_624(Recorder(world, world.an1).ask("622", body, AN3))


def test_sleeping_device_gets_its_stored_context_elsewhere() -> None:
    world = at(MovingWorld(agents=PROFILED))
    world.sleep()
    world.advance(3)
    assert policy_at(world, "an3") and (HOA, FilterPlace.TO_VISITOR) in world.an3.forwarding.filters
    assert not policy_at(world, "an2")
    world.links("radio1")
    world.wake()
    world.advance(5)
    assert policy_at(world, "an2") and (HOA, FilterPlace.TO_VISITOR) in world.an2.forwarding.filters


def test_without_context_transfer_nothing_is_stored() -> None:
    world = at(MovingWorld(transfer=False, agents=PROFILED))
    world.sleep()
    world.advance(3)
    assert not policy_at(world, "an3")


def test_silent_stand_in_access_node_does_not_delay_sleep() -> None:
    world = at(MovingWorld(agents=PROFILED))
    world.mute.add("an3")
    world.sleep()
    world.advance(10)
    assert world.an1.counts["context-unanswered"] and not policy_at(world, "an3")


def test_place_of_the_stored_context_survives_a_device_restart() -> None:
    world = at(MovingWorld(agents=PROFILED))
    world.sleep()
    world.advance(3)
    world.kill(world.mn)
    world.start(world.mn)
    world.links("radio1")
    world.wake()
    world.advance(5)
    assert policy_at(world, "an2")


def test_packets_in_flight_reach_a_device_that_is_reachable() -> None:
    world = at(MovingWorld())
    assert asked(world, Onward.TAKEN).status is ContextStatus.OK
    assert HOA not in world.an1.bindings
    world.stream(0.5)
    assert in_order(world)


def test_packets_held_for_a_broken_link_go_to_the_stand_in() -> None:
    world = at(MovingWorld())
    world.links(None)
    world.stream(0.5)
    assert world.packets["an1"][HOA]
    assert asked(world, Onward.TAKEN).status is ContextStatus.OK
    assert world.an1.bindings[HOA].tunnels[0].destination == AN3
    assert not world.packets["an1"].get(HOA)
    world.links("radio0")
    world.advance(3)
    assert HOA not in world.an1.bindings, "the device is here again"


def test_returned_context_of_a_device_that_left_is_refused() -> None:
    world = at(MovingWorld())
    returned = encode_624(Context624(ContextStatus.OK, HOA, 0, (), {}, Onward.TAKEN))
    there = decode_acknowledgement_622(Recorder(world, world.an1).ask("624", returned, AN3))
    assert there.status is ContextStatus.OK
    assert (AN3, HOA, Side.TO_HOME_ADDRESS) in world.an1.acceptances
    elsewhere = decode_acknowledgement_622(Recorder(world, world.an2).ask("624", returned, AN3))
    assert elsewhere.status is ContextStatus.UNKNOWN_MOBILE
    assert (AN3, HOA, Side.TO_HOME_ADDRESS) not in world.an2.acceptances
