"""Echoes inside the tunnel (ICMP, RFC 792 and RFC 4443): proof that a peer has our packets and we have its own."""

import os
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from locum.node.config.wireguard.values import Address

_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_MOST = 2048  # bytes of an answer
_TURN = 64  # answers in one turn
_SO_BINDTODEVICE = 25


class Echoes:
    """A raw socket of one interface. `answered(address)` is called for each answer to one of our requests."""

    def __init__(self, interface: str, version: int, answered: Callable[[Address], None]) -> None:
        """Raises OSError."""
        self._version, self._answered = version, answered
        family, protocol = (
            (socket.AF_INET, socket.IPPROTO_ICMP)
            if version == 4
            else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        )
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode())
        except OSError:
            self._socket.close()
            raise
        self._token = os.urandom(8)
        self._number = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def ask(self, address: Address) -> None:
        """Send one request. Raises OSError."""
        self._number = (self._number + 1) & 0xFFFF
        header = struct.pack("!BBHHH", _REQUEST[self._version], 0, 0, 0x4C57, self._number)
        packet = bytearray(header + self._token)
        if self._version == 4:  # the kernel has the sum of ICMPv6
            struct.pack_into("!H", packet, 2, _sum(bytes(packet)))
        self._socket.sendto(packet, (str(address), 0))

    def read(self) -> None:
        """Take what has come."""
        for _ in range(_TURN):
            try:
                packet, source = self._socket.recvfrom(_MOST)
            except OSError:
                return
            inner = packet[(packet[0] & 0xF) * 4 :] if self._version == 4 and packet else packet
            if len(inner) >= 16 and inner[0] == _REPLY[self._version] and inner[8:16] == self._token:
                self._answered(ip_address(source[0].partition("%")[0]))


def _sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
