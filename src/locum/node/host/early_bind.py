"""Sockets on an address that the host may not have yet: an interface that comes late keeps no node from starting."""

import socket
from typing import Any

_IP_FREEBIND = 15  # linux/in.h
_IPV6_FREEBIND = 78  # linux/in6.h; also for IPv4 addresses that are mapped into IPv6


def bind_early(made: socket.socket, address: tuple[Any, ...]) -> None:
    """Bind; packets come as soon as the address is there (ip(7), IP_FREEBIND). Raises OSError: busy, not permitted."""
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    made.bind(address)
