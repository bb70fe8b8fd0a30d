"""1206 at a stand-in: rights, order, room, rows; and events that are compared with the table (P3, P12, P14)."""

import pytest

from locum.roles.actions import Count
from locum.roles.mnps.paging.device_table import size_of
from locum.roles.mnps.paging.event_tables import NO_ROOM, EventTables
from locum.roles.mnps.role import StandIn
from locum.roles.paging.stored_events import MAX_STORED
from locum.wire.control.paging.direct_page import NO_DIRECTIONS, Directions
from locum.wire.control.paging.entry import Condition, Entry, Limits, Operator, Pattern
from locum.wire.control.paging.event_table import EventTable1206, Operation, encode_1206
from locum.wire.control.paging.status import PagingStatus, decode_status_answer
from tests.roles.mnps.paging.table_bench import (
    AN,
    CONFIGURATION,
    FLOW,
    HOA,
    HOA6,
    OTHER,
    PAGE,
    RULE,
    STORE,
    TELL,
    Bench,
    entry,
    table,
)


def tables(bench: Bench) -> EventTables:
    return bench.role.event_tables


def asleep(*entries: object, **more: object) -> Bench:
    """A device with this table that sleeps."""
    bench = Bench()
    assert bench.changed(table(5, *entries, **more)).status is PagingStatus.OK  # type: ignore[arg-type]
    bench.sleep()
    return bench


def test_event_of_a_sleeping_device_pages_it_once() -> None:
    bench = asleep(entry(3, name="download"))
    bench.happened(size=7)
    bench.advance(1)
    (page,) = bench.pages
    assert (page.home_address, page.event.app, page.event.kind) == (HOA, "mqtt", "delivered")
    assert page.event.detail == {"size": 7, "peer": "192.0.2.1", "peer_port": 1883}
    (fired,) = [event for event in bench.events if event.kind == "event-fired"]
    assert fired.detail["entry"] == 3 and fired.detail["name"] == "download" and fired.flow == FLOW
    assert bench.outcomes() == ["reached"] and bench.counts["page-reached"] == 1
    assert not [key for table_, key in bench.rows if table_ == "event" and key.endswith("page")]


def test_other_events_do_nothing() -> None:
    bench = asleep(entry(kind="message_*", app="mail"))
    bench.happened("message_available")
    bench.happened("delivered", app="mail")
    assert not bench.pages
    bench.happened("message_available", app="mail")
    assert len(bench.pages) == 1


def test_event_of_an_awake_device_does_nothing() -> None:
    bench = Bench()
    bench.changed(table(5, entry(1, PAGE, STORE)))
    bench.order()  # runs while the device is awake
    bench.happened(handover=b"o" * 16, flow=None)
    bench.happened(handover=b"x" * 16)
    assert not bench.pages and bench.counts["event-awake"] == 1 and bench.counts["event-of-no-handover"] == 1
    bench.sleep()
    bench.happened()
    assert len(bench.pages) == 1


def test_event_while_the_device_falls_asleep_is_not_lost() -> None:
    bench = Bench()
    bench.changed(table(5, entry()))
    bench.order()
    bench.prepare()
    for _ in range(100):
        bench.happened(handover=b"o" * 16, flow=None)
    assert not bench.pages
    bench.sleep()
    assert len(bench.pages) == 1 and bench.counts["event-awake"] == 36
    assert bench.counts["page-joined"] == 63


def test_sleep_that_is_called_off_drops_its_events() -> None:
    from locum.wire.control import Cancel, encode_634

    bench = Bench()
    bench.changed(table(5, entry()))
    bench.order()
    bench.prepare()
    bench.happened(handover=b"o" * 16, flow=None)
    bench.ask("634", encode_634(Cancel(b"h" * 16)))
    bench.advance(1)
    assert not bench.pages and bench.counts["event-awake"] == 1


@pytest.mark.parametrize("authorised", [(), (OTHER,), (HOA6,)])
def test_table_of_another_device_is_refused(authorised: tuple[object, ...]) -> None:
    bench = Bench()
    answer = bench.changed(table(5, entry()), authorised=authorised)
    assert answer.status is PagingStatus.NOT_AUTHORISED and not tables(bench).all() and not bench.rows
    assert bench.counts == {"1206-not-authorised": 1}


def test_access_node_may_change_the_table() -> None:
    bench = Bench()
    assert bench.changed(table(5, entry()), peer=AN).status is PagingStatus.OK
    assert [event.detail["from"] for event in bench.events if event.kind == "table-changed"] == [str(AN)]


