"""Registration and agent discovery on an access link, with link-layer addresses (RFC 5944 sections 2 and 3).

A packet socket, because a mobile node away from home cannot be asked by ARP for its home address and must not ask
itself (section 4.6): the sender's link-layer address comes with the packet, and an answer goes straight back to it.
A filter in the kernel lets through only UDP port 434 and ICMP router discovery. Messages are bytes here.
"""

import ctypes
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address

from locum.dataplane.layout.maps import MARK_SIGNALLING
from locum.wire.ip.checksum import checksum, transport_checksum

UDP_PORT = 434
ALL_SYSTEMS = IPv4Address("224.0.0.1")
ALL_ROUTERS = IPv4Address("224.0.0.2")
ALL_MOBILITY_AGENTS = IPv4Address("224.0.0.11")

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
SOL_PACKET, _PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA, _PACKET_MR_MULTICAST = 263, 1, 8, 0
CHECKSUM_NOT_READY = 1 << 3  # TP_STATUS_CSUMNOTREADY
_AUXILIARY = struct.Struct("@I")  # first member of struct tpacket_auxdata: status
_AUXILIARY_BYTES = 20
# The kernel has checked the transport checksum, or it is not there yet: a host on this machine sent the packet, and
# leaves the checksum to a card that never comes (veth).
_CHECKED = CHECKSUM_NOT_READY | 1 << 7  # TP_STATUS_CSUM_VALID
_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4
_ROUTER_ADVERTISEMENT, _ROUTER_SOLICITATION = 9, 10
_TUNNEL_DATA = 4  # RFC 3519: packets of a tunnel, thousands a second
_LONGEST = 4096  # bytes; no registration or advertisement comes near
_MOST_AT_ONCE = 64  # packets per wake-up, so that a flood does not starve timers
_BROADCAST = b"\xff" * 6

# Classic BPF on the IP packet: (code, jump if true, jump if false, value)
_FILTER = (
    (0x28, 0, 0, 6),  # 0  ldh [6]: flags and fragment offset
    (0x45, 12, 0, 0x3FFF),  # 1  a fragment is not for us
    (0x30, 0, 0, 9),  # 2  ldb [9]: protocol
    (0xB1, 0, 0, 0),  # 3  ldx 4 * ([0] & 15)
    (0x15, 0, 4, 17),  # 4  UDP?
    (0x48, 0, 0, 2),  # 5  ldh [x + 2]: destination port
    (0x15, 0, 7, UDP_PORT),  # 6
    (0x50, 0, 0, 8),  # 7  ldb [x + 8]: type of the message
    (0x15, 5, 4, _TUNNEL_DATA),  # 8  the data plane's
    (0x15, 0, 4, 1),  # 9  ICMP?
    (0x50, 0, 0, 0),  # 10 ldb [x]: type
    (0x15, 1, 0, _ROUTER_ADVERTISEMENT),  # 11
    (0x15, 0, 1, _ROUTER_SOLICITATION),  # 12
    (0x06, 0, 0, _LONGEST),  # 13 yes
    (0x06, 0, 0, 0),  # 14 no
)

ANCILLARY_BYTES = socket.CMSG_SPACE(_AUXILIARY_BYTES)
Registration = Callable[[bytes, IPv4Address, int, IPv4Address, bytes], None]
Discovery = Callable[[bytes, IPv4Address, bytes, IPv4Address], None]


