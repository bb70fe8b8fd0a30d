"""The files of application proxies at a stand-in: one flat directory for each device and name, kept over sleeps (A1).

Files that a device sends appear whole or not at all: they grow under a hidden name, and are checked and synced before they get
their own. Everything here blocks on the disk; callers use a thread. Names of devices' orders become names of
directories, whatever characters they have.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from locum.roles.action_values.addresses import Addr
from locum.roles.app_network import MAX_FILE_NAME

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_LONGEST = 200  # characters of a directory's name; longer ones are shortened to a digest
_PIECE = 1 << 20  # bytes read at a time for a digest


class DataError(Exception):
    """The files are not as a request needs them; the text is for users."""


def checked_name(file: str) -> str:
    """The name of a file of a proxy (`app_network.MAX_FILE_NAME`). Raises DataError."""
    if not 0 < len(file) <= MAX_FILE_NAME or file.startswith(".") or not _ALLOWED.issuperset(file):
        raise DataError(
            f"{file[:40]!r} is no name of a file: at most {MAX_FILE_NAME} letters, digits, dots, hyphens, "
            "underscores, and no dot at the beginning"
        )
    return file


class AppData:
    """All data directories of a stand-in, below `root`: a directory for each device, one of each name in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, device: Addr, name: str, *, make: bool = False) -> Path:
        """The directory of a proxy; with `make` it is there afterwards. Raises OSError."""
        path = self.root / str(device) / _folder(name)
        if make:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def files(self, device: Addr, name: str) -> list[tuple[str, int]]:
        """Names and bytes of the files of a proxy, by name; uploads under way are not among them. Raises OSError."""
        try:
            with os.scandir(self.directory(device, name)) as entries:
                return sorted(
                    (entry.name, entry.stat(follow_symlinks=False).st_size)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []

    def read(self, device: Addr, name: str, file: str, offset: int, length: int) -> tuple[bytes, int]:
        """Bytes of a file from `offset` on, and the file's size. Raises DataError or OSError."""
        with self._open(device, name, file) as descriptor:
            size = os.fstat(descriptor).st_size
            return os.pread(descriptor, length, offset), size

    def digest(self, device: Addr, name: str, file: str) -> tuple[bytes, int]:
        """SHA-256 and size of a file. Raises DataError or OSError."""
        with self._open(device, name, file) as descriptor:
            return _digest(descriptor)

    @contextlib.contextmanager
    def _open(self, device: Addr, name: str, file: str) -> Iterator[int]:
        path = self.directory(device, name) / checked_name(file)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DataError(f"{name} has no file {file}") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def stage(self, device: Addr, name: str, file: str, offset: int, data: bytes) -> int:
        """Write a piece of a file that the device sends; bytes that are there now. Offset 0 begins anew.

        A piece that does not begin where the last one ended writes nothing. Raises DataError or OSError.
        """
        path = self._part(device, name, file, make=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if offset else os.O_TRUNC)
        descriptor = os.open(path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if offset != size:
                return size
            try:
                _write(descriptor, data, offset)
            except OSError:
                os.ftruncate(descriptor, offset)  # the next piece goes on from here
                raise
            return offset + len(data)
        finally:
            os.close(descriptor)

    def staged(self, device: Addr, name: str, file: str) -> int:
        """Bytes of a file that the device has begun to send. Raises DataError or OSError."""
        try:
            return self._part(device, name, file).stat().st_size
        except FileNotFoundError:
            return 0

    def commit(self, device: Addr, name: str, file: str, size: int, digest: bytes) -> None:
        """Give a sent file its name, in place of one of that name, durably. Raises DataError or OSError."""
        part = self._part(device, name, file)
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if self.files(device, name) and self._is(device, name, file, size, digest):
                return  # the answer to the same request was lost
            raise DataError(f"nothing of {file} has been sent") from None
        try:
            if _digest(descriptor) != (digest, size):
                part.unlink()
                raise DataError(f"{file} did not arrive as it was sent; send it again")
            os.fchmod(
                descriptor, 0o644
            )  # a proxy that runs already has another user; nobody else comes into the directory
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(part.parent / file)
        _sync(part.parent)

    def _is(self, device: Addr, name: str, file: str, size: int, digest: bytes) -> bool:
        with contextlib.suppress(DataError):
            return self.digest(device, name, file) == (digest, size)
        return False

    def _part(self, device: Addr, name: str, file: str, *, make: bool = False) -> Path:
        return self.directory(device, name, make=make) / f".{checked_name(file)}.part"

    def remove(self, device: Addr, name: str) -> None:
        """Remove everything of a proxy; nothing happens if there is nothing. Raises OSError."""
        directory = self.directory(device, name)
        if directory.exists():
            shutil.rmtree(directory)
        with contextlib.suppress(OSError):  # other proxies of the device have files
            directory.parent.rmdir()

    def touch(self, device: Addr, name: str) -> None:
        """The files of a proxy are of use now."""
        with contextlib.suppress(OSError):
            os.utime(self.directory(device, name))

    def used(self, device: Addr) -> int:
        """Bytes of all files of a device, uploads under way among them. Raises OSError."""
        return sum(
            path.lstat().st_size for path in (self.root / str(device)).glob("*/*") if not path.is_symlink()
        )

    def sweep(self, seconds: float, kept: frozenset[Path]) -> list[Path]:
        """Remove directories that were of no use for so long; the removed ones. Those in `kept` are of use now."""
        removed: list[Path] = []
        for directory in self.root.glob("*/*"):
            with contextlib.suppress(OSError):
                if directory in kept:
                    os.utime(directory)
                elif time.time() - directory.stat().st_mtime > seconds:
                    shutil.rmtree(directory)
                    removed.append(directory)
        return removed


def _folder(name: str) -> str:
    """A name of a directory that no other name of an order has."""
    folder = quote(name, safe="").replace(".", "%2E")
    return folder if len(folder) <= _LONGEST else hashlib.sha256(name.encode()).hexdigest()


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """All of it: a disk that gets full takes a part."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], offset + done


def _digest(descriptor: int) -> tuple[bytes, int]:
    state, offset = hashlib.sha256(), 0
    while piece := os.pread(descriptor, _PIECE, offset):
        state.update(piece)
        offset += len(piece)
    return state.digest(), offset


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