def test_home_address_that_is_not_served_is_refused() -> None:
    from ipaddress import ip_address

    bench, foreign = Bench(), ip_address("192.0.2.9")
    change = EventTable1206((foreign,), Operation.REPLACE, 5, (entry(),))
    assert bench.changed(change, authorised=(foreign,)).status is PagingStatus.NOT_AUTHORISED
    assert not bench.rows


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"\xa0", encode_1206(table(5, entry()))[:-3], b"\xa1\x01\x09"]
)
def test_malformed_table_changes_nothing(body: bytes) -> None:
    bench = Bench()
    bench.changed(table(5, entry()))
    before = dict(bench.rows)
    exchange = bench.ask("1206", body)
    assert decode_status_answer(bench.answers[exchange]).status is PagingStatus.MALFORMED
    assert (
        bench.rows == before and sum(n for name, n in bench.counts.items() if name.startswith("1206-")) == 1
    )


def test_older_table_is_stale_and_a_doubled_one_is_not() -> None:
    bench = Bench()
    first = table(5, entry(1))
    assert bench.changed(first) == bench.changed(first)
    assert bench.changed(table(4, entry(2))).status is PagingStatus.STALE
    assert [item.identifier for item in tables(bench).all()[0].table.entries] == [1]
    assert bench.counts == {"1206-stale": 1}


def test_home_addresses_of_two_devices_are_refused() -> None:
    bench = Bench()
    both = (HOA, OTHER)
    bench.changed(EventTable1206((HOA,), Operation.REPLACE, 5, (entry(),)), authorised=both)
    bench.changed(EventTable1206((OTHER,), Operation.REPLACE, 5, (entry(),)), authorised=both)
    mixed = EventTable1206(both, Operation.REPLACE, 6, (entry(2),))
    assert bench.changed(mixed, authorised=both).status is PagingStatus.REFUSED
    assert bench.counts == {"1206-other-homes": 1}


def test_second_home_address_joins_the_table() -> None:
    bench = Bench()
    bench.changed(table(5, entry()))
    bench.changed(EventTable1206((HOA, HOA6), Operation.PUT, 6, (entry(2),)))
    (device,) = tables(bench).all()
    assert device.home_addresses == (HOA, HOA6) and tables(bench).of((HOA6,)) is device


def test_tables_of_all_devices_are_bounded() -> None:
    bench = Bench()
    change = table(5, *(entry(number) for number in range(1, 5)))
    bench.role.event_tables._most_bytes = size_of(change.entries, change) + 10
    assert bench.changed(change).status is PagingStatus.OK
    before = dict(bench.rows)
    other = EventTable1206((OTHER,), Operation.REPLACE, 5, (entry(),))
    answer = bench.changed(other, authorised=(OTHER,))
    assert (answer.status, answer.text) == (PagingStatus.LIMIT, NO_ROOM)
    assert bench.changed(EventTable1206((HOA,), Operation.PUT, 6, (entry(9),))).status is PagingStatus.LIMIT
    assert bench.rows == before and bench.counts == {"1206-limit": 2}
    assert bench.changed(table(7, entry(9))).status is PagingStatus.OK
    assert bench.changed(other, authorised=(OTHER,)).status is PagingStatus.OK


def test_number_of_devices_is_bounded() -> None:
    bench = Bench()
    bench.role.event_tables._most = 1
    bench.changed(table(5, entry()))
    other = EventTable1206((OTHER,), Operation.REPLACE, 5, (entry(),))
    assert bench.changed(other, authorised=(OTHER,)).status is PagingStatus.LIMIT
    bench.changed(table(6))
    assert bench.changed(other, authorised=(OTHER,)).status is PagingStatus.OK
    assert [device.home_addresses for device in tables(bench).all()] == [(OTHER,)]
    assert {key for _, key in bench.rows} == {str(OTHER)}, "rows of the device that gave way are gone too"
    bench.restart()
    assert [device.home_addresses for device in tables(bench).all()] == [(OTHER,)]


def test_entry_without_a_home_agent_says_so() -> None:
    from dataclasses import replace

    bench = Bench(replace(CONFIGURATION, home_agent=None))
    answer = bench.changed(table(5, entry(1), entry(2, STORE)))
    assert answer.status is PagingStatus.OK
    assert [(item.item, item.status) for item in answer.items] == [(1, PagingStatus.UNKNOWN)]
    assert "home_agent" in answer.items[0].text
    bench.sleep()
    bench.happened()
    assert not bench.pages and bench.counts["page-no-home-agent"] == 1


