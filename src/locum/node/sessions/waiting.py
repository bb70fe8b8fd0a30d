"""Connections that proxies handed over, at the device: restored, and kept until a program takes them by their label (A11).

One that nobody takes in time is reset. A program may wait before the connection comes: the first that waits gets it. This
module must not know how a program is reached.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from locum.node import words
from locum.node.events import flow_text
from locum.node.performer import Handler
from locum.roles.action_values.handed import RestoreHanded
from locum.roles.action_values.listeners import Replayed
from locum.roles.actions import Event
from locum.sessions.handed.restoring import Restored
from locum.sessions.record import SessionRecord
from locum.sessions.tcp import stand_in
from locum.sessions.tcp.errors import SessionError
from locum.wire.errors import WireError

log = logging.getLogger("locum.waiting")
SECONDS = 60.0
"""That a connection waits for its program, unless configured otherwise."""
MAX_WAITERS = 256
"""Programs that wait at once."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A connection without a program yet."""

    label: str
    restored: Restored
    until: float  # of the loop
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """It does not expire any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class NoSuchConnection(Exception):
    """No connection waits under the label, or too many programs wait."""


class WaitingConnections:
    """`feed` calls the role, `deliver` puts packets into this host, `emit` publishes events."""

    def __init__(
        self,
        feed: Callable[[Event], None],
        deliver: Callable[[bytes], None],
        emit: Callable[..., None],
        seconds: float = SECONDS,
    ) -> None:
        self._feed, self._deliver, self._emit, self._seconds = feed, deliver, emit, seconds
        self._waiting: list[Waiting] = []
        self._programs: dict[str | None, deque[asyncio.Future[Waiting]]] = {}

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {RestoreHanded: self._restore}

    def _restore(self, action: RestoreHanded) -> None:
        try:
            record = SessionRecord.from_cbor(dict(action.handed.record))
            if record.flow != action.flow:
                raise SessionError("the record is of another flow than the one announced")
            restored = Restored(record, action.final, action.data)
        except (SessionError, WireError, OSError) as problem:
            log.warning("%s: %s", flow_text(action.flow), problem)
            self._feed(Replayed(action.flow, words.reason(problem)))
            return
        for packet in restored.ending():
            self._deliver(packet)
        self._feed(Replayed(action.flow))
        # Its flow is released by what the role does now; a program that waits is told after that.
        asyncio.get_running_loop().call_soon(self._offer, action.handed.label, restored)

    def _offer(self, label: str, restored: Restored) -> None:
        self._keep(Waiting(label, restored, asyncio.get_running_loop().time() + self._seconds))

    def _keep(self, waiting: Waiting) -> None:
        for label in (waiting.label, None):  # one that asked for this label before one that takes any
            programs = self._programs.get(label, deque())
            while programs:
                program = programs.popleft()
                if not program.done():
                    program.set_result(waiting)
                    return
        waiting.timer = asyncio.get_running_loop().call_at(waiting.until, self._expire, waiting)
        self._waiting.append(waiting)

    def _expire(self, waiting: Waiting) -> None:
        self._waiting.remove(waiting)
        flow = waiting.restored.flow
        self._end(waiting)
        detail = {"label": waiting.label, "seconds": self._seconds}
        self._emit("session-unclaimed", None, flow.local, flow, detail)

    @staticmethod
    def _end(waiting: Waiting) -> None:
        try:
            stand_in.reset(waiting.restored.socket)
        except OSError as problem:
            log.warning("%s: %s", flow_text(waiting.restored.flow), problem)

    async def claim(self, label: str | None, *, wait: bool) -> Waiting:
        """The oldest connection with this label, or of all (None); with `wait` the next one that comes.

        Close its socket when a program has it, or `give_back`. Raises NoSuchConnection.
        """
        fitting = [waiting for waiting in self._waiting if label in (None, waiting.label)]
        found = min(fitting, key=lambda waiting: waiting.until, default=None)
        if found is not None:
            self._waiting.remove(found)
            found.stop_timer()
            return found
        if not wait:
            waits = "no connection waits" if label is None else f"no connection waits for {label}"
            raise NoSuchConnection(f"{waits}; --wait waits for one")
        if sum(map(len, self._programs.values())) >= MAX_WAITERS:
            raise NoSuchConnection(f"{MAX_WAITERS} programs wait already")
        program: asyncio.Future[Waiting] = asyncio.get_running_loop().create_future()
        programs = self._programs.setdefault(label, deque())
        programs.append(program)
        try:
            return await asyncio.shield(program)
        except asyncio.CancelledError:  # the program has gone, perhaps in the very moment
            if program.done():
                self.give_back(program.result())
            else:
                program.cancel()
            raise
        finally:
            if program in programs:
                programs.remove(program)
            if not programs and self._programs.get(label) is programs:
                del self._programs[label]

    def give_back(self, waiting: Waiting) -> None:
        """The program has gone before it had the connection: the next one gets it."""
        self._keep(waiting)

    def given(self, waiting: Waiting) -> None:
        """A program has a descriptor of its own: tell the peer the window, and drop ours."""
        flow = waiting.restored.flow
        try:
            for packet in waiting.restored.nudge():
                self._deliver(packet)
        except OSError as problem:  # it has ended meanwhile
            log.info("%s: %s", flow_text(flow), problem)
        waiting.restored.socket.close()
        self._emit("session-claimed", None, flow.local, flow, {"label": waiting.label})

    def rows(self) -> list[dict[str, Any]]:
        """Connections that wait, for users."""
        now = asyncio.get_running_loop().time()
        return [
            {
                "kind": "waits",
                "label": waiting.label,
                "flow": flow_text(waiting.restored.flow),
                "seconds": round(max(waiting.until - now, 0), 1),
            }
            for waiting in self._waiting
        ]

    def close(self) -> None:
        """The daemon ends: nobody keeps them."""
        for waiting in self._waiting:
            waiting.stop_timer()
            self._end(waiting)
        self._waiting.clear()
        for programs in self._programs.values():
            for program in programs:
                program.cancel()
