"""Room in a socket for bytes that its program has not read yet and its receive buffer does not take (C3).

A connection cannot go on before everything that its peer was told to have arrived is in the socket. A program that only
writes would wait for that for ever. The kernel does not mind a receive queue longer than its buffer: the window is 0 until
enough of it has been read. This module must not know the data, nor the decision.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from locum.sessions.tcp import repair

# Bytes that a program may have to read. One that never reads gets a little more with each sleep: not without end.
MOST_UNREAD = 24 << 20
# Memory for each byte in segments of a usual size, at most: the kernel counts its buffers whole.
_OVERHEAD = 4
_LEAST = 256 << 10  # bytes of memory, for a few segments at least


@contextmanager
def more_room(sock: socket.socket, count: int) -> Iterator[bool]:
    """While it lasts, the receive buffer takes `count` bytes more, as far as the host's memory for TCP goes.

    Size and lock are as before afterwards, so that the kernel goes on to tune sizes that the program has not fixed. False, and
    nothing changes, when the program would have more than `MOST_UNREAD` bytes to read or the kernel cannot do it (before
    Linux 5.16). Raises OSError.
    """
    locks = _locks(sock)
    if locks is None or repair.unread(sock) + count > MOST_UNREAD:
        yield False
        return
    used, size = repair.receive_memory(sock)
    wanted = max(used, size) + _OVERHEAD * count + _LEAST
    try:
        sock.setsockopt(socket.SOL_SOCKET, repair.SO_RCVBUFFORCE, wanted // 2)  # the kernel doubles it
        yield True
    finally:
        sock.setsockopt(socket.SOL_SOCKET, repair.SO_RCVBUFFORCE, (size + 1) // 2)
        sock.setsockopt(socket.SOL_SOCKET, repair.SO_BUF_LOCK, locks)


@contextmanager
def more_to_send(sock: socket.socket, count: int) -> Iterator[None]:
    """While it lasts, the send buffer takes `count` bytes more. Size and lock are as before afterwards. Raises OSError.

    Before Linux 5.16 the kernel does not tune the size any more afterwards.
    """
    locks = _locks(sock)
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    sock.setsockopt(socket.SOL_SOCKET, repair.SO_SNDBUFFORCE, size // 2 + 2 * count + (64 << 10))
    try:
        yield
    finally:
        sock.setsockopt(socket.SOL_SOCKET, repair.SO_SNDBUFFORCE, (size + 1) // 2)
        if locks is not None:
            sock.setsockopt(socket.SOL_SOCKET, repair.SO_BUF_LOCK, locks)


def _locks(sock: socket.socket) -> int | None:
    with suppress(OSError):
        return sock.getsockopt(socket.SOL_SOCKET, repair.SO_BUF_LOCK)
    return None