@pytest.mark.parametrize("moment", ["table", "asleep", "event", "asked"])
def test_restart_at_any_moment_loses_nothing(moment: str) -> None:
    bench = Bench()
    bench.outcome = lambda _page: None
    bench.changed(table(5, entry(1, PAGE, STORE)))
    if moment == "table":
        bench.restart()
    bench.sleep()
    if moment == "asleep":
        bench.restart()
    bench.happened(size=7)
    if moment in ("event", "asked"):
        if moment == "asked":
            bench.advance(1)
        bench.restart()
    from locum.wire.control.paging.outcome import Outcome

    bench.outcome = lambda _page: Outcome.REACHED
    bench.advance(400)
    assert len({page.page for page in bench.pages}) == 1 and bench.outcomes() == ["reached"]
    assert bench.pages[-1].event.detail["size"] == 7
    events = bench.wake().application["events"]
    assert isinstance(events, list) and len(events) == 1


def test_limits_hold_a_page_back_over_a_restart() -> None:
    bench = asleep(entry(limits=Limits(interval=600)))
    bench.happened()
    bench.advance(20)
    bench.happened()
    bench.happened()
    assert len(bench.pages) == 1
    bench.restart()
    bench.advance(570)
    assert len(bench.pages) == 1
    bench.advance(20)
    assert len(bench.pages) == 2
    late = [event.detail for event in bench.events if event.kind == "event-fired" and event.detail["late"]]
    assert len(late) == 1


def test_quiet_hours_end_with_a_step_of_the_clock() -> None:
    now = 13 * 60 + 33  # minutes of the day at the bench's start
    bench = asleep(entry(limits=Limits(quiet=((now - 60, now + 120),))))
    bench.happened()
    bench.advance(600)
    assert not bench.pages
    bench.step_wall_clock(3 * 3600.0)
    bench.advance(1)
    assert len(bench.pages) == 1


def test_combination_is_matched_over_a_restart() -> None:
    parts = (Pattern("mqtt", "message"), Pattern("fox", "delivered"))
    both = entry(4, PAGE)
    both = type(both)(4, parts, (PAGE,), within=60)
    bench = asleep(both)
    bench.happened("message")
    bench.restart()
    bench.advance(30)
    bench.happened(app="fox")
    assert len(bench.pages) == 1


def test_waking_drops_what_waits_for_a_limit() -> None:
    bench = asleep(entry(limits=Limits(interval=600)))
    bench.happened()
    bench.advance(1)
    bench.happened()
    bench.wake()
    bench.advance(3600)
    assert len(bench.pages) == 1
    assert "due" not in str([row.value for (_, key), row in bench.rows.items() if "entry" in key]) or all(
        row.value["due"] is None for (_, key), row in bench.rows.items() if "entry" in key
    )


def test_flood_makes_one_page_and_few_rows() -> None:
    bench = asleep(entry(1, PAGE, STORE))
    written = []
    original = bench._one
    bench._one = lambda action: (written.append(type(action).__name__), original(action))[1]  # type: ignore[method-assign,func-returns-value]
    bench.outcome = lambda _page: None
    for _ in range(10_000):
        bench.happened()
    assert len(bench.pages) == 1 and written.count("Persist") < 200
    device = tables(bench).of((HOA,))
    assert device is not None
    assert sum(stored.count for stored in device.stored.all()) == 10_000
    page = tables(bench).pages.get(HOA)
    assert page is not None and page.events == 10_000


def test_flood_of_half_a_combination_is_few_rows() -> None:
    both = Entry(4, (Pattern("mqtt", "message"), Pattern("fox", "delivered")), (PAGE,), within=60)
    bench = asleep(both)
    written = []
    original = bench._one
    bench._one = lambda action: (written.append(type(action).__name__), original(action))[1]  # type: ignore[method-assign,func-returns-value]
    for _ in range(1000):
        bench.happened("message")
        bench.advance(0.01)
    assert 10 <= written.count("Persist") <= 12
    bench.advance(55)
    bench.restart()
    bench.happened(app="fox")
    assert len(bench.pages) == 1, "the row is a second old at most"


def test_stored_events_that_give_way_are_counted() -> None:
    bench = asleep(entry(1, STORE), entry(2, STORE, kind="other"))
    for _ in range(MAX_STORED):
        bench.happened()
    assert "stored-events-lost" not in bench.counts
    bench.happened("other")
    assert bench.counts["stored-events-lost"] == 1
    assert len([key for _, key in bench.rows if " stored " in key]) == MAX_STORED


def test_information_of_the_device_is_compared() -> None:
    near = Condition("size", Operator.GREATER, "limit", left=True)
    wanted = type(entry())(1, (Pattern("*", "delivered", (near,)),), (PAGE,))
    bench = asleep(wanted, information={"limit": 100})
    bench.happened(size=100)
    assert not bench.pages
    bench.restart()
    bench.happened(size=101)
    assert len(bench.pages) == 1


