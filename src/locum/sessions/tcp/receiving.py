"""Received bytes into a captured socket: written in repair mode, or sent as segments from the peer."""

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass, replace

from locum.sessions.tcp import repair
from locum.sessions.tcp.parked import Parked
from locum.sessions.tcp.peer_packets import window_field
from locum.sessions.tcp.synthesis import data_segments

# Bytes: far below 2 GiB, where the order of sequence numbers turns round, and more than any window that is offered.
PURGE_EVERY = 64 << 20
# Bytes a write into the receive queue: the kernel makes one buffer of each, of 17 pages at most.
_PIECE = 64 << 10
_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Injected:
    """Result of one `inject`: bytes taken, and packets to deliver to this host for them (else none)."""

    accepted: int
    packets: tuple[bytes, ...] = ()


def write(sock: socket.socket, parked: Parked, data: bytes | memoryview, position: int) -> Injected:
    """Write data that fits the receive buffer, in repair mode; `position` is where `data` begins.

    Ends before every `PURGE_EVERY`th byte. That one is taken only as a segment.
    """
    step = max(PURGE_EVERY, parked.window)
    if not (room := step - 1 - position % step):
        return _purge(sock, parked, data)
    view = memoryview(data)[:room]
    done = 0
    repair.select_queue(sock, repair.RECEIVE_QUEUE)
    while done < len(view):
        try:
            done += sock.send(view[done : done + _PIECE], socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno in (errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN):
                break
            raise
    return Injected(done)


def as_segments(sock: socket.socket, parked: Parked, data: bytes | memoryview) -> Injected:
    """Make segments from the peer of as much of `data` as the window takes; they are not written here."""
    seq = repair.queue_sequence(sock, repair.RECEIVE_QUEUE)
    part = bytes(data[: repair.window(sock).offered(seq)])
    window = window_field(sock)
    return Injected(len(part), data_segments(parked.flow, seq, parked.snd_una, part, window))


def _purge(sock: socket.socket, parked: Parked, data: bytes | memoryview) -> Injected:
    """A segment of one byte: with it the kernel drops data behind a gap (tcp_ofo_queue).

    Bytes written in repair mode fill the gap without that. Data behind it would be in order again, and be given to
    the program, when sequence numbers come round after 4 GiB.
    """
    open_window(sock, parked)
    return as_segments(sock, parked, data[:1])


def open_window(sock: socket.socket, parked: Parked, least: int = 0, *, always: bool = False) -> None:
    """Open the receive window, which injected bytes have used up, as far behind them again.

    It is 0 while the receive queue takes more than the buffer (unless `always`): new data would be dropped, by some
    kernels in silence.
    """
    now = repair.window(sock)
    used, size = repair.receive_memory(sock)
    room = max(now.rcv_wnd, parked.window, least) if used < size or always else 0
    seq = repair.queue_sequence(sock, repair.RECEIVE_QUEUE)
    with suppress(OSError):  # only saves a retransmission: the next acknowledgement opens it as well
        repair.set_window(
            sock,
            # snd_wl1 must not be 2 GiB behind: then no window of the peer's would count.
            replace(now, rcv_wnd=room, rcv_wup=seq, snd_wl1=(seq - 1) & _U32),
        )
