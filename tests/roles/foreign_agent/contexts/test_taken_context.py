"""A stand-in that takes over by its registration (Fig. 7): context transfer (C4) and notices (C6).

The trigger may name the device's access node, or leave that to the home agent.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import FilterPlace, FilterRule, FilterVerdict
from locum.roles.foreign_agent.contexts.context import preconfigured
from locum.roles.mobile_node.selection import Selection
from locum.roles.profile import Policing, Profile
from locum.wire.control.context_blocks import BlockKind
from locum.wire.control.trigger import PATH, Operation, Reason, Trigger, encode_trigger
from locum.wire.mobile_ip.extensions import VendorNormal
from locum.wire.mobile_ip.registration import RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.vendor import TransferContext, decode_vendor
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.foreign_agent.contexts.test_transfer import at
from tests.roles.moving_world import MovingWorld
from tests.roles.world import AN1, AN2, AN3, HOA, HOA6, STAND_IN, Host, flow

DROP = FilterRule(1, Ipv4Selector(destination_port=(9, 9), protocol=(17, 17)), FilterVerdict.DROP)
PROFILED: Mapping[Addr, Mapping[str, Any]] = {
    AN1: {"contexts": {HOA: preconfigured(Profile(to_visitor=Policing((DROP,))))}}
}
ONE = Selection(flow=flow(0))
WEB = Ipv4Selector(destination_port=(80, 80), protocol=(6, 6))
NOWHERE = replace(TransferContext(AN1), access_node=type(AN1)(0))


class TakingWorld(MovingWorld):
    """The stand-in registers. `trigger` is the request of an authorised node."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"registers": True, "default": False, "agents": PROFILED, **options})
        self._ends: dict[tuple[str, int], list[bool]] = getattr(self, "_ends", {})

    def trigger(
        self,
        operation: Operation,
        *selectors: Ipv4Selector,
        reason: Reason = Reason.COMMAND,
        access_node: Addr | None = None,
    ) -> None:
        number = next(self._exchange)
        self._exchanges[number], self._ends["ha", 0] = (self.ha, 0), []
        body = encode_trigger(Trigger(operation, (HOA, HOA6), selectors, reason, access_node))
        self.tell(self.mnps, a.Asked(number, PATH, body, HOA, (HOA, HOA6), True))

    def policed(self) -> bool:
        """True if packets to the stand-in are policed as at the device's access node."""
        return (HOA, FilterPlace.TO_VISITOR) in self.an3.forwarding.filters

    def notices(self, host: Host, peer: Addr) -> list[bool]:
        """The 618 notices of an access node to this one."""
        told = [event.detail for event in host.events if event.message == "618" and event.kind == "sent"]
        return [bool(detail["responsible"]) for detail in told if detail["to"] == str(peer)]

    def forget(self) -> None:
        for host in self.hosts:
            host.events.clear()
            host.sent.clear()


@pytest.fixture
def world() -> TakingWorld:
    made = TakingWorld()
    at(made)
    made.forget()
    return made


def transfers(messages: list[bytes], reply: bool) -> list[TransferContext]:
    """Context transfer fields of requests, or replies."""
    kind = 3 if reply else 1
    decode = RegistrationReply.decode if reply else RegistrationRequest.decode
    found = [decode(message) for message in messages if message[0] == kind]
    values = [decode_vendor(one) for message in found for one in message.all(VendorNormal)]
    return [value for value in values if isinstance(value, TransferContext)]


# The context (C4) -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selectors", [(), (WEB,)])
def test_home_agent_names_the_access_node_if_a_trigger_does_not(
    world: TakingWorld, selectors: tuple[Ipv4Selector, ...]
) -> None:
    """A correspondent's agent, or a person, asks; the context is fetched within the same registration."""
    assert not world.policed()
    world.trigger(Operation.TAKE, *selectors)
    world.advance(2)
    assert world.policed()
    assert transfers(world.ha.sent, reply=False) == [NOWHERE]
    assert transfers(world.mnps.sent, reply=True) == [TransferContext(AN1)]
    assert [event.detail["to"] for event in world.an3.events if event.message == "622"] == [str(AN1)]
    world.forget()
    world.advance(250)  # a renewal
    assert world.ha.sent and not transfers(world.ha.sent, reply=False)
    assert not transfers(world.mnps.sent, reply=True)


def test_named_access_node_is_used_while_the_device_is_there(world: TakingWorld) -> None:
    world.trigger(Operation.TAKE, access_node=AN1)
    world.advance(2)
    assert world.policed()
    assert transfers(world.ha.sent, reply=False) == [TransferContext(AN1)]
    assert not transfers(world.mnps.sent, reply=True)


def test_context_is_fetched_from_the_devices_access_node(world: TakingWorld) -> None:
    world.trigger(Operation.TAKE, access_node=AN2)
    world.advance(2)
    assert world.policed()
    assert transfers(world.mnps.sent, reply=True) == [TransferContext(AN1)]


