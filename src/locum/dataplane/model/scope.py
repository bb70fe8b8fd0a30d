"""Receivers of frames, and packets that belong to one link: the Python half of bpf/scope.h.

A VLAN's tag is no part of these frames: the kernel takes it off and gives the frame to the VLAN's interface.
"""

from enum import Enum

from locum.dataplane.layout.maps import MAPPED
from locum.dataplane.model.parse import ICMP, ICMPV6, IGMP, Packet, Unread, stays_on_link

# Types of ICMP between the hosts of one link: redirects, router discovery; MLD, neighbour discovery, SEND, router discovery.
_LINK_TYPES = {
    ICMP: frozenset((5, 9, 10)),
    ICMPV6: frozenset((*range(130, 138), 143, 148, 149, *range(151, 154))),
}
_LOCAL_GROUPS = MAPPED + b"\xe0\x00\x00"  # 224.0.0.0/24
_GROUP = 1  # bit in the first byte of a link-layer address


class Receivers(Enum):
    """Hosts that a frame is for (`skb->pkt_type`)."""

    HOST = "this host"
    SEVERAL = "several hosts"
    OTHERS = "another host"


def receivers(frame: bytes, hardware: bytes | None) -> Receivers:
    """The hosts that this frame is for, by its link-layer destination; `hardware` None: it is for this host."""
    if hardware is None or frame[:6] == hardware:
        return Receivers.HOST
    return Receivers.SEVERAL if frame[0] & _GROUP else Receivers.OTHERS


def _link_scope(address: bytes) -> bool:
    """True for an address without a meaning beyond a link (16 bytes)."""
    if not stays_on_link(address):
        return False
    if address[:12] == MAPPED:
        return address[12] >> 4 != 0xE or address.startswith(_LOCAL_GROUPS)
    return address[0] != 0xFF or address[1] & 0xF <= 2  # RFC 4291 section 2.7


def _link_protocol(packet: Packet) -> bool:
    if packet.family == 4 and packet.protocol == IGMP:
        return True
    if packet.protocol == (ICMP if packet.family == 4 else ICMPV6):
        return packet.type in _LINK_TYPES[packet.protocol]
    # It may be neighbour discovery, which needs that hop limit.
    return packet.unread is Unread.CHAIN and packet.hops == 255


def asked_for(packet: Packet) -> bool:
    """True for a broadcast of a home network, where its acceptance says that the device wants them (RFC 5944 section 4.3)."""
    broadcast = packet.family == 4 and packet.destination == MAPPED + b"\xff\xff\xff\xff"
    return broadcast and not stays_on_link(packet.source) and not _link_protocol(packet)


def bound_to_link(packet: Packet) -> bool:
    """True for a packet that no router forwards. Groups of a wider scope are none (RFC 5944 section 4.4)."""
    return stays_on_link(packet.source) or _link_scope(packet.destination) or _link_protocol(packet)
