"""Frames in the model: shapes of tunnels, outer headers, and changes to a packet in transit.

The Python half of bpf/tunnel.h; it decides nothing.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Reason
from locum.dataplane.layout.rules import Part
from locum.dataplane.model.parse import (
    GRE,
    IPIP,
    IPV6_IN,
    MINIMAL,
    MIP_TUNNEL_DATA,
    REGISTRATION_PORT,
    UDP,
    Packet,
)
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.wire.ip.checksum import ones_sum

ETHERNET = 14
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
OUTER_HOPS = 64
NOT_ECT, ECT_1, ECT_0, CE = range(4)  # RFC 3168 section 5
_CHANGES = {(CE, ECT_0), (CE, ECT_1), (ECT_1, ECT_0)}  # (outer, inner) where the outer mark goes in
NO_PARTS = Part(0)


@dataclass(frozen=True, slots=True)
class Transport:
    """Ports or SPI by which rules decide; `known` marks them."""

    source_port: int = 0
    destination_port: int = 0
    spi: int = 0
    known: Part = NO_PARTS


NO_TRANSPORT = Transport()


class Follows(Enum):
    """The packet whose ports a packet is decided by."""

    NOTHING = "nothing"  # its own
    FIRST = "first"  # a fragment: those of its packet's first
    UNKNOWN = "unknown"  # a later fragment whose first is not known
    QUOTED = "quoted"  # an ICMP error: those of the packet that it quotes, reversed


@dataclass(frozen=True, slots=True)
class Ends:
    """A packet's flow as rules and the flow table see it."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int


