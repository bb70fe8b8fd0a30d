"""Messages 622 and 624: context transfer between access nodes (C4, C5, C7), as CBOR by control.cddl.

Fetched, 622 asks and 624 answers; pushed, 624 comes unasked and 622 acknowledges it (RFC 4067 sections 2.5.2 to 2.5.6
call these CT-Req, CTD, PCTD and CTDR). Each block has a status of its own. It must not know the messages' effects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from locum.wire import cbor
from locum.wire.control.context_blocks import MAX_BLOCK, BlockKind
from locum.wire.errors import WireError

Address: TypeAlias = IPv4Address | IPv6Address

MAX_BLOCKS = 16  # a few more types than there are: newer nodes may send some that we refuse one by one
MAX_CONTEXT = MAX_BLOCKS * MAX_BLOCK
MAX_VERSION = (1 << 32) - 1
MAX_TIME = (1 << 53) - 1  # milliseconds since 1970 that every decoder of JSON and CBOR holds exactly
_MAX_KIND = 255


class ContextStatus(IntEnum):
    """Of a message as a whole."""

    OK = 0
    UNKNOWN_MOBILE = 1  # there is no context for this home address here
    NOT_AUTHORISED = 2  # this association does not speak for the home address
    MALFORMED = 3
    STALE = 4  # a later registration is known here than the one the request is about
    FULL = 5  # no room for one more


class Onward(IntEnum):
    """Handling of packets that still reach an access node after the device has left it (620)."""

    NOTHING = 0
    MOVED = 1  # the device has changed its access node: they follow, and its old visit ends
    TAKEN = 2  # a stand-in takes or gives back its packets: they follow, its registrations stay as they are
    SHARED = 3  # a stand-in takes or gives back some of its flows: nothing follows, each has its own

    @property
    def follows(self) -> bool:
        """True if the packets follow the device."""
        return self in (Onward.MOVED, Onward.TAKEN)


class BlockStatus(IntEnum):
    """Of one block."""

    TAKEN = 0
    UNCHANGED = 1  # the version is there already: not sent again
    MALFORMED = 2
    UNSUPPORTED = 3  # a type that is not known, or has no place here
    ABSENT = 4  # asked for, or said to be there already, and not there


@dataclass(frozen=True, slots=True)
class ContextBlock:
    """One block in a message; without data its version has not changed since it was last sent."""

    kind: int  # BlockKind, or a number that is not known here
    version: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class ContextRequest622:
    """Request for the context of this mobile node, and for packets that still reach the receiver for it."""

    home_address: Address
    registered: int  # milliseconds since 1970 at which the registration that this is about was accepted
    wants: tuple[int, ...] = tuple(BlockKind)
    known: Mapping[int, int] = field(default_factory=dict)  # versions by type that are there already
    onward: Onward = Onward.NOTHING


@dataclass(frozen=True, slots=True)
class Context624:
    """A context, as an answer or a push, and whether packets that still reach the sender will follow."""

    status: ContextStatus
    home_address: Address
    registered: int = 0  # of the registration that the context belongs to
    blocks: tuple[ContextBlock, ...] = ()
    statuses: Mapping[int, BlockStatus] = field(default_factory=dict)
    onward: Onward = Onward.NOTHING


@dataclass(frozen=True, slots=True)
class Acknowledgement622:
    """Result for each block of a 624 that was pushed."""

    status: ContextStatus
    home_address: Address
    registered: int = 0
    statuses: Mapping[int, BlockStatus] = field(default_factory=dict)


def encode_request_622(value: ContextRequest622) -> bytes:
    """The CBOR body of a 622 that asks."""
    return cbor.encode(
        {
            0: value.home_address.packed,
            1: value.registered,
            2: list(value.wants),
            3: [[kind, version] for kind, version in sorted(value.known.items())],
            4: int(value.onward),
        }
    )


def decode_request_622(data: bytes) -> ContextRequest622:
    """The request in a 622's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_CONTEXT, field="622"), "622")
    wants = tuple(
        cbor.integer(kind, "622.wants", 1, _MAX_KIND) for kind in reader.array(2, "wants", MAX_BLOCKS)
    )
    known = dict(_pair(pair, "622.known", MAX_VERSION) for pair in reader.array(3, "known", MAX_BLOCKS))
    value = ContextRequest622(
        reader.address(0, "home-address"),
        reader.integer(1, "registered", 0, MAX_TIME),
        wants,
        known,
        _onward(reader, 4),
    )
    reader.done()
    return value


