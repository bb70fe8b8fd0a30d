"""Tunnel packets at the programs and at the model: which ones come out, and how."""

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

import pytest
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrRouting
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
)
from locum.roles.action_values.forwarding import AcceptTunnel, LocalEndpoint, Side, TunnelAcceptance
from locum.roles.actions import Action
from locum.wire.ip.checksum import ones_sum
from locum.wire.traffic_selector import Ipv6Selector
from tests.dataplane.one_host import OneHost, one_host

HOMES = {4: ip_address("10.9.0.5"), 6: ip_address("fd09::5")}
PEERS = {4: ip_address("10.1.0.2"), 6: ip_address("fd01::2")}
AGENTS = {4: ip_address("10.3.0.1"), 6: ip_address("fd03::1")}
ENDS = {4: ip_address("10.2.0.1"), 6: ip_address("fd02::1")}


class Entry(OneHost):
    """A host at which tunnels end: the program and the model do the same with each packet."""

    def accept(self, *acceptances: TunnelAcceptance) -> None:
        """Accept these tunnels and no others."""
        actions: list[Action] = [LocalEndpoint(end) for end in ENDS.values()]
        self.plane.reconcile([*actions, *(AcceptTunnel(acceptance) for acceptance in acceptances)])

    def receive(self, packet: Packet | bytes) -> tuple[Outcome, Reason, bytes]:
        """The outcome for a packet that arrives, and the packet that goes on."""
        wanted, out = self.arrive(packet)
        if wanted.outcome is Outcome.DROPPED:
            return wanted.outcome, wanted.reason, b""
        assert out == wanted.frame, bytes(packet).hex()
        return wanted.outcome, wanted.reason, out[14:]


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    with one_host(tmp_path_factory.mktemp("bpf"), "entry") as plane:
        yield Entry(plane)


def header(source: Addr, destination: Addr, tos: int) -> Packet:
    """An IP header with this traffic class."""
    if source.version == 4:
        return IP(src=str(source), dst=str(destination), tos=tos)
    return IPv6(src=str(source), dst=str(destination), tc=tos)


def inner(family: int, tos: int = 0) -> Packet:
    """A packet for the home address."""
    return header(PEERS[family], HOMES[family], tos) / UDP(dport=9) / b"hello"


def outer(family: int, tos: int = 0) -> Packet:
    return header(AGENTS[family], ENDS[family], tos)


def to_homes(outer_family: int) -> list[TunnelAcceptance]:
    return [TunnelAcceptance(AGENTS[outer_family], home, Side.TO_HOME_ADDRESS) for home in HOMES.values()]


NOT_ECT, ECT_1, ECT_0, CE, DROP = 0, 1, 2, 3, None
# RFC 6040 figure 4: rows by the inner field, columns by the outer one in the order Not-ECT, ECT(0), ECT(1), CE.
FIGURE_4 = {
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, DROP),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}


@pytest.mark.parametrize("outer_family", [4, 6])
@pytest.mark.parametrize("family", [4, 6])
def test_congestion_marks(entry: Entry, family: int, outer_family: int) -> None:
    """RFC 6040 figure 4, and the inner packet keeps its DSCP (RFC 2983 section 3.1) and a right checksum."""
    entry.accept(*to_homes(outer_family))
    for inside, row in FIGURE_4.items():
        for outside, wanted in zip((NOT_ECT, ECT_0, ECT_1, CE), row, strict=True):
            packet = outer(outer_family, 0xB8 | outside) / inner(family, 0x28 | inside)
            outcome, reason, out = entry.receive(packet)
            if wanted is DROP:
                assert (outcome, reason) == (Outcome.DROPPED, Reason.CONGESTED)
            else:
                assert (outcome, out) == (Outcome.PASSED, bytes(inner(family, 0x28 | wanted)))


