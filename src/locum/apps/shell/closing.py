"""Ends the connections of a proxy in order: what waits goes out, then FIN, and none speaks any more afterwards.

A peer that does not acknowledge in time is reset: the device goes on under the same address.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Iterable

from locum.apps.shell.stream import Stream

CLOSING = 1.0
"""Seconds for all of them together: a reclaim waits for it."""
_STEP = 0.005  # seconds between two looks
_SILENT = (5, 6, 7)  # TCP's FIN-WAIT-2, TIME-WAIT, CLOSED: nothing of ours is on its way (linux/tcp_states.h)
_RESET = struct.pack("ii", 1, 0)
_ROOM = 64 << 10


def close(streams: Iterable[Stream], lingering: Iterable[socket.socket], patience: float = CLOSING) -> None:
    """Returns when all are closed, after so many seconds at most."""
    until = time.monotonic() + patience
    unsent = [stream for stream in streams if stream.sock is not None]
    sent = list(lingering)
    room = bytearray(_ROOM)
    while unsent or sent:
        late = time.monotonic() >= until
        for stream in tuple(unsent):
            if late or _is_sent(stream):
                unsent.remove(stream)
                assert stream.sock is not None
                sent.append(stream.sock)
        for sock in tuple(sent):
            _discard(sock, room)
            if late or _is_silent(sock):
                sent.remove(sock)
                _end(sock)
        if unsent or sent:
            time.sleep(_STEP)


def _is_sent(stream: Stream) -> bool:
    """True when the connection's FIN is on its way behind everything else."""
    assert stream.sock is not None
    try:
        if not stream.send() or stream.queue:
            return False
        if stream.encrypted is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.encrypted.unwrap()
        socket.socket.shutdown(stream.sock, socket.SHUT_WR)
    except (OSError, ValueError):
        pass  # it has ended
    return True


def _discard(sock: socket.socket, room: bytearray) -> None:
    """Bytes of the peer that nobody will read: the kernel would answer them with a reset."""
    with contextlib.suppress(OSError):
        while socket.socket.recv_into(sock, room):
            pass


def _is_silent(sock: socket.socket) -> bool:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _SILENT
    except OSError:
        return True


def _end(sock: socket.socket) -> None:
    if not _is_silent(sock):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
