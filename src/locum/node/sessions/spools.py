"""The spools of a stand-in: the directories of their files, and how many bytes each device may leave in them."""

import contextlib
import os
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from locum.node.clock import boot_milliseconds
from locum.node.config.settings import MnpsSettings
from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.datagrams.spool import SUFFIXES as DATAGRAM_SUFFIXES
from locum.sessions.datagrams.spool import DatagramSpool
from locum.sessions.either import AnyRecord, AnySpool
from locum.sessions.tcp.spool import SUFFIXES, Budget, Spool, disk_files

_TMPFS = Path("/dev/shm")
_SUFFIXES = (*SUFFIXES, *DATAGRAM_SUFFIXES)


class Spools:
    """Makes the spool of each session, and removes files that belong to none."""

    def __init__(self, node: str, settings: MnpsSettings) -> None:
        """`node` is the name of the node. Raises OSError: a directory cannot be made."""
        self._budget = Budget(settings.memory_bound, settings.memory_bound + settings.disk_bound)
        self._budgets: dict[str, Budget] = {}  # of each device
        self._device_bytes = settings.configuration.quota.stored
        self._datagram_bounds = settings.datagrams
        self._disk_dir = settings.spool_dir
        # Nodes of one name may share the tmpfs.
        place = zlib.crc32(os.fsencode(settings.spool_dir.absolute()))
        self._memory_dir = _TMPFS / f"locum-{node}-{place:08x}" if _TMPFS.is_dir() else settings.spool_dir
        for directory in (self._disk_dir, self._memory_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def make(self, name: str, record: AnyRecord, device: str) -> AnySpool:
        """The spool of the session with that name, on the budget of its device."""
        budget = self._budget_of(device)
        if isinstance(record, DatagramRecord):
            return DatagramSpool(
                name,
                record,
                directory=self._disk_dir,
                bounds=self._datagram_bounds,
                clock=boot_milliseconds,
                budget=budget,
            )
        return Spool(name, record, memory_dir=self._memory_dir, disk_dir=self._disk_dir, budget=budget)

    def on_disk(self) -> Mapping[str, Path]:
        """The files that an earlier run left on disk, for `recover` of a spool."""
        return disk_files(self._disk_dir)

    def sweep(self, names: Collection[str]) -> None:
        """Remove the files of all sessions except those with these names."""
        for directory in (self._disk_dir, self._memory_dir):
            for path in directory.iterdir():
                if path.suffix in _SUFFIXES and path.name.partition(".")[0] not in names:
                    path.unlink()

    def close(self) -> None:
        """Remove the directory in memory if it is empty."""
        with contextlib.suppress(OSError):  # not empty
            self._memory_dir.rmdir()

    def _budget_of(self, device: str) -> Budget:
        if device not in self._budgets:
            whole = self._budget
            self._budgets[device] = Budget(whole.memory_bound, self._device_bytes, whole=whole)
        return self._budgets[device]