@pytest.mark.parametrize("outer_family", [4, 6])
def test_gre_keys(entry: Entry, outer_family: int) -> None:
    """RFC 2890 section 2.1: a tunnel with a key takes packets with this key, one without takes none with any."""
    source, refused = AGENTS[outer_family], (Outcome.DROPPED, Reason.UNREGISTERED_SOURCE)
    shapes = {None: GRE(), 0: GRE(key_present=1, key=0), 7: GRE(key_present=1, key=7)}
    for own in shapes:
        entry.accept(TunnelAcceptance(source, HOMES[4], Side.TO_HOME_ADDRESS, gre_key=own))
        for key, shim in shapes.items():
            outcome = entry.receive(outer(outer_family) / shim / inner(4))[:2]
            assert outcome == ((Outcome.PASSED, Reason.NONE) if key == own else refused), (own, key)
        outcome = entry.receive(outer(outer_family) / inner(4))[:2]
        assert outcome == ((Outcome.PASSED, Reason.NONE) if own is None else refused)


def test_gre_bits(entry: Entry) -> None:
    """RFC 2784 section 2.3: bits 1, 4 and 5 have to be zero, bits 6 to 12 are ignored; the version is 0."""
    entry.accept(*to_homes(4))
    for place in range(16):
        if place in (0, 2, 3):  # a checksum, a key, a sequence number
            continue
        shim = (0x8000 >> place).to_bytes(2, "big") + b"\x08\x00"
        packet = IP(src=str(AGENTS[4]), dst=str(ENDS[4]), proto=47) / (shim + bytes(inner(4)))
        malformed = place in (1, 4, 5, 13, 14, 15)
        wanted = (Outcome.DROPPED, Reason.MALFORMED_TUNNEL) if malformed else (Outcome.PASSED, Reason.NONE)
        assert entry.receive(packet)[:2] == wanted, place


BAD = (Outcome.DROPPED, Reason.BAD_CHECKSUM)
TAKEN = (Outcome.PASSED, Reason.NONE)


def test_checksum_of_the_outer_header(entry: Entry) -> None:
    """RFC 1812 section 5.2.2: a tunnel packet with a wrong IPv4 header checksum is dropped, with options or without."""
    entry.accept(*to_homes(4))
    for options in ([], [IPOption_NOP()] * 4, [IPOption_NOP()] * 40):
        packet = IP(src=str(AGENTS[4]), dst=str(ENDS[4]), options=options) / inner(4)
        assert entry.receive(packet)[:2] == TAKEN
        right = bytes(packet)
        last = len(right) - len(bytes(inner(4))) - 1
        for place in (1, 4, 8, 10, 15, last if options else 11):
            wrong = bytearray(right)
            wrong[place] ^= 0x41
            assert entry.receive(bytes(wrong))[:2] == BAD, (options, place)


def covered(kind: str, outer_family: int, inside: Packet) -> tuple[bytes, int]:
    """A tunnel packet with a checksum of its own, and the place of the checksum."""
    bytes_before = 20 if outer_family == 4 else 40
    if kind == "gre":
        return bytes(outer(outer_family) / GRE(chksum_present=1) / inside), bytes_before + 4
    data = bytes((4, 4 if inside.version == 4 else 41, 0, 0)) + bytes(inside)
    return bytes(outer(outer_family) / UDP(sport=434, dport=434) / Raw(data)), bytes_before + 6


@pytest.mark.parametrize("outer_family", [4, 6])
@pytest.mark.parametrize("kind", ["gre", "udp"])
def test_checksum_of_the_tunnel(entry: Entry, kind: str, outer_family: int) -> None:
    """RFC 2784 section 2.3 and RFC 3519 section 4.5; a zero of UDP is none, in IPv6 as well (RFC 6935)."""
    entry.accept(*to_homes(outer_family))
    for size in (0, 1, 2, 3, 100, 456, 511, 512, 1000, 1373, 3000):
        inside = inner(4) / Raw(bytes(place * 7 & 0xFF for place in range(size)))
        right, at = covered(kind, outer_family, inside)
        assert entry.receive(right)[:2] == TAKEN, size
        for place in (at, at + 1, at + 10, len(right) - 1):
            wrong = bytearray(right)
            wrong[place] ^= 0x10
            assert entry.receive(bytes(wrong))[:2] == BAD, (size, place)
    none = bytearray(right)
    none[at : at + 2] = bytes(2)
    assert entry.receive(bytes(none))[:2] == (TAKEN if kind == "udp" else BAD)


