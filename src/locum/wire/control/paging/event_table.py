"""Message 1206: the event table of a device at its stand-in (P3, P15), as CBOR by paging.cddl. `status` has its answer.

It replaces the whole table, puts single entries in their places or removes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from locum.wire import cbor
from locum.wire.control.paging.entry import MAX_ENTRIES, MINUTES, Entry, information_of
from locum.wire.control.paging.rules import (
    MAX_RULES_BODY,
    MAX_TIME,
    Address,
    AgentRule,
    home_addresses,
    numbered,
)
from locum.wire.control.paging.status import MAX_ITEM, MAX_ITEMS

PATH = "1206"  # of the CoAP resource
MAX_TABLE = (256 << 10) + MAX_RULES_BODY  # bytes: 64 entries of some kilobytes


class Operation(IntEnum):
    """Operation on the table."""

    REPLACE = 1  # the whole table with its information and rules
    PUT = 2  # these entries; others stay. Information and rules are replaced if there are any
    REMOVE = 3  # the entries with these identifiers


@dataclass(frozen=True, slots=True)
class EventTable1206:
    """A change of the table of one device. `sent` orders the changes of one sender."""

    home_addresses: tuple[Address, ...]
    operation: Operation
    sent: int  # milliseconds since 1970
    entries: tuple[Entry, ...] = ()
    removed: tuple[int, ...] = ()  # with REMOVE
    information: Mapping[str, object] = field(default_factory=dict)  # names and scalars
    offset: int = 0  # minutes that the device's clock is ahead of UTC, for quiet hours
    rules: tuple[AgentRule, ...] = ()  # for the second paging information (1208)


def encode_1206(value: EventTable1206) -> bytes:
    """The CBOR body of a 1206."""
    body: dict[int, object] = {
        0: [home.packed for home in value.home_addresses],
        1: int(value.operation),
        2: value.sent,
    }
    if value.entries:
        body[3] = [entry.to_map() for entry in value.entries]
    if value.operation is Operation.REMOVE:
        body[4] = list(value.removed)
    if value.information:
        body[5] = dict(value.information)
    if value.offset:
        body[6] = value.offset
    if value.rules:
        body[7] = [rule.to_map() for rule in value.rules]
    return cbor.encode(body)


def decode_1206(data: bytes) -> EventTable1206:
    """The change in a 1206's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_TABLE, field="1206"), "1206")
    operation = Operation(reader.integer(1, "operation", min(Operation), max(Operation)))
    homes, sent = home_addresses(reader, 0), reader.integer(2, "sent", 0, MAX_TIME)
    if operation is Operation.REMOVE:
        removed = tuple(
            cbor.integer(item, "1206.removed", 1, MAX_ITEM)
            for item in reader.array(4, "removed", MAX_ENTRIES)
        )
        reader.done()
        return EventTable1206(homes, operation, sent, removed=removed)
    value = EventTable1206(
        homes,
        operation,
        sent,
        numbered(reader.optional_array(3, "entries", MAX_ENTRIES), "1206.entry", Entry.from_cbor),
        (),
        {} if reader.absent(5) else information_of(reader.value(5, "information"), "1206.information"),
        0 if reader.absent(6) else reader.integer(6, "offset", -MINUTES, MINUTES),
        numbered(reader.optional_array(7, "rules", MAX_ITEMS), "1206.rule", AgentRule.from_cbor),
    )
    reader.done()
    return value
