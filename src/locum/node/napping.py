"""The device's side of live sessions: performs what the mobile node's role wants done to programs and their sockets.

Blocking calls run in one thread, in the order they are asked for; results go back to the role as events. What a captured
socket needs to come back is in the store, so that a daemon that was killed takes its sockets up again where they are.
When to do what is the role's business.
"""

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from locum.node.events import flow_text
from locum.node.freezer_name import freezer_name
from locum.node.performer import Hand
from locum.node.store import Store
from locum.roles import actions as do
from locum.roles.actions import Event
from locum.sessions.exclusions import NOTHING_EXCLUDED, Exclusions
from locum.sessions.find import Candidate, LeftAlone, find
from locum.sessions.freezer import Freezer
from locum.sessions.live import FinalTcp, LiveSocket, Parked, SessionError
from locum.sessions.process import Process
from locum.wire.control import Flow

log = logging.getLogger("locum.napping")
COLLECTION = "parked"
_POLL = 0.002  # seconds between looks at what a program has read
_GENERATIONS = 32  # looks for programs that were started while others were being frozen
_DELIVERY = 0.05  # seconds within which injected packets reach a socket

T = TypeVar("T")


class Napping:
    """Session actions of one mobile node. `deliver` puts packets into this host; `feed` tells the role."""

    def __init__(
        self,
        name: str,
        run_dir: Path,
        freeze: str,
        store: Store,
        feed: Callable[[Event], None],
        deliver: Callable[[bytes], None],
        exclusions: Exclusions = NOTHING_EXCLUDED,
    ) -> None:
        """`freeze`: "stop" forces SIGSTOP; otherwise the cgroup freezer where there is one."""
        self._exclusions = exclusions
        self._store, self._feed, self._deliver = store, feed, deliver
        self._freezer = Freezer(freezer_name(name, run_dir), run_dir, signals=freeze == "stop")
        self._freezer.adopt()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sessions")
        self._candidates: dict[Flow, Candidate] = {}
        self._live: dict[Flow, LiveSocket] = {}
        self._ahead: dict[Flow, int] = {}  # bytes injected by a killed run that its role did not hear of
        self._given_back: list[Flow] = []  # their rows stay until the role has written that they are back

    def hands(self) -> Mapping[type, Hand]:
        """What performs each kind of action."""
        return {
            do.FindSessions: self._find,
            do.Freeze: self._freeze,
            do.Thaw: self._thaw,
            do.Capture: self._capture,
            do.ReleaseCaptured: self._release,
            do.InjectData: self._inject,
            do.DrainRound: self._drain,
            do.FinishSessions: self._finish,
            do.AbandonSessions: self._abandon,
        }

    @property
    def frozen(self) -> frozenset[int]:
        """Processes that stand still now, by number."""
        return frozenset(each.pid for each in self._freezer.frozen)

    def captured(self) -> tuple[Flow, ...]:
        """Connections whose sockets we hold."""
        return tuple(self._live)

    def adopt(self, offsets: Mapping[Flow, int]) -> None:
        """After a restart: take up the sockets that were captured. `offsets`: injected bytes the role knows of.

        A socket that the role has no claim to is its program's again, and programs without a captured socket run.
        """
        rows = self._store.rows(COLLECTION)
        parked = {each.flow: each for each in map(_parked, rows.values()) if each is not None}
        flows = dict.fromkeys((*parked, *offsets))
        self._look({each.local for each in flows})
        for flow in flows:
            candidate = self._candidates.get(flow)
            try:
                if candidate is not None:
                    self._take_up(LiveSocket.open(candidate, parked.get(flow)), flow in parked, offsets)
            except (SessionError, OSError) as problem:
                log.warning("%s cannot be taken up again: %s", flow_text(flow), problem)
            if flow not in self._live:
                self._store.forget(COLLECTION, flow_text(flow))
        self._freezer.thaw(self._freezer.frozen - self._bound())

    def _take_up(self, live: LiveSocket, captured: bool, offsets: Mapping[Flow, int]) -> None:
        if captured and live.flow in offsets:
            self._live[live.flow] = live
            self._ahead[live.flow] = max(0, live.position() - offsets[live.flow])
        else:
            self._let_be(live)

    async def close(self) -> None:
        """Drop our descriptors; captured sockets and frozen programs stay as they are, for the next run."""
        await asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown)
        for live in self._live.values():
            live.close()
        self._live.clear()

    async def _blocking(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call, *arguments)

    # find and freeze

    async def _find(self, action: do.FindSessions) -> None:
        left = await self._blocking(self._look, set(action.home_addresses), self._exclusions)
        self._feed(do.SessionsFound(tuple(map(_found, self._candidates.values())), tuple(map(_left, left))))

    def _look(
        self, home_addresses: Iterable[Any], exclusions: Exclusions = NOTHING_EXCLUDED
    ) -> list[LeftAlone]:
        candidates, left = find(home_addresses, (os.getpid(),), exclusions)
        captured = {flow: each for flow, each in self._candidates.items() if flow in self._live}
        self._candidates = captured | {each.flow: each for each in candidates}
        return left

    async def _freeze(self, action: do.Freeze) -> None:
        failures = await self._blocking(self._freezer.freeze, action.processes)
        if failures:
            self._feed(do.FreezeFailed({do.Process(*each): reason for each, reason in failures.items()}))

    async def _thaw(self, action: do.Thaw) -> None:
        await self._store.durable()  # what says that they may run has been written before
        await self._blocking(self._let_run, action.processes)
        given_back, self._given_back = self._given_back, []
        for flow in given_back:
            self._store.forget(COLLECTION, flow_text(flow))

    def _let_run(self, processes: tuple[do.Process, ...]) -> None:
        """These, and whoever else has stood still for sockets that are no longer captured."""
        self._freezer.thaw(processes)
        self._freezer.thaw(self._freezer.frozen - self._bound())

    def _bound(self) -> frozenset[Process]:
        """Processes that may not run, since they hold a captured socket."""
        return frozenset(process for flow in self._live for process in self._holders(flow))

    def _freeze_newcomers(self) -> None:
        """Programs fork: whoever holds a captured socket now has to stand still as well."""
        for _ in range(_GENERATIONS):
            found, _ = find({flow.local for flow in self._live})
            for each in found:
                if each.flow in self._live:
                    self._candidates[each.flow] = _of_others(each)
            new = self._bound() - self._freezer.frozen
            if not new:
                return
            self._freezer.freeze(new)

    # capture

    async def _capture(self, action: do.Capture) -> None:
        captured = await self._blocking(self._capture_all, action.flows)
        for flow in action.flows:
            if flow in self._live:
                self._store.put(COLLECTION, flow_text(flow), self._live[flow].parked.to_json())
        await self._store.durable()
        self._feed(captured)

    def _capture_all(self, flows: tuple[Flow, ...]) -> do.Captured:
        records: list[do.SessionRecordItem] = []
        failures: list[do.SessionFailure] = []
        for number, flow in enumerate(flows):
            try:
                candidate = self._candidates.get(flow)
                if candidate is None:
                    raise SessionError("the connection is not there any more")
                live = LiveSocket.open(candidate)
                try:
                    record = live.capture()
                except (SessionError, OSError):
                    live.close()
                    raise
            except (SessionError, OSError) as problem:
                failures.append(do.SessionFailure(flow, str(problem)))
                continue
            self._live[flow] = live
            # CBOR maps with integer keys are session records; the role carries them without looking inside
            item: Mapping[int, Any] = record.to_cbor()
            records.append(do.SessionRecordItem(number, flow, item))
        return do.Captured(tuple(records), tuple(failures))

    async def _release(self, action: do.ReleaseCaptured) -> None:
        def release() -> None:
            for flow in action.flows:
                if (live := self._live.get(flow)) is not None:
                    self._let_be(live)

        await self._blocking(release)
        self._forget(action.flows)

    def _let_be(self, live: LiveSocket) -> None:
        try:
            live.resume()
        except OSError as problem:
            log.warning("%s: %s", flow_text(live.flow), problem)
        live.close()

    def _forget(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            self._live.pop(flow, None)
            self._ahead.pop(flow, None)
            self._store.forget(COLLECTION, flow_text(flow))

    # bring back

    async def _inject(self, action: do.InjectData) -> None:
        live = self._live.get(action.flow)
        if live is None:
            self._feed(do.Injected(action.flow, 0, "the socket is not there any more"))
            return
        if not self._has_program(action.flow):
            self._feed(do.Injected(action.flow, 0, "its program has ended"))
            return
        already = min(self._ahead.get(action.flow, 0), len(action.data))
        if already:
            self._ahead[action.flow] -= already
        try:
            taken = already + await self._blocking(self._put, live, memoryview(action.data)[already:])
        except OSError as problem:
            self._feed(do.Injected(action.flow, already, str(problem)))
            return
        self._feed(do.Injected(action.flow, taken))

    def _put(self, live: LiveSocket, data: memoryview) -> int:
        if not data:
            return 0
        live.hold()  # again, if a run before us was killed while the program read
        before = live.position()
        done = live.inject(data)
        if not done.packets:
            return done.accepted
        for packet in done.packets:
            self._deliver(packet)
        until = time.monotonic() + _DELIVERY
        while live.position() - before < done.accepted and time.monotonic() < until:
            time.sleep(_POLL)
        return live.position() - before

    async def _drain(self, action: do.DrainRound) -> None:
        unread = await self._blocking(self._round, action)
        self._feed(do.Drained(unread))

    def _round(self, action: do.DrainRound) -> tuple[tuple[Flow, int], ...]:
        """Every socket of a program that runs has to be out of repair mode, or it would meet EPERM."""
        processes = {
            *action.processes,
            *(process for flow in action.flows for process in self._holders(flow)),
        }
        asked = [self._live[flow] for flow in action.flows if flow in self._live]
        loose = [
            live for flow, live in self._live.items()
            if live in asked or processes.intersection(self._holders(flow))
        ]  # fmt: skip
        for live in loose:
            live.let_go()
        self._freezer.thaw(processes)
        until = time.monotonic() + action.patience
        while any(live.unread() for live in asked) and time.monotonic() < until:
            time.sleep(_POLL)
        self._freezer.freeze(processes)
        self._freeze_newcomers()
        for live in loose:
            live.hold()
        return tuple((live.flow, live.unread()) for live in asked)

    def _has_program(self, flow: Flow) -> bool:
        """Whether anybody but us still has the socket: else nobody would ever read."""
        candidate = self._candidates.get(flow)
        if candidate is None:
            return False
        for pid, fd in candidate.holders:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == f"socket:[{candidate.inode}]":
                    return True
        return False

    def _holders(self, flow: Flow) -> tuple[Process, ...]:
        candidate = self._candidates.get(flow)
        return candidate.processes if candidate else ()

    async def _finish(self, action: do.FinishSessions) -> None:
        failures = await self._blocking(self._finish_all, action.finals)
        flows = tuple(each.flow for each in action.finals)
        for flow in flows:
            self._live.pop(flow, None)
            self._ahead.pop(flow, None)
        self._given_back += flows
        self._feed(do.Finished(flows, failures))

    def _finish_all(self, finals: tuple[do.SessionFinal, ...]) -> tuple[do.SessionFailure, ...]:
        failures: list[do.SessionFailure] = []
        for final in finals:
            live = self._live.get(final.flow)
            if live is None:
                failures.append(do.SessionFailure(final.flow, "the socket is not there any more"))
                continue
            try:
                self._finish_one(live, final)
            except (SessionError, OSError) as problem:
                failures.append(do.SessionFailure(final.flow, str(problem)))
                self._reset(live)
            live.close()
        return tuple(failures)

    def _finish_one(self, live: LiveSocket, final: do.SessionFinal) -> None:
        if (position := live.position()) != final.total:
            raise SessionError(f"{final.total} bytes were received and {position} are here")
        live.hold()
        packets = live.finish(
            FinalTcp(
                received=final.total,
                acked=final.acknowledged,
                timestamp=final.timestamp,
                peer_closed=final.peer_closed,
                error=final.error,
            )
        )
        for packet in packets:
            self._deliver(packet)

    async def _abandon(self, action: do.AbandonSessions) -> None:
        def abandon() -> None:
            for flow in action.flows:
                if (live := self._live.get(flow)) is not None:
                    self._reset(live)
                    live.close()

        await self._blocking(abandon)
        self._forget(action.flows)

    def _reset(self, live: LiveSocket) -> None:
        """The program sees that its connection was lost."""
        try:
            live.hold()
            for packet in live.finish(FinalTcp(received=live.position(), error=errno.ECONNRESET)):
                self._deliver(packet)
        except OSError as problem:
            log.warning("%s cannot be reset: %s", flow_text(live.flow), problem)


def _found(candidate: Candidate) -> do.FoundSession:
    processes = tuple(do.Process(*each) for each in candidate.processes)
    return do.FoundSession(candidate.flow, processes, candidate.programs)


def _left(left: LeftAlone) -> do.LeftSession:
    return do.LeftSession(left.flow, left.reason, left.pids, left.programs)


def _of_others(candidate: Candidate) -> Candidate:
    """Without our own descriptors of its socket."""
    own = os.getpid()
    return replace(
        candidate,
        holders=tuple(each for each in candidate.holders if each[0] != own),
        processes=tuple(each for each in candidate.processes if each.pid != own),
    )


def _parked(row: Mapping[str, Any]) -> Parked | None:
    try:
        return Parked.from_json(row)
    except (KeyError, TypeError, ValueError):
        return None
