"""Events that a stand-in stored for this device while it slept (P3): received with a 632, kept for its user.

Every event is stored here before the stand-in may forget it, and is taken once. It must not know why an event was stored.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Count, Emit, Forget, Persist, Table
from locum.roles.app_results import plain
from locum.roles.paging.stored_events import EVENTS, MAX_STORED, StoredEvent
from locum.roles.parts import Part, readable
from locum.wire.errors import WireError

TABLE: Final[Table] = "event"
MAX_KEPT: Final = 256
"""Events; the oldest give way."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event, and the stand-in that stored it."""

    stand_in: Addr
    stored: StoredEvent

    @property
    def key(self) -> str:
        """Key of its row."""
        return f"{self.stand_in} {self.stored.number}"


class ReceivedEvents(Part):
    """Of one device, the oldest first."""

    def __init__(self) -> None:
        self._events: dict[str, ReceivedEvent] = {}

    def all(self) -> Collection[ReceivedEvent]:
        """Every event that is kept."""
        return self._events.values()

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """The events of an earlier run."""
        found, actions = readable(rows, TABLE, _received)
        events = sorted((event for _row, event in found), key=lambda event: event.stored.at)
        self._events = {event.key: event for event in events}
        return actions

    def returned(self, application: Mapping[str, object], stand_in: Addr, home: Addr) -> list[Action]:
        """Take the events in a 632; those of another shape are counted and left out."""
        listed = application.get(EVENTS, [])
        actions: list[Action] = []
        for item in listed[:MAX_STORED] if isinstance(listed, list) else ():
            try:
                event = ReceivedEvent(stand_in, StoredEvent.from_cbor(item, "632.event"))
            except WireError as error:
                actions.append(Count(f"stored-event-{error.reason}"))
                continue
            if self._events.get(event.key) != event:
                actions += self._keep(event, home)
        return actions

    def clear(self) -> list[Action]:
        """Forget all."""
        gone = [Forget(TABLE, key) for key in self._events]
        self._events.clear()
        return [*gone]

    def _keep(self, event: ReceivedEvent, home: Addr) -> list[Action]:
        self._events.pop(event.key, None)
        self._events[event.key] = event
        actions: list[Action] = [Persist(TABLE, event.key, event.stored.to_row())]
        while len(self._events) > MAX_KEPT:
            oldest = next(iter(self._events))
            del self._events[oldest]
            actions.append(Forget(TABLE, oldest))
        stored = event.stored
        detail: dict[str, JSON] = {
            "entry": stored.entry,
            "app": stored.event.app,
            "event": stored.event.kind,
            "events": stored.count,
            "detail": plain(dict(stored.event.detail)),
        }
        return [*actions, Emit("event-received", "632", home, None, detail)]


def _received(row: Persist) -> ReceivedEvent:
    """The event in a row of our own."""
    return ReceivedEvent(ip_address(row.key.partition(" ")[0]), StoredEvent.from_row(row.value))
