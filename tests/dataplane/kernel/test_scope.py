"""Packets that claim to need no judgement: neighbour discovery, link-scope addresses, addresses and tunnels of this node."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    PadN,
)
from scapy.packet import Packet, Raw

from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.flows import Filter, FilterPlace, FilterVerdict, InstallFilter, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    LocalEndpoint,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from tests.dataplane.one_node import OneNode, one_node

HOMES = HOME, HOME6 = ip_address("10.9.0.5"), ip_address("fd09::5")
AWAY6 = ip_address("fd09::6")  # bound here, elsewhere
PEER, PEER6 = "10.1.0.2", "fd01::2"
NODE, NODE6 = ip_address("10.2.0.200"), ip_address("fd02::200")
AGENT, AGENT6 = ip_address("10.5.0.1"), ip_address("fd05::1")
DISCOVERY = (ICMPv6ND_RS(), ICMPv6ND_NS(tgt="fd03::1"), ICMPv6ND_NA(tgt="fd09::5"), ICMPv6ND_Redirect())
OF_LINK = ("169.254.7.7", "240.1.1.1")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with one_node(tmp_path_factory.mktemp("scope")) as made:
        yield made


@pytest.fixture
def node(shared: OneNode) -> Iterator[OneNode]:
    """An access node whose visitor may neither send nor receive, and a home agent of another device."""
    actions: list[Action] = [LocalEndpoint(NODE), LocalEndpoint(NODE6)]
    for home, agent in zip(HOMES, (AGENT, AGENT6), strict=True):
        actions.append(AcceptTunnel(TunnelAcceptance(agent, home, Side.TO_HOME_ADDRESS, "lan0", home)))
        actions += [InstallFilter(Filter(home, place, (), FilterVerdict.DROP)) for place in FilterPlace]
    actions.append(InstallBinding(BindingEntry(AWAY6, Verdict.ENCAPSULATE, (Tunnel(NODE6, AGENT6),))))
    shared.plane.reconcile(actions)
    shared.plane.serve_visitors(("lan0",))
    yield shared
    shared.plane.serve_visitors(())


def datagram(source: object, destination: object) -> Packet:
    head = IP if ip_address(str(source)).version == 4 else IPv6
    return head(src=str(source), dst=str(destination)) / UDP(sport=1000, dport=9) / b"data"


def discovery(kind: Packet, source: object, destination: object, hops: int) -> Packet:
    return IPv6(src=str(source), dst=str(destination), hlim=hops) / kind.copy()


@pytest.mark.parametrize("kind", DISCOVERY, ids=lambda kind: kind.name)
@pytest.mark.parametrize("hops", [64, 255])
def test_forwarded_neighbour_discovery_is_judged(node: OneNode, kind: Packet, hops: int) -> None:
    assert node.run(discovery(kind, HOME6, PEER6, hops), "lan0").way is Reason.FILTERED_FROM_VISITOR
    assert node.run(discovery(kind, "fd77::7", PEER6, hops), "lan0").way is Reason.SPOOFED_SOURCE
    to_visitor = discovery(kind, PEER6, HOME6, hops - 1)
    assert node.run(to_visitor, "lan0", "egress", entered="out0").way is Reason.FILTERED_TO_VISITOR


def test_neighbour_discovery_of_the_link_passes(node: OneNode) -> None:
    ask, answer = DISCOVERY[1:3]
    assert node.run(discovery(ask, HOME6, "fd03::1", 255), "lan0").way is Outcome.PASSED
    assert node.run(discovery(ask, "fd77::7", "fd03::1", 255), "lan0").way is Outcome.PASSED
    assert node.run(discovery(ask, HOME6, "fe80::1", 255), "lan0").way is Outcome.PASSED
    assert node.run(discovery(ask, "fd77::7", "fd03::1", 64), "lan0").way is Reason.SPOOFED_SOURCE
    assert node.run(discovery(answer, "fd03::1", HOME6, 255), "lan0", "egress").way is Outcome.PASSED
    # For an address that this node is a neighbour discovery proxy of; else it is an ordinary packet.
    assert node.run(discovery(ask, PEER6, AWAY6, 255)).way is Outcome.PASSED
    assert node.run(discovery(ask, PEER6, AWAY6, 64)).way == AGENT6


OWN_TUNNEL = (
    IPv6(src=str(NODE6), dst=str(HOME6), nh=41) / IPv6(src=PEER6, dst=str(HOME6)) / UDP(dport=9),
    IPv6(src=str(NODE6), dst=str(HOME6)) / UDP(sport=434, dport=53) / (b"\x04\x29\0\0" + bytes(40)),
    IP(src=str(NODE), dst=str(HOME), proto=4) / IP(src=PEER, dst=str(HOME)) / UDP(dport=9),
)


@pytest.mark.parametrize("packet", OWN_TUNNEL, ids=("IPv6", "UDP", "IPv4"))
def test_tunnel_packets_of_this_node_were_made_here(node: OneNode, packet: Packet) -> None:
    assert node.run(packet).way is Reason.SPOOFED_SOURCE, "arrives from a link"
    assert node.run(packet, "lan0", "egress", entered="out0").way is Reason.FILTERED_TO_VISITOR
    assert node.run(packet, "lan0", "egress").way is Outcome.PASSED


@pytest.mark.parametrize("own", ["10.2.0.200", "10.3.0.1", "fd02::200", "fd03::1"])
def test_packets_from_this_node_do_not_arrive(node: OneNode, own: str) -> None:
    for destination in (PEER, NODE) if ip_address(own).version == 4 else (PEER6, AWAY6, NODE6):
        for link in ("out0", "lan0"):
            assert node.run(datagram(own, destination), link).way is Reason.SPOOFED_SOURCE
    assert node.plane.counters()["spoofed-source"]


def test_sources_are_checked_for_packets_to_an_end_point(node: OneNode) -> None:
    """Also in a tunnel from a forged care-of address, and in a broadcast frame."""
    back = TunnelAcceptance(ip_address("10.7.0.9"), ip_address("10.9.0.8"), Side.FROM_HOME_ADDRESS)
    node.plane.apply([AcceptTunnel(back)])
    inner = datagram("10.9.0.8", PEER)
    for tunnelled in (datagram("192.0.2.99", NODE), IP(src="10.7.0.9", dst=str(NODE)) / inner):
        assert node.run(tunnelled, "lan0").way is Reason.SPOOFED_SOURCE
        assert node.run(tunnelled, "out0").way is Outcome.PASSED
    registration = IP(src="192.0.2.99", dst=str(NODE)) / UDP(dport=434) / (b"\x01" + bytes(23))
    assert node.run(registration, "lan0").way is Outcome.PASSED
    assert node.run(datagram("10.3.0.77", NODE), "lan0").way is Outcome.PASSED, "a host of the link"
    forged = datagram("192.0.2.99", "10.3.0.1")
    assert node.run(forged, "lan0", receiver=b"\xff" * 6).way is Reason.SPOOFED_SOURCE


@pytest.mark.parametrize("address", OF_LINK)
def test_link_scope_addresses_do_not_pass_beyond_the_link(node: OneNode, address: str) -> None:
    """The kernel sends such packets on."""
    assert node.run(datagram(address, PEER), "lan0").way is Reason.SPOOFED_SOURCE
    assert node.run(datagram(address, "10.3.0.1"), "lan0").way is Outcome.PASSED
    to_visitor = datagram(address, HOME)
    assert node.run(to_visitor, "lan0", "egress", entered="out0").way is Reason.FILTERED_TO_VISITOR
    assert node.run(datagram(HOME, address), "lan0").way is Reason.FILTERED_FROM_VISITOR
    assert node.run(datagram("192.0.2.99", address), "lan0").way is Reason.SPOOFED_SOURCE
    assert node.run(datagram(HOME, address), "out0", "egress").way is Reason.FILTERED_EMISSION


def test_tunnel_packets_hide_behind_no_headers(node: OneNode) -> None:
    """An unread chain of headers, and a first fragment that ends before the message's type."""
    packet = IPv6(src="fd66::66", dst=str(NODE6))
    for _ in range(9):
        packet /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    packet.lastlayer().nh = 4
    hidden = packet / Raw(bytes(datagram(PEER, HOME)))
    assert node.run(IPv6(bytes(hidden))).way is Reason.UNREAD_HEADERS
    whole = bytes(UDP(sport=434, dport=434, len=60, chksum=0)) + b"\x04\x04\0\0" + bytes(48)
    for size in (8, 16):
        first = IP(src="10.66.0.66", dst=str(NODE), proto=17, flags="MF", id=7) / Raw(whole[:size])
        assert node.run(first).way is Reason.UNREGISTERED_SOURCE
    other = bytes(UDP(sport=5000, dport=5000, len=60, chksum=0))
    assert node.run(IP(src="10.66.0.66", dst=str(NODE), proto=17, flags="MF") / Raw(other)).way is (
        Outcome.PASSED
    )


def test_segments_too_big_for_the_link_go_to_the_stack(node: OneNode) -> None:
    """Of a packet whose tunnel ends where it begins: it is delivered as it is."""
    run = ProgramRun(node.plane._object.program("locum_ingress"))
    home = ip_address("10.9.0.9")
    binding = BindingEntry(home, Verdict.ENCAPSULATE, (Tunnel(NODE, NODE),))
    acceptance = TunnelAcceptance(NODE, home, Side.TO_HOME_ADDRESS, "lan0", home)
    node.plane.apply([InstallBinding(binding), AcceptTunnel(acceptance)])
    data = bytes(IP(src=PEER, dst=str(home)) / TCP(dport=80) / Raw(bytes(3000)))
    for size, outcome in ((1460, Outcome.DELIVERED), (1461, Outcome.PASSED)):
        frame = node._hardware["out0"] + bytes(6) + b"\x08\x00" + data
        _, _, context, _ = run.run(frame, ifindex=node.links["out0"], gso_size=size)
        assert struct.unpack_from("I", context, 48)[0] == outcome
