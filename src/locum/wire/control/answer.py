"""Message 632: the stand-in's answer to a 634 (C2, C3), as CBOR by control.cddl."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.handed import Handed
from locum.wire.control.handshake import Handshake
from locum.wire.control.takeover import HANDOVER_BYTES, MAX_BODY, MAX_SESSIONS
from locum.wire.errors import WireError
from locum.wire.flow import Flow

MAX_ANSWER = MAX_BODY  # the tails of every session at the end of a reclaim
_POSITION = (1 << 63) - 1  # a stream position, in bytes
_ERRNO = 4095  # the kernel's own bound
MAX_REASON = 200  # characters
MAX_APP_NAME = 64  # characters
MAX_SURPLUS = 1 << 20  # bytes that proxies may put into the received stream of one session
MAX_SPOKEN = 1 << 20  # bytes that proxies may say in one session


class Status(IntEnum):
    """Result of a request, or of one session of it."""

    OK = 0
    REFUSED = 1
    UNKNOWN_HANDOVER = 2
    NOT_AUTHORISED = 3
    MALFORMED = 4
    BUSY = 5
    LIMIT = 6
    WRONG_STATE = 7


def shortened(text: str, most: int) -> str:
    """The text, or so many characters of it, which show that there was more."""
    return text if len(text) <= most else text[: most - 3] + "..."


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """One session: how it stands with the stand-in."""

    session: int  # its place in the transfer, from 0
    flow: Flow
    status: Status
    held: int = 0  # bytes that can be fetched now
    total: int = 0  # bytes for the program since the capture: those received, with the surplus
    peer_closed: bool = False  # the correspondent's FIN has come
    error: int = 0  # errno that ended the connection, or 0
    reason: str = ""  # why it was refused or is not held any more, for users; at most MAX_REASON characters
    accepted: Handshake | None = None  # the stand-in accepted it for a port that the device listens on
    spoken: bytes = b""  # by a proxy at the stand-in, behind all that the device sent; at most MAX_SPOKEN
    surplus: int = 0  # bytes of `total` that proxies put into the stream less those that they left out
    handed: Handed | None = None  # a proxy opened it, for a program of the device


@dataclass(frozen=True, slots=True)
class FinalState:
    """One stopped session, at the end of a reclaim. Positions count bytes from the capture on."""

    session: int
    ts_value: int | None  # TCP timestamp of the stand-in's socket; None without timestamps
    received: (
        int  # bytes for the program: those acknowledged to the correspondent, with the surplus of the session
    )
    tail_offset: int  # position of the first byte of `tail`
    peer_closed: bool = False
    error: int = 0
    acked: int = 0  # bytes of the send queue that the correspondent has acknowledged meanwhile
    tail: bytes = b""  # bytes for the program from tail_offset on; the rest, if any, is fetched


@dataclass(frozen=True, slots=True)
class Answer632:
    """The answer to any 634; parts that do not belong to the request stay empty."""

    status: Status
    handover: bytes | None = None
    access_node: IPv4Address | IPv6Address | None = None  # the access node that serves the stand-in
    sessions: tuple[SessionStatus, ...] = ()
    data: bytes = b""  # of a fetch
    more: bool = False  # bytes after `data` are held
    final: tuple[FinalState, ...] = ()
    application: Mapping[str, object] = field(default_factory=dict)  # state and results of the proxies (1079)
    reason: str = ""  # of a status that is not OK, for users; at most MAX_REASON characters
    app: str = ""  # name of the proxy that was refused, and the prepare with it


def encode_632(value: Answer632) -> bytes:
    """The CBOR body of a 632."""
    body: dict[int, object] = {0: int(value.status)}
    if value.handover is not None:
        body[1] = value.handover
    if value.access_node is not None:
        body[2] = value.access_node.packed
    if value.sessions:
        body[3] = [_status_to_map(session) for session in value.sessions]
    if value.data:
        body[4] = value.data
    if value.more:
        body[5] = True
    if value.final:
        body[6] = [_final_to_map(state) for state in value.final]
    if value.application:
        body[7] = dict(value.application)
    if value.reason:
        body[8] = shortened(value.reason, MAX_REASON)
    if value.app:
        body[9] = value.app
    return cbor.encode(body)


def decode_632(data: bytes) -> Answer632:
    """The answer in a 632's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_ANSWER, field="632"), "632")
    value = Answer632(
        status=Status(reader.integer(0, "status", 0, max(Status))),
        handover=None if reader.absent(1) else reader.octets(1, "handover", HANDOVER_BYTES, HANDOVER_BYTES),
        access_node=None if reader.absent(2) else reader.address(2, "access-node"),
        sessions=() if reader.absent(3) else tuple(map(_status, reader.array(3, "sessions", MAX_SESSIONS))),
        data=b"" if reader.absent(4) else reader.octets(4, "data", 0, MAX_ANSWER),
        more=False if reader.absent(5) else reader.boolean(5, "more"),
        final=() if reader.absent(6) else tuple(map(_final, reader.array(6, "final", MAX_SESSIONS))),
        application={} if reader.absent(7) else reader.mapping(7, "application"),
        reason="" if reader.absent(8) else reader.text(8, "reason", MAX_REASON),
        app="" if reader.absent(9) else reader.text(9, "app", MAX_APP_NAME),
    )
    reader.done()
    return value