def test_text_goes_to_the_proxy_of_the_session() -> None:
    from locum.roles.action_values.event_tables import CorrespondentTold

    bench = asleep(entry(1, TELL))
    bench.happened()
    (told,) = bench.told
    assert (told.handover, told.app, told.flow, told.text) == (b"h" * 16, "mqtt", FLOW, "asleep")
    bench.tell(CorrespondentTold(told.handover, told.app, told.flow))
    bench.tell(CorrespondentTold(told.handover, told.app, told.flow, "no proxy of this name runs"))
    bench.happened(flow=None)
    assert bench.counts == {"tell-failed": 1, "tell-no-session": 1}
    assert [event.detail["reason"] for event in bench.events if event.kind == "correspondent-told"] == [
        "",
        "no proxy of this name runs",
    ]


def test_unreadable_rows_are_counted() -> None:
    bench = asleep(entry(1, PAGE, STORE))
    bench.outcome = lambda _page: None
    bench.happened()
    for key in list(bench.rows):
        if key[0] == "event":
            bench.rows[key] = type(bench.rows[key])(key[0], key[1], {"table": "zz"})  # type: ignore[arg-type]
    lost = sum(key[0] == "event" for key in bench.rows)
    bench.restart()
    assert bench.counts["unreadable-row"] == lost and not tables(bench).all()
    assert isinstance(bench.role, StandIn) and not [key for key in bench.rows if key[0] == "event"]


# Directions of a device that was paged directly (P5)


def test_directions_change_the_table_of_the_sleeper() -> None:
    bench = asleep(entry(1, app="mail"), information={"seen": 1})
    new = Directions((entry(9, kind="urgent"),), {"seen": 2}, (RULE,))
    bench._perform(tables(bench).directed(HOA, new, bench.now))
    device = tables(bench).of((HOA,))
    assert device is not None and [it.identifier for it in device.table.entries] == [1, 9]
    assert device.table.information == {"seen": 2} and bench.rules[-1].rules == (RULE,)
    (told,) = [event for event in bench.events if event.detail.get("from") == "1172A"]
    assert told.kind == "table-changed" and told.detail["entries"] == 2
    bench.happened("urgent")
    assert len(bench.pages) == 1
    bench.restart()
    again = tables(bench).of((HOA,))
    assert again is not None and len(again.table.entries) == 2
    assert bench.changed(table(7, entry(2))).status is PagingStatus.OK, "the device's own change is later"


def test_directions_without_a_table_or_without_room_are_counted() -> None:
    bench = Bench()
    new = Directions((entry(9),))
    assert tables(bench).directed(HOA, new, bench.now) == [Count("directions-no-table")]
    bench = asleep(entry(1))
    assert tables(bench).directed(HOA, NO_DIRECTIONS, bench.now) == []
    tables(bench)._most_bytes = 1
    assert tables(bench).directed(HOA, new, bench.now) == [Count("directions-limit")]
    device = tables(bench).of((HOA,))
    assert device is not None and [it.identifier for it in device.table.entries] == [1]


def test_table_of_several_changes_outlives_a_restart() -> None:
    """Each message is short enough, all entries together are not: those that would be too much are refused."""
    long = Condition("text", Operator.CONTAINS, "x" * 250)
    bench = Bench()

    def entries(first: int) -> tuple[Entry, ...]:
        patterns = (Pattern("mail", "arrived", (long,) * 8),) * 8
        return tuple([Entry(number, patterns, (PAGE,)) for number in range(first, first + 10)])

    said = [
        bench.changed(EventTable1206((HOA,), Operation.PUT, number, entries(number * 10))).status
        for number in range(1, 6)
    ]
    assert said[0] is PagingStatus.OK and said[-1] is PagingStatus.LIMIT
    before = [item.identifier for item in tables(bench).all()[0].table.entries]
    bench.restart()
    assert "unreadable-row" not in bench.counts
    assert [item.identifier for item in tables(bench).all()[0].table.entries] == before


def test_change_of_the_future_is_refused() -> None:
    """It would keep true ones out, the device's and its access node's."""
    bench = Bench()
    at = round(bench.now * 1000)
    assert bench.changed(table(at + 61_000, entry())).status is PagingStatus.REFUSED
    assert bench.counts == {"1206-future": 1} and not bench.rows
    bench.step_wall_clock(3600)
    assert bench.changed(table(at + 3_600_000, entry())).status is PagingStatus.OK
    bench.step_wall_clock(-3600)
    assert bench.changed(table(at + 1000, entry(2))).status is PagingStatus.OK, "the clocks were wrong"
    assert [item.identifier for item in tables(bench).all()[0].table.entries] == [2]
