"""The return of captured sockets: performs actions of the mobile node's role during a wake.

Blocking calls run in the thread of session actions. A session or a process that fails never fails the others. When to do
what is the role's business.
"""

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from locum.node import words
from locum.node.events import flow_text
from locum.node.performer import Handler
from locum.node.sessions.captured import Captured
from locum.node.sessions.renumbered import Renumberings
from locum.node.tables import StoreError
from locum.roles.action_values import sessions as action_values
from locum.roles.action_values.sessions import (
    AbandonSessions,
    Drained,
    DrainRound,
    Finished,
    FinishSessions,
    InjectData,
    Injected,
    Loosen,
    SessionFailure,
    SessionFinal,
    Tighten,
    Tightened,
)
from locum.roles.actions import Event
from locum.sessions.datagrams.live import LiveDatagrams
from locum.sessions.either import AnyLive
from locum.sessions.programs.process import Process
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.live import LiveSocket
from locum.wire.control import Flow

log = logging.getLogger("locum.sessions")
_POLL = 0.002  # seconds between checks of a program's reading
# Seconds between packets that keep the kernel from giving up a loose connection: it takes 7.5
_REASSURANCE = 3.0
_DELIVERY = 0.05  # seconds within which injected packets reach a socket
_GONE = "the socket is not there any more"


class Blocking(Protocol):
    """Runs a call in the thread of session actions."""

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Awaitable[Any]: ...


class Answered(Protocol):
    """Connections whose peers are answered in their kernel's place."""

    def ended_by_peer(self, flow: Flow) -> bool:
        """True if the peer has reset this connection meanwhile."""

    def forget(self, flow: Flow) -> None:
        """The kernel answers for this flow again."""


