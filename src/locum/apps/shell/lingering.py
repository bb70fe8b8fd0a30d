"""Connections that a proxy has finished, whose peers have not ended their side: their bytes are taken and forgotten.

A socket that was closed at once would answer such bytes with a reset, and the peer might lose the end of an answer.
"""

import select
import socket
import time

from locum.apps.shell.readiness import Readiness
from locum.roles.app_network import MAX_CONNECTIONS

LINGER = 5.0
"""Seconds for the peer."""
_ROOM = 64 << 10


class Lingering:
    """Of one process."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._sockets: dict[int, tuple[socket.socket, float]] = {}
        self._room = bytearray(_ROOM)

    def add(self, sock: socket.socket, *, eof: bool) -> None:
        """Send the FIN; `eof`: the peer has ended its side."""
        try:
            socket.socket.shutdown(sock, socket.SHUT_WR)
        except OSError:
            eof = True
        if eof or len(self._sockets) >= MAX_CONNECTIONS:
            sock.close()
            return
        descriptor = sock.fileno()
        self._sockets[descriptor] = (sock, time.monotonic() + LINGER)
        self._readiness.watch(descriptor, select.EPOLLIN, lambda _mask: self._drain(descriptor))

    def sockets(self) -> list[socket.socket]:
        """All of them."""
        return [sock for sock, _ in self._sockets.values()]

    def deadline(self) -> float | None:
        """Steady seconds of the next `due`: of the first one, which is the oldest."""
        return next((at for _, at in self._sockets.values()), None)

    def due(self, now: float) -> None:
        """Close those whose time is over."""
        for descriptor in [descriptor for descriptor, (_, at) in self._sockets.items() if at <= now]:
            self._end(descriptor)

    def _drain(self, descriptor: int) -> None:
        sock, _ = self._sockets[descriptor]
        try:
            over = not socket.socket.recv_into(sock, self._room)  # below TLS
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over:
            self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        sock, _ = self._sockets.pop(descriptor)
        self._readiness.forget(descriptor)
        sock.close()
