"""Data that a stand-in has received for a sleeping device: in memory first, then on disk (A12).

Memory may be full before its bound (others use the tmpfs too): the spool then goes on on disk. Each file system keeps a
reserve (`reserve.py`), short of which it counts as full.

A byte is peeked, written, and only then taken from the kernel, so a killed daemon loses none: the place to go on is the
kernel's count of received bytes less the unread ones. Past the total bound no data is taken, and the TCP window closes.
Only a crash of the whole machine loses bytes. This module must not know when to drain or who fetches.
"""

import errno
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from locum.sessions.record import SessionRecord
from locum.sessions.reserve import leave_reserve
from locum.sessions.tcp import repair, stand_in
from locum.sessions.tcp.consumed import SUFFIX as CONSUMED
from locum.sessions.tcp.consumed import Consumed
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.spoken import SUFFIX as SPOKEN
from locum.sessions.tcp.spoken import Spoken

CHUNK = 256 << 10  # bytes moved by one step: well under a millisecond
SUFFIXES = (".memory", ".disk", ".state", ".new", SPOKEN, CONSUMED)  # of every file of a spool
_MODE = 0o600
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_buffer = bytearray(CHUNK)  # of the step that is under way; there is one at a time


@dataclass(slots=True)
class Budget:
    """Bytes that spools may hold: in memory, and in all. Over by at most one receive buffer each.

    One for all spools of a stand-in (`whole`); one for those of each device may be a part of it.
    """

    memory_bound: int
    total_bound: int
    memory: int = 0
    total: int = 0
    whole: "Budget | None" = None

    @property
    def memory_room(self) -> int:
        """Bytes that may still go to memory."""
        own = max(self.memory_bound - self.memory, 0)
        return own if self.whole is None else min(own, self.whole.memory_room)

    @property
    def room(self) -> int:
        """Bytes that may still be taken."""
        own = max(self.total_bound - self.total, 0)
        return own if self.whole is None else min(own, self.whole.room)

    def add(self, memory: int, total: int) -> None:
        """So many bytes more are held (fewer: below 0), `memory` of them in memory."""
        self.memory += memory
        self.total += total
        if self.whole is not None:
            self.whole.add(memory, total)


@dataclass(frozen=True, slots=True)
class Lent:
    """Received bytes where they are stored: a descriptor to read them by, which the caller closes, their place and number."""

    descriptor: int
    place: int
    length: int


def disk_files(directory: Path) -> dict[str, Path]:
    """Files of spools on disk, by the spool's name."""
    found = {}
    for entry in os.scandir(directory):
        if entry.name.endswith(".disk"):
            found[entry.name.rsplit(".", 2)[0]] = Path(entry.path)
    return found


