"""Events that a stand-in keeps for a sleeping device, until the device has them (P3, action "store").

Values and one bounded list for each device; the device gets them with the answer to its reclaim (632). It must not know messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from locum.roles.action_values.addresses import JSON
from locum.wire import cbor
from locum.wire.control.paging.cause import MAX_DETAIL, ApplicationEvent
from locum.wire.errors import WireError

EVENTS: Final = "events"
"""Key in the application state of a 632."""
MAX_STORED: Final = 64
"""Events of one device."""
MAX_STORED_BYTES: Final = 64 << 10
"""Bytes of them as CBOR."""
MAX_EVENT: Final = 4 << 10
"""Bytes of one; a longer one is stored without its detail."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """`count` events that this entry matched; the first of them is here."""

    number: int  # unique for the device, also after a restart: it follows the time
    entry: int
    event: ApplicationEvent
    at: int  # milliseconds since 1970, of the last one
    count: int = 1

    def to_cbor(self) -> list[object]:
        """As in a 632: number, entry, app, kind, detail, time, count."""
        return [self.number, self.entry, *self.event.to_cbor(), self.at, self.count]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "StoredEvent":
        """Raises WireError for anything that does not fit."""
        items = cbor.array(value, field, 7)
        if len(items) != 7:
            raise WireError(field, 0, "truncated")
        return cls(
            cbor.integer(items[0], f"{field}.number", 1, (1 << 53) - 1),
            cbor.integer(items[1], f"{field}.entry", 1, 0xFFFF),
            ApplicationEvent.from_cbor(items[2:5], field),
            cbor.integer(items[5], f"{field}.at", 0, (1 << 53) - 1),
            cbor.integer(items[6], f"{field}.count", 1, (1 << 53) - 1),
        )

    def to_row(self) -> Mapping[str, JSON]:
        """Its row."""
        return {"event": cbor.encode(self.to_cbor()).hex()}

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "StoredEvent":
        """The event in a row of our own; raises ValueError, KeyError or WireError."""
        body = cbor.decode(bytes.fromhex(str(row["event"])), limit=MAX_DETAIL + 1024, field="row")
        return cls.from_cbor(body, "row")


def fitting(event: ApplicationEvent) -> ApplicationEvent:
    """The event as it can be stored."""
    return (
        event if len(cbor.encode(event.to_cbor())) <= MAX_EVENT else ApplicationEvent(event.app, event.kind)
    )


class StoredEvents:
    """Of one device. When there is no room, an event is counted with the last one of its entry."""

    def __init__(self) -> None:
        self._events: dict[int, StoredEvent] = {}
        self._bytes = 0
        self._next = 1
        self._offered: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._events)

    def all(self) -> tuple[StoredEvent, ...]:
        """The oldest first."""
        return tuple(self._events.values())

    def add(
        self, entry: int, event: ApplicationEvent, at: int
    ) -> tuple[StoredEvent | None, list[StoredEvent]]:
        """Store an event: what has to be written, and the oldest ones, which gave way to it.

        An event that is only counted is written when its count has doubled: a flood costs few writes.
        """
        event = fitting(event)
        size = len(cbor.encode(event.to_cbor()))
        if self._is_full(size):
            last = next((stored for stored in reversed(self._events.values()) if stored.entry == entry), None)
            if last is not None:
                counted = replace(last, at=at, count=last.count + 1)
                self._events[last.number] = counted
                return (counted if counted.count & (counted.count - 1) == 0 else None), []
        gone = []
        while self._is_full(size):
            gone.append(self._remove(next(iter(self._events))))
        stored = StoredEvent(max(self._next, at), entry, event, at)
        self.put(stored)
        return stored, gone

    def _is_full(self, size: int) -> bool:
        """True if an event of `size` bytes has no room."""
        return len(self._events) >= MAX_STORED or self._bytes + size > MAX_STORED_BYTES

    def put(self, stored: StoredEvent) -> None:
        """Take an event of an earlier run, in the order of the numbers."""
        self._events[stored.number] = stored
        self._bytes += len(cbor.encode(stored.event.to_cbor()))
        self._next = max(self._next, stored.number + 1)

    def offer(self) -> tuple[StoredEvent, ...]:
        """All events, for an answer to the device."""
        self._offered = {number: stored.count for number, stored in self._events.items()}
        return self.all()

    def given(self) -> list[StoredEvent]:
        """The device has those of the last answer: they are gone here, unless more have been counted since."""
        had = [
            number
            for number, count in self._offered.items()
            if number in self._events and self._events[number].count == count
        ]
        self._offered = {}
        return [self._remove(number) for number in had]

    def _remove(self, number: int) -> StoredEvent:
        stored = self._events.pop(number)
        self._bytes -= len(cbor.encode(stored.event.to_cbor()))
        return stored
