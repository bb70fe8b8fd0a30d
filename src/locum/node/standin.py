"""The stand-in's side of live sessions: restores sockets, drains them into spools, gives out what came, stops, drops.

Each socket is also kept by a descriptor store, and what it needs is in the store: a daemon that was killed takes all of
them up again without losing a byte. Reading follows the event loop; a spool that reached its bound is left alone until
there is room, so that the peer's window closes. When to do what is the role's business.
"""

import asyncio
import contextlib
import logging
import os
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2

from locum.node.performer import Hand
from locum.node.settings import MnpsSettings
from locum.node.store import Store
from locum.roles import actions as do
from locum.roles.actions import Event
from locum.sessions import repair, stand_in
from locum.sessions.holder import FdStore
from locum.sessions.live import FinalTcp, SessionError
from locum.sessions.record import SessionRecord
from locum.sessions.spool import SUFFIXES, Budget, Spool
from locum.wire.control import Flow
from locum.wire.errors import WireError

log = logging.getLogger("locum.standin")
COLLECTION = "session"
_AT_ONCE = 1 << 20  # bytes of one socket per wake-up of the loop, so that sockets take turns
_RECHECK = 0.25  # seconds between looks at sockets that wait for room, or that ended
_TMPFS = Path("/dev/shm")

Key = tuple[bytes, int]  # handover, session


@dataclass(slots=True)
class _Held:
    """One session that lives here."""

    key: Key
    flow: Flow
    record: SessionRecord
    socket: socket.socket
    spool: Spool
    reading: bool = False
    full: bool = False  # the disk took no more, short of our own bound
    stopped: FinalTcp | None = None

    @property
    def name(self) -> str:
        return _name(self.key)


def _name(key: Key) -> str:
    return f"{key[0].hex()}-{key[1]}"


