"""Loose sockets between two rounds: watches their programs' reading, and has their peers answered (C3).

Called from the event loop. The role decides when to inject.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from locum.node.events import flow_text
from locum.node.performer import Handler
from locum.node.sessions.bringing_back import Blocking
from locum.node.sessions.captured import Captured
from locum.node.sessions.peer_answers import PeerAnswers
from locum.roles.action_values.sessions import AnswerPeers, HasRoom, SessionFinal, StopAnswering, WatchReading
from locum.roles.actions import Event
from locum.sessions.tcp.live import LiveSocket
from locum.wire.control import Flow

log = logging.getLogger("locum.sessions")
_SOON, _LATE = 0.02, 0.5  # seconds between looks: at first, and when nothing is read for long
_VAIN = 60.0  # seconds at most until a socket is tried again that is empty and takes nothing


@dataclass(frozen=True, slots=True)
class _Vain:
    """A socket without unread bytes: how far it was filled, and when, in monotonic seconds, it is tried again."""

    position: int
    pause: float
    until: float


class Trickle:
    """`feed` calls the role when programs have read."""

    def __init__(
        self,
        captured: Captured,
        blocking: Blocking,
        feed: Callable[[Event], None],
        answers: PeerAnswers,
    ) -> None:
        self._captured, self._blocking, self._feed, self._answers = captured, blocking, feed, answers
        self._watched: dict[Flow, int] = {}  # how much may be left unread
        self._vain: dict[Flow, _Vain] = {}
        self._task: asyncio.Task[None] | None = None
        self._pause = _SOON

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {
            AnswerPeers: self._answer,
            StopAnswering: self._stop,
            WatchReading: self._watch,
        }

    async def close(self) -> None:
        """Watch nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def ended_by_peer(self, flow: Flow) -> bool:
        """True if the peer has reset this connection while it was answered."""
        return flow in self._answers.ended

    def forget(self, flow: Flow) -> None:
        """Stop answering for this flow; the kernel answers again, or it is gone."""
        self._answers.end(flow)
        self._watched.pop(flow, None)
        self._vain.pop(flow, None)

    async def _answer(self, action: AnswerPeers) -> None:
        expected = await self._blocking(self._prepare, action.finals)
        for flow, sequence in expected.items():
            if isinstance(live := self._captured.live.get(flow), LiveSocket):
                self._answers.begin(live, sequence)

    def _prepare(self, finals: tuple[SessionFinal, ...]) -> dict[Flow, int]:
        """The peers' next sequence numbers; the sockets' timestamp clocks go on where the stand-in's stopped."""
        expected: dict[Flow, int] = {}
        for final in finals:
            live = self._captured.live.get(final.flow)
            if not isinstance(live, LiveSocket):  # the peer of a UDP socket waits for no answer
                continue
            try:
                if final.timestamp is not None:
                    live.take_clock(final.timestamp)
                expected[final.flow] = live.expected(final.total, peer_closed=final.peer_closed)
            except OSError as problem:
                log.warning("%s: %s", flow_text(final.flow), problem)
        return expected

    def _stop(self, action: StopAnswering) -> Awaitable[None] | None:
        for flow in action.flows:
            self.forget(flow)
        return None

    def _watch(self, action: WatchReading) -> Awaitable[None] | None:
        for flow in action.flows:
            self._watched[flow] = self._unread(flow) // 2
            self._note(flow)
        self._pause = _SOON
        if action.flows and self._task is None:
            self._task = asyncio.create_task(self._look())
        return None

    async def _look(self) -> None:
        try:
            while self._watched:
                await asyncio.sleep(self._pause)
                self._pause = min(_LATE, 1.5 * self._pause)
                ready = tuple(flow for flow, most in self._watched.items() if self._ready(flow, most))
                for flow in ready:
                    del self._watched[flow]
                if ready:
                    self._feed(HasRoom(ready))
        finally:
            self._task = None

    def _note(self, flow: Flow) -> None:
        """One that is empty and took nothing is tried again later and later: each time its programs are frozen."""
        position, before = self._position(flow), self._vain.pop(flow, None)
        if not self._unread(flow):
            again = before is not None and before.position == position
            pause = min(_VAIN, 2 * before.pause) if before is not None and again else _SOON
            self._vain[flow] = _Vain(position, pause, time.monotonic() + pause)

    def _ready(self, flow: Flow, most: int) -> bool:
        if not self._captured.has_program(flow):
            return True
        vain = self._vain.get(flow)
        return self._unread(flow) <= most and (vain is None or vain.until <= time.monotonic())

    def _position(self, flow: Flow) -> int:
        live = self._captured.live.get(flow)
        try:
            return 0 if live is None else live.position()
        except OSError:
            return 0

    def _unread(self, flow: Flow) -> int:
        live = self._captured.live.get(flow)
        try:
            return 0 if live is None else live.unread()
        except OSError:
            return 0
