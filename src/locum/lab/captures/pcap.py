"""Reads classic pcap files into frames and TCP segments: just enough to measure with.

It does not judge packets; tshark does (`capture.malformed`). Lengths come from the IP header, as frames are snapped.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

Address = IPv4Address | IPv6Address

ETHERNET, COOKED, COOKED_2 = 1, 113, 276
_OUTGOING = 4  # LINUX_SLL packet type
TCP, UDP, ICMP = 6, 17, 1
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame. `time` is in seconds since the epoch; `packet` starts with the network header."""

    time: float
    outgoing: bool
    interface: int
    ether_type: int
    packet: bytes
    wire_length: int


@dataclass(frozen=True, slots=True)
class Datagram:
    """The transport part of an IP packet that is no later fragment. `transport_length` is that on the wire."""

    time: float
    outgoing: bool
    interface: int
    protocol: int
    source: Address
    destination: Address
    transport: bytes
    transport_length: int
    identification: int = 0
    """Identification of an IPv4 packet; 0 with IPv6."""

    @property
    def ports(self) -> tuple[int, int]:
        return struct.unpack("!HH", self.transport[:4])


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment as it passed a node."""

    time: float
    outgoing: bool
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    length: int
    """Payload bytes."""


def frames(file: Path) -> Iterator[Frame]:
    """Every frame of a file; a last frame that was cut off by a crash of the capture is left out.

    Raises ValueError when it is not a classic pcap of Ethernet or Linux cooked frames.
    """
    data = file.read_bytes()
    if len(data) < 24:
        return
    order, fraction = _byte_order(data[:4], file)
    (link_type,) = struct.unpack_from(order + "I", data, 20)
    record = struct.Struct(order + "IIII")
    offset = 24
    while offset + record.size <= len(data):
        seconds, part, captured, length = record.unpack_from(data, offset)
        offset += record.size
        body = data[offset : offset + captured]
        offset += captured
        if len(body) == captured:
            yield _frame(link_type & 0xFFFF, seconds + part * fraction, body, length, file)


def _byte_order(magic: bytes, file: Path) -> tuple[str, float]:
    for order in "<>":
        (value,) = struct.unpack(order + "I", magic)
        if value in (0xA1B2C3D4, 0xA1B23C4D):
            return order, 1e-6 if value == 0xA1B2C3D4 else 1e-9
    raise ValueError(f"{file} is not a pcap file")


def _frame(link_type: int, time: float, body: bytes, length: int, file: Path) -> Frame:
    if link_type == COOKED_2:
        ether_type, _zero, interface, _arp, kind, _size = struct.unpack_from("!HHIHBB", body)
        return Frame(time, kind == _OUTGOING, interface, ether_type, body[20:], length - 20)
    if link_type == COOKED:
        kind, ether_type = struct.unpack_from("!H12xH", body)
        return Frame(time, kind == _OUTGOING, 0, ether_type, body[16:], length - 16)
    if link_type == ETHERNET:
        (ether_type,) = struct.unpack_from("!12xH", body)
        return Frame(time, False, 0, ether_type, body[14:], length - 14)
    raise ValueError(f"{file} has link type {link_type}, not Ethernet or Linux cooked")


def datagrams(file: Path) -> Iterator[Datagram]:
    """The IP packets of a file with their transport header, tunnels left packed."""
    for frame in frames(file):
        found = datagram_of(frame)
        if found is not None:
            yield found


def datagram_of(frame: Frame) -> Datagram | None:
    """The IP packet in a frame; None for other frames and later fragments."""
    packet = frame.packet
    if frame.ether_type == 0x0800 and len(packet) >= 20:
        header = (packet[0] & 15) * 4
        (total, identification, fragment) = struct.unpack_from("!HHH", packet, 2)
        if fragment & 0x1FFF:
            return None
        source: Address = IPv4Address(packet[12:16])
        destination: Address = IPv4Address(packet[16:20])
        protocol = packet[9]
    elif frame.ether_type == 0x86DD and len(packet) >= 40:
        header, protocol, identification = 40, packet[6], 0
        total = 40 + int.from_bytes(packet[4:6], "big")
        source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    else:
        return None
    if total == 0:
        total = frame.wire_length  # a segmentation-offload packet above 64 KiB
    transport = packet[header:total]
    return Datagram(
        frame.time, frame.outgoing, frame.interface, protocol, source, destination, transport,
        total - header, identification,
    )  # fmt: skip


def segments(file: Path) -> Iterator[Segment]:
    """The TCP segments of a file that are not inside a tunnel."""
    for datagram in datagrams(file):
        if datagram.protocol != TCP or len(datagram.transport) < 20:
            continue
        source_port, destination_port, sequence, acknowledgement, offset, flags = struct.unpack_from(
            "!HHIIBB", datagram.transport
        )
        yield Segment(
            datagram.time, datagram.outgoing, datagram.source, source_port, datagram.destination,
            destination_port, sequence, acknowledgement, flags, datagram.transport_length - (offset >> 4) * 4,
        )  # fmt: skip