@pytest.mark.parametrize("outer_family", [4, 6])
@pytest.mark.parametrize("kind", ["gre", "udp"])
def test_checksum_that_was_left_to_a_device(entry: Entry, kind: str, outer_family: int) -> None:
    """Between namespaces of one host no device fills in a checksum: the inner packet's, and so the outer one is over another."""
    entry.accept(*to_homes(outer_family))
    right, at = covered(kind, outer_family, inner(4))
    start = right.rindex(b"hello") - 8
    packet = bytearray(right)
    pseudo = PEERS[4].packed + HOMES[4].packed + bytes((0, 17, 0, 13))
    packet[start + 6 : start + 8] = ones_sum(pseudo).to_bytes(2, "big")
    assert entry.receive(bytes(packet))[:2] == TAKEN
    if kind == "udp":
        packet = bytearray(right)
        pseudo = AGENTS[outer_family].packed + ENDS[outer_family].packed + bytes((0, 17))
        packet[at : at + 2] = ones_sum(pseudo + packet[at - 2 : at]).to_bytes(2, "big")
        assert entry.receive(bytes(packet))[:2] == TAKEN


def test_checksums_of_strangers(entry: Entry) -> None:
    """Nothing is added up for a source that no device has."""
    entry.accept(*to_homes(6))
    right, at = covered("udp", 4, inner(4))
    wrong = right[:at] + b"\x12\x34" + right[at + 2 :]
    assert entry.receive(wrong)[:2] == (Outcome.DROPPED, Reason.UNREGISTERED_SOURCE)


@pytest.mark.parametrize("outer_family", [4, 6])
def test_mapped_addresses(entry: Entry, outer_family: int) -> None:
    """An IPv6 header with an IPv4-mapped address meets no entry of the IPv4 address, inside a tunnel or outside."""
    entry.accept(*to_homes(outer_family), TunnelAcceptance(AGENTS[4], HOMES[4], Side.FROM_HOME_ADDRESS))
    dropped = (Outcome.DROPPED, Reason.MAPPED_ADDRESS, b"")
    home, peer = f"::ffff:{HOMES[4]}", str(PEERS[6])
    for source, destination in ((peer, home), (home, peer), (home, home)):
        packet = IPv6(src=source, dst=destination) / UDP(dport=9)
        assert entry.receive(packet) == dropped
        assert entry.receive(outer(outer_family) / packet) == dropped
    tunnelled = IPv6(src=f"::ffff:{AGENTS[4]}", dst=f"::ffff:{ENDS[4]}") / inner(4)
    assert entry.receive(tunnelled) == dropped


@pytest.mark.parametrize("outer_family", [4, 6])
def test_routing_headers(entry: Entry, outer_family: int) -> None:
    """Source routing by type 0 ends here (RFC 5095); other types, and routes that are done, pass."""
    entry.accept(*to_homes(outer_family))
    for kind, left in ((0, 1), (0, 0), (2, 1), (4, 1)):
        header = IPv6ExtHdrRouting(type=kind, segleft=left, addresses=["fd07::7"])
        packet = IPv6(src=str(PEERS[6]), dst=str(HOMES[6])) / header / UDP(dport=9)
        wanted = Outcome.DROPPED if (kind, left) == (0, 1) else Outcome.PASSED
        reason = Reason.ROUTING_HEADER if wanted is Outcome.DROPPED else Reason.NONE
        for received in (packet, outer(outer_family) / packet):
            assert entry.receive(received)[:2] == (wanted, reason)


def test_filters_see_the_final_destination(entry: Entry) -> None:
    """A visitor cannot reach a forbidden address by way of another one."""
    entry.accept()
    forbidden, allowed = IPv6Address("fd01::66"), PEERS[6]
    rule = FilterRule(1, Ipv6Selector(destination=(forbidden, forbidden)), FilterVerdict.DROP)
    found = Filter(HOMES[6], FilterPlace.FROM_VISITOR, (rule,), FilterVerdict.ALLOW)
    entry.plane.apply([InstallFilter(found)])
    for kind in (2, 4):
        for final, outcome in ((forbidden, Outcome.DROPPED), (allowed, Outcome.PASSED)):
            header = IPv6ExtHdrRouting(type=kind, segleft=1, addresses=[str(final)])
            packet = IPv6(src=str(HOMES[6]), dst=str(allowed)) / header / UDP(dport=9)
            assert entry.receive(packet)[0] is outcome
