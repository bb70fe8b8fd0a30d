"""The stand-in's side of live sessions: restores sockets, drains them into spools, stops, drops.

Each socket is also kept by a descriptor store, and its data is in the store: a daemon that was killed takes all of
them up again without losing a byte. Reading is done in `draining.py`. The role decides when to do what.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import cbor2

from locum.node import words
from locum.node.clock import boot_milliseconds
from locum.node.config.settings import Address, MnpsSettings
from locum.node.performer import Handler
from locum.node.sessions.draining import BEGAN_HERE, UNBOUNDED, Draining, HeldSocket, Key, name_of, shown
from locum.node.sessions.keeper import discard, open_keeper
from locum.node.sessions.openings import Openings
from locum.node.sessions.removing import Removing, alone
from locum.node.sessions.repeating import Repeating
from locum.node.sessions.spools import Spools
from locum.node.tables import HostStore, HostTable, StoreError
from locum.roles import actions as do
from locum.roles.action_values.listeners import AcceptedEnded, ClosePorts, ConnectionAccepted, OpenPorts
from locum.roles.action_values.sessions import (
    DropSessions,
    FetchData,
    Fetched,
    HeldSession,
    Measured,
    MeasureSessions,
    Restored,
    RestoreSessions,
    ResumeSessions,
    SessionFinal,
    SessionRecordItem,
    SessionUse,
    Stopped,
    StopSessions,
    Surveyed,
    SurveySessions,
)
from locum.roles.actions import Event
from locum.sessions import either
from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.either import AnyRecord
from locum.sessions.listening import accepting
from locum.sessions.record import SessionRecord, TcpState
from locum.sessions.tcp import repair
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.intake import Intake
from locum.wire.control import MAX_SESSIONS, Flow
from locum.wire.errors import WireError

log = logging.getLogger("locum.standin")
_TOGETHER = 16  # sockets that are restored or reset before others get a turn: some milliseconds


class LocalPeers(Protocol):
    """Work of the host's network for sessions with a peer on this host: see `HostNetwork`."""

    def is_local(self, address: Address) -> bool:
        """True if the address is this host's."""

    async def lead_here(self, flows: Collection[Flow]) -> None:
        """Lead packets of these flows' peers to the home address to the sockets here."""

    async def lead_away(self, flows: Collection[Flow]) -> None:
        """It goes to the device, as everything else."""


