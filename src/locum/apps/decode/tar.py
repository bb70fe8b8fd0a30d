"""A tar archive as it arrives (POSIX.1 ustar and pax, GNU long names): bytes in, members out.

tarfile of the standard library reads the headers. Links, devices and sparse files are passed over.
"""

import re
import tarfile
from dataclasses import dataclass
from typing import TypeAlias

from locum.apps.decode.streams import UnpackError

BLOCK = 512
MAX_NAME_DATA = 16 << 10
"""Bytes of a long name, or of the pax fields of one member."""
_RECORD = re.compile(rb"(\d{1,6}) ([^=\n]{1,64})=")


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file begins; its bytes follow."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class MemberEnd:
    """All bytes of the member have been there."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A member that is no regular file."""

    path: str


Item: TypeAlias = Member | bytes | MemberEnd | PassedOver


def is_tar(beginning: bytes) -> bool:
    """True if a tar archive begins so."""
    if len(beginning) < BLOCK or not any(beginning[:BLOCK]):
        return False
    try:
        tarfile.TarInfo.frombuf(beginning[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class Tar:
    """One archive."""

    def __init__(self) -> None:
        self._waiting = bytearray()  # of a header, or of name data
        self._left = 0  # bytes of the present member
        self._padding, self._pad = 0, 0  # of now, and of what is being read
        self._kind = ""  # of the bytes that are left: "file", "pass", a type flag of name data, or none: a header follows
        self._path: str | None = None
        self._size: int | None = None
        self._sparse = False
        self.over = False

    def read(self, data: bytes) -> list[Item]:
        """The next bytes. Raises UnpackError."""
        found: list[Item] = []
        view = memoryview(data)
        while len(view) and not self.over:
            if self._padding:
                taken = min(self._padding, len(view))
                self._padding -= taken
            elif self._kind in ("file", "pass"):
                taken = min(self._left, len(view))
                self._left -= taken
                if self._kind == "file":
                    found.append(bytes(view[:taken]))
                self._ends(found)
            else:
                wanted = self._left if self._kind else BLOCK
                taken = min(wanted - len(self._waiting), len(view))
                self._waiting += view[:taken]
                if len(self._waiting) == wanted:
                    block, self._waiting = bytes(self._waiting), bytearray()
                    found += self._name_data(block) if self._kind else self._header(block)
            view = view[taken:]
        return found

    @property
    def complete(self) -> bool:
        """True if no member is cut off; the two blocks of zeros at the end may be missing."""
        return self.over or not (self._left or self._waiting or self._kind)

    def _ends(self, found: list[Item]) -> None:
        if self._left == 0:
            if self._kind == "file":
                found.append(MemberEnd())
            self._kind, self._padding = "", self._pad

    def _header(self, block: bytes) -> list[Item]:
        if not any(block):
            self.over = True
            return []
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as problem:
            raise UnpackError(f"its tar header is damaged: {problem}") from problem
        size = header.size
        if header.type in (b"L", b"x", b"g", b"K"):
            if not 0 <= size <= MAX_NAME_DATA:
                raise UnpackError(f"a name in it has {size} bytes")
            self._begin(header.type.decode(), size)
            return self._name_data(b"") if size == 0 else []
        path = header.name if self._path is None else self._path
        if self._size is not None:
            size = self._size
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise UnpackError("it has a sparse file in GNU's own format")
        regular = header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) and not self._sparse
        self._path = self._size = None
        self._sparse = False
        if size < 0:
            raise UnpackError("a member of it has a size below 0")
        if not regular:
            # Links, directories and devices have no content, whatever their size field says.
            self._begin("pass", size if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else 0)
            ended: list[Item] = []
            self._ends(ended)
            return [] if header.type == tarfile.DIRTYPE else [PassedOver(path)]
        self._begin("file", size)
        found: list[Item] = [Member(path, size)]
        self._ends(found)
        return found

    def _begin(self, kind: str, size: int) -> None:
        self._kind, self._left, self._pad = kind, size, -size % BLOCK

    def _name_data(self, data: bytes) -> list[Item]:
        kind, self._kind, self._left, self._padding = self._kind, "", 0, self._pad
        if kind == "L":
            self._path = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind == "x":
            self._pax(data)
        return []

    def _pax(self, data: bytes) -> None:
        """Fields of the next member: LENGTH KEY=VALUE and a line feed, LENGTH of all of it (POSIX pax)."""
        while data.strip(b"\0"):
            match = _RECORD.match(data)
            length = 0 if match is None else int(match[1])
            if match is None or not match.end() < length <= len(data) or data[length - 1] != 0x0A:
                raise UnpackError("its pax fields are damaged")
            key, value = match[2], data[match.end() : length - 1]
            if key == b"path":
                self._path = value.decode("utf-8", "surrogateescape")
            elif key == b"size" and re.fullmatch(rb"\d{1,18}", value):
                self._size = int(value)
            elif key.startswith(b"GNU.sparse"):
                self._sparse = True
            data = data[length:]
