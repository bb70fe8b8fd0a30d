"""TCP, UDP and ICMP headers as values (RFC 9293, RFC 768, RFC 792, RFC 4443). It must not know any connection."""

from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv6Address

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.ip.checksum import Address, checksum, transport_checksum
from locum.wire.ip.headers import ICMPV6, TCP, UDP

TCP_HEADER_BYTES = 20
UDP_HEADER_BYTES = 8

_END, _NO_OPERATION, _TIMESTAMPS = 0, 1, 8


class TcpFlag(IntFlag):
    """Control bits of a TCP header."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


@dataclass(frozen=True, slots=True)
class TcpSegment:
    """RFC 9293 section 3.1. `options` are padded to a multiple of 4 bytes, at most 40; `window` is unscaled."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int = 0
    flags: TcpFlag = TcpFlag.ACK
    window: int = 0
    options: bytes = b""
    payload: bytes = b""
    urgent: int = 0

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr (RFC 7323), or None without the option or with malformed options."""
        position = 0
        while position < len(self.options):
            kind = self.options[position]
            if kind == _END:
                return None
            if kind == _NO_OPERATION:
                position += 1
                continue
            if position + 1 >= len(self.options):
                return None
            size = self.options[position + 1]
            if size < 2:
                return None
            if kind == _TIMESTAMPS and size == 10 and position + 10 <= len(self.options):
                content = self.options[position + 2 : position + 10]
                return int.from_bytes(content[:4], "big"), int.from_bytes(content[4:], "big")
            position += size
        return None

    def encode(self, source: Address, destination: Address) -> bytes:
        """The segment with its checksum."""
        words = (TCP_HEADER_BYTES + len(self.options)) // 4
        head = self.source_port.to_bytes(2, "big") + self.destination_port.to_bytes(2, "big")
        head += self.sequence.to_bytes(4, "big") + self.acknowledgement.to_bytes(4, "big")
        head += bytes((words << 4, self.flags)) + self.window.to_bytes(2, "big")
        tail = self.urgent.to_bytes(2, "big") + self.options + self.payload
        total = transport_checksum(source, destination, TCP, head + bytes(2) + tail)
        return head + total.to_bytes(2, "big") + tail

    @classmethod
    def decode(cls, segment: bytes) -> "TcpSegment":
        """The segment; its checksum is not looked at (transport_checksum does). Raises WireError."""
        cursor = Cursor(segment)
        ports = cursor.u16("source-port"), cursor.u16("destination-port")
        sequence, acknowledgement = cursor.u32("sequence"), cursor.u32("acknowledgement")
        size = (cursor.u8("data-offset") >> 4) * 4
        if size < TCP_HEADER_BYTES:
            raise WireError("data-offset", 12, "range")
        flags, window = TcpFlag(cursor.u8("flags")), cursor.u16("window")
        cursor.take(2, "checksum")
        urgent = cursor.u16("urgent")
        options = cursor.take(size - TCP_HEADER_BYTES, "options")
        return cls(*ports, sequence, acknowledgement, flags, window, options, cursor.rest(), urgent)


def timestamp_option(value: int, echo: int) -> bytes:
    """The timestamps option, aligned as usual by two no-operations; 12 bytes (RFC 7323 appendix A)."""
    return bytes((1, 1, _TIMESTAMPS, 10)) + value.to_bytes(4, "big") + echo.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class UdpDatagram:
    """RFC 768."""

    source_port: int
    destination_port: int
    payload: bytes = b""

    def encode(self, source: Address, destination: Address) -> bytes:
        """The datagram with its checksum."""
        head = self.source_port.to_bytes(2, "big") + self.destination_port.to_bytes(2, "big")
        head += (UDP_HEADER_BYTES + len(self.payload)).to_bytes(2, "big")
        total = transport_checksum(source, destination, UDP, head + bytes(2) + self.payload)
        return head + (total or 0xFFFF).to_bytes(2, "big") + self.payload

    @classmethod
    def decode(cls, datagram: bytes) -> "UdpDatagram":
        """The datagram; its checksum is not looked at. Bytes past its length are ignored. Raises WireError."""
        cursor = Cursor(datagram)
        ports = cursor.u16("source-port"), cursor.u16("destination-port")
        length = cursor.u16("length")
        if length < UDP_HEADER_BYTES:
            raise WireError("length", 4, "range")
        cursor.take(2, "checksum")
        return cls(*ports, cursor.take(length - UDP_HEADER_BYTES, "payload"))


@dataclass(frozen=True, slots=True)
class IcmpMessage:
    """RFC 792 and RFC 4443: type, code, the four bytes after the checksum, and the rest."""

    type: int
    code: int
    rest: bytes = bytes(4)
    body: bytes = b""

    def encode(self) -> bytes:
        """The ICMP (IPv4) message with its checksum."""
        head = bytes((self.type, self.code))
        tail = self.rest + self.body
        return head + checksum(head + bytes(2) + tail).to_bytes(2, "big") + tail

    def encode6(self, source: IPv6Address, destination: IPv6Address) -> bytes:
        """The ICMPv6 message with its checksum, which covers the pseudo-header."""
        head = bytes((self.type, self.code))
        tail = self.rest + self.body
        total = transport_checksum(source, destination, ICMPV6, head + bytes(2) + tail)
        return head + total.to_bytes(2, "big") + tail

    @classmethod
    def decode(cls, message: bytes) -> "IcmpMessage":
        """The message; its checksum is not looked at. Raises WireError."""
        cursor = Cursor(message)
        kind, code = cursor.u8("type"), cursor.u8("code")
        cursor.take(2, "checksum")
        return cls(kind, code, cursor.take(4, "rest-of-header"), cursor.rest())