def _status_to_map(value: SessionStatus) -> dict[int, object]:
    body: dict[int, object] = {
        0: value.session,
        1: value.flow.to_cbor(),
        2: int(value.status),
        3: value.held,
        4: value.total,
        5: value.peer_closed,
        6: value.error,
    }
    if value.reason:
        body[7] = shortened(value.reason, MAX_REASON)
    if value.accepted is not None:
        body[8] = value.accepted.to_cbor()
    if value.spoken:
        body[9] = value.spoken
    if value.handed is not None:
        body[11] = value.handed.to_cbor()
    return body | {10: value.surplus} if value.surplus else body


def _status(value: object) -> SessionStatus:
    reader = cbor.Reader(value, "632.session")
    found = SessionStatus(
        session=reader.integer(0, "session", 0, MAX_SESSIONS - 1),
        flow=Flow.from_cbor(reader.value(1, "flow"), "632.session.flow"),
        status=Status(reader.integer(2, "status", 0, max(Status))),
        held=reader.integer(3, "held", 0, _POSITION),
        total=reader.integer(4, "total", 0, _POSITION),
        peer_closed=reader.boolean(5, "peer-closed"),
        error=reader.integer(6, "error", 0, _ERRNO),
        reason="" if reader.absent(7) else reader.text(7, "reason", MAX_REASON),
        accepted=None
        if reader.absent(8)
        else Handshake.from_cbor(reader.value(8, "accepted"), "632.session.accepted"),
        spoken=b"" if reader.absent(9) else reader.octets(9, "spoken", 1, MAX_SPOKEN),
        surplus=0 if reader.absent(10) else reader.integer(10, "surplus", -_POSITION, MAX_SURPLUS),
        handed=None
        if reader.absent(11)
        else Handed.from_cbor(reader.value(11, "handed"), "632.session.handed"),
    )
    reader.done()
    if not 0 <= found.total - found.surplus <= _POSITION:
        raise WireError("632.session.surplus", 0, "range")
    return found


def _final_to_map(value: FinalState) -> dict[int, object]:
    body: dict[int, object] = {
        0: value.session,
        2: value.received,
        3: value.tail_offset,
        4: value.peer_closed,
        5: value.error,
        6: value.acked,
        7: value.tail,
    }
    if value.ts_value is not None:
        body[1] = value.ts_value
    return body


def _final(value: object) -> FinalState:
    reader = cbor.Reader(value, "632.final")
    found = FinalState(
        session=reader.integer(0, "session", 0, MAX_SESSIONS - 1),
        ts_value=None if reader.absent(1) else reader.integer(1, "ts-value", 0, 0xFFFFFFFF),
        received=reader.integer(2, "received", 0, _POSITION),
        tail_offset=reader.integer(3, "tail-offset", 0, _POSITION),
        peer_closed=reader.boolean(4, "peer-closed"),
        error=reader.integer(5, "error", 0, _ERRNO),
        acked=reader.integer(6, "acked", 0, _POSITION),
        tail=reader.octets(7, "tail", 0, MAX_ANSWER),
    )
    reader.done()
    if found.tail_offset + len(found.tail) > found.received:
        raise WireError("632.final.tail", 0, "range")
    return found
