"""Status of messages 1204 to 1212 and of their rules and entries, as CBOR by paging.cddl."""

from dataclasses import dataclass
from enum import IntEnum

from locum.wire import cbor
from locum.wire.control.answer import shortened
from locum.wire.errors import WireError

MAX_TEXT = 200
"""Characters."""
MAX_LIFETIME = 30 * 86400
"""Seconds."""
MAX_ITEMS = 64
"""Rules or entries of one message, as many as a home address may have rules."""
MAX_ITEM = 0xFFFF
"""The highest identifier of a rule or an entry."""
MAX_STATUS_ANSWER = 64 << 10


class PagingStatus(IntEnum):
    """Of a message, of one of its rules, or of one of its entries."""

    OK = 0
    REFUSED = 1
    NOT_AUTHORISED = 2
    MALFORMED = 3
    BUSY = 4
    LIMIT = 5
    STALE = 6  # a later message of this kind has been taken
    UNKNOWN = 7  # no such device, agent, rule or entry
    OVERLAPS = 8  # with another rule of the same priority


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """Status of a rule or an entry that is not OK; those without one are."""

    item: int  # its identifier
    status: PagingStatus
    text: str = ""  # for users, at most MAX_TEXT characters


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The answer to 1204, 1206, 1208, 1210 and 1212."""

    status: PagingStatus
    text: str = ""  # for users, at most MAX_TEXT characters
    items: tuple[ItemStatus, ...] = ()
    lifetime: int | None = None  # seconds that were granted, where the message asks for a lifetime


def encode_status_answer(value: StatusAnswer) -> bytes:
    """The CBOR body of an answer."""
    body: dict[int, object] = {0: int(value.status)}
    if value.text:
        body[1] = shortened(value.text, MAX_TEXT)
    if value.items:
        body[2] = [[item.item, int(item.status), shortened(item.text, MAX_TEXT)] for item in value.items]
    if value.lifetime is not None:
        body[3] = value.lifetime
    return cbor.encode(body)


def decode_status_answer(data: bytes) -> StatusAnswer:
    """The answer in a body; raises WireError."""
    field = "status-answer"
    reader = cbor.Reader(cbor.decode(data, limit=MAX_STATUS_ANSWER, field=field), field)
    value = StatusAnswer(
        PagingStatus(reader.integer(0, "status", 0, max(PagingStatus))),
        "" if reader.absent(1) else reader.text(1, "text", MAX_TEXT),
        () if reader.absent(2) else tuple(map(_item, reader.array(2, "items", MAX_ITEMS))),
        None if reader.absent(3) else reader.integer(3, "lifetime", 0, MAX_LIFETIME),
    )
    reader.done()
    return value


def _item(value: object) -> ItemStatus:
    field = "status-answer.item"
    parts = cbor.array(value, field, 3)
    if len(parts) != 3 or not isinstance(parts[2], str) or len(parts[2]) > MAX_TEXT:
        raise WireError(field, 0, "not-a-status")
    return ItemStatus(
        cbor.integer(parts[0], field, 1, MAX_ITEM),
        PagingStatus(cbor.integer(parts[1], field, 0, max(PagingStatus))),
        parts[2],
    )
