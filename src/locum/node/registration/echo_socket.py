"""A raw socket for one type of ICMP message, for keepalives of UDP tunnels (RFC 3519 section 4.9)."""

import ctypes
import socket
from ipaddress import IPv4Address

from locum.node.host.early_bind import bind_early

_SOL_RAW = 255  # not in the socket module
_ICMP_FILTER = 1  # linux/icmp.h: a bit for every type that is not wanted


def echo_socket(address: IPv4Address, wanted: int, peer: IPv4Address | None = None) -> socket.socket:
    """Packets at `address` of ICMP type `wanted`, from `peer` alone if given; never blocks.

    Raises OSError without CAP_NET_RAW.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
    try:
        made.setsockopt(_SOL_RAW, _ICMP_FILTER, bytes(ctypes.c_uint32(~(1 << wanted))))
        bind_early(made, (str(address), 0))
        if peer is not None:
            made.connect((str(peer), 0))
    except OSError:
        made.close()
        raise
    return made
