"""Broadcasts on links of the home network, for the home agent (RFC 5944 section 4.3), and the raw socket for its copies.

A packet socket that the kernel gives only frames to all hosts. Datagrams are bytes here; it decides nothing.
"""

import ctypes
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address

from locum.node.registration.access_link import (
    ANCILLARY_BYTES,
    CHECKSUM_NOT_READY,
    PACKET_AUXDATA,
    SOL_PACKET,
    status_of,
)
from locum.wire.ip.checksum import transport_checksum
from locum.wire.ip.headers import UDP

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_PACKET_BROADCAST = 1
_LONGEST = 65_535
_MOST_AT_ONCE = 64  # packets per wake-up, so that a storm does not starve timers
_ALL_HOSTS = IPv4Address("255.255.255.255")
# A jump of a socket filter passes 255 instructions at most; more addresses are compared here
_MOST_JUMPED = 200


class HomeLinks:
    """The links by name, as they come and go. `heard(packet)` is called for each broadcast."""

    def __init__(
        self,
        links: Collection[str],
        heard: Callable[[bytes], object],
        addresses: Collection[IPv4Address] = (),
    ) -> None:
        """`addresses` are the broadcast addresses of the home networks. Raises OSError without CAP_NET_RAW."""
        self._wanted = frozenset(address.packed for address in (_ALL_HOSTS, *addresses))
        self._links, self._heard = frozenset(links), heard
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
        kind, protocol = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_IP)
        self._socket = socket.socket(socket.AF_PACKET, kind, protocol)  # of every link
        instructions = _filter(sorted(self._wanted))
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("@HL", len(instructions), ctypes.addressof(buffer))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> None:
        """Handle waiting broadcasts."""
        for _ in range(_MOST_AT_ONCE):
            try:
                packet, ancillary, _, address = self._socket.recvmsg(_LONGEST, ANCILLARY_BYTES)
            except OSError:  # nothing more, or a link went down
                return
            total = int.from_bytes(packet[2:4], "big")
            wanted = address[0] in self._links and address[2] == _PACKET_BROADCAST
            if wanted and packet[16:20] in self._wanted and 20 <= total <= len(packet):
                whole = packet[:total]
                self._heard(with_checksum(whole) if status_of(ancillary) & CHECKSUM_NOT_READY else whole)

    def send(self, packet: bytes) -> None:
        """Send a whole IPv4 packet. Raises OSError: it does not fit, or there is no route."""
        self._raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))

    def close(self) -> None:
        self._socket.close()
        self._raw.close()


def _filter(destinations: Sequence[bytes]) -> list[tuple[int, int, int, int]]:
    """A socket filter that takes broadcast frames to one of these IPv4 addresses."""
    if len(destinations) > _MOST_JUMPED:
        destinations = ()
    ways = len(destinations)
    compared = [
        (0x15, ways - number, 0, int.from_bytes(address, "big"))
        for number, address in enumerate(destinations)
    ]
    return [
        (0x30, 0, 0, 0xFFFFF004),  # ldb: packet type (SKF_AD_PKTTYPE)
        (0x15, 0, ways + 1 if ways else 1, _PACKET_BROADCAST),
        *([(0x20, 0, 0, 16)] if ways else []),  # ld [16]: destination
        *compared,
        *([(0x06, 0, 0, 0)] if ways else []),
        (0x06, 0, 0, _LONGEST),
        *([] if ways else [(0x06, 0, 0, 0)]),
    ]


def with_checksum(packet: bytes) -> bytes:
    """The IPv4 packet with the UDP checksum that its sender, a program of this machine, has left to a card."""
    head = (packet[0] & 15) * 4
    datagram = packet[head:]
    if packet[9] != UDP or len(datagram) < 8:
        return packet
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    bare = datagram[:6] + b"\0\0" + datagram[8:]
    value = transport_checksum(source, destination, UDP, bare) or 0xFFFF
    return packet[:head] + bare[:6] + value.to_bytes(2, "big") + bare[8:]