class Spool:
    """The received bytes of one session; `name` is unique among the sessions of a stand-in and safe in a file name.

    `memory_dir` should be a tmpfs. Create it with the session; after a restart of the daemon create it again with the same
    arguments and call `recover`.
    """

    def __init__(
        self, name: str, record: SessionRecord, *, memory_dir: Path, disk_dir: Path, budget: Budget
    ) -> None:
        self.record = record
        self.peer_closed = record.peer_closed
        self.error = 0
        self.said = Spoken(name, record, disk_dir)  # by a proxy, behind the bytes of the record
        self.consumed = Consumed(name, disk_dir)  # by a proxy
        self._name = name
        self._memory_path = memory_dir / f"{name}.memory"
        self._state_path = disk_dir / f"{name}.state"
        self._disk_dir = disk_dir
        disk_dir.mkdir(parents=True, exist_ok=True)
        self._budget = budget
        self._taken = 0  # bytes that are ours alone; what follows is still in the kernel as well
        self._tail = 0
        self._unwritten = b""  # the tail, when the disk does not take it
        self._memory = _File(self._memory_path)
        self._disk: _File | None = None
        self._disk_start = 0

    @property
    def total(self) -> int:
        """Bytes that `read` can give."""
        return self._taken + self._tail

    @property
    def for_program(self) -> int:
        """Bytes that `give` can give: more or fewer than were received, if a proxy has replaced some."""
        return self.total + self.consumed.surplus

    def give(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes for the program from position `offset` on, as the proxies left them; empty at the end."""
        if not self.consumed.replacements:
            return self.read(offset, limit)
        return self.consumed.replacements.read(offset, limit, self.read, self.total)

    @property
    def room(self) -> int:
        """Bytes that the budget still lets it take."""
        return self._budget.room

    @property
    def spilled(self) -> int:
        """Bytes that are on disk."""
        return self.total - self._disk_start if self._disk else 0

    def drain(self, sock: socket.socket, limit: int = CHUNK) -> int:
        """One step: move at most `limit` bytes (and CHUNK) from the kernel, without waiting; 0 without data.

        A FIN or an error is noted here once the bytes before it are taken. `waiting` tells whether the bound is why.
        Raises OSError when a file does not take them (ENOSPC): they are still in the kernel, and may be drained again.
        """
        if self._tail:  # the connection was stopped and goes on: the kernel gives the tail again
            self._cut(self._taken)
        now = self._look(sock)
        size = min(now.unread, limit, CHUNK, self._budget.room)
        if size:
            view = memoryview(_buffer)
            size = sock.recv_into(view, size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            self._append(view[:size])
            self._discard(sock, size)
            self._taken += size
            return size
        if now.unread:  # no room for them
            return 0
        self._look_at_end(sock, now)
        return 0

    def waiting(self, sock: socket.socket) -> bool:
        """True if bytes stay in the kernel because the total bound is reached: then do not watch it."""
        return not self._budget.room and repair.unread(sock) > 0

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` received bytes from position `offset` on; empty at the end. The device gets those of `give`."""
        size = min(limit, self.total - offset)
        if size <= 0:
            return b""
        if self._unwritten and offset + size > self._taken:
            written = self.read(offset, self._taken - offset)
            start = max(offset - self._taken, 0)
            return written + self._unwritten[start : offset + size - self._taken]
        if self._disk is None or offset + size <= self._disk_start:
            return self._memory.read(offset, size)
        if offset >= self._disk_start:
            return self._disk.read(offset - self._disk_start, size)
        head = self._disk_start - offset
        return self._memory.read(offset, head) + self._disk.read(0, size - head)

    def lend(self, offset: int, limit: int) -> Lent | None:
        """At most `limit` received bytes from position `offset` on, for another process to read; None where there are none.

        Bytes that the kernel has as well are not lent: they may be cut off. Raises OSError.
        """
        file, start, end = self._memory, 0, self._taken if self._disk is None else self._disk_start
        if self._disk is not None and offset >= self._disk_start:
            file, start, end = self._disk, self._disk_start, self._taken
        length = min(limit, end - offset)
        return Lent(file.lend(), offset - start, length) if length > 0 else None

    def stop(self, sock: socket.socket) -> FinalTcp:
        """Stop the connection and copy its unread data (at most a receive buffer) for `read`.

        The flow is held. Undone by `resume`; a second stop gives the same.
        """
        if not repair.in_repair(sock):
            with suppress(OSError):  # a full disk: the rest is copied below
                while self.drain(sock):
                    pass
            stand_in.stop(sock)
        self._look(sock)
        self._copy_tail(sock)
        return stand_in.final(
            sock,
            self.record,
            received=self.for_program,
            peer_closed=self.peer_closed,
            error=self.error,
            spoken=len(self.said.data),
        )

    def resume(self, sock: socket.socket) -> None:
        """Undoes `stop`: the connection goes on."""
        self._cut(self._taken)
        stand_in.resume(sock)

    def recover(self, sock: socket.socket, on_disk: Mapping[str, Path] | None = None) -> None:
        """After a restart: continue the files at the kernel's count. Raises SessionError for missing bytes.

        `on_disk` are the `disk_files` of the directory, to recover many.
        """
        with suppress(FileNotFoundError):
            state = json.loads(self._state_path.read_text())
            self.peer_closed, self.error = bool(state["peer_closed"]), int(state["error"])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # one of an earlier version may be without
        now = self._look(sock)
        if now.failed:  # only the error tells whether a FIN, which counts as a byte, came before it
            self._take_error(sock, now, stopping=True)
            now = self._look(sock)
        position = now.received - now.unread
        path = (disk_files(self._disk_dir) if on_disk is None else on_disk).get(self._name)
        if path is not None:
            self._disk_start = int(path.name.split(".")[-2])
            self._disk = _File(path)
        stored = self._disk_start + self._disk.size() if self._disk else self._memory.size()
        if stored < position or (self._disk and self._memory.size() < self._disk_start):
            raise SessionError(f"the spool {self._name} has {stored} bytes of {position}")
        self._account(stored)
        self._taken = position
        self._tail = stored - position
        self._cut(position)
        self.said.recover(sock)
        self.consumed.recover()
        if repair.in_repair(sock):
            self._copy_tail(sock)

    def remove(self) -> None:
        """Closes and deletes the files."""
        stored = self._taken if self._unwritten else self.total
        self._budget.add(-self._in_memory(stored), -stored)
        self._taken = self._tail = 0
        self._memory.remove()
        if self._disk:
            self._disk.remove()
        self._state_path.unlink(missing_ok=True)
        self.said.remove()
        self.consumed.remove()

    def close(self) -> None:
        """Closes the files and leaves them, for the next run of the daemon."""
        self._memory.close()
        if self._disk:
            self._disk.close()

    def _look(self, sock: socket.socket) -> stand_in.Condition:
        return stand_in.condition(sock, self.record, known_error=self.error, known_closed=self.peer_closed)

    def _look_at_end(self, sock: socket.socket, now: stand_in.Condition, *, stopping: bool = False) -> None:
        if now.failed:
            self._take_error(sock, now, stopping=stopping)
        elif now.peer_closed and not self.peer_closed:
            self.peer_closed = True
            with suppress(OSError):  # the kernel goes on to tell it
                self._note(peer_closed=True, error=self.error)

    def _take_error(self, sock: socket.socket, now: stand_in.Condition, *, stopping: bool) -> None:
        """Read the socket's error, which the kernel gives once. A full disk leaves it there."""
        try:
            # In case we are killed before the next line.
            self._note(peer_closed=now.peer_closed, error=errno.ECONNRESET)
        except OSError:
            if not stopping:
                raise
        error = stand_in.take_error(sock)
        # A reset after the peer's FIN is EPIPE (tcp_reset in CLOSE_WAIT).
        self.peer_closed = now.peer_closed or error == errno.EPIPE
        self.error = error or errno.ECONNRESET
        with suppress(OSError):  # the answer tells the device of both
            self._note(peer_closed=self.peer_closed, error=self.error)

    def _discard(self, sock: socket.socket, size: int) -> None:
        view = memoryview(_buffer)
        while size:
            # TCP then copies nothing.
            taken = sock.recv_into(view, size, socket.MSG_TRUNC | socket.MSG_DONTWAIT)
            if not taken:
                raise OSError(errno.EIO, f"the kernel has lost {size} bytes that it showed")
            size -= taken

    def _copy_tail(self, sock: socket.socket) -> None:
        now = self._look(sock)
        if now.unread and not self._tail:
            repair.select_queue(sock, repair.RECEIVE_QUEUE)
            tail = repair.peek_receive_queue(sock, now.unread)
            if len(tail) < now.unread:
                raise OSError(
                    errno.EOPNOTSUPP,
                    "an urgent mark is among the bytes that find no room: Linux 6.10 is needed",
                )
            try:
                self._append(memoryview(tail))
            except OSError:
                self._unwritten = tail  # the kernel has it as well, should we be killed
            self._tail = len(tail)
        self._look_at_end(sock, now, stopping=True)

    def _append(self, data: memoryview) -> None:
        """Write behind the data so far, and account for it once all of it is written; else change nothing."""
        into_memory = 0
        try:
            if self._disk is None:
                into_memory = self._into_memory(data[: self._budget.memory_room])
            if into_memory < len(data):
                if self._disk is None:
                    self._disk_start = self._taken + into_memory
                    self._disk = _File(self._disk_dir / f"{self._name}.{self._disk_start}.disk")
                self._disk.write(self._taken + into_memory - self._disk_start, data[into_memory:])
        except OSError:
            self._shorten(self._taken)
            raise
        self._budget.add(into_memory, len(data))

    def _into_memory(self, data: memoryview) -> int:
        """Number of these bytes that memory has taken: all, or none when full. Raises OSError."""
        if not data:
            return 0
        try:
            self._memory.write(self._taken, data)
        except OSError as problem:
            if problem.errno not in _NO_ROOM:
                raise
            self._memory.truncate(self._taken)
            return 0
        return len(data)

    def _cut(self, length: int) -> None:
        """Drop data behind `length`; the kernel still has it."""
        stored = self._taken if self._unwritten else self.total
        self._budget.add(self._in_memory(length) - self._in_memory(stored), length - stored)
        self._tail, self._unwritten = 0, b""
        self._shorten(length)

    def _shorten(self, length: int) -> None:
        if self._disk and length <= self._disk_start:
            self._disk.remove()
            self._disk = None
        if self._disk:
            self._disk.truncate(length - self._disk_start)
        else:
            self._memory.truncate(length)

    def _account(self, stored: int) -> None:
        self._budget.add(self._in_memory(stored), stored)

    def _in_memory(self, length: int) -> int:
        return min(length, self._disk_start) if self._disk else length

    def _note(self, *, peer_closed: bool, error: int) -> None:
        """Writes down how the connection ended; raises OSError."""
        new = self._state_path.with_suffix(".new")
        new.write_text(json.dumps({"peer_closed": peer_closed, "error": error}))
        new.rename(self._state_path)


class _File:
    """One file, made by the first write: most sessions of a sleeper receive nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._lent = False
        with suppress(FileNotFoundError):
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def size(self) -> int:
        return os.fstat(self._fd).st_size if self._fd >= 0 else 0

    def write(self, offset: int, data: memoryview) -> None:
        if self._fd < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        leave_reserve(self._fd, len(data))
        while data:
            written = os.pwrite(self._fd, data, offset)
            offset += written
            data = data[written:]

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = os.pread(self._fd, size, offset) if self._fd >= 0 else b""
            if not part:
                raise OSError(errno.EIO, f"{self._path} is shorter than it was written")
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def lend(self) -> int:
        """A descriptor of its own that can only read."""
        self._lent = True
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def truncate(self, length: int) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, length)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        if self._lent:  # who still has a descriptor must not keep the room
            with suppress(OSError):
                self.truncate(0)
        self.close()
        self._path.unlink(missing_ok=True)
