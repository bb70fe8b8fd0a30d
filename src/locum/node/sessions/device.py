"""The device's side of live sessions: performs the mobile node role's actions on programs and sockets.

Blocking calls run in one thread, in the order they are asked for; results go back to the role as events. What a captured
socket needs to come back is in the store, so that a daemon that was killed takes its sockets up again where they are.
The role decides when to do what.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from locum.dataplane.layout.maps import MARK_ANSWER
from locum.node import words
from locum.node.boot import boot_id
from locum.node.events import flow_text
from locum.node.performer import Handler
from locum.node.sessions.bringing_back import BringingBack
from locum.node.sessions.captured import Captured
from locum.node.sessions.freezer_name import freezer_name
from locum.node.sessions.peer_answers import Divert, PeerAnswers
from locum.node.sessions.renumbered import Renumberings
from locum.node.sessions.trickle import Trickle
from locum.node.tables import HostStore, HostTable, StoreError
from locum.roles.action_values import sessions as action_values
from locum.roles.action_values.sessions import (
    Capture,
    FindSessions,
    FoundSession,
    Freeze,
    FreezeFailed,
    LeftSession,
    Process,
    ReleaseCaptured,
    SessionFailure,
    SessionRecordItem,
    SessionsFound,
    Thaw,
)
from locum.roles.actions import Event
from locum.sessions.datagram_flows import UDP
from locum.sessions.datagrams.live import LiveDatagrams
from locum.sessions.datagrams.record import Repeated
from locum.sessions.either import AnyLive, AnyParked, AnyRecord, look, open_live, parked_from_json
from locum.sessions.programs.exclusions import NOTHING_EXCLUDED, Exclusions
from locum.sessions.programs.freezer import Freezer
from locum.sessions.search.find import Candidate, LeftAlone, find, find_elsewhere
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.parked import Intent
from locum.wire.control import Flow

log = logging.getLogger("locum.sessions")

T = TypeVar("T")
_Opened = tuple[AnyLive, Intent | None]


class SessionCapture:
    """Session actions of one mobile node. `deliver` puts packets into this host; `feed` calls the role."""

    def __init__(
        self,
        name: str,
        run_dir: Path,
        freeze: str,
        store: HostStore,
        feed: Callable[[Event], None],
        deliver: Callable[[bytes], None],
        exclusions: Exclusions = NOTHING_EXCLUDED,
        divert: Divert = lambda _flow, _take: None,
        repeated: Callable[[Flow], Repeated | None] = lambda _flow: None,
    ) -> None:
        """`freeze`: "stop" forces SIGSTOP, "cgroup" the cgroup freezer; "auto" takes that where there is one.

        `divert` gives held packets of a flow to a function; `repeated` tells the keep-alive of a UDP flow, if a rule asks
        for one.
        """
        self._repeated = repeated
        self._exclusions = exclusions
        self._elsewhere: list[
            LeftAlone
        ] = []  # in other namespaces of this host, as the last first look saw it
        self._store, self._feed = store, feed
        self._boot = boot_id()
        self._freezer = Freezer(
            freezer_name(name, run_dir), run_dir, signals=freeze == "stop", cgroups=freeze == "cgroup"
        )
        self._freezer.adopt()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sessions")
        self._captured = Captured(self._freezer)
        self._renumberings = Renumberings(run_dir / f"renumbering-{name}")
        self._trickle = Trickle(self._captured, self._blocking, feed, PeerAnswers(divert, MARK_ANSWER))
        self._back = BringingBack(
            self._captured,
            self._blocking,
            feed,
            deliver,
            self._forget,
            self._trickle,
            self._save,
            self._written,
            self._renumberings,
        )

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {
            FindSessions: self._find,
            Freeze: self._freeze,
            Thaw: self._thaw,
            Capture: self._capture,
            ReleaseCaptured: self._release,
            **self._back.handlers(),
            **self._trickle.handlers(),
        }

    @property
    def frozen(self) -> frozenset[int]:
        """Processes that stand still now, by number."""
        return frozenset(process.pid for process in self._freezer.frozen)

    def captured(self) -> tuple[Flow, ...]:
        """Connections whose sockets we hold."""
        return tuple(self._captured.live)

    def adopt(self, claimed: Mapping[Flow, bool]) -> None:
        """After a restart: take up the sockets that were captured. `claimed`: flows of the role's; whether they are loose.

        A socket that the role has no claim to is its program's again. Programs without a tight socket run.
        """
        rows = self._store.rows(HostTable.PARKED)
        parked = {socket.flow: socket for socket in map(self._parked, rows.values()) if socket is not None}
        self._end_renumberings(parked)
        flows = dict.fromkeys((*parked, *claimed))
        self._captured.look({flow.local for flow in flows})
        for flow in flows:
            candidate, stored = self._captured.candidates.get(flow), parked.get(flow)
            captured = stored is not None and not isinstance(stored, Intent)
            try:
                if candidate is not None:
                    self._take_up(open_live(candidate, stored), captured, claimed)
            except (SessionError, OSError) as problem:
                log.warning("%s cannot be taken up again: %s", flow_text(flow), problem)
        taken_up = set(map(flow_text, self._captured.live))
        for name in rows.keys() - taken_up:
            self._store.forget(HostTable.PARKED, name)
        self._captured.let_run(())
        if self._captured.loose:
            self._back.reassure()

    def _end_renumberings(self, parked: dict[Flow, AnyParked]) -> None:
        for flow, stored in self._renumberings.end(parked).items():
            parked[flow] = stored
            self._write(flow, stored)

    def _take_up(self, live: AnyLive, captured: bool, claimed: Mapping[Flow, bool]) -> None:
        if not captured or live.flow not in claimed:
            self._let_be(live)
            return
        self._captured.live[live.flow] = live
        if claimed[live.flow]:
            self._captured.loose.add(live.flow)
            live.let_go()  # again, if the run before was killed while it froze the programs

    async def close(self) -> None:
        """Drop our descriptors; captured sockets and frozen programs stay as they are, for the next run."""
        self._back.close()
        await self._trickle.close()
        await asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown)
        for live in self._captured.live.values():
            live.close()
        self._captured.live.clear()

    async def _blocking(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call, *arguments)

    def _parked(self, row: Mapping[str, Any]) -> AnyParked | None:
        """Stored data of a socket; None for one that ended with an earlier boot."""
        fields = dict(row)
        if fields.pop("boot", None) != self._boot:
            return None
        try:
            return parked_from_json(fields)
        except (KeyError, TypeError, ValueError):
            return None

    # find and freeze

    async def _find(self, action: FindSessions) -> None:
        homes = set(action.home_addresses)
        left = await self._blocking(self._captured.look, homes, self._exclusions)
        if not action.again:
            self._elsewhere = await self._blocking(find_elsewhere, homes)
        found = tuple(map(_found, self._captured.candidates.values()))
        self._feed(SessionsFound(found, tuple(map(_left, (*left, *self._elsewhere)))))

    async def look(self, home_addresses: Iterable[Any]) -> SessionsFound:
        """Sessions now, and those that could be captured; changes nothing."""
        homes = set(home_addresses)
        candidates, left = await self._blocking(find, homes, (os.getpid(),), self._exclusions)
        left += await self._blocking(find_elsewhere, homes)
        return SessionsFound(tuple(map(_found, candidates)), tuple(map(_left, left)))

    async def _freeze(self, action: Freeze) -> None:
        failures = await self._blocking(self._freezer.freeze, action.processes)
        if failures:
            self._feed(FreezeFailed({Process(*process): reason for process, reason in failures.items()}))

    async def _thaw(self, action: Thaw) -> None:
        """Raises StoreError, the programs running: a row that is out of date harms less than programs that stand still."""
        problem = await self._written()  # what says that they may run has been written before
        await self._blocking(self._captured.let_run, action.processes)
        given_back, self._back.given_back = self._back.given_back, []
        for flow in given_back:
            self._store.forget(HostTable.PARKED, flow_text(flow))
        if problem is not None:
            raise problem

    async def _written(self) -> StoreError | None:
        """Wait for queued writes; return the reason of a failure, which the next write retries."""
        try:
            await self._store.durable()
        except StoreError as problem:
            return problem
        return None

    # capture

    async def _capture(self, action: Capture) -> None:
        again = {flow: self._repeated(flow) for flow in action.flows if flow.protocol == UDP}
        opened, failures = await self._blocking(self._open_all, action.flows)
        for live, intent in opened:  # state that a capture changes is stored before, in case we are killed
            if intent is not None:
                self._write(live.flow, intent)
        sockets = [live for live, _ in opened]
        if (problem := await self._written()) is not None:
            self._drop(sockets)
            raise problem
        captured = await self._blocking(self._capture_all, action.flows, sockets, again, failures)
        for live in sockets:
            if live.flow in self._captured.live:
                self._save(live)
            else:
                self._store.forget(HostTable.PARKED, flow_text(live.flow))
        if (problem := await self._written()) is not None:  # a run after us could not bring them back
            await self._blocking(self._let_all_be, action.flows)
            self._forget(action.flows)
            raise problem
        self._feed(captured)

    def _drop(self, sockets: Iterable[AnyLive]) -> None:
        """Those that were opened and not captured."""
        for live in sockets:
            live.close()
            self._store.forget(HostTable.PARKED, flow_text(live.flow))

    def _save(self, live: AnyLive) -> None:
        self._write(live.flow, live.parked)

    def _write(self, flow: Flow, stored: AnyParked) -> None:
        self._store.put(HostTable.PARKED, flow_text(flow), stored.to_json() | {"boot": self._boot})

    def _open_all(self, flows: tuple[Flow, ...]) -> tuple[list[_Opened], list[SessionFailure]]:
        opened: list[_Opened] = []
        failures: list[SessionFailure] = []
        for flow in flows:
            try:
                candidate = self._captured.candidates.get(flow)
                if candidate is None:
                    raise SessionError("the connection is not there any more")
                live = open_live(candidate)
                try:
                    opened.append((live, look(live)))
                except (SessionError, OSError):
                    live.close()
                    raise
            except (SessionError, OSError) as problem:
                failures.append(SessionFailure(flow, words.reason(problem)))
        return opened, failures

    def _capture_all(
        self,
        flows: tuple[Flow, ...],
        opened: list[AnyLive],
        repeated: Mapping[Flow, Repeated | None],
        failures: list[SessionFailure],
    ) -> action_values.Captured:
        records: list[SessionRecordItem] = []
        numbers = {flow: number for number, flow in enumerate(flows)}
        for live in opened:
            flow = live.flow
            try:
                record = _captured(live, repeated.get(flow))
            except (SessionError, OSError) as problem:
                live.close()
                failures.append(SessionFailure(flow, words.reason(problem)))
                continue
            self._captured.live[flow] = live
            # CBOR maps with integer keys are session records; the role carries them without looking inside
            item: Mapping[int, Any] = record.to_cbor()
            records.append(SessionRecordItem(numbers[flow], flow, item))
        return action_values.Captured(tuple(records), tuple(failures))

    async def _release(self, action: ReleaseCaptured) -> None:
        await self._blocking(self._let_all_be, action.flows)
        self._forget(action.flows)

    def _let_all_be(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            if (live := self._captured.live.get(flow)) is not None:
                self._let_be(live)

    def _let_be(self, live: AnyLive) -> None:
        try:
            live.resume()
        except (SessionError, OSError) as problem:
            log.warning("%s: %s", flow_text(live.flow), problem)
        live.close()

    def _forget(self, flows: Iterable[Flow]) -> None:
        self._captured.drop(flows)
        for flow in flows:
            self._trickle.forget(flow)
            self._store.forget(HostTable.PARKED, flow_text(flow))


def _captured(live: AnyLive, repeated: Repeated | None) -> AnyRecord:
    return live.capture(repeated) if isinstance(live, LiveDatagrams) else live.capture()


def _found(candidate: Candidate) -> FoundSession:
    processes = tuple(Process(*process) for process in candidate.processes)
    return FoundSession(candidate.flow, processes, candidate.programs)


def _left(left: LeftAlone) -> LeftSession:
    return LeftSession(left.flow, left.reason, left.pids, left.programs)
