"""Tunnel data: a packet of a Mobile IP tunnel in a UDP datagram (RFC 3519 section 3.3). It must not know any NAT."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.ip.headers import ICMP
from locum.wire.ip.packet import build_ip
from locum.wire.ip.transport import IcmpMessage
from locum.wire.mobile_ip.extensions import InnerEncapsulation

TUNNEL_DATA = 4
TUNNEL_DATA_HEADER_BYTES = 4

_ECHO_REQUEST = 8


@dataclass(frozen=True, slots=True)
class TunnelData:
    """A message of type 4, from and to the ports that the registration came and went by."""

    next_header: InnerEncapsulation | int  # IP protocol number of what `payload` begins with
    payload: bytes  # the inner packet, behind its GRE or minimal header if it has one

    def encode(self) -> bytes:
        """The UDP payload; reserved bytes are zero."""
        return bytes((TUNNEL_DATA, self.next_header, 0, 0)) + self.payload

    @classmethod
    def decode(cls, data: bytes) -> "TunnelData":
        """The message in a UDP payload; reserved bytes and payload are ignored. Raises WireError."""
        cursor = Cursor(data)
        if cursor.u8("type") != TUNNEL_DATA:
            raise WireError("type", 0, "unknown-message")
        number = cursor.u8("next-header")
        cursor.take(2, "reserved")
        known = number in set(InnerEncapsulation)
        return cls(InnerEncapsulation(number) if known else number, cursor.rest())


def keepalive(
    home_address: IPv4Address, home_agent: IPv4Address, identifier: int, sequence: int
) -> TunnelData:
    """Echo request, tunnelled to the home agent, by which a mobile node keeps its NAT mapping (section 4.9).

    `identifier` and `sequence` (16 bits each) come back in the echo reply, which shows that the tunnel works both ways.
    """
    rest = identifier.to_bytes(2, "big") + sequence.to_bytes(2, "big")
    echo = IcmpMessage(_ECHO_REQUEST, 0, rest).encode()
    return TunnelData(InnerEncapsulation.IP, build_ip(home_address, home_agent, ICMP, echo))
