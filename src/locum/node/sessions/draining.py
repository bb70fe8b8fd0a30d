"""Moves received data from the held sockets into the spools, as far as each may run ahead of its device.

Reading follows the event loop, in small equal shares. A socket that cannot be read now (its bound is reached, memory and
disk are full) is left alone and looked at again, so that the peer's window closes. When a session begins and ends is decided elsewhere.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from locum.roles import actions as do
from locum.sessions.either import AnyRecord, AnySpool
from locum.sessions.tcp import repair
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.spool import CHUNK
from locum.wire.control import Flow, Handed

_RECHECK = 0.25  # seconds between looks at sockets that wait for room
# Bytes of one socket per wake-up of the loop: a thousand senders do not keep a request waiting
_AT_ONCE = CHUNK
BEGAN_HERE = "-new"  # ends the names of sessions at their keeper that no device has handed over

UNBOUNDED = 1 << 62  # bytes ahead of its device, for a session that has bounds of its own

Key = tuple[bytes, int]  # handover, session


def name_of(key: Key) -> str:
    """For files, rows and the descriptor store."""
    return f"{key[0].hex()}-{key[1]}"


@dataclass(slots=True, eq=False)
class HeldSocket:
    """One session that lives here."""

    key: Key
    flow: Flow
    record: AnyRecord
    socket: socket.socket
    spool: AnySpool
    ahead: int  # bytes that may be held and not fetched
    fetched: int = 0  # bytes that the device has asked for since the daemon's start
    reading: bool = False
    full: bool = False  # the files took no more, short of our own bounds
    here: bool = False  # the peer is on this host
    accepted: bool = False  # here, for a port that the device listens on
    label: str | None = None  # a proxy handed it over, for the program that waits under this label
    stopped: FinalTcp | None = None

    @property
    def name(self) -> str:
        """Unique among the sessions of a stand-in."""
        return name_of(self.key)

    @property
    def kept_as(self) -> str:
        """Name of its descriptor at the keeper, which has to tell what to do with one without a row."""
        return self.name + (BEGAN_HERE if self.accepted or self.label is not None else "")

    @property
    def handed(self) -> Handed | None:
        """The label and the record of one that a proxy handed over."""
        return None if self.label is None else Handed(self.label, self.record.to_cbor())

    @property
    def received(self) -> int:
        """Bytes of the peer that wait for the device."""
        return self.spool.total + (
            repair.unread(self.socket) if self.accepted and self.stopped is None else 0
        )

    @property
    def room(self) -> int:
        """Bytes that may still be taken before the device fetches."""
        return max(self.fetched + self.ahead - self.spool.for_program, 0)


def shown(held: HeldSocket) -> dict[str, Any]:
    """One held session, for users."""
    return {
        "handover": held.key[0].hex(),
        "session": held.key[1],
        "flow": held.flow,
        "received": held.received,
        "accepted": held.accepted,
        "label": held.label,
        "spilled": held.spool.spilled,
        "peer_closed": held.spool.peer_closed,
        "error": held.spool.error,
        "stopped": held.stopped is not None,
    }


class Draining:
    """The sockets that are read. `emit` publishes events."""

    def __init__(self, emit: Callable[[do.Emit], None], moved: Callable[[HeldSocket], None]) -> None:
        """`moved` is called when data of a socket is in its spool, or its peer's end is noted there."""
        self._emit, self._moved = emit, moved
        self._waiting: dict[HeldSocket, None] = {}  # not read: no room
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, held: HeldSocket) -> None:
        """Read this socket from now on."""
        self._waiting.pop(held, None)
        if not held.reading:
            held.reading = True
            asyncio.get_running_loop().add_reader(held.socket, self.step, held)

    def end(self, held: HeldSocket) -> None:
        """Read it no more."""
        self._waiting.pop(held, None)
        if held.reading:
            held.reading = False
            asyncio.get_running_loop().remove_reader(held.socket)

    def step(self, held: HeldSocket) -> None:
        """Read available data, in bounds, and watch the socket as long as more can come."""
        left = limit = min(_AT_ONCE, held.room)
        try:
            while moved := held.spool.drain(held.socket, left):
                left -= moved
        except OSError as problem:
            self._fill(held, problem)
            return
        if held.full:
            self._tell("spool-has-room", held)
            held.full = False
        self._moved(held)
        spool = held.spool
        over = spool.error or (spool.peer_closed and left == limit)  # a later error waits in the kernel
        if over or not held.room:  # there is room again when the device fetches
            self.end(held)
        elif left == limit and spool.waiting(held.socket):
            self._wait(held)
        else:
            self.begin(held)

    def _fill(self, held: HeldSocket, problem: OSError) -> None:
        if not held.full:
            self._tell("spool-full", held, reason=problem.strerror or str(problem))
        held.full = True
        self._wait(held)

    def _wait(self, held: HeldSocket) -> None:
        self.end(held)
        self._waiting[held] = None
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_RECHECK, self._recheck)

    def _recheck(self) -> None:
        """Is there room again?"""
        self._timer = None
        for held in tuple(self._waiting):
            if held.spool.room:
                self.step(held)
        if self._waiting:
            self._schedule()

    def _tell(self, kind: str, held: HeldSocket, **detail: str) -> None:
        self._emit(do.Emit(kind, None, held.flow.local, held.flow, detail))

    def close(self) -> None:
        """No timer is left; the sockets have to be ended one by one."""
        if self._timer is not None:
            self._timer.cancel()
