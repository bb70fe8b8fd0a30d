"""Headers of a packet, as far as they are there: their length, and the facts that an event tells.

A packet may be cut anywhere, and its lengths may lie: nothing is raised, and what is not there is left out.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

MOST = 128
"""Bytes of a packet that are logged."""
MAX_EXTENSIONS = 8
"""Extension headers of an IPv6 packet that are passed over."""
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_TCP, _UDP, _ICMP, _ICMP6, _SCTP, _GRE, _ESP = 6, 17, 1, 58, 132, 47, 50
# Bytes of each transport header that has no length of its own: the data of the user begins behind it.
_FIXED = {_UDP: 8, _ICMP: 8, _ICMP6: 8, _SCTP: 12, _GRE: 4, _ESP: 8}
_WITH_PORTS = (_TCP, _UDP, _SCTP)


@dataclass(frozen=True, slots=True)
class Headers:
    """`length` in bytes, at most MOST. Ports are those of TCP, UDP and SCTP, None elsewhere and in later fragments."""

    length: int
    protocol: int
    source: IPv4Address | IPv6Address | None
    source_port: int | None
    port: int | None


def headers_of(packet: bytes) -> Headers:
    """Walk from the IP header to the end of the transport header."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        protocol, start = packet[9], max(packet[0] & 15, 5) * 4
        later = int.from_bytes(packet[6:8], "big") & 0x1FFF != 0
        source: IPv4Address | IPv6Address = IPv4Address(packet[12:16])
    elif version == 6 and len(packet) >= 40:
        protocol, start, later = _walk(packet)
        source = IPv6Address(packet[8:24])
    else:
        return Headers(min(len(packet), 20), 0, None, None, None)
    end = start if later else start + _transport(packet, protocol, start)
    ports: tuple[int | None, int | None] = (None, None)
    if protocol in _WITH_PORTS and not later and len(packet) >= start + 4:
        ports = (
            int.from_bytes(packet[start : start + 2], "big"),
            int.from_bytes(packet[start + 2 : start + 4], "big"),
        )
    return Headers(min(end, len(packet), MOST), protocol, source, *ports)


def _walk(packet: bytes) -> tuple[int, int, bool]:
    """Protocol, place of its header, and whether this is a later fragment (RFC 8200 section 4)."""
    protocol, place = packet[6], 40
    for _ in range(MAX_EXTENSIONS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION):
            break
        if len(packet) < place + 8:
            break
        following, units = packet[place], packet[place + 1]
        if protocol == _FRAGMENT:
            offset = int.from_bytes(packet[place + 2 : place + 4], "big") & 0xFFF8
            place += 8
            if offset:
                return following, place, True
        else:
            place += (units + 2) * 4 if protocol == _AUTHENTICATION else (units + 1) * 8
        protocol = following
    return protocol, place, False


def _transport(packet: bytes, protocol: int, start: int) -> int:
    if protocol == _TCP:
        return max(packet[start + 12] >> 4, 5) * 4 if len(packet) > start + 12 else 20
    return _FIXED.get(protocol, 0)
