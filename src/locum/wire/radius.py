"""RADIUS packets as bytes: header and attributes (RFC 2865 section 3), and the attributes of a vendor (section 5.26).

It must not know secrets, nor what an attribute means.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from locum.wire.errors import WireError

HEADER: Final = 20  # bytes
LONGEST: Final = 4096  # bytes of a packet
AUTHENTICATOR: Final = 16  # bytes, of both authenticators
AUTHENTICATOR_AT: Final = 4
VENDOR_SPECIFIC: Final = 26
MESSAGE_AUTHENTICATOR: Final = 80
MOST_VALUE: Final = 253  # bytes of one attribute


class Code(IntEnum):
    """Codes of dynamic authorisation (RFC 5176 section 2.3)."""

    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute, undecoded."""

    kind: int
    value: bytes


@dataclass(frozen=True, slots=True)
class RadiusPacket:
    """One packet; attributes in their order."""

    code: int
    identifier: int
    authenticator: bytes
    attributes: tuple[Attribute, ...] = ()

    def all(self, kind: int) -> tuple[bytes, ...]:
        """The values of this kind, in order."""
        return tuple(attribute.value for attribute in self.attributes if attribute.kind == kind)


def decode_radius(data: bytes) -> RadiusPacket:
    """The packet in a datagram. Bytes beyond its length are padding (RFC 2865 section 3). Raises WireError."""
    whole = within(data)
    attributes = []
    at = HEADER
    while at < len(whole):
        if at + 2 > len(whole):
            raise WireError("attribute", at, "truncated")
        kind, length = whole[at], whole[at + 1]
        if kind == 0:
            raise WireError("attribute", at, "range")
        if length < 2:
            raise WireError("attribute length", at + 1, "range")
        if at + length > len(whole):
            raise WireError("attribute", at, "truncated")
        attributes.append(Attribute(kind, whole[at + 2 : at + length]))
        at += length
    return RadiusPacket(
        whole[0], whole[1], whole[AUTHENTICATOR_AT : AUTHENTICATOR_AT + AUTHENTICATOR], tuple(attributes)
    )


def within(data: bytes) -> bytes:
    """The bytes of the packet, without padding. Raises WireError."""
    if len(data) < HEADER:
        raise WireError("header", len(data), "truncated")
    length = int.from_bytes(data[2:4], "big")
    if not HEADER <= length <= LONGEST:
        raise WireError("length", 2, "range")
    if length > len(data):
        raise WireError("length", 2, "truncated")
    return data[:length]


def encode_radius(packet: RadiusPacket) -> bytes:
    """The bytes of a packet. Raises ValueError for one that is too long."""
    parts = []
    for attribute in packet.attributes:
        if len(attribute.value) > MOST_VALUE:
            raise ValueError(f"attribute {attribute.kind} has {len(attribute.value)} bytes")
        parts.append(bytes((attribute.kind, 2 + len(attribute.value))) + attribute.value)
    body = b"".join(parts)
    if HEADER + len(body) > LONGEST:
        raise ValueError(f"a packet has at most {LONGEST} bytes")
    head = struct.pack("!BBH", packet.code, packet.identifier, HEADER + len(body))
    return head + packet.authenticator + body


def decode_vendor(value: bytes) -> tuple[int, tuple[Attribute, ...]]:
    """Vendor and its attributes, in the value of a Vendor-Specific. Raises WireError."""
    if len(value) < 4:
        raise WireError("vendor", len(value), "truncated")
    found = []
    at = 4
    while at < len(value):
        if at + 2 > len(value):
            raise WireError("vendor attribute", at, "truncated")
        kind, length = value[at], value[at + 1]
        if length < 2:
            raise WireError("vendor attribute length", at + 1, "range")
        if at + length > len(value):
            raise WireError("vendor attribute", at, "truncated")
        found.append(Attribute(kind, value[at + 2 : at + length]))
        at += length
    if not found:
        raise WireError("vendor attribute", at, "truncated")
    return int.from_bytes(value[:4], "big"), tuple(found)


def encode_vendor(vendor: int, attributes: Sequence[Attribute]) -> Attribute:
    """One Vendor-Specific with these attributes."""
    inner = b"".join(bytes((inside.kind, 2 + len(inside.value))) + inside.value for inside in attributes)
    return Attribute(VENDOR_SPECIFIC, vendor.to_bytes(4, "big") + inner)