@dataclass(slots=True)
class Work:
    """A frame in the course of a decision (`struct work`)."""

    frame: bytearray
    packet: Packet
    ifindex: int
    mark: int
    forwarded: bool = False
    egress: bool = False
    from_tap: bool = False
    ends_here: bool = False
    strip: int = 0
    outer_tos: int = 0
    rule: int = 0
    ruled: bool = False
    as_itself: bool = False
    to_several: bool = False
    signalling: bool = False
    renewed: bool = False
    transport: Transport = NO_TRANSPORT
    follows: Follows = Follows.NOTHING
    about: Ends | None = None  # of an ICMP error: the flow that it is about
    refused: Reason | None = None  # why it may not go on


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a tunnel packet: where the inner packet starts and its family; family 0 is malformed. `key` is that of GRE.

    `covered`: the UDP or GRE header has a checksum.
    """

    inner: int
    family: int
    key: int | None = None
    covered: bool = False


def parse_tunnel(frame: bytes | bytearray, packet: Packet) -> Shape | None:
    """The shape of a packet to an end point of tunnels, None if it is no tunnel packet."""
    at = packet.payload
    match packet.protocol:
        case protocol if protocol == IPIP:
            return Shape(at, 4)
        case protocol if protocol == IPV6_IN:
            return Shape(at, 6)
        case protocol if protocol == MINIMAL and packet.family == 4:
            return Shape(at, 4)  # `minimal.widen` reads it
        case protocol if protocol == GRE:
            return _parse_gre(frame, at)
        case protocol if protocol == UDP and packet.type == MIP_TUNNEL_DATA:
            family = {IPIP: 4, IPV6_IN: 6}.get(frame[at + 9], 0) if at + 12 <= len(frame) else 0
            return Shape(at + 12, family, covered=frame[at + 6 : at + 8] != b"\x00\x00")
        case protocol if protocol == UDP and _may_be_tunnel(packet):
            return Shape(at, 0)
    return None


def _may_be_tunnel(packet: Packet) -> bool:
    """True for a first fragment without the byte that tells."""
    cut = packet.payload + 9 > packet.offset + packet.length
    known = REGISTRATION_PORT in (packet.source_port, packet.destination_port)
    return packet.fragment and not packet.later_fragment and cut and (bool(packet.unread) or known)


def _parse_gre(frame: bytes | bytearray, at: int) -> Shape:
    if at + 4 > len(frame):
        return Shape(at, 0)
    flags = int.from_bytes(frame[at : at + 2], "big")
    if flags & 0x4C07:
        return Shape(at, 0)
    length = 4 + sum(4 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    key = None
    if flags & 0x2000:
        place = at + (8 if flags & 0x8000 else 4)
        if place + 4 > len(frame):
            return Shape(at, 0)
        key = int.from_bytes(frame[place : place + 4], "big")
    family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(bytes(frame[at + 2 : at + 4]), 0)
    return Shape(at + length, family, key, covered=bool(flags & 0x8000))


def outer_headers(tunnel: Tunnel, packet: Packet) -> bytes:
    """The headers that this tunnel puts before the inner packet (RFC 2003, 2473, 2784, 3519)."""
    inner = IPIP if packet.family == 4 else IPV6_IN
    protocol, shim = inner, b""
    if tunnel.encapsulation is Encapsulation.GRE:
        protocol = GRE
        keyed = tunnel.gre_key is not None
        shim = (b"\x20\x00" if keyed else b"\x00\x00") + ETHERTYPES[packet.family]
        shim += (tunnel.gre_key or 0).to_bytes(4, "big") if keyed else b""
    elif tunnel.encapsulation is Encapsulation.UDP:
        protocol = UDP
        ports = maps.port(tunnel.source_port) + maps.port(tunnel.destination_port)
        shim = ports + (packet.length + 12).to_bytes(2, "big") + bytes((0, 0, MIP_TUNNEL_DATA, inner, 0, 0))
    length = packet.length + len(shim)
    if isinstance(tunnel.destination, IPv4Address):
        head = bytes((0x45, packet.tos)) + (length + 20).to_bytes(2, "big") + b"\x00\x00\x40\x00"
        head += bytes((OUTER_HOPS, protocol))
        addresses = tunnel.source.packed + tunnel.destination.packed
        return head + (ones_sum(head + addresses) ^ 0xFFFF).to_bytes(2, "big") + addresses + shim
    word = 0x60000000 | packet.tos << 20
    head = word.to_bytes(4, "big") + length.to_bytes(2, "big") + bytes((protocol, OUTER_HOPS))
    return head + tunnel.source.packed + tunnel.destination.packed + shim


def flow_of(work: Work) -> Ends:
    """The flow that the packet goes with."""
    packet = work.packet
    return work.about or Ends(
        packet.source, packet.destination, packet.source_port, packet.destination_port, packet.protocol
    )


def flow_key(ends: Ends, *, from_home: bool = False) -> bytes:
    """The key of the flow table for a packet to a home address, or from one."""
    local, peer = (
        (ends.destination, maps.port(ends.destination_port)),
        (ends.source, maps.port(ends.source_port)),
    )
    if from_home:
        local, peer = peer, local
    return maps.FLOW_KEY.pack(local[0], peer[0], local[1], peer[1], ends.protocol)


def decapsulate(work: Work) -> None:
    if work.strip:
        del work.frame[ETHERNET : ETHERNET + work.strip]
        work.frame[12:14] = ETHERTYPES[work.packet.family]
        work.packet.payload -= work.strip
        if work.packet.route:
            work.packet.route -= work.strip
        work.packet.offset = ETHERNET
        work.strip = 0


def _add16(one: int, other: int) -> int:
    total = one + other
    return (total & 0xFFFF) + (total >> 16)


def _replace(work: Work, at: int, new: bytes) -> None:
    """Replace two bytes of an IPv4 header and its checksum (RFC 1624)."""
    place = work.packet.offset + 10
    old = int.from_bytes(work.frame[at : at + 2], "little")
    check = int.from_bytes(work.frame[place : place + 2], "little")
    total = _add16(_add16(check ^ 0xFFFF, old ^ 0xFFFF), int.from_bytes(new, "little"))
    work.frame[place : place + 2] = (total ^ 0xFFFF).to_bytes(2, "little")
    work.frame[at : at + 2] = new


def decrement_hops(work: Work) -> None:
    packet = work.packet
    if packet.family == 6:
        work.frame[packet.offset + 7] = packet.hops - 1
        return
    at = packet.offset + 8
    _replace(work, at, bytes((packet.hops - 1, work.frame[at + 1])))


def copy_congestion(work: Work) -> bool:
    """Give the inner packet the outer one's congestion mark, as RFC 6040 figure 4 says; False: drop the packet."""
    packet = work.packet
    outer, inner = work.outer_tos & 3, packet.tos & 3
    if outer == CE and inner == NOT_ECT:
        return False
    if (outer, inner) not in _CHANGES:
        return True
    packet.tos = packet.tos & ~3 | outer
    at = packet.offset
    if packet.family == 6:
        work.frame[at + 1] = work.frame[at + 1] & ~0x30 | outer << 4
    else:
        _replace(work, at, bytes((work.frame[at], packet.tos)))
    return True
