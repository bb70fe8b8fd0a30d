"""Binary traffic selectors (RFC 6088): which packets a flow rule takes. Bytes and values; it must not match any packet.

Every part is a range, its ends included; a part that is None takes every packet. Prefixes are ranges of addresses:
`address_range` makes one. Source and destination are those of packets to the home address.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import overload

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError

IPV4_BINARY = 1  # traffic selector formats
IPV6_BINARY = 2

Range = tuple[int, int]

_FLAG_BYTES = 4
_FIRST_FLAG = 1 << 31
_FLOW_LABEL = 0xFFFFF  # 20 bits (RFC 8200 section 3); what stands before them in their four bytes is ignored

# The parts in the order of their flags (A and B, C and D, ...), with their sizes in bytes.
_IPV4_PARTS = (
    ("source-address", 4),
    ("destination-address", 4),
    ("ipsec-spi", 4),
    ("source-port", 2),
    ("destination-port", 2),
    ("ds", 1),
    ("protocol", 1),
)
_IPV6_PARTS = (
    ("source-address", 16),
    ("destination-address", 16),
    ("ipsec-spi", 4),
    ("flow-label", 4),
    ("source-port", 2),
    ("destination-port", 2),
    ("traffic-class", 1),
    ("next-header", 1),
)


@dataclass(frozen=True, slots=True)
class Ipv4Selector:
    """Section 3.1. Ports only say something together with a protocol that has them; an SPI likewise."""

    source: tuple[IPv4Address, IPv4Address] | None = None
    destination: tuple[IPv4Address, IPv4Address] | None = None
    spi: Range | None = None  # 32 bits, of AH or ESP
    source_port: Range | None = None
    destination_port: Range | None = None
    dscp: Range | None = None  # 6 bits: the two bits of ECN are not compared
    protocol: Range | None = None  # 8 bits

    def encode(self) -> bytes:
        """The selector without its format byte; ValueError for an invalid range."""
        numbers = (
            _numbers(self.source),
            _numbers(self.destination),
            self.spi,
            self.source_port,
            self.destination_port,
            _shifted(self.dscp),
            self.protocol,
        )
        return _encode(_IPV4_PARTS, numbers)

    @classmethod
    def decode(cls, cursor: Cursor) -> "Ipv4Selector":
        """The selector at the cursor; reserved flags are ignored. Raises WireError."""
        source, destination, spi, source_port, destination_port, ds, protocol = _decode(_IPV4_PARTS, cursor)
        return cls(
            source and (IPv4Address(source[0]), IPv4Address(source[1])),
            destination and (IPv4Address(destination[0]), IPv4Address(destination[1])),
            spi,
            source_port,
            destination_port,
            ds,
            protocol,
        )


@dataclass(frozen=True, slots=True)
class Ipv6Selector:
    """Section 3.2. `next_header` is the upper-layer protocol, after the extension headers."""

    source: tuple[IPv6Address, IPv6Address] | None = None
    destination: tuple[IPv6Address, IPv6Address] | None = None
    spi: Range | None = None
    flow_label: Range | None = None  # 20 bits
    source_port: Range | None = None
    destination_port: Range | None = None
    dscp: Range | None = None  # 6 bits: the upper part of the traffic class
    next_header: Range | None = None

    def encode(self) -> bytes:
        """The selector without its format byte; ValueError for an invalid range."""
        numbers = (
            _numbers(self.source),
            _numbers(self.destination),
            self.spi,
            self.flow_label,
            self.source_port,
            self.destination_port,
            _shifted(self.dscp),
            self.next_header,
        )
        return _encode(_IPV6_PARTS, numbers)

    @classmethod
    def decode(cls, cursor: Cursor) -> "Ipv6Selector":
        """The selector at the cursor; reserved flags are ignored. Raises WireError."""
        found = tuple(_decode(_IPV6_PARTS, cursor))
        source, destination, spi, flow_label, source_port, destination_port, traffic_class, next_header = (
            found
        )
        return cls(
            source and (IPv6Address(source[0]), IPv6Address(source[1])),
            destination and (IPv6Address(destination[0]), IPv6Address(destination[1])),
            spi,
            flow_label,
            source_port,
            destination_port,
            traffic_class,
            next_header,
        )


@dataclass(frozen=True, slots=True)
class UnknownSelector:
    """A selector of a format that is not known here; kept so that its rule can be refused once it is authenticated."""

    format: int  # 3 to 255
    value: bytes

    def encode(self) -> bytes:
        """The selector as it came, without its format byte."""
        return self.value


TrafficSelector = Ipv4Selector | Ipv6Selector | UnknownSelector


def selector_format(selector: TrafficSelector) -> int:
    """The number of the selector's format (RFC 7629 section 4.2)."""
    match selector:
        case Ipv4Selector():
            return IPV4_BINARY
        case Ipv6Selector():
            return IPV6_BINARY
        case UnknownSelector():
            return selector.format


