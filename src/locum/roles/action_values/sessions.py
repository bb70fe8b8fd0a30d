"""Actions on live sessions and their results, and the values in both.

The device finds, freezes, captures and brings back; the stand-in restores, measures, stops and drops. Nothing here
decides, sends or keeps anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple, TypeAlias

from locum.wire.control import Flow, Handed


class Process(NamedTuple):
    """A process of this host; `started` (clock ticks since the boot) distinguishes reuse of its number."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class FoundSession:
    """An open connection of the home address, its processes and their programs' names, for users."""

    flow: Flow
    processes: tuple[Process, ...]
    programs: tuple[str, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes."""
        return tuple(process.pid for process in self.processes)


@dataclass(frozen=True, slots=True)
class LeftSession:
    """A connection of the home address that cannot be handed over, and the reason for users."""

    flow: Flow
    reason: str
    pids: tuple[int, ...] = ()
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionRecordItem:
    """A session record as it travels in 634: the number it bears in this handover, its flow, its CBOR mapping."""

    session: int
    flow: Flow
    record: Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class SessionFailure:
    """A session that could not be handled, and the reason for users."""

    flow: Flow
    reason: str


@dataclass(frozen=True, slots=True)
class HeldSession:
    """State of a session at the stand-in: `total` payload bytes for the program since the capture."""

    session: int
    flow: Flow
    total: int
    peer_closed: bool = False
    error: int = 0  # errno of the connection (ECONNRESET, ETIMEDOUT, ...), 0 when it lives
    handed: Handed | None = None  # a proxy handed it over for a program of the device


@dataclass(frozen=True, slots=True)
class SessionFinal:
    """The last state of a session at the stand-in, once its socket is stopped.

    `total` bytes are for the program, of which `tail` begins at `tail_offset`; `acknowledged` bytes of
    the send queue that was captured have been acknowledged by the peer; `timestamp` is the TCP timestamp clock.
    """

    session: int
    flow: Flow
    total: int
    acknowledged: int = 0
    timestamp: int | None = None
    peer_closed: bool = False
    error: int = 0
    tail_offset: int = 0
    tail: bytes = b""


# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindSessions:
    """-> SessionsFound. `again`: shortly after another search, so that only changeable data is read."""

    home_addresses: tuple[IPv4Address | IPv6Address, ...]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop these processes; done when the next action is performed, for those without a FreezeFailed before.

    A process that has gone is passed over.
    """

    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class Thaw:
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class Capture:
    """Read these connections; their sockets stay in repair mode in the frozen processes. -> Captured."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class ReleaseCaptured:
    """Take these sockets out of repair mode as they were captured: the handover does not take place for them."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class RestoreSessions:
    """Stand-in: make these connections live here and begin to drain them. -> Restored.

    What comes for them counts for the device of this home address.
    """

    handover: bytes
    sessions: tuple[SessionRecordItem, ...]
    device: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class SurveySessions:
    """Stand-in: list the sessions here with their idle times. -> Surveyed."""


@dataclass(frozen=True, slots=True)
class MeasureSessions:
    """Stand-in: measure each session of the handover. -> Measured."""

    handover: bytes


@dataclass(frozen=True, slots=True)
class StopSessions:
    """Stand-in: put the sockets into repair and read their last state. -> Stopped.

    `fetched` gives per session the offset up to which the MN has fetched; at most `tail_limit` bytes in all are
    put into the tails.
    """

    handover: bytes
    fetched: tuple[tuple[int, int], ...] = ()
    tail_limit: int = 0


@dataclass(frozen=True, slots=True)
class ResumeSessions:
    """Stand-in: take stopped sockets out of repair and go on draining."""

    handover: bytes


@dataclass(frozen=True, slots=True)
class DropSessions:
    """Stand-in: close the sockets and remove the spool; of these sessions, or of all (empty).

    Silently: the device goes on with the connection. With `reset` the peer gets a reset.
    """

    handover: bytes
    sessions: tuple[int, ...] = ()
    reset: bool = False


@dataclass(frozen=True, slots=True)
class FetchData:
    """Stand-in: read received bytes of a session, for this exchange. -> Fetched."""

    exchange: int
    handover: bytes
    session: int
    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class Tighten:
    """MN: freeze all holders of these flows' sockets, and put the sockets into repair mode. -> Tightened.

    Bytes that proxies have said in a session since its capture are appended to its socket's send queue, as far as they are not
    there. Where they have replaced received bytes, the program gets `surplus` bytes more than the peer has sent (negative: fewer),
    and the socket its peer's numbers.
    """

    flows: tuple[Flow, ...]
    spoken: tuple[tuple[Flow, bytes], ...] = ()
    surplus: tuple[tuple[Flow, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Loosen:
    """MN: take these sockets out of repair mode without a packet, and let their programs and these processes run.

    The flows have to be suspended: whatever the programs write then waits in their sockets.
    """

    flows: tuple[Flow, ...]
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerPeers:
    """MN: answer the peers of these sockets with a zero window, until each is given back.

    The flows are suspended, and the sockets in repair mode: their timestamp clocks are set to the stand-in's last values.
    """

    finals: tuple[SessionFinal, ...]


@dataclass(frozen=True, slots=True)
class StopAnswering:
    """MN: the stand-in answers these peers again."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class WatchReading:
    """MN: watch these loose sockets, and tell when a program has read enough to take more. -> HasRoom, each flow once."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class InjectData:
    """MN: append these bytes to the receive queues of captured sockets, each flow once. -> Injected.

    Those of `beyond` take them although their receive buffers are full.
    """

    pieces: tuple[tuple[Flow, bytes], ...]
    beyond: frozenset[Flow] = frozenset()


@dataclass(frozen=True, slots=True)
class DrainRound:
    """MN: leave repair, thaw, wait at most `patience` seconds until the program has read, freeze, repair. -> Drained."""

    flows: tuple[Flow, ...]
    processes: tuple[Process, ...]
    patience: float


@dataclass(frozen=True, slots=True)
class FinishSessions:
    """MN: apply the last states (acknowledged bytes, timestamp, FIN, error) and leave repair mode. -> Finished."""

    finals: tuple[SessionFinal, ...]


@dataclass(frozen=True, slots=True)
class AbandonSessions:
    """MN: these connections are lost with the stand-in: the program sees a reset."""

    flows: tuple[Flow, ...]


SessionAction: TypeAlias = (
    FindSessions | Freeze | Thaw | Capture | ReleaseCaptured | RestoreSessions | MeasureSessions | StopSessions
    | ResumeSessions | DropSessions | SurveySessions | FetchData | Tighten | Loosen | AnswerPeers | StopAnswering
    | WatchReading | InjectData
    | DrainRound | FinishSessions | AbandonSessions
)  # fmt: skip


# Results --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionsFound:
    """`left` are connections of the home addresses to report, as they cannot be handed over."""

    sessions: tuple[FoundSession, ...]
    left: tuple[LeftSession, ...] = ()


@dataclass(frozen=True, slots=True)
class FreezeFailed:
    """These processes of a Freeze run on, with a reason for users; the others are frozen."""

    reasons: Mapping[Process, str]


@dataclass(frozen=True, slots=True)
class Captured:
    """`records` in the order they were asked for, without those in `failures` (which are not in repair mode)."""

    records: tuple[SessionRecordItem, ...]
    failures: tuple[SessionFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """Sessions that live here now, by number, and those that do not."""

    handover: bytes
    restored: tuple[int, ...]
    failures: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    handover: bytes
    sessions: tuple[HeldSession, ...]


@dataclass(frozen=True, slots=True)
class SessionUse:
    """A session that the stand-in holds: seconds since its peer sent a byte, bytes that are stored."""

    handover: bytes
    session: int
    idle: float
    stored: int


@dataclass(frozen=True, slots=True)
class Surveyed:
    """All that is here."""

    sessions: tuple[SessionUse, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    handover: bytes
    finals: tuple[SessionFinal, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """`data` is None for an unknown session or offset."""

    exchange: int
    data: bytes | None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Tightened:
    """The answer to a Tighten of these flows.

    `positions` are the bytes received at the stand-in that each socket has now; it is in repair mode. Nobody holds those
    of `gone` any more: their programs have ended, or closed them. The programs of `failures` run on.
    """

    flows: tuple[Flow, ...]
    positions: tuple[tuple[Flow, int], ...]
    gone: tuple[Flow, ...] = ()
    failures: tuple[SessionFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class Injected:
    """So many bytes went into each receive queue; fewer than given: it is full. A failure ends that session here.

    No process holds the sockets of `gone` any more; they were given no data.
    """

    taken: tuple[tuple[Flow, int], ...]
    failures: tuple[SessionFailure, ...] = ()
    gone: tuple[Flow, ...] = ()


@dataclass(frozen=True, slots=True)
class HasRoom:
    """The programs of these sockets have read, or no process holds the sockets any more."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class Drained:
    """Bytes the programs have not read yet, per flow."""

    unread: tuple[tuple[Flow, int], ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """These connections are their programs' again; the failures were reset."""

    flows: tuple[Flow, ...]
    failures: tuple[SessionFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class NotPerformed:
    """An action of this role failed as a whole, with a reason for users: no other result of it comes."""

    action: object
    reason: str


SessionEvent: TypeAlias = (
    SessionsFound | FreezeFailed | Captured | Restored | Measured | Surveyed | Stopped | Fetched | Tightened
    | HasRoom | Injected | Drained | Finished | NotPerformed
)  # fmt: skip
