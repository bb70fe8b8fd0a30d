"""Routing that a device registers: default care-of address (R3), identifier and weight (R8), sleep."""

from ipaddress import IPv4Address

import pytest

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.registration import NO_OPTIONS
from locum.roles.action_values.sessions import Capture
from locum.roles.mobile_ipv4.answers import received_answer
from locum.roles.mobile_ipv4.own_requests import write_options
from locum.roles.mobile_node.own_rules import FIRST_IDENTIFIER
from locum.roles.mobile_node.selection import Selection
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.routing import NO_ROUTING, OwnRouting, Routing
from locum.roles.rules import KeptRule, RuleRefused, both_families
from locum.wire.mobile_ip.extensions import Multipath, VendorNormal
from locum.wire.mobile_ip.registration import Code, RegistrationReply
from locum.wire.mobile_ip.vendor import DefaultCareOfAddress, Weight, decode_vendor
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.world import AN1, AN2, AN3, HA, HOA, World, asleep, awake, flow

NOWHERE = IPv4Address("0.0.0.0")
WAY = Attachment("radio0", AN1, AN1, False)
OWN = 5
FROM_WEB = Ipv4Selector(protocol=(6, 6), source_port=(80, 80))  # every connection of these worlds


def said(routing: OwnRouting, lifetime: int = 300) -> list[object]:
    found = write_options(routing.fill(NO_OPTIONS, WAY, lifetime), co_located=False)
    return [
        decode_vendor(write_option) if isinstance(write_option, VendorNormal) else write_option
        for write_option in found
    ]


def answer(routing: OwnRouting, code: Code = Code.ACCEPTED, lifetime: int = 300) -> None:
    reply = RegistrationReply(code, lifetime, HOA, HA, 1, ())
    assert not routing.replied(received_answer(reply), WAY)


def again(routing: OwnRouting, wanted: Routing) -> OwnRouting:
    """After a restart with another configuration."""
    made = OwnRouting(wanted)
    made.from_row(routing.to_row())
    return made


# Registered routing ----------------------------------------------------------------------------------------------------


def test_every_request_but_the_last_carries_the_routing() -> None:
    routing = OwnRouting(Routing(OWN, 3, AN3))
    wanted = [Multipath(OWN, overwrite=True), Weight(3), DefaultCareOfAddress(AN3)]
    assert (routing.holds, said(routing)) == (False, wanted)
    answer(routing)
    assert (routing.holds, said(routing), routing.holds) == (True, wanted, True)
    assert said(routing, lifetime=0) == []
    assert said(OwnRouting(NO_ROUTING)) == [] and OwnRouting(NO_ROUTING).holds
    assert said(OwnRouting(Routing(weight=3))) == [Weight(3)]


@pytest.mark.parametrize("answered", [True, False])
def test_removed_default_is_withdrawn(answered: bool) -> None:
    """Also if it is unknown whether the home agent has it, after a lost answer."""
    routing = OwnRouting(Routing(default=AN3))
    said(routing)
    if answered:
        answer(routing)
    routing = again(routing, NO_ROUTING)
    assert not routing.holds and said(routing) == [DefaultCareOfAddress(NOWHERE)]
    answer(routing, Code.REASON_UNSPECIFIED)
    routing = again(routing, NO_ROUTING)
    assert said(routing) == [DefaultCareOfAddress(NOWHERE)], "it has not been taken back yet"
    answer(routing)
    assert routing.holds and said(routing) == [] and said(again(routing, NO_ROUTING)) == []


def test_unspecified_address_withdraws_any_default() -> None:
    """For a device that has lost its store; another default takes the place of the one before by itself."""
    routing = OwnRouting(Routing(default=NOWHERE))
    assert said(routing) == [DefaultCareOfAddress(NOWHERE)]
    answer(routing)
    assert said(again(routing, NO_ROUTING)) == []
    assert said(again(routing, Routing(default=AN2))) == [DefaultCareOfAddress(AN2)]


