"""Message 634: requests of the mobile node to its stand-in (C2, C3), as CBOR by control.cddl.

Prepare, transfer and done make a takeover; reclaim, fetch, finish and done take it back; cancel undoes steps that were not
finished; abandon gives sessions up for good. The session records inside a transfer belong to the sessions package; here they are maps with integer keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.listener import MAX_LISTENERS, Listener
from locum.wire.errors import WireError
from locum.wire.flow import Flow
from locum.wire.takes import Takes

HANDOVER_BYTES = 16
MAX_BODY = 64 << 20  # a transfer carries both queues of every socket
MAX_SMALL_BODY = 256 << 10  # every other request; a prepare of MAX_SESSIONS flows over IPv6 needs 200 KiB
MAX_SESSIONS = 4096
MAX_HOME_ADDRESSES = 64
MAX_OTHERS = 256  # handovers of one device at one stand-in
MAX_CHUNK = 4 << 20  # one fetch; block-wise transfer holds a whole body in memory at both ends

PREPARE, TRANSFER, RECLAIM, FETCH, FINISH, DONE, CANCEL, ABANDON = range(1, 9)

Address = IPv4Address | IPv6Address
Record = Mapping[int, object]


@dataclass(frozen=True, slots=True)
class TakeoverPrepare:
    """Make ready to become the end point of these flows: hold their packets, answer for the home addresses."""

    handover: bytes  # 16 bytes, chosen by the mobile node; every later message of this handover repeats it
    home_addresses: tuple[Address, ...]
    flows: tuple[Flow, ...]
    configuration: Mapping[str, object] = field(default_factory=dict)  # for the proxies
    switch: Takes | None = None  # packets that the stand-in registers for; None: the device switches itself
    access_node: Address | None = None  # that serves the device now
    listeners: tuple[Listener, ...] = ()  # ports of its programs, and what new connections meet meanwhile


@dataclass(frozen=True, slots=True)
class TakeoverTransfer:
    """The captured sessions (1075, 1077). A session's number from now on is its place in `sessions`, from 0."""

    handover: bytes
    sessions: tuple[Record, ...]  # the CDDL rule session-record
    application: Mapping[str, object] = field(default_factory=dict)
    others: tuple[
        bytes, ...
    ] = ()  # handovers that the device still has at this stand-in; it knows of no more


@dataclass(frozen=True, slots=True)
class Reclaim:
    """The device is back and asks for a handover's sessions, or for all of these home addresses."""

    handover: bytes | None
    home_addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Up to `limit` bytes that session `session` received, from byte `offset` after the capture on."""

    handover: bytes
    session: int
    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Stop the sockets and give the final state; nothing arrives for them any more."""

    handover: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Everything is back; forget the handover. With `sessions` these alone are back, and the rest stays as it is."""

    handover: bytes
    sessions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """Undo an unfinished step: drop the prepared flows, or resume the stopped sockets."""

    handover: bytes


@dataclass(frozen=True, slots=True)
class Abandon:
    """The device gives these sessions up (empty: all of the handover): reset them towards their peers and forget them."""

    handover: bytes
    sessions: tuple[int, ...] = ()


Request634 = TakeoverPrepare | TakeoverTransfer | Reclaim | Fetch | Finish | Done | Cancel | Abandon


def encode_634(value: Request634) -> bytes:
    """The CBOR body of a 634."""
    return cbor.encode(_to_map(value))


def _to_map(value: Request634) -> dict[int, object]:
    match value:
        case TakeoverPrepare():
            body: dict[int, object] = {
                0: PREPARE,
                1: value.handover,
                2: [home_address.packed for home_address in value.home_addresses],
                3: [flow.to_cbor() for flow in value.flows],
                4: dict(value.configuration),
            }
            if value.switch is not None:
                body[10] = int(value.switch)
            if value.access_node is not None:
                body[12] = value.access_node.packed
            if value.listeners:
                body[14] = [listener.to_cbor() for listener in value.listeners]
            return body
        case TakeoverTransfer():
            sessions = [dict(session) for session in value.sessions]
            moved: dict[int, object] = {
                0: TRANSFER,
                1: value.handover,
                5: sessions,
                6: dict(value.application),
            }
            return moved | {11: list(value.others)} if value.others else moved
        case Reclaim():
            addresses = [home_address.packed for home_address in value.home_addresses]
            if value.handover is None:
                return {0: RECLAIM, 2: addresses}
            return {0: RECLAIM, 1: value.handover, 2: addresses}
        case Fetch():
            return {0: FETCH, 1: value.handover, 7: value.session, 8: value.offset, 9: value.limit}
        case Finish():
            return {0: FINISH, 1: value.handover}
        case Done():
            over: dict[int, object] = {0: DONE, 1: value.handover}
            return over | {13: list(value.sessions)} if value.sessions else over
        case Cancel():
            return {0: CANCEL, 1: value.handover}
        case Abandon():
            body = {0: ABANDON, 1: value.handover}
            return body | {13: list(value.sessions)} if value.sessions else body


def decode_634(data: bytes) -> Request634:
    """The request in a 634's body; raises WireError, also for a body past the bound of its kind."""
    # Deterministic encoding puts key 0, the kind, first: the bound is known before the body is walked.
    limit = MAX_BODY if data[1:3] == bytes((0, TRANSFER)) else MAX_SMALL_BODY
    reader = cbor.Reader(cbor.decode(data, limit=limit, field="634"), "634")
    kind = reader.integer(0, "kind", PREPARE, ABANDON)
    value = _from_reader(kind, reader)
    reader.done()
    return value


