"""Frames in the model: shapes of tunnels, outer headers, and changes to a packet in transit.

The Python half of bpf/tunnel.h; it decides nothing.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.dataplane.layout import maps
from locum.dataplane.model.parse import GRE, IPIP, IPV6_IN, MIP_TUNNEL_DATA, UDP, Packet, ones_sum
from locum.roles.action_values.flows import Encapsulation, Tunnel

ETHERNET = 14
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
OUTER_HOPS = 64


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


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a tunnel packet: where the inner packet starts and its family; family 0 is malformed."""

    inner: int
    family: int


def parse_tunnel(frame: bytes | bytearray, packet: Packet) -> Shape | None:
    """The shape of a packet to an end point of tunnels, None if it is no tunnel packet."""
    at = packet.payload
    match packet.protocol:
        case protocol if protocol == IPIP:
            return Shape(at, 4)
        case protocol if protocol == IPV6_IN:
            return Shape(at, 6)
        case protocol if protocol == GRE:
            return _parse_gre(frame, at)
        case protocol if protocol == UDP and packet.type == MIP_TUNNEL_DATA:
            family = {IPIP: 4, IPV6_IN: 6}.get(frame[at + 9], 0) if at + 12 <= len(frame) else 0
            return Shape(at + 12, family)
    return None


def _parse_gre(frame: bytes | bytearray, at: int) -> Shape:
    if at + 4 > len(frame):
        return Shape(at, 0)
    flags = int.from_bytes(frame[at : at + 2], "big")
    if flags & 0x4007:
        return Shape(at, 0)
    length = 4 + sum(4 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(bytes(frame[at + 2 : at + 4]), 0)
    return Shape(at + length, family)


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


def flow_key(local: bytes, peer: bytes, local_port: int, peer_port: int, packet: Packet) -> bytes:
    return maps.FLOW_KEY.pack(local, peer, maps.port(local_port), maps.port(peer_port), packet.protocol)


def decapsulate(work: Work) -> None:
    if work.strip:
        del work.frame[ETHERNET : ETHERNET + work.strip]
        work.frame[12:14] = ETHERTYPES[work.packet.family]
        work.packet.payload -= work.strip
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
    """RFC 6040 section 4.2; False: the packet must be dropped."""
    packet = work.packet
    if work.outer_tos & 3 != 3 or packet.tos & 3 == 3:
        return True
    if not packet.tos & 3:
        return False
    packet.tos |= 3
    at = packet.offset
    if packet.family == 6:
        work.frame[at + 1] |= 0x30
    else:
        _replace(work, at, bytes((work.frame[at], work.frame[at + 1] | 3)))
    return True
