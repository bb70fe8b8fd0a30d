"""The files of a proxy, in one directory: names, room, and each effect carried out as a whole or not at all.

It knows no proxy and no connections. Raises OSError for every effect that is not carried out.
"""

import contextlib
import errno
import os
import re
import stat
from collections import OrderedDict

from locum.roles.app_network import MAX_FILE_NAME, MAX_FILES, MAX_LOAD

OPEN = 64
"""Files that stay open for the next effect."""
_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_FILE_NAME - 1}}}", re.ASCII)


def is_name(name: str) -> bool:
    """True for a name that a file may have."""
    return _NAME.fullmatch(name) is not None


def _error(code: int, name: str) -> OSError:
    return OSError(code, os.strerror(code), name)


class OpenFile:
    """A descriptor that is closed when nobody refers to it any more: a file that is replaced is still sent to its end."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Files:
    """Those in the directory of this descriptor, with `room` bytes in all."""

    def __init__(self, directory: int, room: int) -> None:
        self.directory, self._room = directory, room
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.look()

    def look(self) -> None:
        """Look which files there are: the device may have sent some."""
        self._open.clear()
        self._sizes.clear()
        for entry in os.scandir(self.directory):
            if not is_name(entry.name):  # one that the device is sending gets its name at any moment
                continue
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                self._sizes[entry.name] = found.st_size
        self._used = sum(self._sizes.values())

    def listing(self) -> list[tuple[str, int]]:
        """Names and sizes, by name."""
        return sorted(self._sizes.items())

    def opened(self, name: str) -> OpenFile:
        """A file that is there, to read."""
        if name not in self._sizes:
            self._check(name)
            raise _error(errno.ENOENT, name)
        return self._file(name)

    def append(self, name: str, data: bytes) -> None:
        """Write behind the end."""
        before = self._made(name, len(data))
        size = before or 0
        try:
            file = self._file(name)
            view, at = memoryview(data), size
            while view:
                count = os.pwrite(file.fd, view, at)
                view, at = view[count:], at + count
        except OSError:
            self._undo(name, before)
            raise
        self._resize(name, at)

    def truncate(self, name: str, size: int) -> None:
        """Cut off, or lengthen by zeros."""
        if size < 0:
            raise _error(errno.EINVAL, name)
        before = self._made(name, size - self._sizes.get(name, 0))
        try:
            os.ftruncate(self._file(name).fd, size)
        except OSError:
            self._undo(name, before)
            raise
        self._resize(name, size)

    def rename(self, name: str, to: str) -> None:
        """In place of a file of that name; durable together with the content."""
        self._check(to)
        file = self.opened(name)
        if name == to:
            return
        os.fsync(file.fd)
        os.rename(name, to, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        self._used -= self._sizes.get(to, 0)
        self._open.pop(to, None)
        self._open[to] = self._open.pop(name)
        self._sizes[to] = self._sizes.pop(name)
        os.fsync(self.directory)

    def remove(self, name: str) -> None:
        """Nothing happens if there is none."""
        self._check(name)
        if name not in self._sizes:
            return
        os.unlink(name, dir_fd=self.directory)
        self._open.pop(name, None)
        self._used -= self._sizes.pop(name)

    def load(self, name: str, offset: int, length: int) -> bytes:
        """Some of it; less at its end."""
        file = self.opened(name)
        if offset < 0 or length < 0:
            raise _error(errno.EINVAL, name)
        return os.pread(file.fd, min(length, MAX_LOAD), offset)

    def size(self, name: str) -> int:
        """Bytes of a file that is there."""
        return self._sizes[name]

    @property
    def left(self) -> int:
        """Bytes that all files together may still grow by."""
        return max(self._room - self._used, 0)

    def measure(self, name: str) -> int:
        """The size of a file that another process has written."""
        self._resize(name, os.fstat(self._file(name).fd).st_size)
        return self._sizes[name]

    def _check(self, name: str) -> None:
        if not is_name(name):
            raise _error(errno.EINVAL, name)

    def _made(self, name: str, more: int) -> int | None:
        """The size of the file that gets so many bytes; None: there is none yet. Raises OSError if it may not."""
        self._check(name)
        before = self._sizes.get(name)
        if before is None and len(self._sizes) >= MAX_FILES:
            raise _error(errno.EMFILE, name)
        if self._used + more > self._room and more > 0:
            raise _error(errno.ENOSPC, name)
        return before

    def _file(self, name: str) -> OpenFile:
        file = self._open.get(name)
        if file is None:
            file = self._open[name] = OpenFile(self._descriptor(name))
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(name)
        return file

    def _descriptor(self, name: str) -> int:
        """A file that the device sends while this process runs is the stand-in's: it can be read and renamed."""
        flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(name, flags | os.O_RDWR | os.O_CREAT, 0o600, dir_fd=self.directory)
        except PermissionError:
            return os.open(name, flags | os.O_RDONLY, dir_fd=self.directory)

    def _undo(self, name: str, before: int | None) -> None:
        """The file as it was before an effect that failed in its middle."""
        with contextlib.suppress(OSError):
            if (file := self._open.get(name)) is not None:
                os.ftruncate(file.fd, before or 0)
            if before is None:
                self._open.pop(name, None)
                os.unlink(name, dir_fd=self.directory)

    def _resize(self, name: str, size: int) -> None:
        self._used += size - self._sizes.get(name, 0)
        self._sizes[name] = size
