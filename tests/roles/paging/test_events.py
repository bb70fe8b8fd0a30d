"""The event table: patterns, conditions, combinations, limits, and changes by 1206 (P3, P15)."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from locum.roles.paging.events import EventTable, Firing
from locum.roles.paging.matching import glob, matches
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import (
    MAX_ENTRIES,
    ActionKind,
    Condition,
    Entry,
    EntryAction,
    Limits,
    Operator,
    Pattern,
    Scalar,
)
from locum.wire.control.paging.event_table import EventTable1206, Operation, decode_1206, encode_1206
from locum.wire.control.paging.status import ItemStatus, PagingStatus

HOME = (ip_address("10.50.0.9"),)
START, NOON = 1000.0, 12 * 60
PAGE, STORE = EntryAction(ActionKind.PAGE), EntryAction(ActionKind.STORE)
TELL = EntryAction(ActionKind.TELL, text="away")
BOSS = ApplicationEvent("mail", "arrived", {"from": "boss@example.org", "size": 1200})
OTHER = ApplicationEvent("mail", "arrived", {"from": "shop@example.org", "size": 9})
FILE = ApplicationEvent("download", "complete", {"name": "a.iso"})
FROM_BOSS = Pattern("mail", "arrived", (Condition("from", Operator.EQUAL, "boss@example.org"),))


def table(*entries: Entry, **more: object) -> EventTable:
    """A table with these entries."""
    made = EventTable()
    change = EventTable1206(HOME, Operation.REPLACE, 1, entries)
    assert made.change(replace(change, **more)).status is PagingStatus.OK  # type: ignore[arg-type]
    return made


def kinds(fired: list[Firing]) -> list[tuple[int, list[ActionKind]]]:
    """Identifiers of the entries, with the kinds of their actions."""
    return [(firing.entry.identifier, [action.kind for action in firing.actions]) for firing in fired]


def test_only_the_event_of_the_pattern_pages() -> None:
    events = table(Entry(1, (FROM_BOSS,), (PAGE, STORE)))
    assert events.happened(OTHER, now=START, minute=NOON) == []
    assert events.happened(FILE, now=START, minute=NOON) == []
    fired = events.happened(BOSS, now=START, minute=NOON)
    assert kinds(fired) == [(1, [ActionKind.PAGE, ActionKind.STORE])]
    assert fired[0].events == (BOSS,) and fired[0].count == 1 and not fired[0].late


def test_every_entry_that_matches_fires() -> None:
    anything = Entry(2, (Pattern("*", "*"),), (STORE,))
    events = table(anything, Entry(1, (FROM_BOSS, Pattern("download", "complete")), (PAGE,)))
    assert kinds(events.happened(BOSS, now=START, minute=NOON)) == [
        (1, [ActionKind.PAGE]),
        (2, [ActionKind.STORE]),
    ]
    assert kinds(events.happened(FILE, now=START, minute=NOON))[0] == (1, [ActionKind.PAGE])
    assert kinds(events.happened(OTHER, now=START, minute=NOON)) == [(2, [ActionKind.STORE])]


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("n", Operator.EQUAL, 5, True),
        ("n", Operator.EQUAL, 5.0, True),
        ("n", Operator.EQUAL, "5", False),
        ("n", Operator.NOT_EQUAL, 5, False),
        ("n", Operator.LESS, 6, True),
        ("n", Operator.LESS, 5, False),
        ("n", Operator.AT_MOST, 5, True),
        ("n", Operator.GREATER, 4.5, True),
        ("n", Operator.GREATER, 5, False),
        ("n", Operator.AT_LEAST, 5, True),
        ("n", Operator.AT_LEAST, 6, False),
        ("n", Operator.LESS, "6", False),
        ("n", Operator.CONTAINS, "5", False),
        ("n", Operator.GLOB, "*", False),
        ("yes", Operator.EQUAL, True, True),
        ("yes", Operator.EQUAL, 1, False),
        ("yes", Operator.GREATER, 0, False),
        ("none", Operator.EQUAL, None, True),
        ("none", Operator.NOT_EQUAL, "", True),
        ("text", Operator.CONTAINS, "urgent", True),
        ("text", Operator.CONTAINS, "Urgent", False),
        ("text", Operator.CONTAINS, 1, False),
        ("text", Operator.GLOB, "*urg?nt*", True),
        ("text", Operator.GLOB, "urgent", False),
        ("text", Operator.LESS, "z", True),
        ("list", Operator.CONTAINS, "b", True),
        ("list", Operator.CONTAINS, "c", False),
        ("list", Operator.LESS, "z", False),
        ("deep.er", Operator.EQUAL, 1, True),
        ("deep.est", Operator.EQUAL, 1, False),
        ("n.er", Operator.EQUAL, 5, False),
        ("with.dot", Operator.EQUAL, 2, True),
        ("absent", Operator.EQUAL, None, False),
        ("absent", Operator.LESS, 5, False),
        ("absent", Operator.NOT_EQUAL, 5, True),
        ("nan", Operator.AT_LEAST, 5, False),
    ],
)
def test_conditions(field: str, operator: Operator, value: Scalar, expected: bool) -> None:
    detail: Mapping[str, object] = {
        "n": 5,
        "yes": True,
        "none": None,
        "text": "an urgent one",
        "list": ["a", "b"],
        "deep": {"er": 1},
        "with.dot": 2,
        "nan": float("nan"),
    }
    pattern = Pattern("a", "b", (Condition(field, operator, value),))
    assert matches(pattern, ApplicationEvent("a", "b", detail), {}) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a*z", "a\nz", True),
        ("*a" * 30, "a" * 60 + "b", False),
    ],
)
def test_only_star_and_question_mark_are_special(pattern: str, text: str, expected: bool) -> None:
    assert glob(pattern, text) is expected


def test_one_packet_with_information_of_the_device_is_an_event() -> None:
    """P15: a packet whose number is above the one that the device has left, and only while it is marked as waiting."""
    conditions = (
        Condition("number", Operator.GREATER, "last", left=True),
        Condition("left.status", Operator.EQUAL, "waiting"),
    )
    entry = Entry(1, (Pattern("packet", "received", conditions),), (PAGE,))
    packet = ApplicationEvent("packet", "received", {"number": 13})
    for information, expected in (
        ({"last": 12, "status": "waiting"}, 1),
        ({"last": 13, "status": "waiting"}, 0),
        ({"last": 12, "status": "done"}, 0),
        ({"status": "waiting"}, 0),
        ({"last": 12}, 0),
    ):
        events = table(entry, information=information)
        assert len(events.happened(packet, now=START, minute=NOON)) == expected, information


def test_combination_needs_every_pattern_in_time() -> None:
    entry = Entry(1, (FROM_BOSS, Pattern("download", "complete")), (PAGE,), within=60)
    events = table(entry)
    assert events.happened(BOSS, now=START, minute=NOON) == []
    assert events.happened(FILE, now=START + 61, minute=NOON) == [], "too late for the first"
    fired = events.happened(BOSS, now=START + 100, minute=NOON)
    assert fired[0].events == (FILE, BOSS)
    assert events.happened(FILE, now=START + 101, minute=NOON) == [], "a combination begins anew"
    assert len(events.happened(BOSS, now=START + 102, minute=NOON)) == 1


def test_one_event_may_match_every_pattern_of_a_combination() -> None:
    events = table(Entry(1, (FROM_BOSS, Pattern("mail", "*")), (PAGE,), within=60))
    fired = events.happened(BOSS, now=START, minute=NOON)
    assert [firing.events for firing in fired] == [(BOSS,)]


def test_page_at_most_once_in_an_interval() -> None:
    events = table(Entry(1, (FROM_BOSS,), (PAGE, STORE), limits=Limits(600)))
    assert kinds(events.happened(BOSS, now=START, minute=NOON)) == [(1, [ActionKind.PAGE, ActionKind.STORE])]
    for second in range(1, 100):
        fired = events.happened(BOSS, now=START + second, minute=NOON)
        assert kinds(fired) == [(1, [ActionKind.STORE])], "the other actions are never late"
    assert events.deadline() == START + 600
    assert events.timeout(now=START + 599, minute=NOON) == []
    fired = events.timeout(now=START + 600, minute=NOON)
    assert kinds(fired) == [(1, [ActionKind.PAGE])]
    assert (fired[0].count, fired[0].late, fired[0].events) == (99, True, (BOSS,))
    assert events.deadline() is None and events.timeout(now=START + 2000, minute=NOON) == []
    assert kinds(events.happened(BOSS, now=START + 601, minute=NOON)) == [(1, [ActionKind.STORE])]


def test_event_in_an_interval_may_be_stored_alone() -> None:
    events = table(Entry(1, (FROM_BOSS,), (PAGE, STORE), limits=Limits(600, later=False)))
    events.happened(BOSS, now=START, minute=NOON)
    assert kinds(events.happened(BOSS, now=START + 1, minute=NOON)) == [(1, [ActionKind.STORE])]
    assert events.deadline() is None
    assert len(kinds(events.happened(BOSS, now=START + 600, minute=NOON))[0][1]) == 2


@pytest.mark.parametrize(
    ("minute", "offset", "quiet"),
    [
        (22 * 60 - 1, 0, False),
        (22 * 60, 0, True),
        (3 * 60, 0, True),
        (6 * 60 - 1, 0, True),
        (6 * 60, 0, False),
        (21 * 60, 60, True),
        (5 * 60, 60, False),
        (2 * 60, -300, False),
        (3 * 60, -300, True),
    ],
)
def test_quiet_hours_are_those_of_the_device(minute: int, offset: int, quiet: bool) -> None:
    entry = Entry(1, (FROM_BOSS,), (PAGE,), limits=Limits(quiet=((22 * 60, 6 * 60),)))
    events = table(entry, offset=offset)
    assert (events.happened(BOSS, now=START, minute=minute) == []) is quiet


def test_event_in_quiet_hours_pages_when_they_end() -> None:
    entry = Entry(1, (FROM_BOSS,), (PAGE, TELL), limits=Limits(quiet=((22 * 60, 6 * 60),)))
    events = table(entry)
    assert kinds(events.happened(BOSS, now=START, minute=5 * 60)) == [(1, [ActionKind.TELL])]
    assert events.deadline() == START + 3600
    assert events.timeout(now=START + 3600, minute=6 * 60 - 1) == [], "the wall clock was set back"
    fired = events.timeout(now=START + 3660, minute=6 * 60)
    assert kinds(fired) == [(1, [ActionKind.PAGE])] and fired[0].late


def test_longer_limit_decides() -> None:
    limits = Limits(7200, ((22 * 60, 6 * 60),))
    events = table(Entry(1, (FROM_BOSS,), (PAGE,), limits=limits))
    events.happened(BOSS, now=START, minute=21 * 60 + 59)
    events.happened(BOSS, now=START + 60, minute=22 * 60)
    assert events.deadline() == START + 60 + 8 * 3600


def test_entry_that_stays_keeps_its_limits() -> None:
    entry = Entry(1, (FROM_BOSS,), (PAGE,), limits=Limits(600))
    events = table(entry)
    events.happened(BOSS, now=START, minute=NOON)
    events.happened(BOSS, now=START + 1, minute=NOON)
    events.change(EventTable1206(HOME, Operation.REPLACE, 2, (entry,)))
    assert events.deadline() == START + 600, "the page that waits is not lost"
    renamed = replace(entry, name="boss")
    events.change(EventTable1206(HOME, Operation.PUT, 3, (renamed,)))
    assert events.happened(BOSS, now=START + 2, minute=NOON) == [], "a new text is no way around the interval"


def test_changes_of_the_table() -> None:
    first, second = Entry(1, (FROM_BOSS,), (PAGE,)), Entry(2, (Pattern(),), (STORE,))
    events = table(first, information={"a": 1}, offset=60)
    events.change(EventTable1206(HOME, Operation.PUT, 2, (second,)))
    assert list(events.entries) == [first, second]
    kept = events.content(HOME)
    assert (kept.information, kept.offset) == ({"a": 1}, 60)
    assert decode_1206(encode_1206(kept)) == kept
    answer = events.change(EventTable1206(HOME, Operation.REMOVE, 3, removed=(1, 9)))
    assert answer.items == (ItemStatus(9, PagingStatus.UNKNOWN),)
    assert [entry.identifier for entry in events.entries] == [2]
    events.change(EventTable1206(HOME, Operation.REPLACE, 4, (first,)))
    assert events.content(HOME) == EventTable1206(HOME, Operation.REPLACE, 4, (first,))


def test_late_and_doubled_changes_leave_the_table() -> None:
    first, second = Entry(1, (FROM_BOSS,), (PAGE,)), Entry(2, (Pattern(),), (STORE,))
    events = EventTable()
    new = EventTable1206(HOME, Operation.REMOVE, 5, removed=(7,))
    assert events.change(new) == events.change(new), "the doubled one has the answer of the first"
    assert events.change(EventTable1206(HOME, Operation.REPLACE, 4, (first,))).status is PagingStatus.STALE
    events.change(EventTable1206(HOME, Operation.REPLACE, 6, (second,)))
    assert events.entries == (second,)


def test_table_is_bounded() -> None:
    many = tuple(Entry(number, (Pattern(),), (STORE,)) for number in range(1, MAX_ENTRIES + 1))
    events = table(*many)
    more = Entry(MAX_ENTRIES + 1, (Pattern(),), (STORE,))
    answer = events.change(EventTable1206(HOME, Operation.PUT, 2, (more, replace(many[0], name="x"))))
    assert answer.items == (ItemStatus(MAX_ENTRIES + 1, PagingStatus.LIMIT),)
    assert events.entries[0].name == "x" and len(events.entries) == MAX_ENTRIES


def test_flood_of_events_is_one_page() -> None:
    events = table(Entry(1, (Pattern(),), (PAGE,), limits=Limits(3600)))
    pages = sum(len(events.happened(BOSS, now=START + n / 1000, minute=NOON)) for n in range(10_000))
    fired = events.timeout(now=START + 3600, minute=NOON)
    assert (pages, len(fired), fired[0].count) == (1, 1, 9_999)
