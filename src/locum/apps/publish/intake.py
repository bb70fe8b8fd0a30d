"""Takes an uploaded archive in: named, read once, made durable; then it is a version of the content, or refused."""

import os
import re
from collections.abc import Mapping

from locum.apps.publish.archive import ArchiveError, Entry, TarReader
from locum.roles.app_contract import Effect
from locum.roles.app_network import Failed, Load, Loaded, Rename, Sync, Synced

UPLOADED = "content.tar.new"
"""The name under which an upload appears, whole."""
STEP = 256 << 10
"""Bytes that are read at a time."""
_VERSION = re.compile(r"content-(\d{10,12})\.tar", re.ASCII)


def version_file(moment: int) -> str:
    """The archive of the version that was published at this time, in seconds since 1970."""
    return f"content-{moment:010d}.tar"


def moment_of(file: str) -> int | None:
    """The opposite; None for other files."""
    match = _VERSION.fullmatch(file)
    return int(match[1]) if match else None


class Intake:
    """One archive on its way. `problem` or `entries` is there when `done`. `uploaded`: it is new."""

    def __init__(self, moment: int, *, uploaded: bool) -> None:
        self.file, self.moment, self.uploaded = version_file(moment), moment, uploaded
        self.problem = ""
        self.entries: Mapping[str, Entry] | None = None
        self._tar = TarReader()
        self._position = 0
        self._durable = not uploaded

    @property
    def done(self) -> bool:
        """True when it is a version, or refused."""
        return bool(self.problem) or (self.entries is not None and self._durable)

    def begin(self) -> list[Effect]:
        """The first effects."""
        named: list[Effect] = [Rename(UPLOADED, self.file), Sync(self.file)] if self.uploaded else []
        return [*named, Load(self.file, 0, STEP)]

    def happened(self, event: Loaded | Synced | Failed) -> list[Effect]:
        """Go on. Events of other files are passed over."""
        if self.done or event.file not in (self.file, UPLOADED):
            return []
        match event:
            case Failed():
                self.problem = f"{event.file}: {os.strerror(event.error)}"
            case Synced():
                self._durable = True
            case Loaded() if event.offset == self._position:
                return self._read(event.data)
        return []

    def _read(self, data: bytes) -> list[Effect]:
        self._position += len(data)
        try:
            self._tar.feed(data)
            if len(data) == STEP:
                return [Load(self.file, self._position, STEP)]
            self.entries = self._tar.close()
        except ArchiveError as problem:
            self.problem = str(problem)
        return []