def _from_reader(kind: int, reader: cbor.Reader) -> Request634:
    if kind == RECLAIM and reader.absent(1):
        return Reclaim(None, _home_addresses(reader))
    handover = reader.octets(1, "handover", HANDOVER_BYTES, HANDOVER_BYTES)
    if kind == PREPARE:
        return TakeoverPrepare(
            handover=handover,
            home_addresses=_home_addresses(reader),
            flows=tuple(Flow.from_cbor(flow, "634.flow") for flow in reader.array(3, "flows", MAX_SESSIONS)),
            configuration=reader.mapping(4, "configuration"),
            switch=None if reader.absent(10) else Takes(reader.integer(10, "switch", min(Takes), max(Takes))),
            access_node=None if reader.absent(12) else reader.address(12, "access-node"),
            listeners=() if reader.absent(14) else _listeners(reader.array(14, "listeners", MAX_LISTENERS)),
        )
    if kind == TRANSFER:
        records = tuple(_record(session) for session in reader.array(5, "sessions", MAX_SESSIONS))
        application = reader.mapping(6, "application")
        others = () if reader.absent(11) else tuple(map(_handover, reader.array(11, "others", MAX_OTHERS)))
        return TakeoverTransfer(handover, records, application, others)
    if kind == RECLAIM:
        return Reclaim(handover, _home_addresses(reader))
    if kind == FETCH:
        return Fetch(
            handover=handover,
            session=reader.integer(7, "session", 0, MAX_SESSIONS - 1),
            offset=reader.integer(8, "offset", 0, (1 << 63) - 1),
            limit=reader.integer(9, "limit", 0, MAX_CHUNK),
        )
    if kind == FINISH:
        return Finish(handover)
    if kind == ABANDON:
        return Abandon(handover, () if reader.absent(13) else _session_numbers(reader))
    if kind == DONE:
        return Done(handover, () if reader.absent(13) else _session_numbers(reader))
    return Cancel(handover)


def _session_numbers(reader: cbor.Reader) -> tuple[int, ...]:
    listed = reader.array(13, "sessions", MAX_SESSIONS)
    return tuple(cbor.integer(session, "634.session", 0, MAX_SESSIONS - 1) for session in listed)


def _home_addresses(reader: cbor.Reader) -> tuple[Address, ...]:
    found = reader.array(2, "home-addresses", MAX_HOME_ADDRESSES)
    return tuple(cbor.address(item, "634.home-address") for item in found)


def _listeners(values: list[object]) -> tuple[Listener, ...]:
    found = tuple(Listener.from_cbor(value, "634.listener") for value in values)
    if len({(item.address, item.port) for item in found}) != len(found):
        raise WireError("634.listeners", 0, "duplicate")
    return found


def _handover(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != HANDOVER_BYTES:
        raise WireError("634.others", 0, "not-a-handover")
    return value


def _record(value: object) -> Record:
    if not isinstance(value, dict) or not all(isinstance(key, int) for key in value):
        raise WireError("634.session-record", 0, "not-a-map")
    return value
