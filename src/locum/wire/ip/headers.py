"""IPv4 and IPv6 headers as values (RFC 791, RFC 8200). It must not know their payload."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum

IPV4_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40
ICMP, IPV4_IN_IP, TCP, UDP, IPV6_IN_IP, GRE, ICMPV6, NO_NEXT_HEADER = 1, 4, 6, 17, 41, 47, 58, 59
MINIMAL_IN_IP = 55

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_OPTION_HEADERS = (_HOP_BY_HOP, _ROUTING, _DESTINATION)
MAX_EXTENSION_HEADERS = 8  # more is no traffic of ours; the walk must end


@dataclass(frozen=True, slots=True)
class Ipv4Header:
    """RFC 791 section 3.1. `fragment_offset` is in bytes, a multiple of 8; `options` are padded to a multiple of 4."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0
    options: bytes = b""

    def encode(self, payload: bytes) -> bytes:
        """The packet, with total length and header checksum."""
        words = IPV4_HEADER_BYTES // 4 + len(self.options) // 4
        length = words * 4 + len(payload)
        bits = (self.dont_fragment << 14) | (self.more_fragments << 13) | (self.fragment_offset // 8)
        head = bytes((0x40 | words, self.tos)) + length.to_bytes(2, "big")
        head += self.identification.to_bytes(2, "big") + bits.to_bytes(2, "big")
        head += bytes((self.ttl, self.protocol))
        tail = self.source.packed + self.destination.packed + self.options
        return head + checksum(head + tail).to_bytes(2, "big") + tail + payload

    @classmethod
    def decode(cls, packet: bytes) -> tuple["Ipv4Header", bytes]:
        """Header and payload; bytes past the total length are link-layer padding. Raises WireError."""
        cursor = Cursor(packet)
        first = cursor.u8("version")
        if first >> 4 != 4:
            raise WireError("version", 0, "version")
        size = (first & 15) * 4
        tos, length = cursor.u8("tos"), cursor.u16("total-length")
        if size < IPV4_HEADER_BYTES:
            raise WireError("header-length", 0, "range")
        if not size <= length <= len(packet):
            raise WireError("total-length", 2, "truncated")
        if checksum(packet[:size]):
            raise WireError("checksum", 10, "checksum")
        identification, bits = cursor.u16("identification"), cursor.u16("fragment-offset")
        ttl, protocol = cursor.u8("ttl"), cursor.u8("protocol")
        cursor.take(2, "checksum")
        header = cls(
            source=cursor.address4("source"),
            destination=cursor.address4("destination"),
            protocol=protocol,
            ttl=ttl,
            tos=tos,
            identification=identification,
            dont_fragment=bool(bits & 0x4000),
            more_fragments=bool(bits & 0x2000),
            fragment_offset=(bits & 0x1FFF) * 8,
            options=cursor.take(size - IPV4_HEADER_BYTES, "options"),
        )
        return header, packet[size:length]


@dataclass(frozen=True, slots=True)
class Ipv6Header:
    """RFC 8200 section 3. `next_header` may name an extension header, which then stands in the payload."""

    source: IPv6Address
    destination: IPv6Address
    next_header: int
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0

    def encode(self, payload: bytes) -> bytes:
        """The packet."""
        first = 6 << 28 | self.traffic_class << 20 | self.flow_label
        head = first.to_bytes(4, "big") + len(payload).to_bytes(2, "big")
        head += bytes((self.next_header, self.hop_limit))
        return head + self.source.packed + self.destination.packed + payload

    @classmethod
    def decode(cls, packet: bytes) -> tuple["Ipv6Header", bytes]:
        """Header and payload; raises WireError."""
        cursor = Cursor(packet)
        first = cursor.u32("version")
        if first >> 28 != 6:
            raise WireError("version", 0, "version")
        length = cursor.u16("payload-length")
        next_header, hop_limit = cursor.u8("next-header"), cursor.u8("hop-limit")
        header = cls(
            source=cursor.address6("source"),
            destination=cursor.address6("destination"),
            next_header=next_header,
            hop_limit=hop_limit,
            traffic_class=first >> 20 & 0xFF,
            flow_label=first & 0xFFFFF,
        )
        return header, cursor.take(length, "payload")


def decode_ip(packet: bytes) -> tuple[Ipv4Header | Ipv6Header, bytes]:
    """Header and payload of a packet of either family; raises WireError."""
    if packet[:1] and packet[0] >> 4 == 6:
        return Ipv6Header.decode(packet)
    return Ipv4Header.decode(packet)


@dataclass(frozen=True, slots=True)
class UpperLayer:
    """Position of a packet's transport header."""

    header: Ipv4Header | Ipv6Header
    protocol: int
    start: int  # offset in the packet
    payload: bytes  # from `start` to the end of the packet; of a fragment, its part
    fragment_offset: int = 0  # bytes
    more_fragments: bool = False

    @property
    def fragmented(self) -> bool:
        """True if the packet is a fragment of a larger one."""
        return bool(self.fragment_offset) or self.more_fragments


def upper_layer(packet: bytes) -> UpperLayer:
    """Walks over IPv6 extension headers, at most MAX_EXTENSION_HEADERS; raises WireError."""
    header, payload = decode_ip(packet)
    if isinstance(header, Ipv4Header):
        start = IPV4_HEADER_BYTES + len(header.options)
        return UpperLayer(
            header, header.protocol, start, payload, header.fragment_offset, header.more_fragments
        )
    protocol, offset, more = header.next_header, 0, False
    cursor = Cursor(payload, IPV6_HEADER_BYTES)
    for _ in range(MAX_EXTENSION_HEADERS + 1):
        start = cursor.offset
        if protocol in _OPTION_HEADERS:
            protocol, units = cursor.u8("next-header"), cursor.u8("length")
            cursor.take(6 + 8 * units, "extension-header")
        elif protocol == _AUTHENTICATION:
            protocol, units = cursor.u8("next-header"), cursor.u8("length")
            cursor.take(6 + 4 * units, "extension-header")
        elif protocol == _FRAGMENT:
            protocol = cursor.u8("next-header")
            cursor.take(1, "reserved")
            bits = cursor.u16("fragment-offset")
            offset, more = bits & 0xFFF8, bool(bits & 1)
            cursor.take(4, "identification")
            if offset:
                return UpperLayer(header, protocol, cursor.offset, cursor.rest(), offset, more)
        else:
            return UpperLayer(header, protocol, start, cursor.rest(), offset, more)
    raise WireError("extension-header", cursor.offset, "too-many-headers")
