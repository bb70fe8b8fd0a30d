"""The stand-in's end of a live TCP connection: a socket that carries on where the device's stopped (A12, C2, C3).

The home address is local here only for packets that come in (AnyIP route), so sockets are bound transparently. The caller
holds the flow's packets during `restore` and from before `stop` on. This module must not know how, nor who keeps the
bytes; it never waits.
"""

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.sessions.record import SessionRecord, TcpState, TimestampUnit
from locum.sessions.tcp import carrying, repair
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.final_state import FinalTcp

RECEIVE_BUFFER = 4 << 20  # bytes: a window for 100 Mbit/s at 150 ms while the spool is written
_MOST_BUFFER = 64 << 20
_PIECE = 64 << 10  # bytes a write into the receive queue: the kernel makes one buffer of each
_WINDOW_CLAMP = 1 << 30  # the largest window there is (RFC 7323 section 2.3); the buffer is the bound
_PEER_CLOSED = (TcpState.CLOSE_WAIT, TcpState.CLOSING, TcpState.LAST_ACK, TcpState.TIME_WAIT)
_TCP = socket.IPPROTO_TCP
_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Condition:
    """State of a stand-in's connection. Counts are payload bytes since the restore."""

    state: TcpState
    received: int  # acknowledged to the peer; includes `unread`
    unread: int  # in the kernel's queue
    peer_closed: bool  # the peer's FIN has come, before or after the restore
    failed: bool  # an error waits to be taken by `take_error`


def restore(
    record: SessionRecord,
    *,
    mark: int | None = None,
    device: str | None = None,
    receive_buffer: int = RECEIVE_BUFFER,
    keep: Callable[[socket.socket], None] | None = None,
    lacking: Callable[[str], None] = lambda option: None,
    received: bytes = b"",
) -> socket.socket:
    """A live, non-blocking socket that continues the record's connection, sending its unsent bytes and FIN.

    `keep` is called with the socket while it is still in repair mode: a daemon that gives it to a holder there can be killed at any
    moment without the peer getting a FIN. `receive_buffer` also bounds the data that the kernel accepts without a reader.
    `received` bytes are the first that it has received since the record.
    `lacking` is called with options of the record that this kernel does not have, such as a congestion control.
    Raises SessionError when the kernel refuses (no route to the peer, the same flow is already open, no privilege), and
    when `keep` raises OSError.
    """
    flow = record.flow
    family = socket.AF_INET if isinstance(flow.local, IPv4Address) else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _prepare(sock, record, mark, device, receive_buffer)
        for option in carrying.apply(sock, flow, record.options):
            lacking(option)
        _establish(sock, record)
        repair.select_queue(sock, repair.SEND_QUEUE)
        _write(sock, record.unacked)
        if received:
            _receive(sock, received)
        if keep is not None:
            keep(sock)
        _leave_repair(sock)
        _write(sock, record.unsent)
        if record.fin_sent:  # with the FIN's own sequence number: the peer acknowledges a duplicate
            sock.shutdown(socket.SHUT_WR)
    except (OSError, SessionError) as error:
        drop(sock)
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SessionError(f"{flow} cannot be restored: {said}") from error
    sock.setblocking(False)
    return sock


def condition(
    sock: socket.socket, record: SessionRecord, *, known_error: int = 0, known_closed: bool = False
) -> Condition:
    """State of the connection now; reads no data from the socket.

    `known_error` and `known_closed` are from earlier calls: the kernel gives an error once, and a closed socket does
    not tell whether a FIN came first.
    """
    failed = _error_waits(sock)
    now, unread = _counts(sock)
    # The kernel counts a FIN as a byte received. A socket that is closed without any error has gone through TIME_WAIT or
    # LAST_ACK, thus has had it.
    ended_well = now.state is TcpState.CLOSE and not failed and not known_error
    fin = not record.peer_closed and (now.state in _PEER_CLOSED or known_closed or ended_well)
    return Condition(
        state=now.state,
        received=now.bytes_received - int(fin),
        unread=unread,
        peer_closed=record.peer_closed or fin,
        failed=failed,
    )


def _counts(sock: socket.socket) -> tuple[repair.Info, int]:
    """Received and unread counts, of one moment: their difference is the position in the spool.

    They are two calls, and a segment may come between them. Nothing is taken meanwhile, so the window bounds the tries.
    """
    now = repair.info(sock)
    while True:
        unread, before = repair.unread(sock), now
        now = repair.info(sock)
        if now.bytes_received == before.bytes_received:
            return now, unread


def quiet(sock: socket.socket) -> float:
    """Seconds since the peer sent a byte, or since the restore; a restart of the daemon does not change it."""
    return repair.info(sock).quiet


