"""The state of a live connection, read from its socket into a record. Nothing of the socket changes."""

import socket

from locum.sessions.record import (
    LONGEST_KEEP_ALIVE,
    MAX_QUEUE,
    MOST_PROBES,
    TRANSFERABLE,
    SessionRecord,
    TcpState,
)
from locum.sessions.tcp import repair
from locum.sessions.tcp.errors import SessionError
from locum.wire.control import Flow

_U32 = 0xFFFFFFFF
_TCP = socket.IPPROTO_TCP


def check(sock: socket.socket, flow: Flow) -> None:
    """Raise SessionError for a connection that cannot travel."""
    state = repair.info(sock).state
    if state not in TRANSFERABLE:
        raise SessionError(f"{flow} is in state {state.name}")
    if protocol := repair.upper_protocol(sock):
        raise SessionError(f"{flow} has the kernel's {protocol} on top, whose state cannot be taken out")
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) != _TCP:
        raise SessionError(f"{flow} is a Multipath TCP connection, which cannot be taken out")
    if repair.has_authentication(sock):
        raise SessionError(f"{flow} is signed with keys of TCP-AO (RFC 5925), which cannot be taken out")


def read(sock: socket.socket, flow: Flow) -> SessionRecord:
    """The record of a connection in repair mode, without its options. Raises SessionError for a queue that is too long."""
    now = repair.info(sock)
    rcv_seq = repair.queue_sequence(sock, repair.RECEIVE_QUEUE)
    written = repair.queue_sequence(sock, repair.SEND_QUEUE)
    unacknowledged, unsent = repair.unacknowledged(sock), repair.unsent(sock)
    fin_queued = now.state in (TcpState.FIN_WAIT1, TcpState.LAST_ACK, TcpState.CLOSING)
    data = unacknowledged - fin_queued
    unsent_data = max(unsent - fin_queued, 0)
    if data > MAX_QUEUE:
        raise SessionError(f"{flow} has {data} bytes in its send queue, more than {MAX_QUEUE}")
    queue = repair.peek_send_queue(sock, data)
    unread = repair.unread(sock)
    buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    scales = now.window_scale
    return SessionRecord(
        flow=flow,
        state=now.state,
        snd_seq=(written - unacknowledged - (now.state is TcpState.FIN_WAIT2)) & _U32,
        rcv_seq=rcv_seq,
        unacked=queue[: data - unsent_data],
        unsent=queue[data - unsent_data :],
        unread=unread,
        window=repair.window(sock),
        timestamp=repair.timestamp(sock) if now.timestamps else None,
        timestamp_unit=now.timestamp_unit if now.timestamps else None,
        mss=sock.getsockopt(_TCP, socket.TCP_MAXSEG),
        window_scale=scales,
        sack=now.sack,
        keepalive=_keepalive(sock),
        intake=(max(now.bytes_received - unread, 0), buffer),
    )


def _keepalive(sock: socket.socket) -> tuple[int, int, int] | None:
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return None
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    idle, interval, count = (sock.getsockopt(_TCP, name) for name in names)
    # From the host's defaults (tcp_keepalive_time and the like) they may be more than a program can set.
    return min(idle, LONGEST_KEEP_ALIVE), min(interval, LONGEST_KEEP_ALIVE), min(count, MOST_PROBES)