class BringingBack:
    """`deliver` puts packets into this host; `feed` calls the role; `forget` and `save` change rows."""

    def __init__(
        self,
        captured: Captured,
        blocking: Blocking,
        feed: Callable[[Event], None],
        deliver: Callable[[bytes], None],
        forget: Callable[[Iterable[Flow]], None],
        answered: Answered,
        save: Callable[[AnyLive], None],
        written: Callable[[], Awaitable[StoreError | None]],
        renumberings: Renumberings,
    ) -> None:
        self._captured, self._blocking = captured, blocking
        self._feed, self._deliver, self._forget, self._save = feed, deliver, forget, save
        self._answered, self._written, self._renumberings = answered, written, renumberings
        self.given_back: list[Flow] = []  # their rows stay until the role has written that they are back
        self._reassuring: asyncio.Task[None] | None = None

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {
            Tighten: self._tighten,
            Loosen: self._loosen,
            InjectData: self._inject,
            DrainRound: self._drain,
            FinishSessions: self._finish,
            AbandonSessions: self._abandon,
        }

    # tight and loose

    async def _tighten(self, action: Tighten) -> None:
        spoken, surplus = dict(action.spoken), dict(action.surplus)
        tightened: Tightened = await self._blocking(self._tighten_all, action.flows, spoken, surplus)
        for flow in spoken.keys() | surplus.keys():
            if (live := self._captured.live.get(flow)) is not None:
                self._save(live)
        if spoken or surplus:  # by the rows a next run knows that it is done
            if (problem := await self._written()) is not None:
                raise problem
            self._renumberings.clear()
        self._feed(tightened)

    def _tighten_all(
        self, flows: tuple[Flow, ...], spoken: Mapping[Flow, bytes], surplus: Mapping[Flow, int]
    ) -> Tightened:
        captured = self._captured
        running = [flow for flow in flows if flow in captured.loose or not self._stands(flow)]
        unfrozen = captured.freeze_holders(running) if running else {}
        positions: list[tuple[Flow, int]] = []
        gone: list[Flow] = []
        failures: list[SessionFailure] = []
        for flow in flows:
            live = captured.live.get(flow)
            reason = next((unfrozen[holder] for holder in captured.holders(flow) if holder in unfrozen), None)
            if live is None or not captured.has_program(flow):
                gone.append(flow)
            elif reason is not None:
                failures.append(SessionFailure(flow, reason))
                continue
            if live is not None:
                try:
                    live.hold()
                    self._agree(live, spoken.get(flow, b""), surplus.get(flow, 0))
                    positions.append((flow, live.position()))
                except OSError as problem:
                    failures.append(SessionFailure(flow, words.reason(problem)))
                    continue
                captured.loose.discard(flow)
        return Tightened(flows, tuple(positions), tuple(gone), tuple(failures))

    def _agree(self, live: AnyLive, said: bytes, surplus: int) -> None:
        """A connection whose numbers would not agree with its peer's is ended here: it cannot go on."""
        if not (said or surplus) or not isinstance(live, LiveSocket):
            return
        try:
            live.agree(said, surplus, self._renumberings.keep)
        except (SessionError, OSError) as problem:
            log.warning("%s is lost: %s", flow_text(live.flow), words.reason(problem))
            self._reset(live)
            live.close()
            self._captured.live.pop(live.flow, None)

    def _stands(self, flow: Flow) -> bool:
        return self._captured.freezer.frozen.issuperset(self._captured.holders(flow))

    async def _loosen(self, action: Loosen) -> None:
        await self._blocking(self._loosen_all, action.flows, action.processes)
        self.reassure()

    def reassure(self) -> None:
        """From now on, while any socket is loose, tell the kernel that its peer is there."""
        if self._reassuring is None or self._reassuring.done():
            self._reassuring = asyncio.get_running_loop().create_task(self._reassure())

    async def _reassure(self) -> None:
        while self._captured.loose:
            for packet in await self._blocking(self._reassurance):
                self._deliver(packet)
            await asyncio.sleep(_REASSURANCE)

    def _reassurance(self) -> list[bytes]:
        packets: list[bytes] = []
        for flow in self._captured.loose:
            if (live := self._captured.live.get(flow)) is not None:
                packets += live.reassurance()
        return packets

    def close(self) -> None:
        """End all background work."""
        if self._reassuring is not None:
            self._reassuring.cancel()

    def _loosen_all(self, flows: tuple[Flow, ...], processes: tuple[action_values.Process, ...]) -> None:
        captured = self._captured
        for flow in flows:
            if (live := captured.live.get(flow)) is not None:
                self._let_go(live)
                captured.loose.add(flow)
        captured.let_run([Process(*process) for process in processes])

    def _let_go(self, live: AnyLive) -> None:
        """Its program runs next, whatever becomes of this socket."""
        try:
            live.let_go()
        except OSError as problem:
            log.warning("%s: %s", flow_text(live.flow), problem)

    def _hold(self, live: AnyLive) -> None:
        try:
            live.hold()
        except OSError as problem:
            log.warning("%s: %s", flow_text(live.flow), problem)
            self._captured.loose.add(live.flow)

    # bytes

    async def _inject(self, action: InjectData) -> None:
        injected: Injected = await self._blocking(self._inject_all, action)
        for flow, taken in injected.taken:
            # The kernel counts bytes given to a TCP socket; for datagrams only the row has the count.
            if taken and isinstance(live := self._captured.live.get(flow), LiveDatagrams):
                self._save(live)
        self._feed(injected)

    def _inject_all(self, action: InjectData) -> Injected:
        taken: list[tuple[Flow, int]] = []
        failures: list[SessionFailure] = []
        gone: list[Flow] = []
        for flow, data in action.pieces:
            live = self._captured.live.get(flow)
            if live is None:
                failures.append(SessionFailure(flow, _GONE))
            else:
                try:
                    if live.refuses() or not self._captured.has_program(flow):
                        gone.append(flow)
                    else:
                        with self._room(live, len(data) if flow in action.beyond else 0):
                            taken.append((flow, self._put(live, data)))
                except OSError as problem:
                    failures.append(SessionFailure(flow, words.reason(problem)))
        return Injected(tuple(taken), tuple(failures), tuple(gone))

    def _room(self, live: AnyLive, count: int) -> AbstractContextManager[None]:
        """For so many bytes more than the receive buffer of a connection takes."""
        if not count or not isinstance(live, LiveSocket) or live.flow in self._captured.loose:
            return nullcontext()
        return live.more_room(count)

    def _put(self, live: AnyLive, data: bytes) -> int:
        if live.flow in self._captured.loose:  # its program could not be frozen again
            return 0
        start, view = live.position(), memoryview(data)
        while rest := view[live.position() - start :]:
            wanted = live.position()
            done = live.inject(rest)
            wanted += done.accepted
            self._arrive(live, done.packets, wanted)
            if not done.accepted or live.position() < wanted:
                break
        return live.position() - start

    def _arrive(self, live: AnyLive, packets: tuple[bytes, ...], position: int) -> None:
        """Until they are in the socket, or lost."""
        for packet in packets:
            self._deliver(packet)
        until = time.monotonic() + _DELIVERY
        while packets and live.position() < position and time.monotonic() < until:
            time.sleep(_POLL)

    async def _drain(self, action: DrainRound) -> None:
        self._feed(Drained(await self._blocking(self._round, action)))

    def _round(self, action: DrainRound) -> tuple[tuple[Flow, int], ...]:
        """Every socket of a program that runs has to be out of repair mode, or it would meet EPERM."""
        captured = self._captured
        asked = [captured.live[flow] for flow in action.flows if flow in captured.live]
        processes = {Process(*process) for process in action.processes}
        processes.update(process for live in asked for process in captured.holders(live.flow))
        names = {live.flow for live in asked}
        freed = [
            live
            for flow, live in captured.live.items()
            if flow not in captured.loose
            and (flow in names or not processes.isdisjoint(captured.holders(flow)))
        ]
        for live in freed:
            self._let_go(live)
        captured.freezer.thaw(processes)
        self._await_reading(asked, action.patience)
        unfrozen = captured.freeze_holders([live.flow for live in freed])
        for live in freed:
            if any(holder in unfrozen for holder in captured.holders(live.flow)):
                captured.loose.add(live.flow)
            else:
                self._hold(live)
        # One whose program runs on counts as one that has not read.
        return tuple(
            (live.flow, max(live.unread(), int(live.flow in captured.loose)))
            for live in asked
        )  # fmt: skip

    def _await_reading(self, asked: Iterable[AnyLive], patience: float) -> None:
        until = time.monotonic() + patience
        reading = [live for live in asked if live.unread()]
        while reading and time.monotonic() < until:
            time.sleep(_POLL)
            reading = [live for live in reading if live.unread()]

    # endings

    async def _finish(self, action: FinishSessions) -> None:
        failures = await self._blocking(self._finish_all, action.finals)
        flows = tuple(final.flow for final in action.finals)
        self._captured.drop(flows)
        for flow in flows:
            self._answered.forget(flow)
        self.given_back += flows
        self._feed(Finished(flows, failures))

    def _finish_all(self, finals: tuple[SessionFinal, ...]) -> tuple[SessionFailure, ...]:
        failures: list[SessionFailure] = []
        for final in finals:
            live = self._captured.live.get(final.flow)
            if live is None:
                failures.append(SessionFailure(final.flow, _GONE))
                continue
            try:
                self._finish_one(live, final)
            except (SessionError, OSError) as problem:
                failures.append(SessionFailure(final.flow, words.reason(problem)))
                self._reset(live)
            live.close()
        return tuple(failures)

    def _finish_one(self, live: AnyLive, final: SessionFinal) -> None:
        closed = live.refuses() or not self._captured.has_program(live.flow)
        # More is possible: what had come before the capture behind a gap, and is in order now that the gap is filled.
        if (position := live.position()) < final.total and not closed:
            raise SessionError(f"{final.total} bytes were received and {position} are here")
        live.hold()
        reset = self._answered.ended_by_peer(final.flow)
        packets = live.finish(
            FinalTcp(
                received=final.total,
                acked=final.acknowledged,
                timestamp=final.timestamp,
                peer_closed=final.peer_closed,
                error=final.error or (errno.ECONNRESET if reset else 0),
            ),
            closed=closed,
        )
        if final.timestamp is None:  # its peer was told that there is no room, and waits for its next probe
            packets += live.nudge()
        for packet in packets:
            self._deliver(packet)

    async def _abandon(self, action: AbandonSessions) -> None:
        def abandon() -> None:
            for flow in action.flows:
                if (live := self._captured.live.get(flow)) is not None:
                    self._reset(live)
                    live.close()

        await self._blocking(abandon)
        self._captured.drop(action.flows)
        self._forget(action.flows)

    def _reset(self, live: AnyLive) -> None:
        """The program sees that its connection was lost."""
        try:
            live.hold()
            for packet in live.finish(FinalTcp(received=live.position(), error=errno.ECONNRESET)):
                self._deliver(packet)
        except (SessionError, OSError) as problem:
            log.warning("%s cannot be reset: %s", flow_text(live.flow), problem)
