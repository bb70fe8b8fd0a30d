"""Tunnel packets in fragments, for a path that is too narrow for an IPv6 packet of 1280 bytes (RFC 2473 section 7.1).

The programs hand such tunnel packets up whole; the far end puts the fragments together. It decides nothing.
"""

import socket
from collections.abc import Iterator
from secrets import randbits

from locum.dataplane.model.frames import parse_tunnel
from locum.dataplane.model.parse import FRAGMENT, UDP, parse_packet, partial_checksum
from locum.wire.ip.checksum import ones_sum

MORE_FRAGMENTS = 0x2000


def with_checksum(packet: bytes) -> bytes:
    """The tunnel packet, with the whole checksum of an inner packet that left it to the device."""
    family = packet[0] >> 4
    outer = parse_packet(packet, 0, len(packet), family)
    shape = None if outer is None else parse_tunnel(packet, outer)
    if shape is None or not shape.family:
        return packet
    inner = parse_packet(packet, shape.inner, len(packet), shape.family)
    partial = None if inner is None else partial_checksum(packet, inner)
    if inner is None or partial is None:
        return packet
    start, place = partial
    check = ones_sum(packet[start : inner.offset + inner.length]) ^ 0xFFFF
    if not check and inner.protocol == UDP:
        check = 0xFFFF
    return packet[: start + place] + check.to_bytes(2, "big") + packet[start + place + 2 :]


def fragments(packet: bytes, mtu: int, identification: int) -> Iterator[bytes]:
    """Yield the fragments of an IP packet without options or extensions, each of at most `mtu` bytes.

    RFC 791 section 3.2 and RFC 8200 section 4.5.
    """
    v4 = packet[0] >> 4 == 4
    head, body = (packet[:20], packet[20:]) if v4 else (packet[:40], packet[40:])
    room = (mtu - len(head) - (0 if v4 else 8)) // 8 * 8
    for at in range(0, len(body), room):
        part, more = body[at : at + room], at + room < len(body)
        if v4:
            field = at // 8 | (MORE_FRAGMENTS if more else 0)
            first = head[:2] + (20 + len(part)).to_bytes(2, "big")
            first += (identification & 0xFFFF).to_bytes(2, "big") + field.to_bytes(2, "big") + head[8:10]
            check = (ones_sum(first + head[12:]) ^ 0xFFFF).to_bytes(2, "big")
            yield first + check + head[12:] + part
        else:
            first = head[:4] + (8 + len(part)).to_bytes(2, "big") + bytes((FRAGMENT,)) + head[7:]
            lead = bytes((head[6], 0)) + (at | more).to_bytes(2, "big") + identification.to_bytes(4, "big")
            yield first + lead + part


class Pieces:
    """Sends tunnel packets in fragments."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self.sent = 0
        self.failed = 0

    def send(self, packet: bytes, mtu: int) -> None:
        """Send the tunnel packet, from its outer IP header on, in fragments of at most `mtu` bytes; counted either way."""
        try:
            family = packet[0] >> 4
            sender = self._sockets.get(family)
            if sender is None:
                kind = socket.AF_INET if family == 4 else socket.AF_INET6
                sender = socket.socket(kind, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
                self._sockets[family] = sender
            if family == 4:
                destination = socket.inet_ntop(socket.AF_INET, packet[16:20])
            else:
                destination = socket.inet_ntop(socket.AF_INET6, packet[24:40])
            for fragment in fragments(with_checksum(packet), mtu, randbits(32)):
                sender.sendto(fragment, (destination, 0))
        except OSError:  # no route any more, no room in the device's queue, or no CAP_NET_RAW
            self.failed += 1
        else:
            self.sent += 1

    def close(self) -> None:
        for sender in self._sockets.values():
            sender.close()
        self._sockets.clear()
