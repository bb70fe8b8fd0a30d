"""The datagrams that a stand-in keeps for a sleeping device: one file of frames, bounded by time, number and bytes (A12).

A datagram is peeked, written, and only then taken from the kernel. The oldest go first when a bound is reached, until
the device begins to read: from then on positions in the stream stand still, and what no longer fits is dropped as it
comes. This module must not know when to drain or who fetches.
"""

import errno
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from locum.sessions.datagrams.frames import HEADER_BYTES, Frame, frames
from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.reserve import leave_reserve
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.spool import Budget

SUFFIXES = (".datagrams", ".sealed")
_LARGEST = 1 << 16  # bytes of one datagram
_AT_ONCE = 64  # datagrams moved by one step
_MODE = 0o600
_SAME_TIME = 16  # bits for datagrams of one millisecond
_SETTLED = 1000  # milliseconds after a repetition in which what arrives is taken for its answer
_NETWORK_ERRORS = frozenset(
    (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMSGSIZE, errno.EPROTO, errno.EACCES, errno.ENOPROTOOPT)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DatagramBounds:
    """Limits for one session; a datagram older than `seconds` is dropped."""

    seconds: float = 300.0
    number: int = 1000
    size: int = 4 << 20  # bytes of the stream, with 10 bytes of overhead for each datagram


@dataclass(frozen=True, slots=True)
class _Kept:
    """A frame in the file. `place` grows with each one, also over a restart of the daemon, and when older ones go."""

    arrived: int
    size: int
    place: int


class DatagramSpool:
    """The received datagrams of one session; `name` is unique among the sessions of a stand-in and safe in a file name.

    `clock` gives milliseconds of CLOCK_BOOTTIME; `budget` bounds the bytes of all sessions. After a restart of the daemon create it again and call `recover`.
    """

    peer_closed = False  # a datagram socket has no end of its stream ...
    error = 0  # ... and goes on after an error

    def __init__(
        self,
        name: str,
        record: DatagramRecord,
        *,
        directory: Path,
        bounds: DatagramBounds,
        clock: Callable[[], int],
        budget: Budget,
    ) -> None:
        self.record = record
        self.heard = clock()  # milliseconds; when the last datagram came
        self._budget = budget
        self.dropped = 0  # datagrams that a bound cost
        self.last_error = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._path, self._sealed_path = directory / f"{name}.datagrams", directory / f"{name}.sealed"
        self._bounds, self._clock = bounds, clock
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        self._start = 0  # of the first frame that is kept, in the file; no other while sealed
        self._end = 0
        self._kept: deque[_Kept] = deque()
        self._last = 0  # the place of the last datagram
        self._sealed = False
        self._quiet_until = 0

    @property
    def total(self) -> int:
        """Bytes of the stream that `read` can give."""
        return self._end - self._start

    @property
    def for_program(self) -> int:
        """Bytes that `give` can give."""
        return self.total

    @property
    def room(self) -> int:
        """Always some: a bound drops datagrams, and never leaves them in the kernel."""
        return 1

    @property
    def spilled(self) -> int:
        """Bytes on disk: all of them."""
        return self.total

    @property
    def number(self) -> int:
        """Datagrams that are kept."""
        return len(self._kept)

    def drain(self, sock: socket.socket, limit: int = _LARGEST) -> int:
        """Move some datagrams from the kernel, without waiting; return the bytes moved, 0 if there are none.

        Raises OSError when the file does not take one (ENOSPC): it is still in the kernel.
        """
        moved = 0
        for _ in range(_AT_ONCE):
            payload = self._peek(sock)
            if payload is None or moved >= limit:
                break
            frame = Frame(self._clock(), payload)
            self.heard = frame.arrived
            if not self._unwanted(frame):
                self._append(frame)
            with suppress(OSError):
                sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_TRUNC)  # recv(0) makes no call
            moved += frame.size
        return moved

    def waiting(self, _sock: socket.socket) -> bool:
        """False: no datagram stays in the kernel because of a bound."""
        return False

    def repeated(self) -> None:
        """Note that a keep-alive was sent: its answer may be dropped."""
        again = self.record.repeated
        if again is not None and again.discard_answers:
            self._quiet_until = self._clock() + _SETTLED

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of the stream from `offset` on. From the first call on positions stay as they are."""
        self.seal()
        size = min(limit, self.total - offset)
        return os.pread(self._fd, size, self._start + offset) if size > 0 else b""

    def after(self, place: int) -> Iterator[tuple[int, bytes]]:
        """The datagrams that came after the one with this place (0: all that are kept): their places and payloads.

        Positions do not stand still for it. Raises OSError.
        """
        at = self._start
        for kept in tuple(self._kept):
            if kept.place > place:
                data = os.pread(self._fd, kept.size - HEADER_BYTES, at + HEADER_BYTES)
                yield kept.place, data
            at += kept.size

    @property
    def last(self) -> int:
        """The place of the last datagram; 0 if there was none."""
        return self._last

    def give(self, offset: int, limit: int) -> bytes:
        """As `read`: nothing of a UDP session is replaced."""
        return self.read(offset, limit)

    def stop(self, sock: socket.socket) -> FinalTcp:
        """Move the remaining datagrams from the kernel, with the flow held. Undone by `resume`."""
        with suppress(OSError):
            while self.drain(sock):
                pass
        self.seal()
        return FinalTcp(received=self.total, error=self.last_error)

    def resume(self, _sock: socket.socket) -> None:
        """Undoes `stop`."""

    def recover(self, _sock: socket.socket, _on_disk: Mapping[str, Path] | None = None) -> None:
        """After a restart: read the file, without a frame that was cut off."""
        with suppress(FileNotFoundError, ValueError):
            self._start, self._sealed = int(json.loads(self._sealed_path.read_text())), True
        size = os.fstat(self._fd).st_size
        for frame in frames(os.pread(self._fd, size, 0)[self._start :]):
            self._note(frame)
        self._end = self._start + sum(kept.size for kept in self._kept)
        self._budget.add(0, self.total)
        os.ftruncate(self._fd, self._end)
        self._expire(0)

    def remove(self) -> None:
        """Closes and deletes the files."""
        self._budget.add(0, -self.total)
        self._kept.clear()
        self._start = self._end = 0
        self.close()
        for path in (self._path, self._sealed_path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file and leaves it, for the next run of the daemon."""
        os.close(self._fd)

    def _peek(self, sock: socket.socket) -> bytes | None:
        """The next datagram, still in the kernel; None without one."""
        for _ in range(_AT_ONCE):
            try:
                return sock.recv(_LARGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError as problem:
                if problem.errno not in _NETWORK_ERRORS:
                    raise
                self.last_error = problem.errno or 0
        return None

    def _unwanted(self, frame: Frame) -> bool:
        if frame.arrived < self._quiet_until:
            return True
        self._expire(frame.size)
        full = (
            len(self._kept) >= self._bounds.number
            or self.total + frame.size > self._bounds.size
            or self._budget.room < frame.size
        )
        self.dropped += full
        return full

    def _expire(self, room: int) -> None:
        """Drops the oldest until another frame of `room` bytes fits; none once the device reads."""
        if self._sealed:
            return
        oldest = self._clock() - int(self._bounds.seconds * 1000)
        while self._kept and (
            self._kept[0].arrived < oldest
            or (room and len(self._kept) >= self._bounds.number)
            or self.total + room > self._bounds.size
        ):
            self._drop_oldest()
        if self._start > max(self._bounds.size, HEADER_BYTES):
            with suppress(OSError):  # a full disk: the file stays as long as it is
                self._compact()

    def _drop_oldest(self) -> None:
        size = self._kept.popleft().size
        self._start += size
        self.dropped += 1
        self._budget.add(0, -size)

    def _append(self, frame: Frame) -> None:
        data = memoryview(frame.encode())
        leave_reserve(self._fd, len(data))
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._end + written)
        self._end += frame.size
        self._note(frame)
        self._budget.add(0, frame.size)

    def _note(self, frame: Frame) -> None:
        # Not a count: a run of the daemon that begins does not know how many have gone.
        self._last = max(self._last + 1, frame.arrived << _SAME_TIME)
        self._kept.append(_Kept(frame.arrived, frame.size, self._last))

    def _compact(self) -> None:
        """Move the kept frames to the front of a new file, so that its size stays bounded."""
        new = self._path.with_suffix(".new")
        data = os.pread(self._fd, self.total, self._start)
        new.write_bytes(data)
        new.chmod(_MODE)
        new.rename(self._path)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._start, self._end = 0, len(data)

    def seal(self) -> None:
        """The device is about to read: positions in the stream stay as they are now."""
        if self._sealed:
            return
        self._expire(0)
        self._sealed = True
        new = self._sealed_path.with_suffix(".new")
        with suppress(
            OSError
        ):  # a full disk: only a restart of the daemon in the middle of a wake needs the file
            new.write_text(json.dumps(self._start))
            new.rename(self._sealed_path)
