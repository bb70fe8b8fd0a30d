"""Keeps what is needed to end a change of sockets that a killed daemon began: bytes of proxies in their queues, other numbers."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from locum.node.events import flow_text
from locum.node.tables import StoreError
from locum.sessions.either import AnyParked
from locum.sessions.programs.process import holders
from locum.sessions.tcp import renumbering, repair
from locum.sessions.tcp.parked import Parked
from locum.sessions.tcp.renumbering import Begun
from locum.wire.control import Flow

log = logging.getLogger("locum.sessions")


class Renumberings:
    """Files in `directory`, each there until the row of its socket is durable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._paths: list[Path] = []

    def keep(self, begun: Begun) -> None:
        """Write it to a file. Raises StoreError: nothing of the socket may be changed then."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._paths.append(renumbering.store(self._directory, begun))
        except OSError as problem:
            raise StoreError(f"{self._directory}: {problem.strerror}; make room there") from problem

    def clear(self) -> None:
        """The rows are durable."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()

    def end(self, rows: Mapping[Flow, AnyParked]) -> dict[Flow, Parked]:
        """After a restart: end what was begun; return the rows that belong to it. Call `clear` when they are durable.

        Until then a run after this one would do it again.
        """
        begun = [one for one in self._read() if self._is_open(one, rows)]
        held = holders({one.inode for one in begun})  # one look at all processes
        ended: dict[Flow, Parked] = {}
        for one in begun:
            try:
                self._end(one, held.get(one.inode, ()))
                ended[one.parked.flow] = one.parked
            except OSError as problem:
                log.warning("%s cannot go on: %s", flow_text(one.parked.flow), problem)
        return ended

    def _read(self) -> Iterator[Begun]:
        for path in sorted(self._directory.glob(f"*{renumbering.SUFFIX}")):
            self._paths.append(path)
            try:
                yield renumbering.from_bytes(path.read_bytes())
            except (OSError, ValueError, KeyError, TypeError) as problem:
                log.warning("%s cannot be read: %s", path, problem)

    @staticmethod
    def _is_open(begun: Begun, rows: Mapping[Flow, AnyParked]) -> bool:
        known = rows.get(begun.parked.flow)
        return isinstance(known, Parked) and known != begun.parked

    @staticmethod
    def _end(begun: Begun, held: Iterable[tuple[int, int]]) -> None:
        for pid, descriptor in held:
            with suppress(ProcessLookupError), repair.duplicate(pid, descriptor) as sock:
                if not begun.is_done(sock):
                    begun.carry_out(sock)
                    log.info("%s goes on where its proxies have left it", flow_text(begun.parked.flow))
                return