class LinkSocket:
    """One access link.

    `on_registration(message, source, port, destination, link_layer)` and
    `on_discovery(message, source, link_layer, destination)` are called for what arrives, whatever its IPv4 destination;
    `refused(reason)` for what is dropped.
    """

    def __init__(
        self,
        link: str,
        on_registration: Registration,
        on_discovery: Discovery,
        refused: Callable[[str], object] = lambda reason: None,
    ) -> None:
        """Raises OSError: no such interface, or no CAP_NET_RAW."""
        self.link = link
        self._refused = refused
        self._on_registration, self._on_discovery = on_registration, on_discovery
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        try:
            self._index = socket.if_nametoindex(link)
            self._attach_filter()
            with suppress(PermissionError):  # then there is no data plane either
                # By it the data plane tells a device's own request, from its home address, from packets that use the tunnel.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_SIGNALLING)
            self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self._socket.bind((link, _ETH_P_IP))
            # A tunnel such as WireGuard's has no link-layer addresses, and refuses groups of them.
            groups = (ALL_SYSTEMS, ALL_ROUTERS, ALL_MOBILITY_AGENTS) if self.link_layer else ()
            for group in groups:
                request = struct.pack(
                    "@iHH8s", self._index, _PACKET_MR_MULTICAST, 6, multicast_link_layer(group)
                )
                self._socket.setsockopt(SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        except OSError:
            self._socket.close()
            raise

    def _attach_filter(self) -> None:
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("@HL", len(_FILTER), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def link_layer(self) -> bytes:
        """Our own link-layer address there."""
        return bytes(self._socket.getsockname()[4])

    def read(self) -> None:
        """Handle waiting packets."""
        for _ in range(_MOST_AT_ONCE):
            try:
                packet, ancillary, _, address = self._socket.recvmsg(_LONGEST, ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the link went down; the watch on links tells
                return
            if address[2] not in (_PACKET_OTHERHOST, _PACKET_OUTGOING):
                self._dispatch(packet, bytes(address[4]), checked=bool(status_of(ancillary) & _CHECKED))

    def _dispatch(self, packet: bytes, link_layer: bytes, *, checked: bool) -> None:
        """Hand a packet on. Its checksums are looked at here: a packet socket gets it before the kernel has done so."""
        header = (packet[0] & 15) * 4 if packet else 0
        if header < 20 or packet[0] >> 4 != 4 or len(packet) < header + 8:
            return
        total = int.from_bytes(packet[2:4], "big")
        if not header + 8 <= total <= len(packet):
            return
        if checksum(packet[:header]):
            return self._drop("bad-checksum")
        source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        payload = packet[header:total]
        if packet[9] == socket.IPPROTO_ICMP:
            if packet[8] == 1:  # the TTL of agent discovery (RFC 5944 section 2.1); more has come from afar
                self._on_discovery(payload, source, link_layer, destination)
            return
        port, _, length, sent = struct.unpack_from(">HHHH", payload)
        if not 8 <= length <= len(payload):
            return
        # RFC 5944 section 3.1: a checksum is verified; 0 means that there is none
        if sent and not checked and transport_checksum(source, destination, packet[9], payload[:length]):
            return self._drop("bad-checksum")
        self._on_registration(payload[8:length], source, port, destination, link_layer)

    def _drop(self, reason: str) -> None:
        self._refused(f"registration-{reason}")

    def send_registration(
        self,
        message: bytes,
        source: IPv4Address,
        to: IPv4Address,
        port: int,
        link_layer: bytes | None,
        source_port: int = UDP_PORT,
    ) -> None:
        """A UDP message. Without `link_layer` it goes to everyone. Raises OSError.

        With TTL 255, as RFC 3024 requires of requests for a reverse tunnel: there is no router in between.
        """
        length = 8 + len(message)
        datagram = struct.pack(">HHHH", source_port, port, length, 0) + message
        pseudo = source.packed + to.packed + struct.pack(">BBH", 0, socket.IPPROTO_UDP, length)
        value = checksum(pseudo + datagram) or 0xFFFF
        datagram = datagram[:6] + value.to_bytes(2, "big") + datagram[8:]
        self._send(datagram, socket.IPPROTO_UDP, source, to, link_layer, ttl=255)

    def send_discovery(
        self, message: bytes, source: IPv4Address, to: IPv4Address, link_layer: bytes | None
    ) -> None:
        """An ICMP message with TTL 1 (RFC 5944 section 2.1). Raises OSError."""
        self._send(message, socket.IPPROTO_ICMP, source, to, link_layer, ttl=1)

    def send_frame(self, payload: bytes, ethertype: int) -> None:
        """A frame of another type, to everyone. Raises OSError."""
        self._socket.sendto(payload, (self.link, ethertype, 0, 0, _BROADCAST))

    def _send(
        self,
        payload: bytes,
        protocol: int,
        source: IPv4Address,
        to: IPv4Address,
        link_layer: bytes | None,
        ttl: int,
    ) -> None:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, ttl, protocol, 0)
        header += source.packed + to.packed
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
        if link_layer is None:
            link_layer = multicast_link_layer(to) if to.is_multicast else _BROADCAST
        self._socket.sendto(header + payload, (self.link, _ETH_P_IP, 0, 0, link_layer))

    def close(self) -> None:
        self._socket.close()


def status_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The status bits of a packet from a packet socket with PACKET_AUXDATA (packet(7)); 0 without them."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and len(data) >= _AUXILIARY.size:
            return int(_AUXILIARY.unpack_from(data)[0])
    return 0


def multicast_link_layer(group: IPv4Address) -> bytes:
    """The Ethernet address of an IPv4 group (RFC 1112 section 6.4)."""
    return b"\x01\x00\x5e" + (int(group) & 0x7FFFFF).to_bytes(3, "big")
