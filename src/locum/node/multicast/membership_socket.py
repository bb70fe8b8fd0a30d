"""Reports of multicast membership on an access link, with the link-layer address of their sender; and our queries.

Packet sockets, for only the link-layer address identifies the reporter: a host without an address on the link sends
IGMPv3 reports from 0.0.0.0 (RFC 3376 section 4.2.13) and MLD from its link-local address. Filters in the kernel let
nothing else through.
"""

import ctypes
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from locum.node.registration.access_link import multicast_link_layer
from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum
from locum.wire.ip.membership import (
    ICMPV6,
    IGMP,
    QUERIED,
    QUERIED_V6,
    Membership,
    decode_igmp,
    decode_mld,
    igmp_query,
    mld_query,
)

_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_ALLMULTI = 263, 1, 2
_PACKET_OUTGOING = 4
_LONGEST = 2048
_MOST_AT_ONCE = 64
_HOP_BY_HOP = 0
_ROUTER_ALERT = b"\x94\x04\0\0"  # RFC 2113
_ROUTER_ALERT_V6 = bytes((ICMPV6, 0, 5, 2, 0, 0, 1, 0))  # RFC 2711, in a hop-by-hop header with padding
_ALL_NODES_LINK_LAYER = bytes.fromhex("333300000001")

# Classic BPF on the IP packet: (code, jump if true, jump if false, value)
_IGMP_ONLY = ((0x30, 0, 0, 9), (0x15, 0, 1, IGMP), (0x06, 0, 0, _LONGEST), (0x06, 0, 0, 0))
_MLD_ONLY = (
    (0x30, 0, 0, 6),
    (0x15, 0, 3, _HOP_BY_HOP),
    (0x30, 0, 0, 40),
    (0x15, 0, 1, ICMPV6),
    (0x06, 0, 0, _LONGEST),
    (0x06, 0, 0, 0),
)

Report = Callable[[bytes, tuple[Membership, ...]], None]


class MembershipSocket:
    """One access link. `report(link_layer, memberships)` is called for each report, `refused(reason)` for a wrong one."""

    def __init__(self, link: str, report: Report, refused: Callable[[str], None]) -> None:
        """Raises OSError: no such interface, or no CAP_NET_RAW."""
        self.link = link
        self._report, self._refused = report, refused
        self._sockets: list[socket.socket] = []
        try:
            for protocol, instructions in ((_ETH_P_IP, _IGMP_ONLY), (_ETH_P_IPV6, _MLD_ONLY)):
                self._open(protocol, instructions)
        except OSError:
            self.close()
            raise

    def _open(self, protocol: int, instructions: tuple[tuple[int, int, int, int], ...]) -> None:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        self._sockets.append(opened)
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("@HL", len(instructions), ctypes.addressof(buffer))
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        opened.bind((self.link, protocol))
        request = struct.pack("@iHH8s", socket.if_nametoindex(self.link), _PACKET_MR_ALLMULTI, 0, bytes(8))
        opened.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)

    def filenos(self) -> list[int]:
        return [sock.fileno() for sock in self._sockets]

    def read(self) -> None:
        """Handle waiting packets."""
        for sock in self._sockets:
            for _ in range(_MOST_AT_ONCE):
                try:
                    packet, address = sock.recvfrom(_LONGEST)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:  # the link went down; the watch on links tells
                    break
                if address[2] != _PACKET_OUTGOING:
                    self._take(packet, bytes(address[4]))

    def _take(self, packet: bytes, link_layer: bytes) -> None:
        try:
            found = memberships(packet)
        except WireError as error:
            self._refused(f"membership-{error.reason}")
            return
        if found:
            self._report(link_layer, found)

    def query(self, source: IPv4Address | None, source_v6: IPv6Address | None) -> None:
        """Ask all hosts of the link, from our addresses there (IPv6: link-local). Raises OSError."""
        if source is not None:
            message = igmp_query()
            head = struct.pack(">BBHHHBBH", 0x46, 0xC0, 24 + len(message), 0, 0x4000, 1, IGMP, 0)
            head += source.packed + QUERIED.packed + _ROUTER_ALERT
            head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
            to = (self.link, _ETH_P_IP, 0, 0, multicast_link_layer(QUERIED))
            self._sockets[0].sendto(head + message, to)
        if source_v6 is not None:
            body = _ROUTER_ALERT_V6 + mld_query(source_v6)
            head = b"\x60\0\0\0" + struct.pack(">HBB", len(body), _HOP_BY_HOP, 1)
            to = (self.link, _ETH_P_IPV6, 0, 0, _ALL_NODES_LINK_LAYER)
            self._sockets[1].sendto(head + source_v6.packed + QUERIED_V6.packed + body, to)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def memberships(packet: bytes) -> tuple[Membership, ...]:
    """Memberships in an IP packet with IGMP or MLD. Raises WireError."""
    if len(packet) < 20:
        raise WireError("packet", len(packet), "truncated")
    if packet[0] >> 4 == 4:
        header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        if not 20 <= header <= total <= len(packet) or packet[9] != IGMP:
            raise WireError("packet", 0, "truncated")
        return decode_igmp(packet[header:total])
    if len(packet) < 48:
        raise WireError("packet", len(packet), "truncated")
    end, body = 40 + int.from_bytes(packet[4:6], "big"), 48 + packet[41] * 8
    if not body <= end <= len(packet) or packet[6] != _HOP_BY_HOP or packet[40] != ICMPV6:
        raise WireError("packet", 0, "truncated")
    return decode_mld(packet[body:end], IPv6Address(packet[8:24]), IPv6Address(packet[24:40]))
