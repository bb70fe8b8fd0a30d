"""One TCP connection of a proxy: what waits to be sent in it, its encryption, and one step of reading or sending at a time.

Nothing here waits. It knows neither numbers nor happenings.
"""

import os
import select
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from enum import Enum

from locum.apps.shell.files import OpenFile

READ = 256 << 10
"""Bytes of one read."""
AT_ONCE = 4 << 20
"""Bytes that are sent before others get a turn."""
SMALL = 32 << 10
"""Bytes of a part of a file that go together with what was sent before it."""
_SENT_TOGETHER = 64  # pieces
_ENCRYPTED = 64 << 10  # bytes of a file that are encrypted at once


class ShortFileError(OSError):
    """A file ended before the part that was to be sent."""


class State(Enum):
    """Of a connection."""

    ASKED = "the stand-in makes its socket"
    CONNECTING = "TCP's handshake"
    SHAKING = "TLS's handshake"
    OPEN = "open"


@dataclass(slots=True)
class FilePart:
    """A part of a file that is sent; its content is read when its turn comes."""

    name: str
    offset: int
    left: int
    file: OpenFile | None = None


@dataclass(frozen=True, slots=True)
class Encrypt:
    """From here on the connection is encrypted; the host's name is checked."""

    host: str


@dataclass(frozen=True, slots=True)
class Hand:
    """From here on the connection is the device's."""

    label: str
    unread: bytes


Item = memoryview | FilePart | Encrypt | Hand


class Stream:
    """`number` is the proxy's name for it. `queue` holds what is to be sent, then what is to be done."""

    __slots__ = (
        "attempt",
        "eof",
        "finishing",
        "host",
        "mask",
        "more",
        "number",
        "patience",
        "paused",
        "peer",
        "port",
        "problem",
        "queue",
        "quiet",
        "sock",
        "state",
        "tls",
        "unsent",
        "until",
        "wants",
    )

    def __init__(self, number: int, sock: socket.socket | None, state: State, peer: str = "") -> None:
        self.number, self.sock, self.state, self.peer = number, sock, state, peer
        self.queue: deque[Item] = deque()
        self.unsent = 0  # bytes of the queue, without parts of files
        self.mask: int | None = None  # events that it waits for; None: it is not watched
        self.wants = 0  # events that TLS waits for
        self.tls = self.paused = self.eof = self.finishing = self.quiet = False
        self.more = False  # it has bytes that no event announces
        self.patience = self.until = 0.0  # steady seconds: of this step, and of all together
        self.host, self.port, self.attempt, self.problem = "", 0, 0, ""

    @property
    def encrypted(self) -> ssl.SSLSocket | None:
        """Its socket, if it is encrypted."""
        return self.sock if isinstance(self.sock, ssl.SSLSocket) else None

    def read(self, room: memoryview) -> tuple[bytes, bool] | None:
        """Bytes that have come, and True if more may be here that no event announces. Empty: the end. None: nothing now.

        Raises OSError.
        """
        assert self.sock is not None
        self.wants = 0
        if self.encrypted is None:
            try:
                return bytes(room[: self.sock.recv_into(room)]), False
            except BlockingIOError:
                return None
        count = 0
        try:
            while count < len(room):  # a record at a time
                more = self.sock.recv_into(room[count:])
                if not more:
                    break
                count += more
        except ssl.SSLWantReadError:
            return (bytes(room[:count]), False) if count else None
        except ssl.SSLWantWriteError:
            self.wants = select.EPOLLOUT
            return (bytes(room[:count]), False) if count else None
        except ssl.SSLEOFError:
            if not count:
                raise ConnectionResetError("it ended without the end of TLS") from None
        return bytes(room[:count]), True

    def send(self) -> bool:
        """Send the queue as far as the kernel takes it now; True if it did not wait: only things to be done are left.

        Raises OSError, and ShortFileError.
        """
        assert self.sock is not None
        sent = 0
        try:
            while self.queue and isinstance(self.queue[0], memoryview | FilePart):
                if sent >= AT_ONCE:
                    return False
                sent += (
                    self._send_file(self.queue[0])
                    if isinstance(self.queue[0], FilePart)
                    else self._send_bytes()
                )
        except (BlockingIOError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLWantReadError:
            self.wants = select.EPOLLIN
            return False
        return True

    def _send_bytes(self) -> int:
        assert self.sock is not None
        pieces: list[memoryview] = []
        for item in self.queue:
            if isinstance(item, FilePart) and item.left <= SMALL:
                item = self._content(item, SMALL)
            if not isinstance(item, memoryview) or len(pieces) == _SENT_TOGETHER:
                break
            pieces.append(item)
        for place, piece in enumerate(pieces):
            if isinstance(self.queue[place], FilePart):
                self.queue[place] = piece
                self.unsent += len(piece)
        if self.encrypted is None:
            more = len(self.queue) > len(pieces) and isinstance(self.queue[len(pieces)], FilePart)
            count = self.sock.sendmsg(pieces, (), socket.MSG_MORE if more else 0)
        elif len(pieces) > 1:  # one record, and the same bytes again when it has to wait
            whole = memoryview(b"".join(pieces))
            for _ in pieces:
                self.queue.popleft()
            self.queue.appendleft(whole)
            count = self.sock.send(whole)
        else:
            count = self.sock.send(pieces[0])
        self._drop(count)
        return count

    def _drop(self, count: int) -> None:
        """These bytes have been sent."""
        self.unsent -= count
        while self.queue:
            head = self.queue[0]
            if not isinstance(head, memoryview) or len(head) > count:
                break
            count -= len(head)
            self.queue.popleft()
        if count:
            head = self.queue[0]
            assert isinstance(head, memoryview)
            self.queue[0] = head[count:]

    def _send_file(self, part: FilePart) -> int:
        assert self.sock is not None and part.file is not None
        if not part.left:
            self.queue.popleft()
            return 0
        if self.encrypted is not None or part.left <= SMALL:
            piece = self._content(part, _ENCRYPTED)
            part.offset, part.left = part.offset + len(piece), part.left - len(piece)
            if not part.left:
                self.queue.popleft()
            self.queue.appendleft(piece)
            self.unsent += len(piece)
            return 0
        count = os.sendfile(self.sock.fileno(), part.file.fd, part.offset, min(part.left, AT_ONCE))
        if not count:
            raise ShortFileError(f"{part.name} has ended before the part that was to be sent")
        part.offset, part.left = part.offset + count, part.left - count
        return count

    @staticmethod
    def _content(part: FilePart, most: int) -> memoryview:
        assert part.file is not None
        wanted = min(part.left, most)
        data = os.pread(part.file.fd, wanted, part.offset)
        if len(data) < wanted:
            raise ShortFileError(f"{part.name} has ended before the part that was to be sent")
        return memoryview(data)
