"""Packets of proxies at the stand-in's role: rules for exactly these, and an answer when they are in force (R7)."""

from ipaddress import IPv4Address

from locum.roles.action_values.apps import PacketsLed, PacketsWanted, When
from locum.roles.actions import Count
from locum.roles.mnps.leading import NOT_REGISTERED, SILENT, TOO_MANY
from locum.roles.mnps.registration import MAX_FLOWS
from locum.roles.mnps.role import StandIn
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.mnps.test_attending import HANDOVER, NOW, asleep
from tests.roles.mobile_node.test_awake_orders import ALWAYS, AwakeWorld
from tests.roles.world import HOA, PEER

PORT = Ipv4Selector(destination=(HOA, HOA), destination_port=(80, 80), protocol=(6, 6))


def flow(number: int) -> Flow:
    return Flow(6, HOA, 61000 + number, PEER, 80)


def world() -> AwakeWorld:
    found = AwakeWorld()
    found.order(ALWAYS)
    found.advance(5)
    assert found.device.partial_handovers.resting_orders() and ALWAYS.when is When.ALWAYS
    return found


def tell(one: AwakeWorld, *parts: Flow | Ipv4Selector) -> PacketsWanted:
    wanted = PacketsWanted(one.runs[-1].handover, parts)
    one.tell(one.mnps, wanted)
    return wanted


def test_ports_and_connections_become_rules() -> None:
    one = world()
    wanted = tell(one, PORT, flow(0))
    assert one.led == []  # the home agent has not answered yet
    one.advance(2)
    assert one.led == [PacketsLed(wanted.handover, wanted.parts)]
    selectors = {rule.selector for rule in one.ha.bindings[HOA].rules}
    assert PORT in selectors and len(selectors) == 2


def test_silent_home_agent_is_waited_for_in_vain() -> None:
    one = world()
    one.kill(one.ha)
    wanted = tell(one, PORT)
    one.advance(12)
    assert one.led == [PacketsLed(wanted.handover, wanted.parts, SILENT)]


def test_rules_of_a_device_are_bounded() -> None:
    one = world()
    tell(one, *map(flow, range(MAX_FLOWS)))
    one.advance(10)
    assert one.led.pop().reason == ""
    wanted = tell(one, *map(flow, range(MAX_FLOWS + 1)))
    assert one.led == [PacketsLed(wanted.handover, wanted.parts, TOO_MANY)]
    tell(one, *map(flow, range(MAX_FLOWS)))
    one.advance(2)
    assert one.led[-1].reason == ""


def test_rules_end_with_the_handover() -> None:
    one = world()
    tell(one, PORT)
    one.advance(2)
    one.perform(one.mn, one.device.end_order("fox", now=one.clock(one.mn)))
    one.advance(5)
    assert not one.ha.bindings[HOA].rules
    assert one.device.partial_handovers.resting_orders() == {}


def test_stand_in_without_a_registration_says_so() -> None:
    role, _ = asleep()
    assert isinstance(role, StandIn)
    led = role.happened(PacketsWanted(HANDOVER, (PORT,)), now=NOW)
    assert led == [PacketsLed(HANDOVER, (PORT,), NOT_REGISTERED)]
    assert role.happened(PacketsWanted(bytes(16), (PORT,)), now=NOW) == [Count("packets-of-no-handover")]
    assert IPv4Address(str(HOA)) == HOA
