"""Packets whose headers a filter cannot read: dropped and counted where there is a filter, forwarded where there is none."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN
from scapy.packet import Packet, Raw

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment
from locum.roles.action_values.flows import (
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
    Selector,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
)
from locum.roles.actions import Action
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.dataplane.namespaces import Namespace, bpffs, join

HOMES = HOME, HOME6 = ip_address("10.9.0.5"), ip_address("fd09::5")
PEER, PEER6 = "10.1.0.2", "fd01::2"
NODE, AGENT = ip_address("10.2.0.1"), ip_address("10.2.0.2")
TAP = 99
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    """An access node, and a stand-in for the same home addresses, with a route to their home agent."""
    space, other = Namespace("unread"), Namespace("unread-other")
    try:
        with bpffs(tmp_path_factory.mktemp("bpf")) as root:
            join(space, "out0", other, "out1")
            space.run(f"ip addr add {NODE}/24 dev out0")
            with space.inside():
                opened = DataPlane.open(
                    "unread", ["out0"], bpf_root=root, limits=Limits(bindings=64, flows=64)
                )
                try:
                    yield opened
                finally:
                    opened.remove()
    finally:
        space.remove()
        other.remove()


def entries() -> list[Action]:
    actions: list[Action] = [LocalEndpoint(NODE)]
    for home in HOMES:
        actions.append(AcceptTunnel(TunnelAcceptance(AGENT, home, Side.TO_HOME_ADDRESS, "out0")))
        actions.append(InstallOutbound(OutboundEntry(home, None, Tunnel(NODE, AGENT))))
    return actions


def filters(place: FilterPlace) -> list[Action]:
    """TCP to or from port 22 is dropped; everything else is allowed."""
    port = (22, 22)
    selectors: tuple[Selector, ...] = (
        Ipv4Selector(destination_port=port, protocol=(6, 6)),
        Ipv6Selector(destination_port=port, next_header=(6, 6)),
    )
    return [
        InstallFilter(
            Filter(home, place, (FilterRule(1, selector, FilterVerdict.DROP),), FilterVerdict.ALLOW)
        )
        for home, selector in zip(HOMES, selectors, strict=True)
    ]


def chain(number: int) -> Packet:
    headers = IPv6()
    for _ in range(number):
        headers /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    return headers


SYN = TCP(sport=1000, dport=22, flags="S")
SYN_BYTES = bytes(TCP(sport=1000, dport=22, flags="S", chksum=1))
LONG_OPTIONS = bytes((6, 2, 1, 20)) + bytes(20)  # a header of 24 bytes before TCP
FIRST = IPv6ExtHdrFragment(offset=0, m=1, id=7)
READABLE = {
    "plain": IPv6() / TCP(dport=80),
    "as many headers as are read": chain(7) / TCP(dport=80),
    "no ports": IPv6() / IPv6ExtHdrHopByHop() / Raw(b""),
    "whole first fragment": IPv6() / FIRST / TCP(dport=80) / Raw(bytes(4)),
    "plain IPv4": IP() / UDP(dport=80),
}
READABLE["no ports"].payload.nh = 59
UNREADABLE = {
    "too many headers": chain(9) / SYN,
    "headers split by fragmentation": IPv6() / IPv6ExtHdrFragment(nh=60, m=1, id=7) / Raw(LONG_OPTIONS[:16]),
    "fragment without any upper-layer header": chain(1) / IPv6ExtHdrFragment(nh=60, m=1, id=7),
    "first fragment with half of TCP": IPv6() / IPv6ExtHdrFragment(nh=6, m=1, id=7) / Raw(SYN_BYTES[:16]),
    "headers that are longer than the packet": IPv6(nh=60) / Raw(LONG_OPTIONS[:8]),
    "no payload length": IPv6(plen=0) / IPv6ExtHdrHopByHop() / SYN,
    "cut transport header": IPv6(nh=6) / Raw(SYN_BYTES[:3]),
    "first fragment with half of TCP, IPv4": IP(proto=6, flags="MF") / Raw(SYN_BYTES[:8]),
    "cut transport header, IPv4": IP(proto=6) / Raw(SYN_BYTES[:19]),
    "cut UDP header, IPv4": IP(proto=17) / Raw(b"\0\x16\0\x16"),
}
PLACES = tuple(FilterPlace)


def frame(shape: Packet, place: FilterPlace) -> bytes:
    """The packet to or from its home address, in the tunnel where it comes out of one."""
    packet = shape.copy()
    home, peer = (str(HOME), PEER) if packet.version == 4 else (str(HOME6), PEER6)
    inward = place is FilterPlace.TO_VISITOR
    packet.src, packet.dst = (peer, home) if inward else (home, peer)
    packet = packet.__class__(bytes(packet))
    if not inward:
        return bytes(12) + ETHERTYPES[packet.version] + bytes(packet)
    outer = IP(src=str(AGENT), dst=str(NODE), proto=4 if packet.version == 4 else 41) / packet
    return bytes(12) + ETHERTYPES[4] + bytes(outer)


def decisions(plane: DataPlane, sent: bytes, place: FilterPlace) -> tuple[Outcome, Reason]:
    """The decision of the program, which is that of the model."""
    hook = "egress" if place is FilterPlace.EMISSION else "ingress"
    _, _, context, _ = ProgramRun(plane._object.program(f"locum_{hook}")).run(sent)
    outcome, reason = struct.unpack_from("II", context, 48)
    model = Model(plane.state, Environment(TAP, {"out0": 2}))
    wanted = model.egress(sent, 2) if hook == "egress" else model.ingress(sent, 2)
    assert (wanted.outcome, wanted.reason) == (outcome, reason)
    return wanted.outcome, wanted.reason


@pytest.mark.parametrize("place", PLACES, ids=[place.value for place in PLACES])
def test_filter_drops_unread_packets(plane: DataPlane, place: FilterPlace) -> None:
    """RFC 7112 section 5: also those that no rule would take; readable ones meet the rules."""
    plane.reconcile(entries() + filters(place))
    before = plane.counters()
    for name, shape in UNREADABLE.items():
        dropped = decisions(plane, frame(shape, place), place)
        assert dropped == (Outcome.DROPPED, Reason.UNREAD_HEADERS), name
    assert plane.counters()["unread-headers"] - before["unread-headers"] == len(UNREADABLE)
    for name, shape in READABLE.items():
        assert decisions(plane, frame(shape, place), place)[0] is not Outcome.DROPPED, name
    filtered = decisions(plane, frame(chain(7) / SYN, place), place)
    assert filtered[1].label == f"filtered-{place.value}"


@pytest.mark.parametrize("place", PLACES, ids=[place.value for place in PLACES])
def test_unread_packets_pass_without_a_filter(plane: DataPlane, place: FilterPlace) -> None:
    """A filter of another place does not count."""
    other = PLACES[(PLACES.index(place) + 1) % len(PLACES)]
    plane.reconcile(entries() + filters(other))
    for name, shape in UNREADABLE.items():
        assert decisions(plane, frame(shape, place), place)[0] is not Outcome.DROPPED, name


def test_jumbo_packets_of_segments_are_read(plane: DataPlane) -> None:
    """A packet of more than 64 KiB that is still to be cut has no length in its header (Linux: BIG TCP)."""
    plane.reconcile(entries() + filters(FilterPlace.FROM_VISITOR))
    run = ProgramRun(plane._object.program("locum_ingress"))
    for port, wanted in ((22, Reason.FILTERED_FROM_VISITOR), (80, Reason.NONE)):
        segment = TCP(sport=1000, dport=port) / Raw(bytes(3000))
        four = IP(src=str(HOME), dst=PEER, len=0) / segment
        six = IPv6(src=str(HOME6), dst=PEER6, plen=0) / IPv6ExtHdrHopByHop() / segment
        for packet in (four, six):
            sent = bytes(12) + ETHERTYPES[packet.version] + bytes(packet)
            _, _, context, _ = run.run(sent, gso_size=1000)
            assert struct.unpack_from("I", context, 52)[0] == wanted, (port, packet.version)
