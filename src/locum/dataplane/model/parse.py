"""A packet's addresses, protocol and ports as bpf/parse.h reads them: the Python half of the parser.

Addresses stay 16 bytes (IPv4 mapped), as in the maps. Other data than a whole IP packet is None.
"""

from dataclasses import dataclass

from locum.dataplane.layout.maps import MAPPED

ICMP, IPIP, TCP, UDP, IPV6_IN, GRE, ICMPV6 = 1, 4, 6, 17, 41, 47, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
MAX_EXTENSIONS = 8
REGISTRATION_PORT = 434
MIP_TUNNEL_DATA = 4


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


def stays_on_link(address: bytes) -> bool:
    """Multicast, broadcast, link-local, loopback or unspecified (16 bytes)."""
    if address[:12] == MAPPED:
        first = address[12]
        return first >= 0xE0 or first in (0, 127) or address[12:14] == b"\xa9\xfe"
    if address[0] == 0xFF or (address[0] == 0xFE and address[1] & 0xC0 == 0x80):
        return True
    return address[:15] == b"\x00" * 15 and address[15] <= 1


def neighbour_discovery(packet: Packet) -> bool:
    return packet.family == 6 and packet.protocol == ICMPV6 and 133 <= packet.type <= 137


def _parse_v4(data: bytes, offset: int, available: int) -> Packet | None:
    if available < 20:
        return None
    header = (data[offset] & 0xF) * 4
    length = int.from_bytes(data[offset + 2 : offset + 4], "big")
    if data[offset] >> 4 != 4 or header < 20 or length < header or length > available:
        return None
    field = int.from_bytes(data[offset + 6 : offset + 8], "big")
    return Packet(
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
    )


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
    return packet if _skip_extensions(data, packet) else None


def _skip_extensions(data: bytes, packet: Packet) -> bool:
    at, end = packet.payload, packet.offset + packet.length
    for _ in range(MAX_EXTENSIONS):
        kind = packet.protocol
        if kind not in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION):
            break
        if at + 8 > end:
            return False
        packet.protocol = data[at]
        if kind == FRAGMENT:
            field = int.from_bytes(data[at + 2 : at + 4], "big")
            packet.fragment |= bool(field & 0xFFF9)
            packet.later_fragment |= bool(field & 0xFFF8)
            packet.identification = bytes(data[at + 4 : at + 8])
            at += 8
            if packet.later_fragment:
                break
        else:
            at += (data[at + 1] + 1) * 8
        if at > end:
            return False
    packet.payload = at
    return True


def _parse_transport(data: bytes, packet: Packet) -> None:
    if packet.later_fragment:
        return
    at, end = packet.payload, packet.offset + packet.length
    if packet.protocol in (TCP, UDP):
        if at + 8 > end:
            return
        packet.source_port = int.from_bytes(data[at : at + 2], "big")
        packet.destination_port = int.from_bytes(data[at + 2 : at + 4], "big")
        signalling = REGISTRATION_PORT in (packet.source_port, packet.destination_port)
        if packet.protocol == UDP and signalling and at + 9 <= end:
            packet.type = data[at + 8]
            packet.registration = packet.type in (1, 3)
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


def ones_sum(data: bytes) -> int:
    """Internet checksum sum (RFC 1071), folded to 16 bits, not complemented."""
    if len(data) % 2:
        data += b"\x00"
    total = sum(memoryview(data).cast("H")) if data else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int.from_bytes(total.to_bytes(2, "little"), "big")


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