def encode_624(value: Context624) -> bytes:
    """The CBOR body of a 624, asked or unasked."""
    return cbor.encode(
        {
            0: int(value.status),
            1: value.home_address.packed,
            2: value.registered,
            3: _statuses(value.statuses),
            4: [[block.kind, block.version, block.data] for block in value.blocks],
            5: int(value.onward),
        }
    )


def decode_624(data: bytes) -> Context624:
    """The context in a 624's body, its blocks still encoded; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_CONTEXT, field="624"), "624")
    blocks = tuple(_block(block) for block in reader.array(4, "blocks", MAX_BLOCKS))
    if len({block.kind for block in blocks}) != len(blocks):
        raise WireError("624.blocks", 0, "repeated")
    value = Context624(
        _status(reader),
        reader.address(1, "home-address"),
        reader.integer(2, "registered", 0, MAX_TIME),
        blocks,
        _block_statuses(reader),
        _onward(reader, 5),
    )
    reader.done()
    return value


def encode_acknowledgement_622(value: Acknowledgement622) -> bytes:
    """The CBOR body of a 622 that acknowledges."""
    return cbor.encode(
        {
            0: int(value.status),
            1: value.home_address.packed,
            2: value.registered,
            3: _statuses(value.statuses),
        }
    )


def decode_acknowledgement_622(data: bytes) -> Acknowledgement622:
    """The acknowledgement in a 622's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_CONTEXT, field="622"), "622")
    value = Acknowledgement622(
        _status(reader),
        reader.address(1, "home-address"),
        reader.integer(2, "registered", 0, MAX_TIME),
        _block_statuses(reader),
    )
    reader.done()
    return value


def _status(reader: cbor.Reader) -> ContextStatus:
    return ContextStatus(reader.integer(0, "status", 0, max(ContextStatus)))


def _onward(reader: cbor.Reader, key: int) -> Onward:
    return Onward(reader.integer(key, "onward", 0, max(Onward)))


def _statuses(statuses: Mapping[int, BlockStatus]) -> list[list[int]]:
    return [[kind, int(status)] for kind, status in sorted(statuses.items())]


def _block_statuses(reader: cbor.Reader) -> dict[int, BlockStatus]:
    field = f"{reader.field}.statuses"
    listed = reader.array(3, "statuses", MAX_BLOCKS)
    pairs = (_pair(status, field, max(BlockStatus)) for status in listed)
    return {kind: BlockStatus(status) for kind, status in pairs}


def _pair(value: object, field: str, most: int) -> tuple[int, int]:
    parts = cbor.array(value, field, 2)
    if len(parts) != 2:
        raise WireError(field, 0, "not-a-pair")
    return cbor.integer(parts[0], field, 1, _MAX_KIND), cbor.integer(parts[1], field, 0, most)


def _block(value: object) -> ContextBlock:
    parts = cbor.array(value, "624.block", 3)
    if len(parts) != 3:
        raise WireError("624.block", 0, "not-a-block")
    data = parts[2]
    if data is not None and (not isinstance(data, bytes) or len(data) > MAX_BLOCK):
        raise WireError("624.block", 0, "not-octets")
    return ContextBlock(
        cbor.integer(parts[0], "624.kind", 1, _MAX_KIND),
        cbor.integer(parts[1], "624.version", 0, MAX_VERSION),
        data,
    )
