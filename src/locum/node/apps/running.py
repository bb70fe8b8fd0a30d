"""One running proxy of a handover at its stand-in, and the sessions that it attends. Values only: `attending.py` moves them along."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from locum.node.apps.outlet import Outlet
from locum.node.apps.process import AppProcess
from locum.node.sessions.draining import HeldSocket
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import MAX_TOLD_STATE, AppOrder
from locum.roles.app_contract import MAX_STATE, checked_state
from locum.roles.app_results import troubled
from locum.sessions.record import SessionRecord
from locum.sessions.tcp.spool import Spool
from locum.wire import cbor

log = logging.getLogger("locum.apps")

MAX_STATE_ENCODED = 2 * MAX_STATE  # bytes: an encoding need not be the shortest
LINES = 200  # of the log of one proxy
PROCESSES = 8  # the last ones of a proxy, whose connections may still be in the kernel
TOLD_AT_ONCE = 50  # events of one proxy


@dataclass(slots=True, eq=False)
class Attended:
    """A session and how far its proxy is with it."""

    held: HeldSocket
    shown: int = 0
    shown_at: float = 0.0  # of the event loop's clock
    end_shown: bool = False


@dataclass(slots=True, eq=False)
class Running:
    """One proxy of one handover."""

    handover: bytes
    device: Addr
    order: AppOrder
    sessions: dict[int, Attended]  # without those that it has left
    first: Mapping[str, object]  # its state before it has kept one in this run of the daemon
    homes: Sequence[Addr] = ()
    led: bool = False  # its device may be awake
    left: set[int] = field(default_factory=set)
    kept: bytes | None = None  # the state that it has kept last, as CBOR
    process: AppProcess | None = None
    ending: AppProcess | None = None  # its last process, which is asked for its state
    outlet: Outlet | None = None  # of its process, if it has a network and files
    numbers: deque[int] = field(default_factory=lambda: deque(maxlen=PROCESSES))  # of its outlets
    begun: bool = False
    unknown: list[int] = field(default_factory=list)  # sessions that its process is still to be told of
    behind: dict[int, None] = field(
        default_factory=dict
    )  # sessions with something that it was not shown, in turns
    pacing: bool = False  # the sessions that are behind are looked at again
    ended: deque[int] = field(default_factory=deque)  # sessions whose end its process is still to be told of
    started_at: float = 0.0
    restarts: int = 0
    restarting: asyncio.TimerHandle | None = None
    failure: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    words: deque[tuple[HeldSocket, bytes]] = field(default_factory=deque)  # that wait for their row
    words_said: int = 0  # taken from there
    remembered: Mapping[int, int] = field(default_factory=dict)  # bytes of each session, as its row has them
    wanted: bool = True  # False: no process follows
    events: int = 0
    credit: float = TOLD_AT_ONCE
    credit_at: float = 0.0

    @property
    def key(self) -> str:
        """Of its row."""
        return f"{self.handover.hex()}-{self.order.name}"

    @property
    def state(self) -> Mapping[str, object]:
        """Its state; nothing if a process has kept one that no device can read. It takes some milliseconds."""
        if self.kept is None:
            return self.first
        try:
            return read_state(self.kept)
        except ValueError as problem:
            log.warning("the state that %s has kept cannot be read: %s", self.order.name, problem)
            return {}

    def small_state(self) -> Mapping[str, object] | None:
        """Its state, to go along with an event; None if that is too long."""
        size = len(cbor.encode(dict(self.first)) if self.kept is None else self.kept)
        return dict(self.state) if size <= MAX_TOLD_STATE else None

    def keep(self, state: bytes) -> None:
        """Replace it. It is read when somebody needs it: a process may keep another with each packet. Raises ValueError."""
        if len(state) > MAX_STATE_ENCODED:
            raise ValueError(f"a state has at most {MAX_STATE} bytes")
        self.kept = state

    def spoken(self, number: int) -> int:
        """Bytes that it has said in this session."""
        spool = self.sessions[number].held.spool
        return len(spool.said.data) if isinstance(spool, Spool) else 0

    def followed(self, number: int) -> int:
        """Bytes of this session whose effects were carried out."""
        return answered(self, number)[number]

    def replaced(self, number: int) -> int:
        """Received bytes of this session that its program does not get."""
        spool = self.sessions[number].held.spool
        return spool.consumed.replacements.consumed if isinstance(spool, Spool) else 0

    @property
    def condition(self) -> str:
        """In a word, for users."""
        if self.failure:
            return "failed"
        if self.process is None:
            waits = "restarting" if self.restarts else "starting"
            return waits if self.wanted else "ended"
        return "running" if self.begun else "starting"


def read_state(encoded: bytes) -> Mapping[str, object]:
    """A state that a process has kept. Raises ValueError."""
    return checked_state(cbor.decode(encoded, limit=MAX_STATE_ENCODED, field="state"))


def kept_state(apps: Iterable[Running], device: Addr, name: str) -> Mapping[str, object] | None:
    """The state of a device's proxy of this name, with its last failure; None if none runs."""
    app = next((app for app in apps if app.device == device and app.order.name == name), None)
    return None if app is None else troubled(app.state, app.failure)


def answered(app: Running, *numbers: int) -> dict[int, int]:
    """Bytes of each of these sessions, or of all (none named), whose effects were carried out; of UDP the last place."""
    counts = {number: app.sessions[number].shown for number in numbers or app.sessions}
    process = app.process or app.ending
    for packet in () if process is None else process.unanswered:
        match packet:
            case ("received", int(number), bytes(data)) if number in counts:
                counts[number] -= len(data)
            case ("stored", int(number), int(), int(length)) if number in counts:
                counts[number] -= length
            case ("received", int(number), bytes(), int(before)) if number in counts:  # a datagram
                counts[number] = min(counts[number], before)
    return counts


def introduction(number: int, attended: Attended) -> list[object]:
    """Of a session to a new process (`AppSession`)."""
    held = attended.held
    return [number, held.flow.to_cbor(), is_whole(held), attended.shown]


def is_whole(held: HeldSocket) -> bool:
    """True if the device had written nothing that was still unsent: its program may have been in the middle of it."""
    record = held.record
    return not isinstance(record, SessionRecord) or not (record.unsent or record.fin_sent)
