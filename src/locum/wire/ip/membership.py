"""Membership of multicast groups: IGMP (RFC 2236, RFC 3376) and MLD (RFC 2710, RFC 3810). Bytes in, values out.

A report is reduced to joined and left groups: a source filter that admits anything is a join. It must not
know its sender.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum, transport_checksum

Group = IPv4Address | IPv6Address

IGMP, ICMPV6 = 2, 58  # protocol numbers
QUERIED = IPv4Address("224.0.0.1")
QUERIED_V6 = IPv6Address("ff02::1")
MAX_RECORDS = 256  # of one report; a packet of 1500 bytes has no more than 180

_IGMP_QUERY, _V1_REPORT, _V2_REPORT, _V2_LEAVE, _V3_REPORT = 0x11, 0x12, 0x16, 0x17, 0x22
_MLD_QUERY, _V1_MLD_REPORT, _V1_MLD_DONE, _V2_MLD_REPORT = 130, 131, 132, 143
_JOINED = frozenset(
    (2, 4, 5)
)  # MODE_IS_EXCLUDE, CHANGE_TO_EXCLUDE, ALLOW_NEW_SOURCES (RFC 3376 section 4.2.12)
_INCLUDE = frozenset((1, 3))  # MODE_IS_INCLUDE, CHANGE_TO_INCLUDE: joined with sources, left without
_RESPONSE_TENTHS = 20  # of a second, in which members answer a query
_ROBUSTNESS = 2
_INTERVAL_CODE = 125  # seconds: the RFCs' default query interval


@dataclass(frozen=True, slots=True)
class Membership:
    """One group that the sender of a report has joined or left."""

    group: Group
    joined: bool


def decode_igmp(message: bytes) -> tuple[Membership, ...]:
    """Memberships in an IGMP message; empty for queries and unknown types. Raises WireError."""
    if checksum(message):
        raise WireError("checksum", 2, "checksum")
    cursor = Cursor(message)
    kind = cursor.u8("type")
    if kind in (_V1_REPORT, _V2_REPORT, _V2_LEAVE):
        cursor.take(3, "header")
        return tuple(_forwarded([Membership(cursor.address4("group"), kind != _V2_LEAVE)]))
    if kind != _V3_REPORT:
        return ()
    cursor.take(5, "header")
    return tuple(_forwarded(_records(cursor, 4)))


def decode_mld(message: bytes, source: IPv6Address, destination: IPv6Address) -> tuple[Membership, ...]:
    """The same of an ICMPv6 message, whose checksum covers its addresses. Raises WireError."""
    if transport_checksum(source, destination, ICMPV6, message):
        raise WireError("checksum", 2, "checksum")
    cursor = Cursor(message)
    kind = cursor.u8("type")
    if kind in (_V1_MLD_REPORT, _V1_MLD_DONE):
        cursor.take(7, "header")
        return tuple(_forwarded([Membership(cursor.address6("group"), kind == _V1_MLD_REPORT)]))
    if kind != _V2_MLD_REPORT:
        return ()
    cursor.take(5, "header")
    return tuple(_forwarded(_records(cursor, 16)))


def _records(cursor: Cursor, size: int) -> Iterator[Membership]:
    count = cursor.u16("records")
    if count > MAX_RECORDS:
        raise WireError("records", cursor.offset - 2, "range")
    for _ in range(count):
        kind, auxiliary = cursor.u8("record-type"), cursor.u8("auxiliary")
        sources = cursor.u16("sources")
        address: Group = cursor.address4("group") if size == 4 else cursor.address6("group")
        cursor.take(sources * size + auxiliary * 4, "record")
        if not address.is_multicast:
            raise WireError("group", cursor.offset, "not-multicast")
        if kind in _JOINED or kind in _INCLUDE:
            yield Membership(address, kind in _JOINED or sources > 0)


def _forwarded(found: Iterator[Membership] | list[Membership]) -> Iterator[Membership]:
    """Groups that leave a link at all: not 224.0.0.0/24, and of IPv6 no scope up to link-local (RFC 4291 section 2.7)."""
    for membership in found:
        group = membership.group
        if not group.is_multicast:
            raise WireError("group", 4, "not-multicast")
        local = group.packed[:3] == b"\xe0\0\0" if group.version == 4 else group.packed[1] & 15 <= 2
        if not local:
            yield membership


def igmp_query() -> bytes:
    """A general query (RFC 3376 section 4.1)."""
    message = (
        bytes((_IGMP_QUERY, _RESPONSE_TENTHS, 0, 0)) + bytes(4) + bytes((_ROBUSTNESS, _INTERVAL_CODE, 0, 0))
    )
    return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]


def mld_query(source: IPv6Address) -> bytes:
    """A general query (RFC 3810 section 5.1) from a link-local address to all nodes."""
    delay = (_RESPONSE_TENTHS * 100).to_bytes(2, "big")
    message = bytes((_MLD_QUERY, 0, 0, 0)) + delay + bytes(18) + bytes((_ROBUSTNESS, _INTERVAL_CODE, 0, 0))
    check = transport_checksum(source, QUERIED_V6, ICMPV6, message)
    return message[:2] + check.to_bytes(2, "big") + message[4:]
