"""A packet's addresses, protocol and ports as bpf/parse.h reads them: the Python half of the parser.

Addresses stay 16 bytes (IPv4 mapped), as in the maps. Other data than a whole IP packet is None. A packet of which further
headers cannot be read has addresses, and says so in `unread`.
"""

from dataclasses import dataclass
from enum import IntEnum

from locum.dataplane.layout.maps import MAPPED, Reason
from locum.wire.ip.checksum import ones_sum

ICMP, IGMP, IPIP, TCP, UDP, IPV6_IN, GRE, MINIMAL, ICMPV6 = 1, 2, 4, 6, 17, 41, 47, 55, 58
DCCP, SCTP, UDPLITE, ESP, AH = 33, 132, 136, 50, 51
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION))
MAX_EXTENSIONS = 8
# Bytes of the fixed part of upper-layer headers; the first fragment has all of them (RFC 7112 section 5).
TRANSPORT_BYTES = {TCP: 20, SCTP: 12, DCCP: 12, AH: 12, UDP: 8, UDPLITE: 8, ESP: 8, ICMP: 4, ICMPV6: 4}
SOURCE_ROUTES = (131, 137)  # loose and strict, in the options of IPv4
REGISTRATION_PORT = 434
MIP_TUNNEL_DATA = 4


class Unread(IntEnum):
    """The first headers of a packet that cannot be read (`CHAIN_UNREAD`, `TRANSPORT_UNREAD`)."""

    NOTHING = 0
    # Extension headers go on past their limit, the packet or the fragment: the protocol is one of them.
    CHAIN = 1
    TRANSPORT = 2  # the fixed part of the upper-layer header is not whole


@dataclass(slots=True)
class Packet:
    """The fields of `struct packet`; offsets count from the start of the buffer that was parsed."""

    source: bytes
    destination: bytes
    length: int
    offset: int
    payload: int
    family: int
    protocol: int
    tos: int
    hops: int
    fragment: bool = False
    later_fragment: bool = False
    source_port: int = 0
    destination_port: int = 0
    registration: bool = False
    type: int = 0
    identification: bytes = b"\x00" * 4
    flow_label: int = 0
    unread: Unread = Unread.NOTHING
    source_routed: bool = False
    detours: bool = False  # by other source routes, with destinations that no rule is compared with
    unsound: bool = False  # the checksum of its IPv4 header is wrong
    route: int = 0  # offset of a routing header that names another final destination


def stays_on_link(address: bytes) -> bool:
    """Multicast, broadcast, link-local, loopback or unspecified (16 bytes)."""
    if address[:12] == MAPPED:
        first = address[12]
        return first >= 0xE0 or first in (0, 127) or address[12:14] == b"\xa9\xfe"
    if address[0] == 0xFF or (address[0] == 0xFE and address[1] & 0xC0 == 0x80):
        return True
    return address[:15] == b"\x00" * 15 and address[15] <= 1


def refused(packet: Packet) -> Reason | None:
    """The reason why the packet goes nowhere: addresses that are no IPv6 addresses, or source routing (RFC 5095)."""
    if packet.family == 4:
        return None
    if MAPPED in (packet.source[:12], packet.destination[:12]):
        return Reason.MAPPED_ADDRESS
    return Reason.ROUTING_HEADER if packet.source_routed else None


def _note_route(data: bytes, packet: Packet, at: int) -> None:
    """The final destination is the first address after the header in types 2 (RFC 6275) and 4 (RFC 8754).

    It is the only one that is left if one segment is.
    """
    units, kind, segments_left = data[at + 1 : at + 4]
    if not segments_left:
        return
    packet.source_routed |= kind == 0
    names_final = kind in (2, 4) and units >= 2
    packet.detours |= not names_final or segments_left > 1 or bool(packet.route)
    if names_final:
        packet.route = at


def is_routed(address: bytes) -> bool:
    """True for an address to and from which routers send packets on; IPv4's link-local and class E ones are among them."""
    if not stays_on_link(address):
        return True
    of_v4 = address[:12] == MAPPED and address[12:] != b"\xff" * 4
    return of_v4 and (address[12] >= 0xF0 or address[12:14] == b"\xa9\xfe")


def neighbour_discovery(packet: Packet) -> bool:
    """True if it is from a neighbour, as the hop limit says (RFC 4861 section 7.1)."""
    of_kind = packet.family == 6 and packet.protocol == ICMPV6 and 133 <= packet.type <= 137
    return of_kind and packet.hops == 255


