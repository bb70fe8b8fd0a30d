"""Unpacks one file (A9): happenings in, effects out. Outputs have their names when all of them are durable, or none has."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from locum.apps.decode.limits import Limits
from locum.apps.decode.members import Members
from locum.apps.decode.reading import AudioFound, Course, Reader, course
from locum.apps.decode.streams import UnpackError
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import Effect, Note
from locum.roles.app_results import MAX_FAILURE

_ENDINGS = (".gz", ".xz", ".zst", ".zstd", ".bz2")
Teller: TypeAlias = Callable[[str, Mapping[str, JSON]], list[Effect]]


@dataclass(slots=True)
class Reading:
    """Steps of the course."""

    course: Course
    reader: Reader


@dataclass(frozen=True, slots=True)
class Decoding:
    """A program decodes the audio in it."""


@dataclass(frozen=True, slots=True)
class Storing:
    """Members are made durable, then the list of them, then they get their names."""

    stage: str  # "members", "list", "names"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Done."""

    contents: tuple[tuple[str, int], ...]
    passed_over: int
    listing: tuple[str, int]

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(size for _, size in self.contents)


@dataclass(frozen=True, slots=True)
class Broken:
    """It cannot be unpacked; nothing of it is left. The reason is for users."""

    reason: str


class Unpacking:
    """`source` has `size` bytes."""

    def __init__(self, source: str, size: int, limits: Limits) -> None:
        self._source, self._size, self._limits = source, size, limits
        self._members = Members(source, size, limits)
        self.state: Reading | Decoding | Storing | Unpacked | Broken | None = None
        self._told = False

    def begin(self) -> list[Effect]:
        """From the first byte, whatever an earlier process has done."""
        reader = Reader(self._source, self._size, self._members)
        self.state = Reading(course(reader, self._stem, audio=self._limits.audio), reader)
        return self._advance(None)

    @property
    def _stem(self) -> str:
        """The path of a single member."""
        stem = self._source
        for ending in _ENDINGS:
            stem = stem.removesuffix(ending)
        return stem or "content"

    def loaded(self, data: bytes) -> list[Effect]:
        """Bytes of the file."""
        return self._advance(data)

    def _advance(self, data: bytes | None) -> list[Effect]:
        state = self.state
        if not isinstance(state, Reading):
            return []
        try:
            return next(state.course) if data is None else state.course.send(data)
        except StopIteration:
            self.state = Storing("members")
            return [*state.reader.last(), *self._next()]
        except AudioFound as found:
            self.state = Decoding()
            return [*self._members.begin(f"{self._stem}.wav"), *self._members.decode(found.form)]
        except UnpackError as problem:
            return self._break(str(problem))

    def decoded(self, size: int, reason: str) -> list[Effect]:
        """The program that decodes has ended; the reason is empty if all went well."""
        if not isinstance(self.state, Decoding):
            return []
        if reason:
            return self._break(reason)
        self.state = Storing("members")
        return self._members.decoded(size)

    def synced(self, file: str) -> list[Effect]:
        """The disk has all of this file."""
        self._members.unsynced.discard(file)
        return self._next()

    def _next(self) -> list[Effect]:
        if self._members.unsynced:
            return []
        match self.state:
            case Storing("members"):
                self.state = Storing("list")
                return self._members.finish()
            case Storing("list"):
                self.state = Storing("names")
                return self._members.name()
            case Storing("names"):
                members = self._members
                contents = tuple((str(row["file"]), int(row["size"])) for row in members.contents)
                self.state = Unpacked(contents, members.passed_over, (members.listing, members.listed))
                passed = f", {members.passed_over} passed over" if members.passed_over else ""
                return [
                    Note(f"{self._source}: unpacked: {len(contents)} members, {members.total} bytes{passed}")
                ]
        return []

    def failed(self, file: str, error: int) -> list[Effect]:
        """A file could not be read or written."""
        own = file == self._source or file.startswith(f"{self._source}.")
        if not own or not isinstance(self.state, Reading | Decoding | Storing):
            return []
        return self._break(f"its files: {os.strerror(error)}")

    def _break(self, reason: str) -> list[Effect]:
        self.state = Broken(reason[:MAX_FAILURE])
        return [*self._members.remove(), Note(f"{self._source}: not unpacked: {reason}")]

    @property
    def finished(self) -> bool:
        """True if it goes no further."""
        return isinstance(self.state, Unpacked | Broken)

    def files(self) -> list[tuple[str, int, str]]:
        """Finished files: names, bytes, and no digest."""
        if not isinstance(self.state, Unpacked):
            return []
        return [(name, size, "") for name, size in (*self.state.contents, self.state.listing)]

    def row(self) -> dict[str, JSON]:
        """Its condition, for users and for the device."""
        match self.state:
            case Unpacked(contents, passed_over, (listing, _)):
                row: dict[str, JSON] = {
                    "state": "unpacked",
                    "members": len(contents),
                    "size": self.state.size,
                    "contents": listing,
                }
                return row | ({"passed_over": passed_over} if passed_over else {})
            case Broken(reason):
                return {"state": "failed", "reason": reason}
        return {"state": "unpacking"}

    def kept(self) -> dict[str, JSON]:
        """The state for a later process, besides the files."""
        match self.state:
            case Unpacked(_, passed_over, _):
                return {"passed_over": passed_over}
            case Broken(reason):
                return {"reason": reason}
        return {}

    def recall(self, kept: Mapping[str, object], sizes: Mapping[str, int]) -> bool:
        """Take over the end that an earlier process has reported; False: it did not come so far, so begin again."""
        listing = self._members.listing
        match kept:
            case {"passed_over": int(passed_over)} if listing in sizes:
                contents = self._members.found(sizes)
                self.state = Unpacked(contents, passed_over, (listing, sizes[listing]))
            case {"reason": str(reason)}:
                self.state = Broken(reason)
            case _:
                return False
        self._told = True
        return True

    def report(self, tell: Teller) -> list[Effect]:
        """Its event, once."""
        if self._told or not isinstance(self.state, Unpacked | Broken):
            return []
        self._told = True
        row: dict[str, JSON] = {"name": self._source, **self.row()}
        return tell("decoded" if isinstance(self.state, Unpacked) else "decode_failed", row)
