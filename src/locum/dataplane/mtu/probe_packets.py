"""Probes of a tunnel's path as bytes: a tunnel packet of the size in question, with a small ICMP message in it.

The message is shorter than the tunnel packet says; the rest is padding, which every IP receiver ignores behind the length
that an IP header gives (as behind a short packet in an Ethernet frame). So a large packet goes one way, a small answer
comes back, and it arrives however narrow the way back is.
"""

from ipaddress import IPv4Address, IPv6Address

from locum.dataplane.model.frames import outer_headers
from locum.dataplane.model.parse import parse_packet
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel
from locum.wire.ip.headers import ICMP, ICMPV6
from locum.wire.ip.packet import build_ip
from locum.wire.ip.transport import IcmpMessage

TOKEN_BYTES = 16  # of the message, by which an answer is known; nobody off the path can guess it
INNER_BYTES = {4: 20 + 8 + TOKEN_BYTES, 6: 40 + 8 + TOKEN_BYTES}  # of the packet in the tunnel
REQUEST = {4: 8, 6: 128}  # types: echo request and reply (RFC 792, RFC 4443)
REPLY = {4: 0, 6: 129}


def message(source: Addr, destination: Addr, token: bytes, *, asks: bool) -> bytes:
    """The inner packet: an echo request, or a reply (`asks` is false) that nobody answers."""
    types = REQUEST if asks else REPLY
    # The identifier is part of the token: answers are known by the body alone.
    icmp = IcmpMessage(types[source.version], 0, token[:4], token)
    if isinstance(source, IPv6Address) and isinstance(destination, IPv6Address):
        return build_ip(source, destination, ICMPV6, icmp.encode6(source, destination))
    assert isinstance(source, IPv4Address) and isinstance(destination, IPv4Address)
    return build_ip(source, destination, ICMP, icmp.encode())


def probe_packet(tunnel: Tunnel, inner: bytes, size: int) -> bytes:
    """The tunnel packet, `size` bytes with its outer IP header; without padding if it would be smaller."""
    packet = parse_packet(inner, 0, len(inner), inner[0] >> 4)
    assert packet is not None
    overhead = len(outer_headers(tunnel, packet))
    packet.length = max(len(inner), size - overhead)
    return outer_headers(tunnel, packet) + inner + bytes(packet.length - len(inner))


def token_of(family: int, received: bytes) -> bytes | None:
    """The token of an echo reply, from the ICMP header on; None for other messages."""
    if len(received) != 8 + TOKEN_BYTES or received[0] != REPLY[family] or received[1]:
        return None
    return received[8:]
