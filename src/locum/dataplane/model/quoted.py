"""The packet that an ICMP error quotes (RFC 792, RFC 4443): the Python half of bpf/quoted.h."""

from dataclasses import dataclass

from locum.dataplane.layout import maps
from locum.dataplane.model.parse import FRAGMENT, ICMP, ICMPV6, TCP, UDP, Packet

ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMPV6: (1, 2, 3, 4)}
WITH_IDENTIFIER = {ICMP: (0, 8, 13, 14), ICMPV6: (128, 129)}


@dataclass(frozen=True, slots=True)
class Quoted:
    """The packet that an ICMP error is about; ports are two bytes each."""

    source: bytes
    destination: bytes
    offset: int
    payload: int
    family: int
    protocol: int
    later_fragment: bool
    source_port: bytes = b"\0\0"
    destination_port: bytes = b"\0\0"


def is_error(packet: Packet) -> bool:
    return packet.type in ERRORS.get(packet.protocol, ())


def read_quoted(frame: bytes | bytearray, packet: Packet) -> Quoted | None:
    """The packet quoted in an error, None if the quote is too short."""
    at, end = packet.payload + 8, packet.offset + packet.length
    if packet.family == 4:
        if at + 20 > end or frame[at] >> 4 != 4 or frame[at] & 15 < 5:
            return None
        later = bool(int.from_bytes(frame[at + 6 : at + 8], "big") & 0x1FFF)
        source, destination = (maps.MAPPED + bytes(frame[at + i : at + i + 4]) for i in (12, 16))
        payload = at + (frame[at] & 15) * 4
        quoted = Quoted(source, destination, at, payload, 4, frame[at + 9], later)
        return _with_ports(frame, quoted, end)
    if at + 40 > end or frame[at] >> 4 != 6:
        return None
    protocol, payload, later = frame[at + 6], at + 40, False
    if protocol == FRAGMENT:
        if payload + 8 > end:
            return None
        protocol = frame[payload]
        later = bool(int.from_bytes(frame[payload + 2 : payload + 4], "big") & 0xFFF8)
        payload += 8
    source, destination = bytes(frame[at + 8 : at + 24]), bytes(frame[at + 24 : at + 40])
    return _with_ports(frame, Quoted(source, destination, at, payload, 6, protocol, later), end)


def _with_ports(frame: bytes | bytearray, q: Quoted, end: int) -> Quoted:
    at = q.payload
    if q.later_fragment or at + 8 > end:
        return q
    ports = bytes(frame[at : at + 2]), bytes(frame[at + 2 : at + 4])
    if q.protocol not in (TCP, UDP):
        if frame[at] not in WITH_IDENTIFIER.get(q.protocol, ()):
            return q
        ports = bytes(frame[at + 4 : at + 6]), bytes(frame[at + 4 : at + 6])
    return Quoted(
        q.source, q.destination, q.offset, q.payload, q.family, q.protocol, q.later_fragment, *ports
    )
