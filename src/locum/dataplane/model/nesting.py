"""Packets that go into no tunnel, because they would come back for ever: the Python half of bpf/nesting.h."""

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Reason
from locum.dataplane.model.frames import Work
from locum.dataplane.model.parse import (
    DESTINATION,
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

NESTING = 4  # tunnels that a packet may be in already (RFC 2473 section 6.6)
OPTIONS = 8  # that are read before the encapsulation limit
PAD1, ENCAPSULATION_LIMIT = 0, 4
SOURCE_PRESENT = 0x80  # RFC 2004 section 3


def circular(work: Work, tunnel: Tunnel) -> Reason | None:
    """The reason why the packet may not go into this tunnel (RFC 2003 section 3.2, RFC 2473 section 4.1.1)."""
    packet = work.packet
    start, end = maps.address(tunnel.source), maps.address(tunnel.destination)
    from_end = packet.source == end and tunnel.encapsulation is not Encapsulation.UDP
    from_start = packet.source == start and work.forwarded and not work.from_tap
    if from_end or from_start:
        return Reason.TUNNEL_LOOP
    if packet.later_fragment:
        return None
    frame = bytes(work.frame)
    return Reason.NESTING_LIMIT if _too_deep(frame, packet) or _at_its_limit(frame, packet) else None


def _between(frame: bytes, at: int, protocol: int) -> int | None:
    """Bytes between a tunnel's outer IP header and the inner packet; None if this is no tunnel packet."""
    if protocol in (IPIP, IPV6_IN):
        return 0
    if protocol == GRE and at < len(frame):
        return 4 + sum(4 for bit in (0x80, 0x20, 0x10) if frame[at] & bit)
    if protocol == UDP and at + 9 <= len(frame):
        ports = [int.from_bytes(frame[at + place : at + place + 2], "big") for place in (0, 2)]
        return 12 if REGISTRATION_PORT in ports and frame[at + 8] == MIP_TUNNEL_DATA else None
    return None


def _too_deep(frame: bytes, packet: Packet) -> bool:
    at, protocol = packet.payload, packet.protocol
    if protocol == UDP and packet.type != MIP_TUNNEL_DATA:
        return False
    for _ in range(NESTING):
        if protocol == MINIMAL and at + 2 <= len(frame):  # with no header of its own inside
            protocol, at = frame[at], at + (12 if frame[at + 1] & SOURCE_PRESENT else 8)
            continue
        more = _between(frame, at, protocol)
        if more is None or at + more + 10 > len(frame):
            return False
        at += more
        if frame[at] >> 4 == 4:
            protocol, at = frame[at + 9], at + (frame[at] & 0xF) * 4
        else:
            protocol, at = frame[at + 6], at + 40
    return True


def _at_its_limit(frame: bytes, packet: Packet) -> bool:
    at = packet.offset + 40
    if packet.family != 6 or packet.payload <= at or frame[packet.offset + 6] != DESTINATION:
        return False
    end = at + (frame[at + 1] + 1) * 8
    at += 2
    for _ in range(OPTIONS):
        if at + 3 > min(end, len(frame)):
            return False
        if (frame[at], frame[at + 1]) == (ENCAPSULATION_LIMIT, 1):
            return not frame[at + 2]
        at += 1 if frame[at] == PAD1 else 2 + frame[at + 1]
    return False