def decode_selector(number: int, cursor: Cursor) -> TrafficSelector:
    """The selector of that format that fills the rest of the cursor. Raises WireError, for format 0 (reserved) too."""
    found: TrafficSelector
    match number:
        case 0:
            raise WireError("ts-format", cursor.offset, "range")
        case 1:
            found = Ipv4Selector.decode(cursor)
        case 2:
            found = Ipv6Selector.decode(cursor)
        case _:
            return UnknownSelector(number, cursor.rest())
    cursor.done("traffic-selector")
    return found


@overload
def address_range(network: IPv4Network) -> tuple[IPv4Address, IPv4Address]: ...
@overload
def address_range(network: IPv6Network) -> tuple[IPv6Address, IPv6Address]: ...
def address_range(
    network: IPv4Network | IPv6Network,
) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]:
    """The first and the last address of a prefix."""
    if isinstance(network, IPv4Network):
        return network.network_address, network.broadcast_address
    return network.network_address, network.broadcast_address


def _numbers(
    addresses: tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None,
) -> Range | None:
    return addresses and (int(addresses[0]), int(addresses[1]))


def _shifted(dscp: Range | None) -> Range | None:
    return dscp and (dscp[0] << 2, dscp[1] << 2)


def _encode(parts: Sequence[tuple[str, int]], ranges: Sequence[Range | None]) -> bytes:
    """Flags, then each part's first value and, unless it is the same, its last."""
    flags, flag = 0, _FIRST_FLAG
    data = b""
    for (name, size), found in zip(parts, ranges, strict=True):
        if found is not None:
            first, last = found
            if not 0 <= first <= last <= _highest(name, size):
                raise ValueError(f"{name} {first} to {last} is no range of a traffic selector")
            flags |= flag
            data += first.to_bytes(size, "big")
            if last != first:
                flags |= flag >> 1
                data += last.to_bytes(size, "big")
        flag >>= 2
    return flags.to_bytes(_FLAG_BYTES, "big") + data


def _highest(name: str, size: int) -> int:
    return _FLOW_LABEL if name == "flow-label" else (1 << 8 * size) - 1


def _decode(parts: Sequence[tuple[str, int]], cursor: Cursor) -> Iterator[Range | None]:
    flags_at = cursor.offset
    flags, flag = cursor.u32("selector-flags"), _FIRST_FLAG
    for name, size in parts:
        starts, ends = flags & flag, flags & flag >> 1
        flag >>= 2
        if ends and not starts:  # section 3: an end is not included without its start
            raise WireError(name, flags_at, "end-without-start")
        if not starts:
            yield None
            continue
        at = cursor.offset
        first = _number(cursor, name, size)
        last = _number(cursor, name, size) if ends else first
        if last < first:
            raise WireError(name, at, "range")
        yield first, last


def _number(cursor: Cursor, name: str, size: int) -> int:
    number = int.from_bytes(cursor.take(size, name), "big")
    if name in ("ds", "traffic-class"):
        return number >> 2
    return number & _FLOW_LABEL if name == "flow-label" else number
