"""TCP_REPAIR and its neighbours: the kernel's calls on one TCP socket, as Linux 6.x has them.

One function a call, no policy. Sockets may be shared with a program: nothing here changes O_NONBLOCK.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from locum.sessions.record import TcpState, TimestampUnit, Window

TCP_REPAIR = 19
TCP_REPAIR_QUEUE = 20
TCP_QUEUE_SEQ = 21
TCP_REPAIR_OPTIONS = 22
TCP_TIMESTAMP = 24
TCP_REPAIR_WINDOW = 29
TCP_ULP = 31
TCP_AO_INFO = 40

REPAIR_ON = 1
REPAIR_OFF = 0  # sends a window probe when established: the peer answers with its acknowledgement and window
REPAIR_OFF_NO_PROBE = -1

RECEIVE_QUEUE = 1
SEND_QUEUE = 2

OPTION_MSS = 2
OPTION_WINDOW_SCALE = 3
OPTION_SACK = 4
OPTION_TIMESTAMPS = 8

SIOCINQ = 0x541B
SIOCOUTQ = 0x5411
SIOCOUTQNSD = 0x894B

IPV6_TRANSPARENT = 75
IP_RECVERR = 11
IPV6_RECVERR = 25
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_PEEK_OFF = 42
SO_MEMINFO = 55
SO_BUF_LOCK = 72  # since Linux 5.16

_SYS_PIDFD_GETFD = 438  # the same number on every architecture
_INFO_BYTES = 232  # up to tcpi_snd_wnd (5.4)
_USEC_TIMESTAMPS = 64  # TCPI_OPT_USEC_TS, since Linux 6.7
_AO_INFO_BYTES = 56  # struct tcp_ao_info_opt
_WINDOW = struct.Struct("=5I")
_MEMORY = struct.Struct("=2I")  # the first of SK_MEMINFO_VARS
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Info:
    """The parts of struct tcp_info that matter here; counters in bytes."""

    state: TcpState
    timestamps: bool
    sack: bool
    window_scale: tuple[int, int] | None  # (send, receive)
    bytes_received: int  # a FIN counts as one
    timestamp_unit: TimestampUnit  # as the kernel counts now; meaningless without timestamps
    quiet: float  # seconds since the peer sent data; the kernel counts up to 49 days
    send_window: int = 0  # the peer's window
    retransmissions: int = 0  # of the first unacknowledged segment, since the last acknowledgement
    backoff: int = 0  # doublings of the timeout since then
    timeout: int = 0  # milliseconds from one retransmission to the next
    bytes_acked: int = 0  # of ours, since the socket was connected or restored


def duplicate(pid: int, fd: int) -> socket.socket:
    """A second descriptor of another process's socket; raises OSError (ESRCH, EBADF, EPERM)."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = int(_libc.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0))
        if copy < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(pidfd)
    return socket.socket(fileno=copy)


def info(sock: socket.socket) -> Info:
    """struct tcp_info of the socket, open or closed; raises OSError if the kernel gives too few fields."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(raw) < _INFO_BYTES:
        raise OSError(f"the kernel's tcp_info has {len(raw)} bytes, fewer than {_INFO_BYTES}")
    options, scales = raw[5], raw[6]
    return Info(
        state=TcpState(raw[0]),
        timestamps=bool(options & 1),
        sack=bool(options & 2),
        window_scale=(scales & 15, scales >> 4) if options & 4 else None,
        bytes_received=struct.unpack_from("=Q", raw, 128)[0],
        timestamp_unit=TimestampUnit(bool(options & _USEC_TIMESTAMPS)),
        quiet=struct.unpack_from("=I", raw, 52)[0] / 1000,
        send_window=struct.unpack_from("=I", raw, 228)[0],
        retransmissions=raw[2],
        backoff=raw[4],
        timeout=struct.unpack_from("=I", raw, 8)[0] // 1000,
        bytes_acked=struct.unpack_from("=Q", raw, 120)[0],
    )


def upper_protocol(sock: socket.socket) -> str:
    """The name of the protocol that the kernel runs on top of this connection ("tls"), or nothing."""
    return sock.getsockopt(socket.IPPROTO_TCP, TCP_ULP, 16).rstrip(b"\0").decode(errors="replace")


def has_authentication(sock: socket.socket) -> bool:
    """True if the connection is signed by TCP-AO (RFC 5925), which exists from Linux 6.7."""
    try:
        sock.getsockopt(socket.IPPROTO_TCP, TCP_AO_INFO, _AO_INFO_BYTES)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            return False
        raise
    return True


def set_repair(sock: socket.socket, mode: int) -> None:
    """REPAIR_ON, REPAIR_OFF or REPAIR_OFF_NO_PROBE; entering selects no queue. Needs CAP_NET_ADMIN."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, mode)


def in_repair(sock: socket.socket) -> bool:
    """True if the socket is in repair mode."""
    return bool(sock.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR))


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC): end the connection at once, whoever else has a descriptor; an open one with a RST.

    In repair mode nothing is sent. Raises OSError.
    """
    nowhere = struct.pack("=H14x", socket.AF_UNSPEC)
    if _libc.connect(sock.fileno(), nowhere, len(nowhere)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def select_queue(sock: socket.socket, queue: int) -> None:
    """Select RECEIVE_QUEUE or SEND_QUEUE for the next reads, writes and queries."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)


