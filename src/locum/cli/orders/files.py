"""Files of orders between this host's disk and a node's control socket: both ways in pieces, checked, whole or not at all."""

import base64
import contextlib
import fcntl
import hashlib
import io
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locum.node.control.client import NodeClient

PIECE = 1000 << 10
"""Bytes of a file in one request: they fit into one message of CoAP over TCP (1 MiB), without blocks."""
WINDOW = 6
"""Requests for pieces under way at a time."""
PATIENCE = 60.0
"""Seconds without progress after which a transfer is given up."""
PAUSE = 1.0
"""Seconds before the same piece is asked for again."""
ARCHIVE = "content.tar.new"
"""The name under which a directory is sent; the proxy gives it its own when it has looked into it."""
MAX_ENTRIES = 100_000
"""Files and directories that are sent at once."""


class TransferFailed(Exception):
    """A file is not here, or not there; the text is for users. `kept`: the next attempt goes on where this one ended."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file at the stand-in; `digest` is empty if the order's result has none."""

    name: str
    size: int
    digest: str = ""


def fetch(client: NodeClient, order: str, wanted: Wanted, directory: Path) -> bool:
    """Bring a file to a directory; False if it is there already. Raises TransferFailed.

    It grows under a hidden name, which is kept when the stand-in cannot be reached any more: the next fetch goes on there.
    """
    target, part = directory / wanted.name, directory / f".{wanted.name}.locum-part"
    try:
        digest = wanted.digest or _digest(client, order, wanted)
        if _is(target, wanted.size, digest):
            return False
        with open(part, "a+b", opener=_no_link) as file:
            _alone(file)
            _receive(client, order, wanted, file)
            if _hash(file) != digest:
                part.unlink()
                raise TransferFailed(f"{wanted.name} did not arrive as it is at the stand-in; fetch it again")
            os.fsync(file.fileno())
        part.rename(target)
        _sync(directory)
    except OSError as problem:
        with contextlib.suppress(OSError):
            part.unlink()
        said = problem.strerror or str(problem)
        raise TransferFailed(
            f"{target}: {said}; {wanted.size} bytes are needed, and the file is still at the stand-in"
        ) from None
    return True


def _no_link(path: str, flags: int) -> int:
    """Open a file of our own: in a directory of others a link of that name would lead elsewhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _alone(file: io.BufferedRandom) -> None:
    """Raises TransferFailed if another command brings the same file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TransferFailed("another fetch of this file is under way") from None


def _receive(
    client: NodeClient, order: str, wanted: Wanted, file: io.BufferedRandom | io.BufferedReader
) -> None:
    """Append the rest of the file."""
    file.seek(0, os.SEEK_END)
    if file.tell() > wanted.size:
        file.truncate(0)
        file.seek(0)
    room = os.fstatvfs(file.fileno())
    if room.f_bavail * room.f_frsize < wanted.size - file.tell():
        raise OSError("there is no room")
    last = time.monotonic()
    while (start := file.tell()) < wanted.size:
        requests = (
            {"name": order, "file": wanted.name, "offset": offset, "limit": PIECE}
            for offset in range(start, wanted.size, PIECE)
        )
        with contextlib.closing(client.stream("order read", requests, WINDOW)) as answers:
            for answer in answers:
                if (again := answer.get("again")) is not None:
                    if time.monotonic() - last > PATIENCE:
                        raise TransferFailed(f"{again}; the next fetch goes on at byte {file.tell()}")
                    time.sleep(PAUSE)
                    break
                data = base64.b64decode(answer["data"])
                if answer["bytes"] != wanted.size or (not data and file.tell() < wanted.size):
                    raise TransferFailed(f"{wanted.name} has changed at the stand-in; fetch it again")
                file.write(data)
                last = time.monotonic()
                if len(data) < PIECE and file.tell() < wanted.size:
                    break  # the rest would be at the wrong place
    file.flush()


