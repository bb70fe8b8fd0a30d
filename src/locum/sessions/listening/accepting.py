"""The stand-in's end of connections to a sleeping device's listening ports: it accepts them and keeps them (A12).

An accepted connection becomes a session like one that was handed over: `reception` gives the record that the device would
have made of it before its first byte. The device's kernel repeats the handshake later, so neither timestamps nor window
scaling may have been agreed (the data plane takes both options out of the peer's SYN), and the receive buffer is bound to
what the device's program can take at once. This module must not know who wakes, nor who keeps the bytes.
"""

import errno
import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from locum.sessions.record import SessionRecord, TcpState, Window
from locum.sessions.tcp import repair
from locum.sessions.tcp.errors import SessionError
from locum.wire.control import Flow, Handshake

MOST_WINDOW = 0xFFFF  # bytes: the largest window without scaling
LEAST_WINDOW = 4608  # the kernel's smallest receive buffer, twice
_GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EINVAL)
_TCP = socket.IPPROTO_TCP
_IPV6 = socket.IPPROTO_IPV6
_U32 = 0xFFFFFFFF


def listen(address: IPv4Address | IPv6Address, port: int, *, backlog: int, window: int) -> socket.socket:
    """A transparent, non-blocking listener at a home address; a peer can send at most `window` unread bytes.

    Raises OSError: the port is taken by a listener of this host at that address, no privilege.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET:
            sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        else:
            sock.setsockopt(_IPV6, repair.IPV6_TRANSPARENT, 1)
            sock.setsockopt(_IPV6, socket.IPV6_V6ONLY, 1)
        # Sessions of the same port live here as well.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. The kernel doubles it, and lets a sender fill nearly all of that.
        bound = max(LEAST_WINDOW, min(window, MOST_WINDOW)) // 2
        sock.setsockopt(socket.SOL_SOCKET, repair.SO_RCVBUFFORCE, bound)
        sock.bind((str(address), port))
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def accept(listener: socket.socket) -> tuple[socket.socket, SessionRecord] | None:
    """The next connection and its record; None if there is none now.

    Raises SessionError for a connection that cannot be handed over; it is closed.
    """
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return None
        except ConnectionAbortedError:
            continue
        sock.setblocking(False)
        try:
            return sock, _reception(sock)
        except OSError as problem:
            sock.close()
            if problem.errno not in _GONE:  # else the peer has given it up already
                raise SessionError(f"an accepted connection cannot be read: {problem}") from problem
        except SessionError:
            sock.close()
            raise


def _reception(sock: socket.socket) -> SessionRecord:
    """The record of the connection as it was before its first byte."""
    local, peer = sock.getsockname(), sock.getpeername()
    flow = Flow(_TCP, ip_address(local[0]), local[1], ip_address(peer[0]), peer[1])
    repair.set_repair(sock, repair.REPAIR_ON)
    try:
        while True:  # what has come meanwhile does not count, so both numbers have to be of one moment
            now = repair.info(sock)
            expected = repair.queue_sequence(sock, repair.RECEIVE_QUEUE)
            if repair.info(sock).bytes_received == now.bytes_received:
                break
        written = repair.queue_sequence(sock, repair.SEND_QUEUE)
        window = repair.window(sock)
    finally:
        repair.set_repair(sock, repair.REPAIR_OFF_NO_PROBE)  # clears SO_REUSEADDR
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if now.timestamps or now.window_scale is not None:
        raise SessionError(
            f"{flow} was opened with timestamps or window scaling, which a device cannot take over"
        )
    return SessionRecord(
        flow=flow,
        state=TcpState.ESTABLISHED,
        snd_seq=written,
        rcv_seq=(expected - now.bytes_received) & _U32,
        unacked=b"",
        unsent=b"",
        unread=0,
        window=_before_any_byte(window, now.bytes_received),
        timestamp=None,
        mss=sock.getsockopt(_TCP, socket.TCP_MAXSEG),
        window_scale=None,
        sack=now.sack,
    )


def _before_any_byte(window: Window, received: int) -> Window:
    return replace(window, rcv_wup=(window.rcv_wup - received) & _U32)


def handshake(record: SessionRecord) -> Handshake:
    """Data from which the device repeats the handshake of an accepted connection."""
    return Handshake(
        local_isn=(record.snd_seq - 1) & _U32,
        peer_isn=(record.rcv_seq - 1) & _U32,
        mss=record.mss,
        sack=record.sack,
        window=min(record.window.snd_wnd, MOST_WINDOW),
    )