class StandIn:
    """Session actions of one stand-in. `feed` calls the role, `emit` publishes events."""

    def __init__(
        self,
        name: str,
        settings: MnpsSettings,
        store: HostStore,
        feed: Callable[[Event], None],
        emit: Callable[[do.Emit], None],
        peers: LocalPeers,
        inject: Callable[[bytes], None],
        count: Callable[[str], None],
    ) -> None:
        """Raises OSError: a configured holder that does not run, a spool directory that cannot be made."""
        self._store, self._feed, self._emit, self._peers = store, feed, emit, peers
        self._spools = Spools(name, settings)
        self._intake = Intake(settings.session_least, settings.session_most)
        self._draining = Draining(emit, self.moved)
        self._repeating = Repeating()
        self._keeper = open_keeper(settings.holder)
        self._removing = Removing(store, self._keeper)
        self._held: dict[bytes, dict[int, HeldSocket]] = {}  # by handover and session
        self.openings = Openings(inject, self._keep_accepted, self._waiting_at, count, emit)

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {
            RestoreSessions: self._restore,
            MeasureSessions: self._measure,
            StopSessions: self._stop,
            ResumeSessions: self._resume,
            DropSessions: self._drop,
            FetchData: self._fetch,
            SurveySessions: self._survey,
            OpenPorts: self._open_ports,
            ClosePorts: self._close_ports,
        }

    def adopt(self) -> tuple[Flow, ...]:
        """After a restart: take the sockets back from where they are kept. Returns the flows that could not be."""
        kept = self._keeper.take() if self._keeper is not None else {}
        on_disk = self._spools.on_disk()
        lost: list[Flow] = []
        for name, row in self._store.rows(HostTable.SESSION).items():
            try:
                key = (bytes.fromhex(row["handover"]), int(row["session"]))
                record = either.record_from_cbor(cbor2.loads(bytes.fromhex(row["record"])))
            except (ValueError, KeyError, TypeError, cbor2.CBORError) as problem:
                log.warning("%s cannot be read in the store: %s", name, problem)
                self._store.forget(HostTable.SESSION, name)
                continue
            device, label = str(row.get("device", "")), row.get("label")
            accepted = bool(row.get("accepted", False))
            fd = kept.pop(name + BEGAN_HERE if accepted or label is not None else name, None)
            held = self._take_up(key, record, device, fd, on_disk, accepted) if fd is not None else None
            if held is None:
                lost.append(record.flow)
                self._store.forget(HostTable.SESSION, name)
            else:
                held.label = label
                self._keep(held)
                if held.stopped is None:
                    self._draining.step(held)
                    self._repeating.begin(held)
        if self._keeper is not None:
            for name, fd in kept.items():
                discard(self._keeper, name, fd)
        self._spools.sweep({held.name for held in self._all()})  # of sessions dropped when we were killed
        return tuple(lost)

    async def begin(self) -> None:
        """After `adopt`: set up the host's network for sessions that live here."""
        await self._lead_here(held for held in self._all() if held.stopped is None)

    def _all(self) -> list[HeldSocket]:
        return [held for sessions in self._held.values() for held in sessions.values()]

    def _keep(self, held: HeldSocket) -> None:
        self._held.setdefault(held.key[0], {})[held.key[1]] = held

    def _forget(self, held: HeldSocket) -> None:
        sessions = self._held[held.key[0]]
        del sessions[held.key[1]]
        if not sessions:
            del self._held[held.key[0]]

    def _take_up(
        self,
        key: Key,
        record: AnyRecord,
        device: str,
        fd: int,
        on_disk: Mapping[str, Path],
        accepted: bool,
    ) -> HeldSocket | None:
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        held = self._made(key, record, device, connection, accepted=accepted)
        spool = held.spool
        try:
            spool.recover(connection, on_disk)
            held.stopped = either.stopped(connection, spool)  # for a reclaim; it stays so
        except (SessionError, OSError) as problem:
            log.warning("%s cannot be taken up again: %s", held.name, problem)
            either.drop(connection)
            return None
        return held

    def _made(
        self,
        key: Key,
        record: AnyRecord,
        device: str,
        connection: socket.socket,
        *,
        accepted: bool = False,
    ) -> HeldSocket:
        spool = self._spools.make(name_of(key), record, device)
        here = self._peers.is_local(record.flow.peer)
        ahead = self._ahead(record, accepted)
        return HeldSocket(key, record.flow, record, connection, spool, ahead, here=here, accepted=accepted)

    def _ahead(self, record: AnyRecord, accepted: bool) -> int:
        """Bytes that may be held for this session before its device fetches."""
        if isinstance(record, DatagramRecord):
            return UNBOUNDED
        # Accepted data stays in the kernel's buffer: it is at most what its program takes at once.
        return 0 if accepted else self._intake.ahead(record)

    def read_ahead(self, held: HeldSocket) -> None:
        """Hold as much of this session as of any from now on."""
        if held.ahead < self._intake.most and not held.accepted and held.stopped is None:
            held.ahead = self._intake.most
            self._draining.step(held)

    def sessions(self) -> list[dict[str, Any]]:
        """Held sessions, for users."""
        return [shown(held) for held in self._all()]

    async def close(self) -> None:
        """Let go; sockets stay with their keeper and spools on disk, for the next run."""
        self.openings.close()
        self._removing.close()
        self._draining.close()
        for held in self._all():
            self._draining.end(held)
            self._repeating.end(held)
            held.spool.close()
            if self._keeper is None:
                either.drop(held.socket)
            else:
                held.socket.close()
        self._held.clear()
        self._spools.close()
        if self._keeper is not None:
            self._keeper.close()

    # accept

    def _open_ports(self, action: OpenPorts) -> None:
        self.openings.open(action.handover, action.listeners)
        for held in self.of(action.handover):
            if held.accepted:
                self._tell_accepted(held)

    async def _close_ports(self, action: ClosePorts) -> None:
        """The role knows of all that were accepted before anything that follows."""
        self.openings.close(action.handover)
        with contextlib.suppress(StoreError):
            await self._store.durable()

    def _waiting_at(self, handover: bytes, address: Address, port: int) -> int:
        """Number of accepted, waiting connections of this port, without those that their peers have reset."""
        ended = []
        waiting = 0
        for held in self.of(handover):
            if not held.accepted or (held.flow.local, held.flow.local_port) != (address, port):
                continue
            if held.stopped is None and repair.info(held.socket).state is TcpState.CLOSE:
                ended.append(held.key[1])
            else:
                waiting += 1
        if ended:
            self._feed(AcceptedEnded(handover, tuple(ended)))
        return waiting

    def _keep_accepted(self, handover: bytes, connection: socket.socket, record: SessionRecord) -> None:
        """Make an accepted connection a session of this handover, and report it to the role when its row is stored."""
        numbers = self._held.get(handover, {})
        number = next((n for n in range(MAX_SESSIONS - 1, -1, -1) if n not in numbers), None)
        if number is None:
            either.reset(connection)
            return
        key, device = (handover, number), str(record.flow.local)
        try:
            if self._keeper is not None:
                self._keeper.store(name_of(key) + BEGAN_HERE, connection.fileno())
        except OSError as problem:
            log.warning("%s is not kept: %s", name_of(key), problem)
            either.reset(connection)
            return
        held = self._made(key, record, device, connection, accepted=True)
        self._keep(held)
        self._put_row(held, device)
        self._draining.step(held)
        commit = self._store.committed()
        if commit is None:
            self._tell_accepted(held)
        else:  # one that fails is repeated: the peer does not wait for a disk to have room
            commit.add_done_callback(lambda _: self._tell_accepted(held))

    def _tell_accepted(self, held: HeldSocket) -> None:
        handover, number = held.key
        if self._held.get(handover, {}).get(number) is not held:  # it has ended meanwhile
            return
        if isinstance(held.record, SessionRecord):  # a datagram socket accepts nothing
            shaken = accepting.handshake(held.record)
            self._feed(ConnectionAccepted(handover, number, held.flow, shaken))

    # restore

    async def _restore(self, action: RestoreSessions) -> None:
        """One session that cannot live here changes nothing for the others."""
        restored: list[int] = []
        failures: list[tuple[int, str]] = []
        device = "" if action.device is None else str(action.device)
        await self._peers.lead_here(
            [session.flow for session in action.sessions if self._is_here(session.flow)]
        )
        for number, item in enumerate(action.sessions):
            if number % _TOGETHER == 0:
                await asyncio.sleep(0)
            key = (action.handover, item.session)
            try:
                self._restore_one(key, item, device)
            except (SessionError, WireError, OSError) as problem:
                failures.append((item.session, words.reason(problem)))
            else:
                restored.append(item.session)
        failed = {number for number, _ in failures}
        await self._peers.lead_away(
            [
                session.flow
                for session in action.sessions
                if session.session in failed and self._is_here(session.flow)
            ]
        )
        await self._store.durable()
        self._feed(Restored(action.handover, tuple(restored), tuple(failures)))

    def _is_here(self, flow: Flow) -> bool:
        return self._peers.is_local(flow.peer)

    def _restore_one(self, key: Key, item: SessionRecordItem, device: str) -> None:
        if key[1] in self._held.get(key[0], {}):
            raise SessionError("the session is here already")
        record = either.record_from_cbor(item.record)
        if record.flow != item.flow:
            raise SessionError("the record is of another flow than the one announced")
        held = self._made(key, record, device, self._live(name_of(key), record))
        self._keep(held)
        self._put_row(held, device)
        self._draining.begin(held)
        self._repeating.begin(held)

    def _put_row(self, held: HeldSocket, device: str) -> None:
        row = {
            "handover": held.key[0].hex(),
            "session": held.key[1],
            "device": device,
            "accepted": held.accepted,
            "label": held.label,
            "record": cbor2.dumps(held.record.to_cbor(), canonical=True).hex(),
        }
        self._store.put(HostTable.SESSION, held.name, row)

    def _live(self, name: str, record: AnyRecord) -> socket.socket:
        """The socket is with its keeper before the first packet leaves it: from then on its end would be seen."""

        def lacking(option: str) -> None:
            flow = record.flow
            self._emit(do.Emit("session-differs", "634", flow.local, flow, {"lacks": option}))

        keeper = self._keeper
        if keeper is None:
            return either.restore(record, lacking=lacking)
        try:
            return either.restore(
                record, keep=lambda made: keeper.store(name, made.fileno()), lacking=lacking
            )
        except SessionError:
            with contextlib.suppress(OSError):  # it may never have got that far
                keeper.remove(name)
            raise

    async def _lead_here(self, sessions: Iterable[HeldSocket]) -> None:
        await self._peers.lead_here([held.flow for held in sessions if held.here])

    async def _lead_away(self, sessions: Iterable[HeldSocket]) -> None:
        await self._peers.lead_away([held.flow for held in sessions if held.here])

    # give back

    def moved(self, held: HeldSocket) -> None:
        """New data of a session is stored, or its end: for those who attend it."""

    def dropped(self, held: HeldSocket) -> None:
        """This session is not held any more."""

    def of(self, handover: bytes) -> list[HeldSocket]:
        """The sockets of a handover."""
        return list(self._held.get(handover, {}).values())

    def _measure(self, action: MeasureSessions) -> None:
        for held in self.of(action.handover):
            with alone(held, "measured"):
                if held.stopped is None:
                    self._draining.step(held)
                either.seal(held.spool)
        sessions = tuple(
            HeldSession(
                held.key[1],
                held.flow,
                held.spool.for_program,
                held.spool.peer_closed,
                held.spool.error,
                held.handed,
            )
            for held in self.of(action.handover)
        )
        self._feed(Measured(action.handover, sessions))

    def _survey(self, _: SurveySessions) -> None:
        now = boot_milliseconds()
        uses = tuple(
            SessionUse(*held.key, either.quiet(held.socket, held.spool, now), held.spool.total)
            for held in self._all()
        )
        self._feed(Surveyed(uses))

    async def _stop(self, action: StopSessions) -> None:
        fetched, room = dict(action.fetched), action.tail_limit
        finals: list[SessionFinal] = []
        await self._lead_away(self.of(action.handover))
        for held in self.of(action.handover):
            with alone(held, "stopped"):
                finals.append(self._stop_one(held, fetched.get(held.key[1], 0), room))
                room -= len(finals[-1].tail)
        self._feed(Stopped(action.handover, tuple(finals)))

    def _stop_one(self, held: HeldSocket, fetched: int, room: int) -> SessionFinal:
        """The final state, with unfetched data up to `room` bytes. Raises OSError or SessionError."""
        self._draining.end(held)
        self._repeating.end(held)
        final = held.stopped = held.stopped or held.spool.stop(held.socket)
        offset = min(fetched, final.received)
        tail = held.spool.give(offset, room) if 0 < final.received - offset <= room else b""
        return SessionFinal(
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

    async def _resume(self, action: ResumeSessions) -> None:
        await self._lead_here(self.of(action.handover))
        for held in self.of(action.handover):
            with alone(held, "resumed"):
                if held.stopped is not None:
                    held.stopped = None
                    held.spool.resume(held.socket)
                self._draining.step(held)
                self._repeating.begin(held)

    async def _drop(self, action: DropSessions) -> None:
        """The row goes before the socket: without a row it is discarded silently after a crash."""
        numbers = set(action.sessions)
        gone = [held for held in self.of(action.handover) if not numbers or held.key[1] in numbers]
        if not action.reset:
            await self._lead_away(gone)
        for held in gone:
            self.dropped(held)
            self._draining.end(held)
            self._repeating.end(held)
            with alone(held, "reset" if action.reset else "stopped"):
                if action.reset:
                    either.reset(held.socket)
                elif held.stopped is None:
                    either.stop(held.socket)
            self._store.forget(HostTable.SESSION, held.name)
            self._forget(held)
        if action.reset:
            await self._lead_away(gone)
        await self._removing.remove(gone, reset=action.reset)

    def _fetch(self, action: FetchData) -> None:
        held = self._held.get(action.handover, {}).get(action.session)
        if held is None or action.offset > held.spool.for_program:
            self._feed(Fetched(action.exchange, None))
            return
        data = held.spool.give(action.offset, action.limit)
        end = action.offset + len(data)
        if end > held.fetched:
            held.fetched = end
            if held.stopped is None and not held.reading:
                self._draining.step(held)
        self._feed(Fetched(action.exchange, data, end < held.spool.for_program))
