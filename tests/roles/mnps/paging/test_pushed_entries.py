"""A policy server pushes entries into the event tables of a stand-in (P7)."""

from dataclasses import replace
from ipaddress import IPv4Address
from itertools import count

import pytest

from locum.roles import actions as a
from locum.roles.mnps.configuration import StandInConfiguration
from locum.roles.paging.events import FIRST_PUSHED
from locum.roles.profile import ProfileChange
from locum.roles.profile_requests import (
    AnswerPush,
    DisconnectAsked,
    EntriesFetched,
    ProfilePushed,
    PushOutcome,
    Session,
)
from locum.wire.control.paging.entry import MAX_ENTRIES, Entry
from locum.wire.control.paging.event_table import EventTable1206, Operation
from locum.wire.control.paging.status import PagingStatus
from tests.roles.mnps.paging.table_bench import CONFIGURATION, HOA, STORE, Bench, entry, table

MEANT, STRANGER = Session(None, HOA), IPv4Address("192.0.2.9")
PUSHED = FIRST_PUSHED + 5


class Pushing(Bench):
    """The bench, with a policy server."""

    def __init__(self, configuration: StandInConfiguration = CONFIGURATION) -> None:
        self.numbers = count(1)
        super().__init__(configuration)

    def push(self, version: int, *entries: Entry, session: Session = MEANT) -> PushOutcome:
        return self.outcome_of(
            ProfilePushed(next(self.numbers), session, ProfileChange(version, entries=entries))
        )

    def outcome_of(self, event: ProfilePushed | DisconnectAsked) -> PushOutcome:
        *others, answer = self.role.happened(event, now=self.now)
        self._perform(others)
        assert isinstance(answer, AnswerPush) and answer.push == event.push
        return answer.outcome

    @property
    def entries(self) -> list[int]:
        device = self.role.event_tables.of((HOA,))
        return [] if device is None else [found.identifier for found in device.table.entries]


def test_a_pushed_entry_pages_the_sleeping_device() -> None:
    bench = Pushing()
    bench.sleep()
    bench.happened()
    assert bench.pages == []
    assert bench.push(1, entry(PUSHED)) is PushOutcome.DONE
    bench.happened()
    [page] = bench.pages
    assert page.home_address == HOA and page.event.kind == "delivered"
    bench.advance(400.0)
    assert bench.push(2) is PushOutcome.DONE
    bench.happened()
    assert len(bench.pages) == 1 and bench.entries == []


def test_pushed_entries_and_those_of_the_device_are_apart() -> None:
    bench = Pushing()
    assert bench.push(1, entry(PUSHED)) is PushOutcome.DONE
    bench.changed(table(1000, entry(1), entry(2)))
    assert bench.entries == [1, 2, PUSHED], "the device has replaced its own"
    removal = EventTable1206((HOA,), Operation.REMOVE, 2000, removed=(1, PUSHED))
    assert [item.item for item in bench.changed(removal).items] == [PUSHED]
    assert bench.entries == [2, PUSHED]
    refused = bench.changed(EventTable1206((HOA,), Operation.PUT, 3000, (entry(PUSHED, STORE),)))
    assert [(item.item, item.status) for item in refused.items] == [(PUSHED, PagingStatus.REFUSED)]
    bench.push(2, entry(PUSHED + 1))
    assert bench.entries == [2, PUSHED + 1], "the policy server has replaced its own"


def test_pushed_entries_outlive_a_restart() -> None:
    bench = Pushing()
    bench.push(4, entry(PUSHED))
    bench.restart()
    assert bench.entries == [PUSHED]
    assert bench.push(4, entry(PUSHED + 1)) is PushOutcome.STALE
    assert bench.push(5) is PushOutcome.DONE
    bench.restart()
    assert bench.entries == [] and bench.push(5, entry(PUSHED)) is PushOutcome.STALE


def test_entries_of_a_fetched_profile_are_taken_once() -> None:
    bench = Pushing()
    fetched = EntriesFetched(HOA, ProfileChange(3, entries=(entry(PUSHED),)))
    bench.tell(fetched)
    assert bench.entries == [PUSHED] and bench.kinds("entries-pushed") == ["entries-pushed"]
    bench.tell(fetched)
    bench.tell(EntriesFetched(HOA, ProfileChange(2, entries=())))
    assert bench.entries == [PUSHED] and bench.counts == {}
    assert bench.push(3) is PushOutcome.STALE and bench.push(4) is PushOutcome.DONE
    bench.tell(EntriesFetched(STRANGER, ProfileChange(1, entries=())))
    assert bench.counts == {"push-stale": 1, "push-unknown": 1}


def test_an_older_push_changes_nothing() -> None:
    bench = Pushing()
    bench.push(7, entry(PUSHED))
    for version in (6, 7):
        assert bench.push(version) is PushOutcome.STALE
    assert bench.entries == [PUSHED] and bench.counts["push-stale"] == 2


@pytest.mark.parametrize("session", [Session(None, STRANGER), Session("alice@example.org"), Session()])
def test_devices_of_others_are_unknown(session: Session) -> None:
    bench = Pushing()
    assert bench.push(1, entry(PUSHED), session=session) is PushOutcome.UNKNOWN
    assert bench.outcome_of(DisconnectAsked(9, session)) is PushOutcome.UNKNOWN


def test_an_address_may_stand_for_the_name() -> None:
    bench = Pushing()
    assert bench.push(1, entry(PUSHED), session=Session(str(HOA))) is PushOutcome.DONE


def test_a_change_of_a_profile_alone_is_not_for_a_stand_in() -> None:
    bench = Pushing()
    change = ProfilePushed(1, MEANT, ProfileChange(1, rules=()))
    assert bench.outcome_of(change) is PushOutcome.UNKNOWN


def test_registrations_are_not_a_stand_ins_to_end() -> None:
    assert Pushing().outcome_of(DisconnectAsked(1, MEANT)) is PushOutcome.NOT_REMOVABLE


def test_entries_without_room_are_refused_whole() -> None:
    bench = Pushing()
    bench.changed(table(1000, *(entry(number) for number in range(1, MAX_ENTRIES))))
    assert bench.push(1, entry(PUSHED), entry(PUSHED + 1)) is PushOutcome.NO_ROOM
    assert len(bench.entries) == MAX_ENTRIES - 1
    assert bench.push(1, entry(PUSHED)) is PushOutcome.DONE


def test_a_page_needs_a_home_agent() -> None:
    bench = Pushing(replace(CONFIGURATION, home_agent=None))
    assert bench.push(1, entry(PUSHED)) is PushOutcome.INVALID
    assert bench.push(1, entry(PUSHED, STORE)) is PushOutcome.DONE


def test_rows_that_cannot_be_read_are_counted() -> None:
    bench = Pushing()
    bench.push(1, entry(PUSHED))
    key = ("event", f"{HOA} policy")
    bench.rows[key] = a.Persist("event", f"{HOA} policy", {"version": "x", "entries": ""})
    bench.counts.clear()
    bench.restart()
    assert bench.counts["unreadable-row"] == 1 and bench.entries == []
