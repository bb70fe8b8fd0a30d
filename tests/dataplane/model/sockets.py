"""Sockets of the host on which programs and model are compared: listening ones, and a connection of each family."""

import socket
from ipaddress import IPv4Address

from locum.dataplane.layout.maps import MARK_PROXY, address
from locum.dataplane.model.environment import Socket
from locum.dataplane.model.parse import TCP, Packet
from locum.roles.action_values.addresses import Addr

LISTENING, DATAGRAMS = 443, 5000  # ports, of any address
PROXY = 22  # of a proxy, for both protocols
CONNECTED = (80, 5000)  # ports of the connections, here and there
_IP_TRANSPARENT, _IPV6_TRANSPARENT, _TCP_REPAIR = 19, 75, 19  # linux/in.h, linux/in6.h, linux/tcp.h


class HostSockets:
    """Sockets in the network namespace of the caller; they go with this object."""

    def __init__(self, ends: list[tuple[Addr, Addr]]) -> None:
        """`ends`: the addresses of the connections, here and there."""
        self._listener = socket.create_server(("::", LISTENING), family=socket.AF_INET6, dualstack_ipv6=True)
        self._datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._datagrams.bind(("::", DATAGRAMS))
        self._proxy = socket.create_server(("::", PROXY), family=socket.AF_INET6, dualstack_ipv6=True)
        self._proxy_datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._proxy_datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._proxy_datagrams.bind(("::", PROXY))
        for made in (self._proxy, self._proxy_datagrams):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROXY | 1)
        self._connections = [self._connected(*pair) for pair in ends]
        here, there = (port.to_bytes(2, "big") for port in CONNECTED)
        self._known = {(address(one), here, address(other), there) for one, other in ends}

    @staticmethod
    def _connected(here: Addr, there: Addr) -> socket.socket:
        """A connection without a packet (TCP_REPAIR), from an address that this host need not have."""
        v4 = isinstance(here, IPv4Address)
        made = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_STREAM)
        if v4:
            made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        made.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        made.bind((str(here), CONNECTED[0]))
        made.connect((str(there), CONNECTED[1]))
        return made

    def of(self, packet: Packet) -> Socket | None:
        """The state of the socket that this packet would reach."""
        here, there = (port.to_bytes(2, "big") for port in (packet.destination_port, packet.source_port))
        if (
            packet.destination_port == PROXY
            and (packet.destination, here, packet.source, there) not in self._known
        ):
            return Socket.PROXY
        if packet.protocol != TCP:
            return Socket.LISTENING if packet.destination_port == DATAGRAMS else None
        if (packet.destination, here, packet.source, there) in self._known:
            return Socket.CONNECTED
        return Socket.LISTENING if packet.destination_port == LISTENING else None