@pytest.mark.parametrize(
    "row", [{}, {"there": {}, "left": None}, {"there": None, "left": "x"}, {"there": None}]
)
def test_malformed_rows_are_refused(row: dict[str, JSON]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        OwnRouting(NO_ROUTING).from_row(row)
    with pytest.raises((ValueError, KeyError, TypeError)):
        Routing.from_row({"binding": "1", "weight": 1, "default": None})


# Default care-of address (R3) --------------------------------------------------------------------------------------------


def test_device_registers_its_default_care_of_address() -> None:
    world = World(default=False, routing=Routing(default=AN3))
    world.advance(3)
    assert (world.default, world.path_of_data()) == (AN3, "mn")
    world.start(world.ha)
    assert world.default == AN3
    world.cut("radio0")
    world.cut("radio1")
    world.advance(301)
    assert world.path_of_data() == "mnps", "it has vanished, and its registration has run out"
    world.mend("radio0")
    world.advance(5)
    assert world.path_of_data() == "mn"
    world.perform(world.mn, world.device.leave(now=world.clock(world.mn)))
    world.advance(1)
    assert (world.default, world.path_of_data()) == (AN3, "mnps"), "it has deregistered"
    world.routing = NO_ROUTING
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(5)
    assert (str(world.default), world.path_of_data()) == ("None", "mn")


def test_sleep_by_a_default_registered_by_the_device() -> None:
    world = World(default=False, routing=Routing(default=AN3))
    world.advance(3)
    world.sleep()
    world.advance(2)
    assert asleep(world) and world.path_of_data() == "mnps"
    world.peer_sends(0, 9000)
    world.wake()
    world.advance(5)
    assert awake(world) and world.path_of_data() == "mn"
    assert world.sessions[flow(0)].at_device == 9000


def test_changed_configuration_is_registered_at_once() -> None:
    """Though a registration from before the restart still holds."""
    world = World(default=False, lifetime=1800)
    world.advance(3)
    for wanted in (Routing(OWN, 2, AN3), Routing(6), NO_ROUTING):
        world.routing = wanted
        world.kill(world.mn)
        world.start(world.mn)
        world.advance(3)
        (care_of,) = registered(world)
        assert (care_of.get("bid"), care_of.get("weight", 1)) == (wanted.binding, wanted.weight)
        assert world.default == wanted.default


# Binding identifier ------------------------------------------------------------------------------------------------------


def registered(world: World) -> list[dict[str, JSON]]:
    listed = world.ha.rows["binding", str(HOA)].value["care_of"]
    assert isinstance(listed, list)
    return [dict(care_of) for care_of in listed]


def test_its_binding_moves_with_the_device() -> None:
    world = World(routing=Routing(OWN, 3))
    world.advance(3)
    assert [(row["bid"], row["weight"], row["address"]) for row in registered(world)] == [(OWN, 3, str(AN1))]
    world.cut("radio0")
    world.advance(5)
    assert [(row["bid"], row["address"]) for row in registered(world)] == [(OWN, str(AN2))]
    world.perform(world.mn, world.device.leave(now=world.clock(world.mn)))
    world.advance(1)
    assert registered(world) == [] and world.path_of_data() == "mnps"


def add(world: World, *to: int | str, selector: Ipv4Selector = FROM_WEB, priority: int = 5) -> KeptRule:
    wanted = KeptRule(0, priority, RuleVerdict.FORWARD, both_families(selector), to)
    made, actions = world.device.add_rule(wanted, now=world.clock(world.mn))
    world.perform(world.mn, actions)
    world.advance(1)
    assert world.device.rules.refused is None
    return made


def having(**options: object) -> World:
    """A device with a binding identifier, and a stand-in that registers with 1."""
    world = World(registers=True, default=False, routing=Routing(OWN), **options)  # type: ignore[arg-type]
    world.advance(3)
    return world


def test_a_rule_to_the_device_itself() -> None:
    world = having()
    made = add(world, "mn")
    assert (made.to, made.identifier) == ((OWN,), FIRST_IDENTIFIER)
    (rule,) = world.ha.bindings[HOA].rules
    assert rule.candidates[0].tunnel.destination == AN1
    world.cut("radio0")
    world.advance(5)
    (rule,) = world.ha.bindings[HOA].rules
    assert rule.candidates[0].tunnel.destination == AN2


@pytest.mark.parametrize("default", [True, False])
def test_sessions_kept_by_a_rule_are_handed_over_at_sleep(default: bool) -> None:
    """A rule comes before a stand-in: the device's registration gets very short, and the rule is passed over (R2, R5)."""
    world = having() if not default else World(routing=Routing(OWN))
    world.advance(3)
    add(world, "mn")
    assert world.path_of_data(0) == "mn"
    for _ in range(2):
        world.sleep()
        world.advance(2)
        assert asleep(world) and world.path_of_data(0) == world.path_of_data() == "mnps"
        world.peer_sends(0, 9000)
        world.peer_sends(1, 5000)
        world.wake()
        world.advance(4)
        assert awake(world) and world.path_of_data(0) == world.path_of_data() == "mn"
    assert [session.at_device for session in world.sessions.values()] == [18000, 10000]
    assert (
        not world.mn.flows
        and not world.frozen
        and not any(session.lost for session in world.sessions.values())
    )


def test_failed_sleep_restores_the_full_lifetime() -> None:
    world = having()
    add(world, "mn")
    world.fail = Capture
    world.sleep()
    world.advance(3)
    world.fail = None
    assert awake(world) and world.path_of_data(0) == world.path_of_data() == "mn"
    assert [row.get("brief", False) for row in registered(world)] == [False]


def test_a_sleep_through_loss_and_crashes() -> None:
    for seed in range(6):
        world = having(seed=seed, loss=0.1)
        world.advance(10)
        add(world, "mn")
        world.advance(20)
        world.sleep()
        world.advance(60)
        world.kill(world.mn)
        world.start(world.mn)
        world.advance(30)
        if asleep(world):
            world.peer_sends(0, 7000)
            world.wake()
        world.advance(120)
        assert awake(world) and not world.frozen
        assert not any(session.lost for session in world.sessions.values())
        assert world.path_of_data(0) == world.path_of_data() == "mn"


def test_session_kept_by_a_rule_is_not_given() -> None:
    world = having()
    made = add(world, "mn")
    world.hand_over(Selection(flow=flow(0)))
    world.advance(2)
    assert f"rule {made.identifier}" in str(world.device.partial_handovers.last)
    assert awake(world) and not world.frozen and not world.mnps.flows
    _, actions = world.device.remove_rule(made.identifier, now=world.clock(world.mn))
    world.perform(world.mn, actions)
    world.advance(1)
    add(world, "mn", priority=101)
    world.hand_over(Selection(flow=flow(0)))
    world.advance(2)
    assert (world.path_of_data(0), world.path_of_data(1)) == ("mnps", "mn")
    with pytest.raises(RuleRefused, match="take it back first"):
        add(world, "mn")
    world.take_back()
    world.advance(2)
    assert add(world, "mn") in world.device.rules.all()


def test_device_without_an_identifier_is_not_a_target() -> None:
    world = World()
    world.advance(3)
    with pytest.raises(Exception, match="set bid"):
        add(world, "mn")
    assert world.device.rules.settled