def _digest(client: NodeClient, order: str, wanted: Wanted) -> str:
    answer = _patient(lambda: client.request("order digest", name=order, file=wanted.name))
    if answer["bytes"] != wanted.size:
        raise TransferFailed(f"{wanted.name} has changed at the stand-in; fetch it again")
    return str(answer["sha256"])


def _patient(ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The answer to a request that may be asked again for a while. Raises TransferFailed."""
    end = time.monotonic() + PATIENCE
    while (again := (answer := ask()).get("again")) is not None:
        if time.monotonic() > end:
            raise TransferFailed(str(again))
        time.sleep(PAUSE)
    return answer


def _is(path: Path, size: int, digest: str) -> bool:
    """True if this file is there already."""
    try:
        if path.stat().st_size != size:
            return False
        with open(path, "rb") as file:
            return _hash(file) == digest
    except FileNotFoundError:
        return False


def _hash(file: io.BufferedRandom | io.BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Up -------------------------------------------------------------------------------------------------------------------


def send_directory(client: NodeClient, order: str, directory: Path) -> int:
    """Send everything in a directory as one archive; bytes of the archive. Raises TransferFailed.

    The stand-in shows it when it has all of it: an attempt that ends early changes nothing there.
    """
    entries = [*_entries(directory)]
    upload = _Upload(client, order)
    try:
        with tarfile.open(fileobj=upload, mode="w|", bufsize=PIECE, format=tarfile.PAX_FORMAT) as archive:
            for path in entries:
                archive.add(path, str(path.relative_to(directory)), recursive=False, filter=_anonymous)
    except OSError as problem:
        said = problem.strerror or str(problem)
        raise TransferFailed(f"{problem.filename or directory}: {said}; nothing has changed") from None
    return upload.finish()


def send_file(client: NodeClient, order: str, path: Path) -> int:
    """Send one file under its own name, for the order's proxy; its bytes. Raises TransferFailed.

    It is there whole, or not at all.
    """
    upload = _Upload(client, order, path.name)
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                upload.write(piece)
    except OSError as problem:
        raise TransferFailed(f"{path}: {problem.strerror or problem}; nothing has changed") from None
    return upload.finish()


def _entries(directory: Path) -> Iterator[Path]:
    """Files and directories below it, in order. Raises TransferFailed for what cannot be served."""
    count = 0
    for folder, names, files in os.walk(directory, onerror=_unreadable):
        names.sort()
        for name in (*names, *sorted(files)):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise TransferFailed(f"{path} is neither a file nor a directory; nothing was sent")
            count += 1
            if count > MAX_ENTRIES:
                raise TransferFailed(f"{directory} has more than {MAX_ENTRIES} files; nothing was sent")
            yield path


def _unreadable(problem: OSError) -> None:
    raise TransferFailed(f"{problem.filename}: {problem.strerror}; nothing was sent")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the owner, which is nobody's business."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


class _Upload(io.RawIOBase):
    """A file that is written at the stand-in."""

    def __init__(self, client: NodeClient, order: str, file: str = ARCHIVE) -> None:
        super().__init__()
        self._client, self._order, self._file = client, order, file
        self._sha256, self._size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        """Send the next bytes. Raises TransferFailed."""
        data = bytes(content)
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            self._send(piece)
            self._sha256.update(piece)
            self._size += len(piece)
        return len(data)

    def _send(self, piece: bytes) -> None:
        text, after = base64.b64encode(piece).decode(), self._size + len(piece)
        answer = _patient(
            lambda: self._client.request(
                "order write", name=self._order, file=self._file, offset=self._size, data=text
            )
        )
        # The answer to an earlier try may have been lost: the bytes are there then.
        if answer["bytes"] != after:
            raise TransferFailed("another upload of this order is under way; nothing has changed")

    def finish(self) -> int:
        """Show it; its bytes. Raises TransferFailed."""
        _patient(
            lambda: self._client.request(
                "order commit",
                name=self._order,
                file=self._file,
                bytes=self._size,
                sha256=self._sha256.hexdigest(),
            )
        )
        return self._size
