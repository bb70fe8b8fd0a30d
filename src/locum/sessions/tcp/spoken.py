"""Bytes that a proxy says in a connection at its stand-in, behind everything that the device sent (A1, A3).

They are written to a file before they go to the socket, and the kernel counts how many of them it has: a daemon that was
killed goes on with the next one. The device appends all of them to its own socket's send queue when it takes the
connection back, so that both ends agree again. This module must not know why something is said.
"""

import errno
import os
import socket
from pathlib import Path

from locum.sessions.record import SessionRecord, TcpState
from locum.sessions.tcp import repair
from locum.sessions.tcp.errors import SessionError

SUFFIX = ".spoken"
MAX_SPOKEN = 1 << 20  # bytes in one session: they travel with it


class Spoken:
    """Of one session; its file is `directory`/`name`.spoken, made by the first byte."""

    def __init__(self, name: str, record: SessionRecord, directory: Path) -> None:
        self._path = directory / f"{name}{SUFFIX}"
        self._own = len(record.unacked) + len(record.unsent)
        self._silent = record.fin_sent
        self.data = b""
        self._sent = 0

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self.data) - self._sent

    def recover(self, sock: socket.socket) -> None:
        """After a restart of the daemon: read the file, and how much of it the kernel has."""
        try:
            self.data = self._path.read_bytes()
        except FileNotFoundError:
            return
        self._sent = min(self._count(sock), len(self.data))

    def say(self, sock: socket.socket, data: bytes) -> None:
        """Send these bytes, now or when the kernel has room (`push`).

        Raises SessionError: the device has closed its side, or MAX_SPOKEN bytes were said; OSError: the file does not take
        them, or the connection has ended. Nothing is said then.
        """
        if self._silent:
            raise SessionError("the device has closed its side of the connection")
        if len(self.data) + len(data) > MAX_SPOKEN:
            raise SessionError(f"a proxy says at most {MAX_SPOKEN} bytes in one session")
        if repair.info(sock).state is TcpState.CLOSE:  # to send would take the error that its reader tells
            raise OSError(errno.EPIPE, "the connection has ended")
        self._append(data)
        self.data += data
        self.push(sock)

    def _append(self, data: bytes) -> None:
        """All of it behind what the file should have, or nothing: an earlier attempt may have left a part there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        with open(os.open(self._path, flags, 0o600), "wb", buffering=0) as file:
            file.truncate(len(self.data))
            file.seek(len(self.data))
            written = 0
            try:
                while written < len(data):
                    written += file.write(data[written:])
            except OSError:
                file.truncate(len(self.data))
                raise

    def push(self, sock: socket.socket) -> bool:
        """Give the kernel what it takes; True if it has everything. Raises OSError when the connection has ended."""
        while self._sent < len(self.data):
            if repair.info(sock).state is TcpState.CLOSE:
                raise OSError(errno.EPIPE, "the connection has ended")
            try:
                self._sent += sock.send(self.data[self._sent :], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
        return True

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def _count(self, sock: socket.socket) -> int:
        """Bytes behind the device's own that the kernel has taken: acknowledged, or in its queue."""
        taken = repair.info(sock).bytes_acked + repair.unacknowledged(sock)
        return max(taken - self._own, 0)