def _parse_v4(data: bytes, offset: int, available: int) -> Packet | None:
    if available < 20:
        return None
    header = (data[offset] & 0xF) * 4
    length = int.from_bytes(data[offset + 2 : offset + 4], "big")
    if data[offset] >> 4 != 4 or header < 20 or length < header or length > available:
        return None
    field = int.from_bytes(data[offset + 6 : offset + 8], "big")
    packet = Packet(
        MAPPED + data[offset + 12 : offset + 16],
        MAPPED + data[offset + 16 : offset + 20],
        length,
        offset,
        offset + header,
        4,
        data[offset + 9],
        data[offset + 1],
        data[offset + 8],
        bool(field & 0x3FFF),
        bool(field & 0x1FFF),
        identification=data[offset + 4 : offset + 6] + b"\x00\x00",
        unsound=ones_sum(data[offset : offset + header]) != 0xFFFF,
    )
    packet.detours = _has_source_route(data[offset + 20 : offset + header])
    return packet


def _has_source_route(options: bytes) -> bool:
    """True if one of the options is a source route (RFC 791 section 3.1, RFC 7126 sections 4.3 and 4.4)."""
    at = 0
    while at + 2 <= len(options) and options[at]:
        if options[at] in SOURCE_ROUTES:
            return True
        size = 1 if options[at] == 1 else options[at + 1]
        if options[at] != 1 and size < 2:
            return False
        at += size
    return False


def _parse_v6(data: bytes, offset: int, available: int) -> Packet | None:
    if available < 40:
        return None
    length = int.from_bytes(data[offset + 4 : offset + 6], "big") + 40
    if data[offset] >> 4 != 6 or length > available:
        return None
    tos = (data[offset] & 0xF) << 4 | data[offset + 1] >> 4
    source, destination = data[offset + 8 : offset + 24], data[offset + 24 : offset + 40]
    packet = Packet(
        source, destination, length, offset, offset + 40, 6, data[offset + 6], tos, data[offset + 7]
    )
    packet.flow_label = int.from_bytes(data[offset + 1 : offset + 4], "big") & 0xFFFFF
    _skip_extensions(data, packet)
    return packet


def _skip_extensions(data: bytes, packet: Packet) -> None:
    at, end = packet.payload, packet.offset + packet.length
    for _ in range(MAX_EXTENSIONS):
        kind = packet.protocol
        if kind not in EXTENSIONS or at + 8 > end:
            break
        if kind == FRAGMENT:
            field = int.from_bytes(data[at + 2 : at + 4], "big")
            packet.fragment |= bool(field & 0xFFF9)
            packet.later_fragment |= bool(field & 0xFFF8)
            packet.identification = bytes(data[at + 4 : at + 8])
            size = 8
        else:
            size = (data[at + 1] + 1) * 8
        if at + size > end:
            break
        if kind == ROUTING:
            _note_route(data, packet, at)
        packet.protocol = data[at]
        at += size
        if packet.later_fragment:
            break
    if packet.protocol in EXTENSIONS and not packet.later_fragment:
        packet.unread = Unread.CHAIN
    packet.payload = at


def _parse_transport(data: bytes, packet: Packet) -> None:
    if packet.later_fragment or packet.unread:
        return
    at, end = packet.payload, packet.offset + packet.length
    if at + TRANSPORT_BYTES.get(packet.protocol, 0) > end:
        packet.unread = Unread.TRANSPORT
    if packet.protocol in (TCP, UDP):
        if at + 8 > end:
            return
        packet.source_port = int.from_bytes(data[at : at + 2], "big")
        packet.destination_port = int.from_bytes(data[at + 2 : at + 4], "big")
        signalling = REGISTRATION_PORT in (packet.source_port, packet.destination_port)
        if packet.protocol == UDP and signalling and at + 9 <= end:
            packet.type = data[at + 8]
            packet.registration = packet.type in (1, 3, 255)
    elif packet.protocol in (ICMP, ICMPV6) and at + 4 <= end:
        packet.type = data[at]


def parse_packet(data: bytes, offset: int, end: int, family: int) -> Packet | None:
    """The packet whose network header is at `offset`, in `data[:end]`; family 4 or 6."""
    if offset > 0xFFF or end < offset:
        return None
    parse = _parse_v4 if family == 4 else _parse_v6
    packet = parse(data, offset, end - offset)
    if packet is not None:
        _parse_transport(data, packet)
    return packet


def partial_checksum(data: bytes, packet: Packet) -> tuple[int, int] | None:
    """(start, offset) of a checksum that covers only the pseudo header, as veth and GSO packets carry it."""
    place = {TCP: 16, UDP: 6}.get(packet.protocol)
    length = packet.offset + packet.length - packet.payload
    if place is None or packet.fragment or length < place + 2:
        return None
    addresses = packet.source[12:] + packet.destination[12:]
    if packet.family == 6:
        addresses = packet.source + packet.destination
    pseudo = ones_sum(addresses + length.to_bytes(4, "big") + packet.protocol.to_bytes(4, "big"))
    at = packet.payload + place
    if int.from_bytes(data[at : at + 2], "big") != pseudo:
        return None
    return packet.payload, place