class StandIn:
    """Session actions of one MNPS. `feed` tells the role, `emit` everybody who listens."""

    def __init__(
        self,
        name: str,
        settings: MnpsSettings,
        store: Store,
        feed: Callable[[Event], None],
        emit: Callable[[do.Emit], None],
    ) -> None:
        """Raises OSError: a configured holder that does not run, a spool directory that cannot be made."""
        self._store, self._feed, self._emit = store, feed, emit
        self._budget = Budget(settings.memory_bound, settings.memory_bound + settings.disk_bound)
        self._disk_dir = settings.spool_dir
        # Nodes of one name may share the tmpfs.
        place = zlib.crc32(os.fsencode(settings.spool_dir.absolute()))
        self._memory_dir = _TMPFS / f"locum-{name}-{place:08x}" if _TMPFS.is_dir() else settings.spool_dir
        for directory in (self._disk_dir, self._memory_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keeper = self._open_keeper(settings.holder)
        self._held: dict[Key, _Held] = {}
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def _open_keeper(holder: Path | None) -> FdStore | None:
        if holder is None:
            return FdStore.systemd(os.environ)
        try:
            return FdStore.holder(holder)
        except OSError as problem:
            raise OSError(
                problem.errno,
                f"{holder}: no holder answers ({problem.strerror}); "
                f"start one: python -m locum.sessions.holder {holder}",
            ) from None

    def hands(self) -> Mapping[type, Hand]:
        """What performs each kind of action."""
        return {
            do.RestoreSessions: self._restore,
            do.MeasureSessions: self._measure,
            do.StopSessions: self._stop,
            do.ResumeSessions: self._resume,
            do.DropSessions: self._drop,
            do.FetchData: self._fetch,
        }

    def adopt(self) -> tuple[Flow, ...]:
        """After a restart: take the sockets back from where they are kept. Returns the flows that could not be."""
        kept = self._keeper.take() if self._keeper is not None else {}
        lost: list[Flow] = []
        for name, row in self._store.rows(COLLECTION).items():
            try:
                key = (bytes.fromhex(row["handover"]), int(row["session"]))
                record = SessionRecord.from_cbor(cbor2.loads(bytes.fromhex(row["record"])))
            except (ValueError, KeyError, TypeError, cbor2.CBORError) as problem:
                log.warning("%s cannot be read in the store: %s", name, problem)
                self._store.forget(COLLECTION, name)
                continue
            fd = kept.pop(name, None)
            held = self._take_up(key, record, fd) if fd is not None else None
            if held is None:
                lost.append(record.flow)
                self._store.forget(COLLECTION, name)
            else:
                self._held[key] = held
                if held.stopped is None:
                    self._watch(held)
        for name, fd in kept.items():
            self._discard_kept(name, fd)
        self._sweep()
        return tuple(lost)

    def _sweep(self) -> None:
        """Files of sessions that were dropped when we were killed."""
        names = {held.name for held in self._held.values()}
        for directory in (self._disk_dir, self._memory_dir):
            for path in directory.iterdir():
                if path.suffix in SUFFIXES and path.name.partition(".")[0] not in names:
                    path.unlink()

    def _discard_kept(self, name: str, fd: int) -> None:
        """A descriptor that no row speaks of: its handover was dropped when we were killed."""
        if name.count("-") == 1 and self._keeper is not None:
            connection = socket.socket(fileno=fd)
            stand_in.stop(connection)
            self._keeper.remove(name)
            connection.close()
        else:
            os.close(fd)

    def _take_up(self, key: Key, record: SessionRecord, fd: int) -> _Held | None:
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        spool = self._spool(key, record)
        try:
            spool.recover(connection)
            stopped = None
            if repair.in_repair(connection):  # it was stopped for a reclaim, and stays so
                stopped = stand_in.final(
                    connection, record, received=spool.total, peer_closed=spool.peer_closed, error=spool.error
                )
        except (SessionError, OSError) as problem:
            log.warning("%s cannot be taken up again: %s", _name(key), problem)
            stand_in.drop(connection)
            return None
        return _Held(key, record.flow, record, connection, spool, stopped=stopped)

    def _spool(self, key: Key, record: SessionRecord) -> Spool:
        return Spool(
            _name(key), record, memory_dir=self._memory_dir, disk_dir=self._disk_dir, budget=self._budget
        )

    def sessions(self) -> list[dict[str, Any]]:
        """What is held, for people."""
        return [
            {
                "handover": held.key[0].hex(),
                "session": held.key[1],
                "flow": held.flow,
                "received": held.spool.total,
                "spilled": held.spool.spilled,
                "peer_closed": held.spool.peer_closed,
                "error": held.spool.error,
                "stopped": held.stopped is not None,
            }
            for held in self._held.values()
        ]

    async def close(self) -> None:
        """Let go; sockets stay with their keeper and spools on disk, for the next run."""
        if self._timer is not None:
            self._timer.cancel()
        for held in self._held.values():
            self._unwatch(held)
            held.spool.close()
            if self._keeper is None:
                stand_in.drop(held.socket)
            else:
                held.socket.close()
        self._held.clear()
        with contextlib.suppress(OSError):  # not empty
            self._memory_dir.rmdir()
        if self._keeper is not None:
            self._keeper.close()

    # restore and drain

    async def _restore(self, action: do.RestoreSessions) -> None:
        restored: list[int] = []
        failures: list[tuple[int, str]] = []
        for item in action.sessions:
            key = (action.handover, item.session)
            try:
                self._restore_one(key, item)
            except (SessionError, WireError, OSError) as problem:
                failures.append((item.session, str(problem)))
            else:
                restored.append(item.session)
        await self._store.durable()
        self._feed(do.Restored(action.handover, tuple(restored), tuple(failures)))

    def _restore_one(self, key: Key, item: do.SessionRecordItem) -> None:
        if key in self._held:
            raise SessionError("the session is here already")
        record = SessionRecord.from_cbor(item.record)
        if record.flow != item.flow:
            raise SessionError("the record is of another flow than the one announced")
        connection = self._live(_name(key), record)
        held = self._held[key] = _Held(key, record.flow, record, connection, self._spool(key, record))
        row = {
            "handover": key[0].hex(),
            "session": key[1],
            "record": cbor2.dumps(record.to_cbor(), canonical=True).hex(),
        }
        self._store.put(COLLECTION, held.name, row)
        self._watch(held)

    def _live(self, name: str, record: SessionRecord) -> socket.socket:
        """The socket is with its keeper before the first packet leaves it: from then on its end would be seen."""
        keeper = self._keeper
        if keeper is None:
            return stand_in.restore(record)
        try:
            return stand_in.restore(record, keep=lambda made: keeper.store(name, made.fileno()))
        except SessionError:
            with contextlib.suppress(OSError):  # it may never have got that far
                keeper.remove(name)
            raise

    def _watch(self, held: _Held) -> None:
        if not held.reading:
            held.reading = True
            asyncio.get_running_loop().add_reader(held.socket, self._readable, held)
        self._schedule()

    def _unwatch(self, held: _Held) -> None:
        if held.reading:
            held.reading = False
            asyncio.get_running_loop().remove_reader(held.socket)

    def _readable(self, held: _Held) -> None:
        """Drain; stop watching a socket that cannot give more now (no room, ended): the timer looks again."""
        left = _AT_ONCE
        try:
            while left > 0 and (moved := held.spool.drain(held.socket, left)):
                left -= moved
        except OSError as problem:
            if not held.full:
                self._tell("spool-full", held, reason=problem.strerror or str(problem))
            held.full = True
            self._unwatch(held)
            return
        if held.full:
            self._tell("spool-has-room", held)
            held.full = False
        if left == _AT_ONCE and self._at_rest(held):
            self._unwatch(held)

    @staticmethod
    def _at_rest(held: _Held) -> bool:
        """Nothing can be read now: the peer's window closes, or the connection has ended."""
        spool = held.spool
        return held.full or spool.peer_closed or bool(spool.error) or spool.waiting(held.socket)

    def _tell(self, kind: str, held: _Held, **detail: str) -> None:
        self._emit(do.Emit(kind, None, held.flow.local, held.flow, detail))

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_RECHECK, self._recheck)

    def _recheck(self) -> None:
        """Sockets that are not watched: is there room again, has the connection failed?"""
        self._timer = None
        for held in tuple(self._held.values()):
            if held.stopped is not None or held.reading:
                continue
            self._readable(held)
            if not self._at_rest(held):
                self._watch(held)
        if self._held:
            self._schedule()

    # give back

    def _of(self, handover: bytes) -> list[_Held]:
        return [held for key, held in self._held.items() if key[0] == handover]

    def _measure(self, action: do.MeasureSessions) -> None:
        for held in self._of(action.handover):
            if held.stopped is None:
                self._readable(held)
        sessions = tuple(
            do.HeldSession(held.key[1], held.flow, held.spool.total, held.spool.peer_closed, held.spool.error)
            for held in self._of(action.handover)
        )
        self._feed(do.Measured(action.handover, sessions))

    def _stop(self, action: do.StopSessions) -> None:
        fetched, room = dict(action.fetched), action.tail_limit
        finals: list[do.SessionFinal] = []
        for held in self._of(action.handover):
            self._unwatch(held)
            final = held.stopped = held.stopped or held.spool.stop(held.socket)
            offset = min(fetched.get(held.key[1], 0), held.spool.total)
            tail = held.spool.read(offset, room) if 0 < held.spool.total - offset <= room else b""
            room -= len(tail)
            finals.append(
                do.SessionFinal(
                    session=held.key[1],
                    flow=held.flow,
                    total=final.received,
                    acknowledged=final.acked,
                    timestamp=final.timestamp,
                    peer_closed=final.peer_closed,
                    error=final.error,
                    tail_offset=offset if tail else final.received,
                    tail=tail,
                )
            )
        self._feed(do.Stopped(action.handover, tuple(finals)))

    def _resume(self, action: do.ResumeSessions) -> None:
        for held in self._of(action.handover):
            if held.stopped is not None:
                held.stopped = None
                held.spool.resume(held.socket)
            self._watch(held)

    async def _drop(self, action: do.DropSessions) -> None:
        """The row goes before the socket: without a row it is discarded silently after a crash."""
        numbers = set(action.sessions)
        gone = [held for held in self._of(action.handover) if not numbers or held.key[1] in numbers]
        for held in gone:
            self._unwatch(held)
            if action.reset:
                self._reset(held)
            elif held.stopped is None:
                stand_in.stop(held.socket)
            self._store.forget(COLLECTION, held.name)
            del self._held[held.key]
        await self._store.durable()
        for held in gone:
            if self._keeper is not None:
                self._keeper.remove(held.name)
            if not action.reset:
                stand_in.drop(held.socket)
            held.spool.remove()

    @staticmethod
    def _reset(held: _Held) -> None:
        try:
            stand_in.reset(held.socket)
        except OSError as problem:
            log.warning("%s could not be reset: %s", held.name, problem)

    def _fetch(self, action: do.FetchData) -> None:
        held = self._held.get((action.handover, action.session))
        if held is None or action.offset > held.spool.total:
            self._feed(do.Fetched(action.exchange, None))
            return
        data = held.spool.read(action.offset, action.limit)
        self._feed(do.Fetched(action.exchange, data, action.offset + len(data) < held.spool.total))