def test_context_returns_to_the_new_access_node_after_a_move(world: TakingWorld) -> None:
    world.trigger(Operation.TAKE)
    world.advance(2)
    world.links("radio1")
    world.advance(5)
    world.forget()
    world.trigger(Operation.RELEASE)
    world.advance(2)
    pushed = [event.detail for event in world.an3.events if event.message == "624" and event.kind == "sent"]
    assert [detail["to"] for detail in pushed if "errand" in detail] == [str(AN2)]
    assert world.agent(world.an2).contexts.content(HOA, BlockKind.POLICY) is not None
    assert world.notices(world.an2, HOA) == [True]


def test_context_outlives_an_expired_registration() -> None:
    """Reason expired: the access node forgets its visitor when the home agent does, and it is taken over right then."""
    world = TakingWorld(lifetime=30)
    at(world)
    world.links(None)
    world.advance(35)
    assert not world.agent(world.an1).visitors()
    world.forget()
    world.trigger(Operation.TAKE, reason=Reason.EXPIRED, access_node=AN1)
    world.advance(2)
    assert world.policed()
    assert world.an1.bindings[HOA].tunnels[0].destination == AN3, "what still arrives follows"
    world.advance(30)
    assert not world.an1.bindings


def test_unknown_place_of_a_device_is_asked_for_again() -> None:
    world = TakingWorld(lifetime=30)
    at(world)
    world.links(None)
    world.advance(45)
    world.forget()
    world.trigger(Operation.TAKE)
    world.advance(2)
    assert transfers(world.ha.sent, reply=False) == [NOWHERE] and not transfers(world.mnps.sent, reply=True)
    assert not [event for event in world.an3.events if event.message == "622"]
    world.links("radio0")
    world.advance(300)
    assert world.policed(), "with a renewal"


def test_only_a_stand_in_learns_the_devices_access_node() -> None:
    """The device's own request names its old access node; the home agent adds none."""
    world = MovingWorld()
    at(world)
    world.links("radio1")
    world.advance(5)
    assert transfers(world.ha.sent, reply=False) == [TransferContext(AN1)]
    assert not transfers(world.mn.sent, reply=True)


# 618 and 618'' (C6) ---------------------------------------------------------------------------------------------------


def test_all_flows_are_taken_and_given_back(world: TakingWorld) -> None:
    world.trigger(Operation.TAKE)
    world.advance(2)
    assert world.notices(world.an1, HOA) == [False]
    assert set(world.notices(world.an3, STAND_IN)) == {True}
    world.forget()
    world.trigger(Operation.RELEASE)
    world.advance(2)
    assert world.notices(world.an1, HOA) == [True]
    assert set(world.notices(world.an3, STAND_IN)) == {False}
    heard = [event.detail["responsible"] for event in world.mn.events if event.kind == "notified"]
    assert heard == [True]


def test_stand_in_of_one_flow_leaves_the_device_the_rest(world: TakingWorld) -> None:
    """Fig. 7: each holder is told of its responsibility; 624 must not undo the notice after 604''."""
    world.hand_over(ONE)
    world.advance(2)
    assert world.path_of_data(0) == "mnps" and world.policed()
    assert world.notices(world.an3, STAND_IN) == [True, True]  # with 604'', and after 624
    assert world.notices(world.an1, HOA) == [True]
    world.forget()
    world.take_back(ONE)
    world.advance(2)
    assert set(world.notices(world.an3, STAND_IN)) == {False}
    assert world.notices(world.an1, HOA) == [True]
    assert not world.an1.bindings and not world.an3.bindings, "no packets follow anybody"


def test_from_some_flows_to_everything(world: TakingWorld) -> None:
    world.trigger(Operation.TAKE, WEB)
    world.advance(2)
    world.forget()
    world.trigger(Operation.TAKE)
    world.advance(2)
    assert set(world.notices(world.an3, STAND_IN)) == {True}
    assert world.notices(world.an1, HOA) == [False]
    role: Any = world.mnps.role
    assert role.registration.standing((HOA,)).takes is Takes.ALL


def test_unreachable_device_gets_no_notice(world: TakingWorld) -> None:
    world.links(None)
    world.advance(1)
    world.trigger(Operation.TAKE, reason=Reason.EXPIRED, access_node=AN1)
    world.advance(2)
    assert world.notices(world.an1, HOA) == []
    assert set(world.notices(world.an3, STAND_IN)) == {True}
    assert world.an1.bindings[HOA].tunnels[0].destination == AN3


def test_only_the_new_access_node_notifies_a_moved_device() -> None:
    world = MovingWorld()
    at(world)
    for host in world.hosts:
        host.events.clear()
    world.links("radio1")
    world.advance(3)
    told = [event for event in world.an1.events if event.message == "618"]
    assert not told
    assert [event.detail["responsible"] for event in world.an2.events if event.message == "618"] == [True]
