"""Takes the options that travel from a program's socket, and gives them to the stand-in's."""

import socket
from ipaddress import IPv4Address
from pathlib import Path

from locum.sessions.carried import CarriedOptions
from locum.wire.control import Flow

_TCP = socket.IPPROTO_TCP
_IP_TOS, _IP_TTL = 1, 2
_IPV6_UNICAST_HOPS, _IPV6_TCLASS = 16, 67
_ECN = 3
_LOADED = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def read(sock: socket.socket, flow: Flow) -> CarriedOptions:
    """The program's options; call it before a capture changes the user timeout."""
    level, traffic_class, hop_limit = _names(flow)
    name = sock.getsockopt(_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode("ascii", "replace")
    return CarriedOptions(
        traffic_class=sock.getsockopt(level, traffic_class) & 0xFF & ~_ECN,
        hop_limit=sock.getsockopt(level, hop_limit),
        no_delay=bool(sock.getsockopt(_TCP, socket.TCP_NODELAY)),
        congestion=name,
        user_timeout=sock.getsockopt(_TCP, socket.TCP_USER_TIMEOUT),
    )


def apply(sock: socket.socket, flow: Flow, options: CarriedOptions) -> tuple[str, ...]:
    """Set the options on a socket of the stand-in; return those that this kernel does not have, for users.

    The connection then goes on with the kernel's default. No kernel module is loaded for a name in a record.
    """
    level, traffic_class, hop_limit = _names(flow)
    sock.setsockopt(level, traffic_class, options.traffic_class)
    if options.hop_limit is not None:
        sock.setsockopt(level, hop_limit, options.hop_limit)
    sock.setsockopt(_TCP, socket.TCP_NODELAY, options.no_delay)
    sock.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, options.user_timeout)
    if options.congestion is None:
        return ()
    if options.congestion not in _LOADED.read_text(encoding="ascii").split():
        return (f"congestion control {options.congestion}",)
    sock.setsockopt(_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    return ()


def _names(flow: Flow) -> tuple[int, int, int]:
    if isinstance(flow.local, IPv4Address):  # also of an IPv6 socket that speaks IPv4
        return socket.SOL_IP, _IP_TOS, _IP_TTL
    return socket.IPPROTO_IPV6, _IPV6_TCLASS, _IPV6_UNICAST_HOPS
