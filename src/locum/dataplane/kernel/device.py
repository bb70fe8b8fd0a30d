"""The re-injection device: a TAP through which held packets enter the kernel again, in order.

It has Ethernet framing, so that the programs see the same shape everywhere, and virtio headers, so that GSO packets
and unfinished checksums survive. It persists, with its routes, when the daemon dies.
"""

import fcntl
import hashlib
import os
import struct

from pyroute2 import IPRoute

from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.dataplane.model.parse import TCP, parse_packet, partial_checksum

TUNSETIFF, TUNSETPERSIST, TUNSETOFFLOAD = 0x400454CA, 0x400454CB, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
IFF_UP, IFF_NOARP = 0x1, 0x80
OFFLOADS = 0x01 | 0x02 | 0x04  # checksum, TCPv4, TCPv6

VIRTIO = struct.Struct("<BBHHHH")
NEEDS_CHECKSUM = 1
GSO_TCPV4, GSO_TCPV6, GSO_UDP = 1, 4, 5
ETHERNET = 14


def device_name(node: str, prefix: str = "lc") -> str:
    """At most 15 bytes, "lc-<node>", with a digest where the name is too long."""
    name = f"{prefix}-{node}"
    if len(name) <= 15 and name.isascii() and "/" not in name and " " not in name:
        return name
    return f"{prefix}-" + hashlib.sha256(node.encode()).hexdigest()[:10]


class Reinjection:
    """The open device. `ifindex` and `name` are its own."""

    def __init__(self, node: str, route: IPRoute) -> None:
        self.name = device_name(node)
        self._fd = self._open()
        self.ifindex: int = route.link_lookup(ifname=self.name)[0]
        route.link("set", index=self.ifindex, mtu=65000, flags=IFF_NOARP, change=IFF_NOARP)
        link = route.link("get", index=self.ifindex)[0]
        hardware = bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
        self._header = hardware + b"\x02\x00\x00\x00\x00\x01"

    def _open(self) -> int:
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise DataPlaneError("/dev/net/tun is missing: the kernel needs CONFIG_TUN") from error
        request = struct.pack("16sH22x", self.name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        try:
            fcntl.ioctl(fd, TUNSETIFF, request)
            fcntl.ioctl(fd, TUNSETPERSIST, 1)
            fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
        except OSError as error:
            os.close(fd)
            if isinstance(error, PermissionError):
                raise DataPlaneError(
                    f"device {self.name}: not permitted; this needs CAP_NET_ADMIN"
                ) from error
            raise DataPlaneError(
                f"device {self.name}: {error.strerror}; another daemon may hold it"
            ) from error
        return fd

    def frame(self, packet: bytes, gso_size: int = 0) -> bytes:
        """The packet (from its IP header on) as the device takes it."""
        family = packet[0] >> 4 if packet else 0
        flags = gso_type = header_length = start = place = 0
        parsed = parse_packet(packet, 0, len(packet), family)
        if parsed is not None:
            partial = partial_checksum(packet, parsed)
            if partial is not None:
                flags, start, place = NEEDS_CHECKSUM, ETHERNET + partial[0], partial[1]
            elif gso_size:
                flags, start = NEEDS_CHECKSUM, ETHERNET + parsed.payload
                place = 16 if parsed.protocol == TCP else 6
            if gso_size and parsed.protocol == TCP:
                gso_type = GSO_TCPV4 if family == 4 else GSO_TCPV6
                header_length = start + (packet[parsed.payload + 12] >> 4) * 4
            elif gso_size:
                gso_type, header_length = GSO_UDP, start + 8
        header = VIRTIO.pack(flags, gso_type, header_length, gso_size if gso_type else 0, start, place)
        return header + self._header + (b"\x86\xdd" if family == 6 else b"\x08\x00") + packet

    def write(self, packet: bytes, gso_size: int = 0) -> None:
        """Put the packet into the kernel, as if received; the call returns when the stack has taken it."""
        os.write(self._fd, self.frame(packet, gso_size))

    def close(self) -> None:
        """Let go of the device; it stays."""
        os.close(self._fd)

    def remove(self) -> None:
        """The device goes when it is closed."""
        fcntl.ioctl(self._fd, TUNSETPERSIST, 0)
        os.close(self._fd)