def queue_sequence(sock: socket.socket, queue: int) -> int:
    """RECEIVE_QUEUE: next sequence number expected. SEND_QUEUE: the one behind the last byte (or FIN) written."""
    select_queue(sock, queue)
    return sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF


def set_queue_sequence(sock: socket.socket, queue: int, sequence: int) -> None:
    """Only while the socket is closed (EPERM)."""
    select_queue(sock, queue)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("=I", sequence))


def window(sock: socket.socket) -> Window:
    """Both windows; in repair mode only. The receive window of tcp_info came with Linux 6.2, and is 0 before."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, _WINDOW.size)
    return Window(*_WINDOW.unpack(raw))


def set_window(sock: socket.socket, value: Window) -> None:
    """In repair mode only; EINVAL when the numbers contradict each other or rcv_nxt."""
    sock.setsockopt(
        socket.IPPROTO_TCP,
        TCP_REPAIR_WINDOW,
        _WINDOW.pack(value.snd_wl1, value.snd_wnd, value.max_window, value.rcv_wnd, value.rcv_wup),
    )


def timestamp(sock: socket.socket) -> int:
    """The TCP timestamp clock now, in the unit of `info`, never less than the last value sent.

    Since Linux 6.7 the low bit of the kernel's value is not the clock's, but the unit; before, it is the clock's.
    """
    return (sock.getsockopt(socket.IPPROTO_TCP, TCP_TIMESTAMP) & 0xFFFFFFFF) | 1


def set_timestamp(sock: socket.socket, value: int, unit: TimestampUnit) -> None:
    """Set the TCP timestamp clock to `value` or the next possible value; in repair mode only.

    A kernel without microseconds (before Linux 6.7) goes on in milliseconds. The peer takes that: it looks at the order of
    the values alone (RFC 7323 sections 4.3 and 5.2), and a slower clock does not go back.
    """
    even = unit is TimestampUnit.MILLISECONDS
    told = (value + 1) & ~1 if even else value | 1
    sock.setsockopt(socket.IPPROTO_TCP, TCP_TIMESTAMP, struct.pack("=I", told & 0xFFFFFFFF))


def set_options(sock: socket.socket, options: list[tuple[int, int]]) -> None:
    """Set the options negotiated in the handshake; established, in repair, before any byte is written."""
    packed = b"".join(struct.pack("=II", code, value) for code, value in options)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_OPTIONS, packed)


def announce_data(sock: socket.socket) -> None:
    """Wake programs that wait for this socket if there are bytes to read; out of repair mode.

    Writing to a receive queue in repair mode wakes no program: epoll, SIGIO and io_uring do not poll. Setting
    the low watermark calls the kernel's data-ready function (tcp_set_rcvlowat). A value that the kernel took before is
    taken again, and the receive buffer is large enough for it already.
    """
    mark = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)


def reports_errors(sock: socket.socket) -> bool:
    """True if the program asked for every ICMP error (IP_RECVERR)."""
    if sock.getsockopt(socket.SOL_IP, IP_RECVERR):
        return True
    return sock.family == socket.AF_INET6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR))


def _ioctl(sock: socket.socket, request: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), request, b"\0\0\0\0"))[0])


def unread(sock: socket.socket) -> int:
    """Bytes in the receive queue, without a FIN."""
    return _ioctl(sock, SIOCINQ)


def receive_memory(sock: socket.socket) -> tuple[int, int]:
    """Bytes of memory that the receive queue takes, and the size of the receive buffer; the former may be more."""
    used, size = _MEMORY.unpack(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMORY.size))
    return used, size


def unacknowledged(sock: socket.socket) -> int:
    """Sequence numbers from the first unacknowledged one to the last written one (a FIN counts)."""
    return _ioctl(sock, SIOCOUTQ)


def unsent(sock: socket.socket) -> int:
    """Sequence numbers written and not sent yet (a FIN counts)."""
    return _ioctl(sock, SIOCOUTQNSD)


def peek_send_queue(sock: socket.socket, length: int) -> bytes:
    """The last `length` bytes of the send queue; in repair mode only.

    The kernel keeps a partly acknowledged segment whole, so the queue may begin before the first unacknowledged byte.
    """
    if not length:
        return b""
    select_queue(sock, SEND_QUEUE)
    data = sock.recv(length + (1 << 18), socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if len(data) < length:
        raise OSError(f"the send queue holds {len(data)} bytes where {length} are unacknowledged")
    return data[len(data) - length :]


def peek_receive_queue(sock: socket.socket, length: int) -> bytes:
    """The first `length` unread bytes, or fewer where an urgent mark among them stops a kernel before Linux 6.10.

    In repair mode, with the receive queue selected. Nothing is taken.
    """
    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
    data = sock.recv(length, flags)
    if len(data) == length:
        return data
    parts = [data]
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, len(data))  # moves on with each piece
    except OSError:
        return data
    try:
        while (rest := length - sum(map(len, parts))) and (data := sock.recv(rest, flags)):
            parts.append(data)
    finally:
        sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
    return b"".join(parts)


def mark_all_sent(sock: socket.socket) -> None:
    """Count every byte (and FIN) of the send queue as sent, without transmitting; in repair mode only.

    TCP_NODELAY pushes the queue, and a push in repair mode of the send queue moves bytes over silently.
    """
    before = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    select_queue(sock, SEND_QUEUE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not before:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
