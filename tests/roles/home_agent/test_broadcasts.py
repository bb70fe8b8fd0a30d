"""Broadcasts of the home network (RFC 5944 section 4.3): who gets copies, in which tunnel, and how many."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from locum.roles import actions as a
from locum.roles.home_agent.binding import Binding, CareOf, Mobile
from locum.roles.home_agent.bindings import MOST_COPIES, Bindings
from locum.roles.home_agent.configuration import HomeAgentConfiguration, TraversalPolicy
from locum.roles.home_agent.expiry_triggers import ExpiryTriggers
from locum.wire.control import Flow
from locum.wire.ip import Ipv4Header
from locum.wire.ip.packet import build_udp
from locum.wire.mobile_ip.extensions import UdpTunnelRequest
from locum.wire.mobile_ip.registration import Flag
from locum.wire.mobile_ip.tunnel_data import TunnelData
from tests.roles.homeworld import ACCEPTED, AN1, AN2, DEVICE_KEY, HA, HOA, Home
from tests.roles.world import COLOCATED

EVERYBODY = IPv4Address("255.255.255.255")
PACKET = build_udp(Flow(17, IPv4Address("10.50.0.7"), 137, EVERYBODY, 137), b"who is there?", from_peer=False)
BOTH = Flag.T | Flag.B


def copies(home: Home) -> list[a.Action]:
    return list(home.role.happened(a.HomeBroadcast(PACKET), now=home.now))


def test_only_mobile_nodes_that_ask_get_broadcasts() -> None:
    home = Home()
    assert copies(home) == []
    assert home.device.register(AN1) == ACCEPTED and copies(home) == []
    assert home.device.register(AN1, flags=BOTH) == ACCEPTED and len(copies(home)) == 1
    assert home.device.register(AN1) == ACCEPTED and copies(home) == []


def test_broadcast_through_a_foreign_agent_is_tunnelled_twice() -> None:
    home = Home()
    assert home.device.register(AN1, flags=BOTH) == ACCEPTED
    (copy,) = copies(home)
    assert isinstance(copy, a.ForwardPacket)  # to the home address: the data plane adds the other tunnel
    header, inner = Ipv4Header.decode(copy.packet)
    assert (header.source, header.destination, header.protocol, inner) == (HA, HOA, 4, PACKET)


@pytest.mark.parametrize(("more", "protocol", "between"), [(Flag(0), 4, b""), (Flag.G, 47, b"\0\0\x08\0")])
def test_broadcast_to_a_colocated_address_is_tunnelled_once(
    more: Flag, protocol: int, between: bytes
) -> None:
    home = Home()
    assert home.device.register(COLOCATED, flags=BOTH | Flag.D | more) == ACCEPTED
    (copy,) = copies(home)
    assert isinstance(copy, a.SendPacket)
    header, inner = Ipv4Header.decode(copy.packet)
    assert (header.source, header.destination, header.protocol) == (HA, COLOCATED, protocol)
    assert inner == between + PACKET


def test_broadcast_through_a_nat_goes_in_udp() -> None:
    home = Home(configuration=HomeAgentConfiguration(HA, traversal=TraversalPolicy()))
    assert home.device.register(COLOCATED, flags=BOTH | Flag.D, more=[UdpTunnelRequest()]) == ACCEPTED
    (copy,) = copies(home)  # the request came from AN1, which is thus the NAT
    assert isinstance(copy, a.SendRegistration) and (copy.to, copy.port, copy.source) == (AN1, 434, HA)
    assert TunnelData.decode(copy.message).payload == PACKET


def test_broadcasts_end_with_the_registration() -> None:
    home = Home()
    assert home.device.register(AN1, flags=BOTH) == ACCEPTED
    home.start()
    assert len(copies(home)) == 1
    home.advance(301)
    assert copies(home) == []
    assert home.device.register(AN2, flags=BOTH) == ACCEPTED and len(copies(home)) == 1
    assert home.device.cancel() == ACCEPTED and copies(home) == []
    assert home.device.register(AN2, flags=BOTH) == ACCEPTED
    home.perform(
        [action for action in home.role.withdraw(HOA, now=home.now) if not isinstance(action, a.Reply)]
    )
    assert copies(home) == []


def test_storm_of_broadcasts_is_bounded_and_counted() -> None:
    home = Home()
    assert home.device.register(AN1, flags=BOTH) == ACCEPTED
    found = [action for _ in range(MOST_COPIES + 5) for action in copies(home)]
    assert sum(isinstance(action, a.ForwardPacket) for action in found) == MOST_COPIES
    assert found.count(a.Count("broadcast-too-many")) == 5
    home.advance(1)
    assert len(copies(home)) == 1


def directed(to: str) -> bytes:
    flow = Flow(17, IPv4Address("10.60.0.7"), 137, IPv4Address(to), 137)
    return build_udp(flow, b"who is there?", from_peer=False)


def test_broadcast_of_a_network_is_for_its_mobile_nodes() -> None:
    mobiles = [
        Mobile(IPv4Address(address), DEVICE_KEY) for address in ("10.60.0.9", "10.60.1.9", "10.60.1.8")
    ]
    networks = [IPv4Network("10.60.0.0/24"), IPv4Network("10.60.1.0/24")]
    bindings = Bindings(HA, mobiles, ExpiryTriggers(enabled=False), networks=networks)
    flags = (int(BOTH), int(BOTH), int(Flag.T))
    for home, mobile, asked in zip(bindings.homes.values(), mobiles, flags, strict=True):
        bindings.keep(home, Binding(mobile.home_address, (CareOf(AN1, 300, 1300.0, asked, AN1),)))

    def got(packet: bytes) -> list[str]:
        actions = bindings.broadcast(packet, now=1000.0)
        assert all(isinstance(action, a.ForwardPacket) for action in actions)
        headers = [
            Ipv4Header.decode(action.packet) for action in actions if isinstance(action, a.ForwardPacket)
        ]
        assert all(inner == packet for _, inner in headers)
        return [str(header.destination) for header, _ in headers]

    assert got(directed("10.60.0.255")) == ["10.60.0.9"]
    assert got(directed("10.60.1.255")) == ["10.60.1.9"]
    assert got(directed("10.60.2.255")) == got(directed("10.60.0.254")) == []
    assert got(PACKET) == ["10.60.0.9", "10.60.1.9"]
    for home in bindings.homes.values():
        bindings.cancel(home)
    assert got(directed("10.60.0.255")) == got(PACKET) == []


def test_broadcasts_of_a_network_are_bounded_with_the_others() -> None:
    mobile = Mobile(IPv4Address("10.60.0.9"), DEVICE_KEY)
    networks = [IPv4Network("10.60.0.0/24")]
    bindings = Bindings(HA, [mobile], ExpiryTriggers(enabled=False), networks=networks)
    (home,) = bindings.homes.values()
    bindings.keep(home, Binding(mobile.home_address, (CareOf(AN1, 300, 1300.0, int(BOTH), AN1),)))
    packets = [PACKET, directed("10.60.0.255")] * MOST_COPIES
    found = [action for packet in packets for action in bindings.broadcast(packet, now=1000.0)]
    assert sum(isinstance(action, a.ForwardPacket) for action in found) == MOST_COPIES
    assert found.count(a.Count("broadcast-too-many")) == MOST_COPIES


def test_listeners_past_the_bound_come_first_next() -> None:
    """A broadcast past the bound walks no listeners: one count tells how many got no copy."""
    number = MOST_COPIES + 50
    mobiles = [Mobile(IPv4Address("10.60.0.0") + index, DEVICE_KEY) for index in range(number)]
    bindings = Bindings(HA, mobiles, ExpiryTriggers(enabled=False))
    for index, home in enumerate(bindings.homes.values()):
        care_of = CareOf(AN1, 300, 1300.0, int(BOTH), AN1)
        bindings.keep(home, Binding(mobiles[index].home_address, (care_of,)))

    def got(now: float) -> tuple[list[IPv4Address], list[a.Action]]:
        actions = bindings.broadcast(PACKET, now=now)
        sent = [action for action in actions if isinstance(action, a.ForwardPacket)]
        others = [action for action in actions if action not in sent]
        return [Ipv4Header.decode(action.packet)[0].destination for action in sent], others

    first, counted = got(1000.0)
    assert len(first) == MOST_COPIES and counted == [a.Count("broadcast-too-many", 50)]
    assert got(1000.5) == ([], [a.Count("broadcast-too-many", number)])
    second, _ = got(1001.0)
    assert len(second) == MOST_COPIES and {*first, *second} == {mobile.home_address for mobile in mobiles}
