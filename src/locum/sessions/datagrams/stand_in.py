"""The stand-in's end of a connected UDP socket: bound to the home address, connected to the peer. It never waits."""

import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address

from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.tcp import repair
from locum.sessions.tcp.errors import SessionError

# Bytes that the kernel keeps while the daemon is away; it counts its own overhead, too
RECEIVE_BUFFER = 1 << 20
_SOL_IPV6 = socket.IPPROTO_IPV6


def restore(
    record: DatagramRecord, *, keep: Callable[[socket.socket], None] | None = None, mark: int | None = None
) -> socket.socket:
    """A non-blocking socket that receives the peer's datagrams for the home address.

    `keep` is called with the socket before it is bound, hence before anything arrives. Raises SessionError when the
    kernel refuses (the port is taken, no route, no privilege), and when `keep` raises OSError.
    """
    flow = record.flow
    family = socket.AF_INET if isinstance(flow.local, IPv4Address) else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _prepare(sock, record, mark)
        if keep is not None:
            keep(sock)
        sock.bind((str(flow.local), flow.local_port))
        sock.connect((str(flow.peer), flow.peer_port))
    except OSError as error:
        sock.close()
        raise SessionError(f"{flow} cannot be held: {error.strerror or error}") from error
    return sock


def repeat(sock: socket.socket, record: DatagramRecord) -> None:
    """Send the keep-alive once; network errors are ignored, as they concern the peer."""
    if record.repeated is not None:
        with suppress(OSError):
            sock.send(record.repeated.payload)


def _prepare(sock: socket.socket, record: DatagramRecord, mark: int | None) -> None:
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_IP, socket.IP_TTL, record.ttl)
        sock.setsockopt(socket.SOL_IP, socket.IP_TOS, record.traffic_class)
    else:
        sock.setsockopt(_SOL_IPV6, repair.IPV6_TRANSPARENT, 1)
        sock.setsockopt(_SOL_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(_SOL_IPV6, socket.IPV6_UNICAST_HOPS, record.ttl)
        sock.setsockopt(_SOL_IPV6, socket.IPV6_TCLASS, record.traffic_class)
    if mark is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    # Without SO_REUSEADDR: two holders of one flow would each get some of its datagrams.
    sock.setsockopt(socket.SOL_SOCKET, repair.SO_RCVBUFFORCE, RECEIVE_BUFFER)