def take_error(sock: socket.socket) -> int:
    """The errno that ended the connection, which the kernel then forgets; 0 without one."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def stop(sock: socket.socket) -> None:
    """Into repair mode: the connection stands still. Hold the flow before."""
    repair.set_repair(sock, repair.REPAIR_ON)


def resume(sock: socket.socket) -> None:
    """Undoes `stop`; the peer is probed."""
    if repair.in_repair(sock):
        _leave_repair(sock)


def _leave_repair(sock: socket.socket) -> None:
    """The peer is probed. A listener for the same port of the home address can be bound beside the connection."""
    repair.set_repair(sock, repair.REPAIR_OFF)  # clears SO_REUSEADDR
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def final(
    sock: socket.socket,
    record: SessionRecord,
    *,
    received: int,
    peer_closed: bool,
    error: int,
    spoken: int = 0,
) -> FinalTcp:
    """The final state of a stopped connection, given the spool's data about its receiving side.

    `spoken` bytes were sent here behind those of the record.
    """
    written = repair.queue_sequence(sock, repair.SEND_QUEUE)
    acked = (written - repair.unacknowledged(sock) - record.snd_seq) & _U32
    most = len(record.unacked) + len(record.unsent) + record.fin_sent + spoken
    return FinalTcp(
        received=received,
        acked=acked if acked <= most else 0,
        timestamp=repair.timestamp(sock) if record.timestamp is not None else None,
        peer_closed=peer_closed,
        error=error,
        send_window=repair.window(sock).snd_wnd,
    )


def drop(sock: socket.socket) -> None:
    """Closes the socket without a packet. Other descriptors of it (the holder's) must have gone before or go after."""
    try:
        repair.set_repair(sock, repair.REPAIR_ON)
    finally:
        sock.close()


def reset(sock: socket.socket) -> None:
    """Ends the connection towards the peer with a RST, and closes the socket; other descriptors do not keep it alive.

    The flow's way out must be open.
    """
    try:
        if repair.in_repair(sock):
            repair.set_repair(sock, repair.REPAIR_OFF_NO_PROBE)
        repair.disconnect(sock)
    finally:
        sock.close()


def _prepare(
    sock: socket.socket, record: SessionRecord, mark: int | None, device: str | None, receive_buffer: int
) -> None:
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, repair.IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if mark is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    # A byte of urgent data stays in its place in the stream.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if device is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
    # The kernel doubles both. The device's offered window must fit; the whole send queue is written at once.
    space = min(max(receive_buffer, record.window.rcv_wnd), _MOST_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, repair.SO_RCVBUFFORCE, space)
    queued = len(record.unacked) + len(record.unsent)
    sock.setsockopt(socket.SOL_SOCKET, repair.SO_SNDBUFFORCE, 2 * queued + (1 << 20))
    if record.keepalive is not None:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        for name, value in zip(names, record.keepalive, strict=True):
            sock.setsockopt(_TCP, name, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _establish(sock: socket.socket, record: SessionRecord) -> None:
    flow = record.flow
    repair.set_repair(sock, repair.REPAIR_ON)
    sock.bind((str(flow.local), flow.local_port))
    repair.set_queue_sequence(sock, repair.SEND_QUEUE, record.snd_seq)
    repair.set_queue_sequence(sock, repair.RECEIVE_QUEUE, record.rcv_seq)
    sock.connect((str(flow.peer), flow.peer_port))
    send, receive = record.window_scale or (0, 0)
    options = [(repair.OPTION_MSS, record.mss), (repair.OPTION_WINDOW_SCALE, send | receive << 16)]
    if record.sack:
        options.append((repair.OPTION_SACK, 0))
    if record.timestamp is not None:
        options.append((repair.OPTION_TIMESTAMPS, 0))
    repair.set_options(sock, options)
    if record.timestamp is not None:
        # Not knowing the unit, the slower one: a clock that runs too fast is back behind itself after 36 minutes.
        repair.set_timestamp(sock, record.timestamp, record.timestamp_unit or TimestampUnit.MILLISECONDS)
    repair.set_window(sock, record.window)
    # A new connection would offer 64 KiB and grow; raising the clamp makes the kernel take over the restored window.
    sock.setsockopt(_TCP, socket.TCP_WINDOW_CLAMP, _WINDOW_CLAMP)


def _write(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            raise SessionError(f"the send buffer has no room for {len(view)} bytes") from None


def _receive(sock: socket.socket, data: bytes) -> None:
    """Put bytes into the receive queue, in repair mode."""
    repair.select_queue(sock, repair.RECEIVE_QUEUE)
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view[:_PIECE], socket.MSG_DONTWAIT) :]
        except OSError as problem:
            raise SessionError(f"the receive buffer has no room for {len(view)} bytes") from problem


def _error_waits(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
