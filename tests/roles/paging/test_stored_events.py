"""Events that wait for a device: bounded, each with a number of its own, as CBOR and as rows (P3)."""

import pytest

from locum.roles.paging.stored_events import (
    MAX_EVENT,
    MAX_STORED,
    MAX_STORED_BYTES,
    StoredEvent,
    StoredEvents,
)
from locum.wire import cbor
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.errors import WireError

EVENT = ApplicationEvent("mail", "message_available", {"from": "boss@example.org"})
AT = 1_790_000_000_000


def test_event_survives_cbor_and_its_row() -> None:
    stored = StoredEvent(AT, 7, EVENT, AT + 5, 3)
    assert StoredEvent.from_cbor(stored.to_cbor(), "x") == stored
    assert StoredEvent.from_row(stored.to_row()) == stored


@pytest.mark.parametrize(
    "value", [None, [], [1, 2, "a", "b", {}, 3], [0, 1, "a", "b", {}, 1, 1], [1] * 7, {}]
)
def test_other_shapes_are_errors(value: object) -> None:
    with pytest.raises(WireError):
        StoredEvent.from_cbor(value, "x")


def test_numbers_follow_the_time_and_are_unique() -> None:
    events = StoredEvents()
    numbers = [stored.number for _ in range(3) if (stored := events.add(1, EVENT, AT)[0]) is not None]
    assert numbers == [AT, AT + 1, AT + 2]


def test_full_store_counts_and_then_gives_way() -> None:
    events = StoredEvents()
    for _ in range(MAX_STORED):
        assert events.add(1, EVENT, AT)[1] == []
    written, gone = events.add(1, EVENT, AT + 9)
    assert gone == [] and written is not None and written.count == 2 and len(events) == MAX_STORED
    assert events.add(1, EVENT, AT + 9) == (None, []), "a count is written when it has doubled"
    written, gone = events.add(2, EVENT, AT + 9)
    assert written is not None and written.entry == 2 and [it.number for it in gone] == [AT]


def test_bytes_are_bounded() -> None:
    events = StoredEvents()
    long = ApplicationEvent("a", "b", {"text": "x" * (MAX_EVENT - 20)})
    for _ in range(100):
        events.add(1, long, AT)
    assert sum(len(cbor.encode(stored.event.to_cbor())) for stored in events.all()) <= MAX_STORED_BYTES
    assert sum(stored.count for stored in events.all()) == 100
    longer = ApplicationEvent("a", "b", {"text": "x" * MAX_EVENT})
    stored, _ = StoredEvents().add(1, longer, AT)
    assert stored is not None and stored.event == ApplicationEvent("a", "b")


def test_bytes_are_bounded_when_short_events_give_way() -> None:
    events = StoredEvents()
    for _ in range(MAX_STORED):
        events.add(1, ApplicationEvent("a", "b"), AT)
    long = ApplicationEvent("a", "b", {"text": "x" * (MAX_EVENT - 20)})
    for entry in range(2, 66):
        events.add(entry, long, AT)
        size = sum(len(cbor.encode(stored.event.to_cbor())) for stored in events.all())
        assert size <= MAX_STORED_BYTES and len(events) <= MAX_STORED


def test_only_offered_events_are_given() -> None:
    events = StoredEvents()
    events.add(1, EVENT, AT)
    assert events.given() == []
    assert len(events.offer()) == 1
    events.add(1, EVENT, AT)
    assert [stored.number for stored in events.given()] == [AT] and len(events) == 1
