"""Packets that arrived at a node, without their tunnels, read from its capture by the hundred thousand.

As `pcap` reads them, but bytes stay bytes: this is for facts that need every packet of every node.
"""

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from locum.lab.captures.pcap import COOKED_2, TCP, UDP

IPIP, IPV6_IN, GRE = 4, 41, 47
MOBILE_IP = b"\x01\xb2"  # port 434
TUNNEL_DATA = 4  # RFC 3519 section 3.3
SEEN = 96
"""Bytes of a transport header and payload by which a packet is known again; captures are snapped."""
_HEADER, _RECORD, _COOKED, _OUTGOING = 24, 16, 20, 4
_INNER = {IPIP: 4, IPV6_IN: 6}
_record = struct.Struct("<8xII")


class Arrival(NamedTuple):
    """One packet that came in. `outer` is the tunnel it was in: source and destination, empty for none."""

    interface: int
    outer: bytes
    source: bytes
    destination: bytes
    key: bytes
    """Fields that identify a packet, and tell it from a retransmission of the same bytes."""
    hops: int
    bare: bool
    """A TCP segment over IPv6 without payload: two of them can be alike to the last bit."""


def arrivals(file: Path, addresses: Collection[bytes]) -> Iterator[Arrival]:
    """Captured packets from or to these addresses (4 or 16 bytes each), without later fragments.

    Raises ValueError when it is not a capture as the lab makes them.
    """
    data = file.read_bytes()
    if len(data) < _HEADER:
        return
    if data[:4] != b"\xd4\xc3\xb2\xa1" or data[20] | data[21] << 8 != COOKED_2:
        raise ValueError(f"{file} is not a little-endian Linux cooked capture")
    offset, size = _HEADER, len(data)
    while offset + _RECORD <= size:
        captured, _length = _record.unpack_from(data, offset)
        start = offset + _RECORD
        offset = start + captured
        if offset > size or data[start + 10] == _OUTGOING:
            continue
        family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(data[start : start + 2])
        if family is not None:
            found = _inner(
                data, start + _COOKED, offset, family, int.from_bytes(data[start + 4 : start + 8], "big")
            )
            if found is not None and (found.destination in addresses or found.source in addresses):
                yield found


def _inner(data: bytes, at: int, end: int, family: int, interface: int) -> Arrival | None:
    """The packet at `at`, taken out of IP-in-IP, GRE or UDP; None for a later fragment, or one that was cut short."""
    outer = b""
    while True:
        if end - at < (20 if family == 4 else 40):
            return None
        if family == 4:
            if data[at + 6] & 0x1F or data[at + 7]:
                return None
            protocol, hops, mark = data[at + 9], data[at + 8], data[at + 4 : at + 6]
            source, destination = data[at + 12 : at + 16], data[at + 16 : at + 20]
            total, body = int.from_bytes(data[at + 2 : at + 4], "big"), at + (data[at] & 15) * 4
        else:
            protocol, hops, mark = data[at + 6], data[at + 7], b""
            source, destination = data[at + 8 : at + 24], data[at + 24 : at + 40]
            total, body = 40 + int.from_bytes(data[at + 4 : at + 6], "big"), at + 40
        tunnel = None if outer else _tunnel(data, body, protocol)
        if tunnel is None:
            last = min(end, at + total) if total else end
            bare = family == 6 and protocol == TCP and body + 12 < end
            bare = bare and total - (body - at) == (data[body + 12] >> 4) * 4
            key = source + destination + bytes((protocol,)) + mark + data[body : min(last, body + SEEN)]
            return Arrival(interface, outer, source, destination, key, hops, bare)
        outer = source + destination
        at, family = tunnel


def _tunnel(data: bytes, body: int, protocol: int) -> tuple[int, int] | None:
    """Start of a tunnel's inner packet, and its family; None if there is no tunnel."""
    if protocol in _INNER:
        return body, _INNER[protocol]
    if protocol == GRE:
        family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(data[body + 2 : body + 4])
        return None if family is None else (body + (8 if data[body] & 0x20 else 4), family)
    ports = (data[body : body + 2], data[body + 2 : body + 4])
    if protocol == UDP and MOBILE_IP in ports and data[body + 8 : body + 9] == bytes((TUNNEL_DATA,)):
        family = _INNER.get(data[body + 9])
        return None if family is None else (body + 12, family)
    return None
