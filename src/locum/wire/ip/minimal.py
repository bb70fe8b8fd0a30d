"""Minimal encapsulation (RFC 2004): an IPv4 packet in a tunnel whose own header leads to the tunnel's end.

A short header behind it has the addresses and the protocol that it had. It must not know which packets go into such tunnels.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum
from locum.wire.ip.headers import IPV4_HEADER_BYTES, IPV4_IN_IP, MINIMAL_IN_IP

_SOURCE_PRESENT = 0x80
_LONGEST = 0xFFFF  # bytes of an IPv4 packet


@dataclass(frozen=True, slots=True)
class MinimalHeader:
    """The minimal forwarding header (section 3): what the IP header before it said; source None: as it says now."""

    protocol: int
    destination: IPv4Address
    source: IPv4Address | None = None

    def encode(self) -> bytes:
        """8 bytes, or 12 with a source."""
        source = b"" if self.source is None else self.source.packed
        head = bytes((self.protocol, _SOURCE_PRESENT if source else 0))
        tail = self.destination.packed + source
        return head + checksum(head + tail).to_bytes(2, "big") + tail

    @classmethod
    def decode(cls, payload: bytes) -> tuple["MinimalHeader", int]:
        """The header at the start of an IP packet's payload, and its length; reserved bits are ignored. Raises WireError."""
        cursor = Cursor(payload)
        protocol, flags = cursor.u8("protocol"), cursor.u8("flags")
        cursor.take(2, "checksum")
        destination = cursor.address4("destination")
        source = cursor.address4("source") if flags & _SOURCE_PRESENT else None
        if checksum(payload[: cursor.offset]):
            raise WireError("checksum", 2, "checksum")
        return cls(protocol, destination, source), cursor.offset


def _with_checksum(header: bytes) -> bytes:
    return header[:10] + checksum(header[:10] + header[12:]).to_bytes(2, "big") + header[12:]


def narrow(packet: bytes, source: IPv4Address, destination: IPv4Address) -> bytes:
    """The packet in such a tunnel between these ends. It is an IPv4 packet without options, and no fragment."""
    own = IPv4Address(packet[12:16])
    header = MinimalHeader(packet[9], IPv4Address(packet[16:20]), None if own == source else own).encode()
    length = int.from_bytes(packet[2:4], "big") + len(header)
    head = packet[:2] + length.to_bytes(2, "big") + packet[4:9] + bytes((MINIMAL_IN_IP, 0, 0))
    return _with_checksum(head + source.packed + destination.packed) + header + packet[IPV4_HEADER_BYTES:]


def inner_packet(packet: bytes) -> bytes:
    """The packet that is in such a tunnel; of one that is quoted, as much as is there. Raises WireError.

    `packet` has an IPv4 header, which has been checked: its options and other fields are the inner packet's.
    """
    size, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    header, length = MinimalHeader.decode(packet[size:total])
    source = packet[12:16] if header.source is None else header.source.packed
    head = packet[:2] + (total - length).to_bytes(2, "big") + packet[4:9] + bytes((header.protocol, 0, 0))
    return (
        _with_checksum(head + source + header.destination.packed + packet[20:size]) + packet[size + length :]
    )


def widen(packet: bytes) -> bytes:
    """The packet of such a tunnel as one of a tunnel IP in IP, with the same type of service and TTL. Raises WireError."""
    inner = inner_packet(packet)
    total = int.from_bytes(inner[2:4], "big") + IPV4_HEADER_BYTES
    if total > _LONGEST:
        raise WireError("total-length", 2, "range")
    head = b"\x45" + packet[1:2] + total.to_bytes(2, "big") + packet[4:9] + bytes((IPV4_IN_IP, 0, 0))
    return _with_checksum(head + packet[12:20]) + inner
