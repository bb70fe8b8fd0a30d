"""Reads a tar archive as it arrives: where each file lies in it, and its digest (POSIX pax, GNU and old formats).

Content is served from the archive itself; nothing is unpacked. A hard link to a file before it is that file by another path; symbolic
links, devices and sparse files are refused: an update is taken whole or not at all.
"""

import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace

BLOCK = tarfile.BLOCKSIZE
MAX_ENTRIES = 10_000
"""Files of one archive: each takes about a kilobyte of memory."""
MAX_PATH = 1024
"""Bytes of a file's path."""
MAX_EXTENSION = 64 << 10
"""Bytes of a pax header or a GNU long name."""
KEPT_FILE, KEPT = 32 << 10, 8 << 20
"""Bytes of a file that is kept in memory, and of all of them."""
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK


class ArchiveError(ValueError):
    """An archive that cannot be published; the message is for users."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: `offset` is that of its first byte in the archive. `content` is None for one that is not kept in memory."""

    path: str
    offset: int
    size: int
    digest: bytes
    content: bytes | None


class TarReader:
    """Give it all bytes of an archive in order (`feed`), then `close`. Both raise ArchiveError."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._buffer = bytearray()
        self._position = 0  # in the archive, of the first byte in the buffer
        self._kept = 0
        self._ended = False
        self._file: tuple[str, int, int] | None = None  # path, offset and size of the one that is being read
        self._left = 0  # bytes of it
        self._skip = 0  # bytes up to the next block
        self._hash = hashlib.sha256()
        self._content: bytearray | None = None
        self._extension: tuple[bytes, int] | None = None  # type and size of the header that is being read
        self._named: dict[str, str] = {}  # what such headers say about the next file
        self._global: dict[str, str] = {}

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        if self._ended:
            return
        self._buffer += data
        while not self._ended and self._step():
            pass

    def close(self) -> Mapping[str, Entry]:
        """No more bytes: the files by path."""
        if not self._ended:
            raise ArchiveError(f"it ends in the middle, after {self._position + len(self._buffer)} bytes")
        return self.entries

    def _step(self) -> bool:
        """True if something was read."""
        if self._left:
            return self._read_content()
        if self._file is not None:
            self._finish_file()
        if self._skip:
            taken = min(self._skip, len(self._buffer))
            self._skip -= taken
            self._take(taken)
            return bool(taken)
        if self._extension is not None:
            return self._read_extension()
        if len(self._buffer) < BLOCK:
            return False
        self._read_header(bytes(self._take(BLOCK)))
        return True

    def _take(self, count: int) -> bytearray:
        taken = self._buffer[:count]
        del self._buffer[:count]
        self._position += count
        return taken

    def _read_content(self) -> bool:
        data = self._take(min(self._left, len(self._buffer)))
        self._left -= len(data)
        self._hash.update(data)
        if self._content is not None:
            self._content += data
        return bool(data)

    def _finish_file(self) -> None:
        assert self._file is not None
        path, offset, size = self._file
        content = None if self._content is None else bytes(self._content)
        self.entries[path] = Entry(path, offset, size, self._hash.digest(), content)
        self._file = None

    def _read_extension(self) -> bool:
        assert self._extension is not None
        kind, size = self._extension
        if len(self._buffer) < size:
            return False
        data = bytes(self._take(size))
        self._skip = -size % BLOCK
        self._extension = None
        if kind in (_LONG_NAME, _LONG_LINK):
            self._named["path" if kind == _LONG_NAME else "linkpath"] = _text(data.rstrip(b"\0"))
        elif kind == tarfile.XGLTYPE:
            self._global.update(_pax(data))
        else:
            self._named.update(_pax(data))
        return True

    def _read_header(self, block: bytes) -> None:
        if not any(block):
            self._ended = True
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except UnicodeDecodeError:
            raise ArchiveError("it has a path that is not UTF-8") from None
        except (tarfile.HeaderError, ValueError) as problem:
            raise ArchiveError(f"it is no tar archive: {problem} at byte {self._position - BLOCK}") from None
        size = header.size
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, _LONG_NAME, _LONG_LINK):
            if not 0 <= size <= MAX_EXTENSION:
                raise ArchiveError(f"a header has more than {MAX_EXTENSION} bytes")
            self._extension = header.type, size
            return
        named = {**self._global, **self._named}
        self._named = {}
        if any(key.startswith("GNU.sparse") for key in named):
            raise ArchiveError(f"{header.name}: is a sparse file")
        if (given := named.get("size", "0")) != "0":
            if not given.isdecimal() or len(given) > 15:
                raise ArchiveError(f"{header.name}: has no valid size")
            size = int(given)
        name = named.get("path", header.name)
        if header.type == tarfile.LNKTYPE:
            self._link(name, named.get("linkpath", header.linkname))
        else:
            self._begin(header, name, size)

    def _new_path(self, name: str) -> str:
        path = safe_path(name)
        if path not in self.entries and len(self.entries) == MAX_ENTRIES:
            raise ArchiveError(f"it has more than {MAX_ENTRIES} files")
        return path

    def _link(self, name: str, target: str) -> None:
        """The same file by another path."""
        path, found = self._new_path(name), self.entries.get(safe_path(target))
        if found is None:
            raise ArchiveError(f"{name}: is a link to a file that is not before it")
        self.entries[path] = replace(found, path=path)

    def _begin(self, header: tarfile.TarInfo, name: str, size: int) -> None:
        if header.type == tarfile.DIRTYPE or name.endswith("/"):
            return
        if header.type not in _FILES:
            raise ArchiveError(f"{name}: is neither a file nor a directory")
        if size < 0:
            raise ArchiveError(f"{name}: has no valid size")
        path = self._new_path(name)
        if (old := self.entries.get(path)) is not None and old.content is not None:
            self._kept -= old.size
        self._file = path, self._position, size
        self._left, self._skip = size, -size % BLOCK
        self._hash = hashlib.sha256()
        keeps = size <= KEPT_FILE and self._kept + size <= KEPT
        self._content = bytearray() if keeps else None
        self._kept += size if keeps else 0


def safe_path(name: str) -> str:
    """A path in an archive without "./" in front. Raises ArchiveError for one that leads out of the archive."""
    path = name
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ArchiveError(f"{name[:100]!r}: is no path below the archive")
    if len(path.encode()) > MAX_PATH or not path.isprintable():
        raise ArchiveError(f"{name[:100]!r}: has more than {MAX_PATH} bytes, or unprintable characters")
    return path


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ArchiveError("it has a path that is not UTF-8") from None


def _pax(data: bytes) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n` (POSIX.1-2017, pax extended header)."""
    found: dict[str, str] = {}
    while data:
        digits, space, _rest = data.partition(b" ")
        if (
            not space
            or not digits.isdigit()
            or len(digits) > 6
            or not len(digits) + 3 <= int(digits) <= len(data)
        ):
            raise ArchiveError("a pax header cannot be read")
        record, data = data[len(digits) + 1 : int(digits)], data[int(digits) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ArchiveError("a pax header cannot be read")
        if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse"):
            found[_text(key)] = _text(value[:-1])
    return found
