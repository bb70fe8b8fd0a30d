"""Received bytes that a proxy has consumed: the program gets others in their place, or none (A1).

The stream that the correspondent has sent stays as it is; the device fetches another, with each consumed range replaced. A
replacement is written to a file before it counts, so that a killed daemon knows it. This module must not know sockets, nor
why something is replaced.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from locum.sessions.tcp.errors import SessionError

SUFFIX = ".consumed"
MAX_REPLACEMENTS = 4096  # of one session; ranges that adjoin and are left out count as one
MAX_REPLACING = 1 << 20  # bytes that take the place of others in one session
_HEAD = struct.Struct(">QQI")
_SPARE = 1024  # records of a file that later ones have made useless


@dataclass(frozen=True, slots=True)
class Replacement:
    """`data` instead of `length` received bytes from `start` on."""

    start: int
    length: int
    data: bytes

    @property
    def end(self) -> int:
        """Position behind the range."""
        return self.start + self.length


class Replacements:
    """Those of one stream, in order; they do not overlap."""

    def __init__(self) -> None:
        self._all: list[Replacement] = []
        self.replacing = 0  # bytes that take the place of others
        self.consumed = 0  # bytes that are replaced or left out

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Replacement]:
        return iter(self._all)

    @property
    def surplus(self) -> int:
        """Bytes that the program gets more than were received; negative: fewer."""
        return self.replacing - self.consumed

    def copy(self) -> "Replacements":
        """The same ones."""
        same = Replacements()
        same._all, same.replacing, same.consumed = list(self._all), self.replacing, self.consumed
        return same

    def add(self, new: Replacement) -> None:
        """Replace a range; it takes the place of earlier ones that it covers. Raises SessionError, and changes nothing.

        A range may not cover a part of an earlier one, nor exceed the bounds of a session.
        """
        if new.start < 0 or new.length <= 0:
            raise SessionError("a range of received bytes begins at 0 or later and has at least one byte")
        first = bisect_left(self._all, new.start + 1, key=lambda item: item.end)
        last = bisect_left(self._all, new.end, key=lambda item: item.start)
        covered = self._all[first:last]
        if not new.data and len(covered) == 1 and _is_left_out(covered[0], new):
            return  # a crash has the same effect carried out again
        if any(item.start < new.start or item.end > new.end for item in covered):
            raise SessionError("the range covers a part of one that was replaced before")
        if self.replacing - sum(len(item.data) for item in covered) + len(new.data) > MAX_REPLACING:
            raise SessionError(f"at most {MAX_REPLACING} bytes take the place of others in one session")
        joined = new
        if not new.data:  # one with its neighbours that are left out
            if first and (before := self._all[first - 1]).end == new.start and not before.data:
                first, joined = first - 1, Replacement(before.start, before.length + new.length, b"")
            if last < len(self._all) and (after := self._all[last]).start == new.end and not after.data:
                last, joined = last + 1, Replacement(joined.start, joined.length + after.length, b"")
        if len(self._all) - (last - first) + 1 > MAX_REPLACEMENTS:
            raise SessionError(f"at most {MAX_REPLACEMENTS} ranges are replaced in one session")
        gone = self._all[first:last]
        self._all[first:last] = [joined]
        self.consumed += joined.length - sum(item.length for item in gone)
        self.replacing += len(joined.data) - sum(len(item.data) for item in gone)

    def before(self, position: int) -> "Replacements":
        """Those of the first `position` bytes; of a range that is left out, the part there."""
        found = Replacements()
        for item in self._all:
            if item.end <= position:
                found.add(item)
            elif item.start < position and not item.data:
                found.add(Replacement(item.start, position - item.start, b""))
        return found

    def read(self, offset: int, limit: int, received: Callable[[int, int], bytes], total: int) -> bytes:
        """At most `limit` bytes of the program's stream from `offset` on; empty at the end.

        `received` gives the correspondent's bytes (position, number), of which there are `total`.
        """
        parts: list[bytes] = []
        position = skipped = 0  # in the correspondent's stream, and in the program's
        pieces = [*self._all, Replacement(total, 0, b"")]
        for piece in pieces:
            between = piece.start - position
            if limit > 0 and offset < skipped + between:
                at = max(offset - skipped, 0)
                count = min(between - at, limit)
                parts.append(received(position + at, count))
                offset, limit = offset + count, limit - count
            skipped += between
            if limit > 0 and offset < skipped + len(piece.data):
                part = piece.data[max(offset - skipped, 0) :][:limit]
                parts.append(part)
                offset, limit = offset + len(part), limit - len(part)
            skipped += len(piece.data)
            position = piece.end
            if limit <= 0:
                break
        return b"".join(parts)


def _is_left_out(item: Replacement, new: Replacement) -> bool:
    return not item.data and item.start <= new.start and new.end <= item.end


class Consumed:
    """The replacements of one session; their file is `directory`/`name`.consumed, made by the first one."""

    def __init__(self, name: str, directory: Path) -> None:
        self._path = directory / f"{name}{SUFFIX}"
        self.replacements = Replacements()
        self._size = self._records = 0

    @property
    def surplus(self) -> int:
        """Bytes that the program gets more than were received; negative: fewer."""
        return self.replacements.surplus

    def recover(self) -> None:
        """After a restart of the daemon: read the file. A record that was cut off was never carried out."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        self.replacements, self._size, self._records = Replacements(), 0, 0
        while (head := content[self._size : self._size + _HEAD.size]) and len(head) == _HEAD.size:
            start, length, count = _HEAD.unpack(head)
            end = self._size + _HEAD.size + count
            if end > len(content):
                break
            self.replacements.add(Replacement(start, length, content[self._size + _HEAD.size : end]))
            self._size = end
            self._records += 1

    def replace(self, new: Replacement) -> None:
        """The program gets `new.data` instead of the range. Raises SessionError for a range or an amount that is not allowed,
        OSError when the file does not take it; nothing is replaced then."""
        then = self.replacements.copy()
        then.add(new)
        if self._records >= 2 * len(then) + _SPARE:
            self._write_anew(then)
        else:
            self._append(_record(new))
        self.replacements = then

    def take_back(self, position: int) -> None:
        """The program gets what was received from `position` on, as if nothing there had been replaced. Raises OSError."""
        then = self.replacements.before(position)
        if list(then) != list(self.replacements):
            self._write_anew(then)
            self.replacements = then

    def _append(self, record: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        with open(os.open(self._path, flags, 0o600), "wb", buffering=0) as file:
            file.truncate(self._size)  # an earlier attempt may have left a part there
            file.seek(self._size)
            written = 0
            while written < len(record):
                written += file.write(record[written:])
        self._size += len(record)
        self._records += 1

    def _write_anew(self, replacements: Replacements) -> None:
        content = b"".join(map(_record, replacements))
        new = self._path.with_suffix(".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
        new.rename(self._path)
        self._size, self._records = len(content), len(replacements)

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)


def _record(item: Replacement) -> bytes:
    return _HEAD.pack(item.start, item.length, len(item.data)) + item.data
