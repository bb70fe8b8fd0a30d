"""Tunnel packets that came in fragments: the stack puts them together, raw sockets get them whole, this judges them.

Two more raw sockets read ICMP errors about outer packets that did not fit a link on their path.

The programs pass fragments from sources with permission that are addressed to our end points to the stack. A reassembled packet that meets the acceptance
table goes in again through the re-injection device, and the programs judge it as any other tunnel packet.
"""

import socket
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address

from locum.dataplane.layout.maps import address_of
from locum.dataplane.model.frames import parse_tunnel
from locum.dataplane.model.parse import GRE, IPIP, IPV6_IN, MINIMAL, REGISTRATION_PORT, parse_packet
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import Side
from locum.wire.errors import WireError
from locum.wire.ip.checksum import ones_sum
from locum.wire.ip.minimal import widen

LARGEST = 1 << 16
MOST_AT_ONCE = 64  # packets of one socket, before others have their turn
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
# The kernel's own path MTU must not learn from errors that nobody has judged (IP_MTU_DISCOVER, IP_PMTUDISC_INTERFACE).
NO_DISCOVERY = (socket.IPPROTO_IP, 10, 4)
TYPE_4, CODE_4, TYPE_6 = 3, 4, 2  # "fragmentation needed" (RFC 792), "packet too big" (RFC 4443)
FILTER_4 = (
    255,
    1,
    struct.pack("=I", ~(1 << TYPE_4) & 0xFFFFFFFF),
)  # SOL_RAW, ICMP_FILTER: a bit set is a type refused
FILTER_6 = (socket.IPPROTO_ICMPV6, 1, struct.pack("=8I", ~(1 << TYPE_6) & 0xFFFFFFFF, *[0xFFFFFFFF] * 7))
IP_PKTINFO = 8  # not in the socket module of Python 3.11
PACKET_INFORMATION = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}
PROTOCOLS = {
    socket.AF_INET: (IPIP, IPV6_IN, GRE, MINIMAL),
    socket.AF_INET6: (IPIP, IPV6_IN, GRE),
}
# The link's index: first in the information of IPv4, after the address in that of IPv6.
TRAFFIC_CLASS = struct.Struct("=I")
INFORMATION_4, INFORMATION_6 = struct.Struct("=I8x"), struct.Struct("=16sI")


def as_ip_in_ip(packet: bytes) -> bytes:
    """The whole tunnel packet; one of minimal encapsulation (RFC 2004) as IP in IP, if it can be read."""
    if len(packet) >= 20 and packet[0] >> 4 == 4 and packet[9] == MINIMAL:
        try:
            return widen(packet)
        except WireError:
            pass
    return packet


def acceptable(state: ForwardingState, packet: bytes, *, by_visitor: bool = False) -> bool:
    """True if a whole tunnel packet (from its IP header on, `as_ip_in_ip`) has a permitted source. False for a fragment.

    `by_visitor`: it came on an access link, where no packet is a home agent's.
    """
    family = packet[0] >> 4 if packet else 0
    outer = parse_packet(packet, 0, len(packet), family) if family in ETHERTYPES else None
    if outer is None or outer.fragment or address_of(outer.destination) not in state.endpoints:
        return False
    shape = parse_tunnel(packet, outer)
    if shape is None or not shape.family or shape.inner > outer.length or outer.protocol == MINIMAL:
        return False
    inner = parse_packet(packet, shape.inner, outer.length, shape.family)
    if inner is None:
        return False
    source = address_of(outer.source)
    if (source, address_of(inner.source), Side.FROM_HOME_ADDRESS, False, shape.key) in state.acceptances:
        return True
    home_address = address_of(inner.destination)
    to = [(source, home_address, Side.TO_HOME_ADDRESS, at_end, shape.key) for at_end in (False, True)]
    return not by_visitor and any(acceptance_key in state.acceptances for acceptance_key in to)


def ipv6_packet(
    source: Addr, destination: Addr, protocol: int, payload: bytes, traffic_class: int = 0
) -> bytes:
    """The IPv6 packet with a new header: a raw IPv6 socket gives none.

    The traffic class has the congestion that any of the fragments met (RFC 3168 section 5.3); the kernel sees to that.
    """
    head = (
        (6 << 28 | traffic_class << 20).to_bytes(4, "big")
        + len(payload).to_bytes(2, "big")
        + bytes((protocol, 64))
    )
    return head + source.packed + destination.packed + payload


