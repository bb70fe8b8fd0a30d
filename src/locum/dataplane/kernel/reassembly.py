"""Tunnel packets that came in fragments: the stack puts them together, raw sockets get them whole, this judges them.

The same sockets report outer packets that did not fit a link on their path (ICMP "fragmentation needed", "packet too big").

The programs pass fragments addressed to our end points to the stack. A reassembled packet that meets the acceptance
table goes in again through the re-injection device, and the programs judge it as any other tunnel packet.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address

from locum.dataplane.layout.maps import address_of
from locum.dataplane.model.frames import parse_tunnel
from locum.dataplane.model.parse import GRE, IPIP, IPV6_IN, REGISTRATION_PORT, ones_sum, parse_packet
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import Side

LARGEST = 1 << 16
MOST_AT_ONCE = 64  # packets of one socket, before others have their turn
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
RECEIVE_ERRORS = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
IP_PKTINFO = 8  # not in the socket module of Python 3.11
PACKET_INFORMATION = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}
# The link's index: first in the information of IPv4, after the address in that of IPv6.
INFORMATION_4, INFORMATION_6 = struct.Struct("=I8x"), struct.Struct("=16sI")
EXTENDED_ERROR = struct.Struct("=I4xI4x")  # errno, origin and so on, MTU


def acceptable(state: ForwardingState, packet: bytes, *, by_visitor: bool = False) -> bool:
    """True if a whole tunnel packet (from its IP header on) has a permitted source. False for a fragment.

    `by_visitor`: it came on an access link, where no packet is a home agent's.
    """
    family = packet[0] >> 4 if packet else 0
    outer = parse_packet(packet, 0, len(packet), family) if family in ETHERTYPES else None
    if outer is None or outer.fragment or address_of(outer.destination) not in state.endpoints:
        return False
    shape = parse_tunnel(packet, outer)
    if shape is None or not shape.family or shape.inner > outer.length:
        return False
    inner = parse_packet(packet, shape.inner, outer.length, shape.family)
    if inner is None:
        return False
    source = address_of(outer.source)
    if (source, address_of(inner.source), Side.FROM_HOME_ADDRESS, False) in state.acceptances:
        return True
    home_address = address_of(inner.destination)
    to = [(source, home_address, Side.TO_HOME_ADDRESS, at_end) for at_end in (False, True)]
    return not by_visitor and any(acceptance_key in state.acceptances for acceptance_key in to)


def ipv6_packet(source: Addr, destination: Addr, protocol: int, payload: bytes) -> bytes:
    """The IPv6 packet with a new header: a raw IPv6 socket gives none."""
    head = b"\x60\x00\x00\x00" + len(payload).to_bytes(2, "big") + bytes((protocol, 64))
    return head + source.packed + destination.packed + payload


def udp_packet(source: str, port: int, destination: bytes, payload: bytes) -> bytes:
    """A UDP socket gives neither header: such as say the same of a datagram to port 434 of an IPv4 address."""
    length = 8 + len(payload)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0)
    head += socket.inet_aton(source) + destination
    head = head[:10] + (ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:]
    return head + struct.pack(">HHHH", port, REGISTRATION_PORT, length, 0) + payload


def told(ancillary: Iterable[tuple[int, int, bytes]], kind: int, size: int) -> bytes | None:
    """Decode the kernel's control message of that kind about a packet."""
    return next((value for _, what, value in ancillary if what == kind and len(value) >= size), None)


class Reassembly:
    """Raw sockets of every tunnel protocol.

    `take` gets each whole tunnel packet, from its outer IP header on, and the index of the link that it came on;
    `too_big` gets the destination of an outer packet and the MTU that it met.
    """

    def __init__(
        self, take: Callable[[bytes, int], object], too_big: Callable[[Addr, int], object] = lambda *_: None
    ) -> None:
        """Raises PermissionError without CAP_NET_RAW."""
        self._take, self._too_big = take, too_big
        self._sockets: dict[int, tuple[socket.socket, int]] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for protocol in (IPIP, IPV6_IN, GRE):
                sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
                sock.setsockopt(*RECEIVE_ERRORS[family], 1)
                sock.setsockopt(*PACKET_INFORMATION[family], 1)
                self._sockets[sock.fileno()] = (sock, protocol)

    def filenos(self) -> list[int]:
        """For the event loop: call `read` with the one that is readable."""
        return list(self._sockets)

    def read(self, fileno: int) -> int:
        """Read waiting packets of this socket, MOST_AT_ONCE at most; returns the number of packets."""
        sock, protocol = self._sockets[fileno]
        self._read_errors(sock)
        taken = 0
        for _ in range(MOST_AT_ONCE):
            try:
                data, ancillary, _flags, sender = sock.recvmsg(LARGEST, 256)
            except BlockingIOError:
                break
            except OSError:  # of an earlier packet; its cause is among the queued errors
                continue
            index = 0
            if sock.family == socket.AF_INET6:
                information = told(ancillary, socket.IPV6_PKTINFO, INFORMATION_6.size)
                if information is None:
                    continue
                local, index = INFORMATION_6.unpack_from(information)
                source = IPv6Address(sender[0].partition("%")[0])
                data = ipv6_packet(source, IPv6Address(local), protocol, data)
            elif (information := told(ancillary, IP_PKTINFO, INFORMATION_4.size)) is not None:
                (index,) = INFORMATION_4.unpack_from(information)
            self._take(data, index)
            taken += 1
        return taken

    def _read_errors(self, sock: socket.socket) -> None:
        """Read ICMP errors about our outer packets."""
        for _ in range(MOST_AT_ONCE):
            try:
                _, ancillary, _, destination = sock.recvmsg(128, 256, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for level, kind, value in ancillary:
                if (level, kind) == RECEIVE_ERRORS[sock.family] and len(value) >= EXTENDED_ERROR.size:
                    number, mtu = EXTENDED_ERROR.unpack_from(value)
                    if number == errno.EMSGSIZE and destination:
                        self._too_big(ip_address(destination[0].partition("%")[0]), mtu)

    def close(self) -> None:
        for sock, _ in self._sockets.values():
            sock.close()
        self._sockets.clear()
