"""The stand-in's end of a proxy's connection: out of the proxy's socket into one that is held like all others (A11).

The flow is held meanwhile. Bytes that the proxy has not read, or gives back, are received bytes of the new socket: they
are before everything that comes from now on. This module must not know proxies, nor who keeps the socket.
"""

import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from locum.sessions.record import SessionRecord, TcpState, Window
from locum.sessions.tcp import reading, repair, stand_in
from locum.sessions.tcp.errors import SessionError
from locum.wire.control import Flow

MAX_UNACKNOWLEDGED = 1 << 20
"""Bytes that a connection may have sent or written without an acknowledgement: they travel in the answer to a reclaim."""
_STATES = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
_U32 = 0xFFFFFFFF


def flow_of(sock: socket.socket) -> Flow:
    """Its addresses and ports. Raises OSError: it has ended."""
    local, peer = sock.getsockname(), sock.getpeername()
    return Flow(socket.IPPROTO_TCP, ip_address(local[0]), local[1], ip_address(peer[0]), peer[1])


def is_large(sock: socket.socket) -> bool:
    """True if it has too much unacknowledged to be taken now."""
    return repair.unacknowledged(sock) > MAX_UNACKNOWLEDGED


def take(
    sock: socket.socket, unread: bytes, keep: Callable[[socket.socket], None] | None = None
) -> tuple[socket.socket, SessionRecord]:
    """Replace this socket, whoever else has a descriptor of it, by one that goes on; `unread` bytes come first again.

    The record is the connection's before these bytes. `keep` as in `stand_in.restore`. Raises SessionError or OSError for a
    connection that has ended, is encrypted by the kernel, or has too much unacknowledged: it is closed then, with a reset if possible.
    """
    sock.setblocking(False)
    try:
        flow = flow_of(sock)
        reading.check(sock, flow)
        repair.set_repair(sock, repair.REPAIR_ON)
        record, received = _read(sock, flow, unread)
    except (OSError, SessionError):
        stand_in.reset(sock)
        raise
    try:
        repair.disconnect(sock)  # in repair mode: nothing is sent
    finally:
        sock.close()
    space = max(stand_in.RECEIVE_BUFFER, 2 * len(received))
    return stand_in.restore(record, keep=keep, received=received, receive_buffer=space), record


def _read(sock: socket.socket, flow: Flow, unread: bytes) -> tuple[SessionRecord, bytes]:
    record = reading.read(sock, flow)
    if record.state not in _STATES:
        raise SessionError(f"{flow} is in state {record.state.name}")
    if len(record.unacked) + len(record.unsent) > MAX_UNACKNOWLEDGED:
        raise SessionError(f"{flow} has more than {MAX_UNACKNOWLEDGED} unacknowledged bytes")
    repair.select_queue(sock, repair.RECEIVE_QUEUE)
    queued = repair.peek_receive_queue(sock, record.unread) if record.unread else b""
    if len(queued) < record.unread:
        raise SessionError(f"{flow} has an urgent mark among its unread bytes")
    received = unread + queued
    start = (record.rcv_seq - len(received)) & _U32
    window = record.window
    end = window.rcv_wup + window.rcv_wnd
    return (
        replace(
            record,
            rcv_seq=start,
            unread=0,
            intake=(0, sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)),
            window=Window(
                window.snd_wl1,
                window.snd_wnd,
                window.max_window,
                max((end - start) & _U32, len(received)),
                start,
            ),
        ),
        received,
    )