def udp_packet(source: str, port: int, destination: bytes, payload: bytes, traffic_class: int = 0) -> bytes:
    """A UDP socket gives neither header: such as say the same of a datagram to port 434 of an IPv4 address."""
    length = 8 + len(payload)
    head = struct.pack(">BBHHHBBH", 0x45, traffic_class, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0)
    head += socket.inet_aton(source) + destination
    head = head[:10] + (ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:]
    return head + struct.pack(">HHHH", port, REGISTRATION_PORT, length, 0) + payload


def told(ancillary: Iterable[tuple[int, int, bytes]], kind: int, size: int) -> bytes | None:
    """Decode the kernel's control message of that kind about a packet."""
    return next((value for _, what, value in ancillary if what == kind and len(value) >= size), None)


def error(data: bytes) -> tuple[bytes, int] | None:
    """(quoted packet, MTU) of an ICMP error for IPv4, from the IP header on; None: of another kind, or damaged."""
    icmp = data[(data[0] & 0xF) * 4 :] if data else b""
    if len(icmp) < 8 or (icmp[0], icmp[1]) != (TYPE_4, CODE_4) or ones_sum(icmp) != 0xFFFF:
        return None
    return icmp[8:], int.from_bytes(icmp[6:8], "big")


class Reassembly:
    """Raw sockets of every tunnel protocol, and of ICMP.

    `take` gets each whole tunnel packet, from its outer IP header on, and the index of the link that it came on;
    `too_big` gets the beginning of a packet that was too big for a link, as ICMP quotes it, and the MTU in bytes.
    """

    def __init__(
        self, take: Callable[[bytes, int], object], too_big: Callable[[bytes, int], object] = lambda *_: None
    ) -> None:
        """Raises PermissionError without CAP_NET_RAW."""
        self._take, self._too_big = take, too_big
        self._sockets: dict[int, tuple[socket.socket, int]] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for protocol in PROTOCOLS[family]:
                sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
                sock.setsockopt(*PACKET_INFORMATION[family], 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
                self._add(sock, protocol)
        for family, protocol, accepted in (
            (socket.AF_INET, socket.IPPROTO_ICMP, FILTER_4),
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, FILTER_6),
        ):
            sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            sock.setsockopt(*accepted)
            self._add(sock, protocol)

    def _add(self, sock: socket.socket, protocol: int) -> None:
        if sock.family == socket.AF_INET:
            sock.setsockopt(*NO_DISCOVERY)
        self._sockets[sock.fileno()] = (sock, protocol)

    def filenos(self) -> list[int]:
        """For the event loop: call `read` with the one that is readable."""
        return list(self._sockets)

    def read(self, fileno: int) -> int:
        """Read waiting packets of this socket, MOST_AT_ONCE at most; returns the number of packets."""
        sock, protocol = self._sockets[fileno]
        if protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
            self._read_errors(sock)
            return 0
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
                traffic_class = told(ancillary, socket.IPV6_TCLASS, TRAFFIC_CLASS.size)
                number = TRAFFIC_CLASS.unpack_from(traffic_class)[0] if traffic_class else 0
                data = ipv6_packet(source, IPv6Address(local), protocol, data, number)
            elif (information := told(ancillary, IP_PKTINFO, INFORMATION_4.size)) is not None:
                (index,) = INFORMATION_4.unpack_from(information)
            self._take(data, index)
            taken += 1
        return taken

    def _read_errors(self, sock: socket.socket) -> None:
        """Read ICMP errors about packets that were too big."""
        for _ in range(MOST_AT_ONCE):
            try:
                data = sock.recv(LARGEST)
            except OSError:
                return
            if sock.family == socket.AF_INET:
                found = error(data)
            else:  # without the IP header, and the kernel has checked the sum
                found = (
                    (data[8:], int.from_bytes(data[4:8], "big")) if data[:2] == bytes((TYPE_6, 0)) else None
                )
            if found is not None:
                self._too_big(*found)

    def close(self) -> None:
        for sock, _ in self._sockets.values():
            sock.close()
        self._sockets.clear()
