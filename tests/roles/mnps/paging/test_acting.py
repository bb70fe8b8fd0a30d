"""Effects of entries: events stored for the device, which gets them with its reclaim (P3)."""

from locum.roles.paging.stored_events import MAX_STORED
from tests.roles.mnps.paging.table_bench import DIRECT, HOA, PAGE, STORE, Bench, entry, table


def stored(*entries: object) -> Bench:
    bench = Bench()
    bench.changed(table(5, *(entries or (entry(2, STORE),))))  # type: ignore[arg-type]
    bench.sleep()
    return bench


def given(application: object) -> list[list[object]]:
    assert isinstance(application, dict)
    found = application.get("events", [])
    assert isinstance(found, list)
    return found


def test_device_gets_stored_events_with_its_reclaim() -> None:
    bench = stored()
    bench.happened(size=1)
    bench.advance(5)
    bench.happened(size=2)
    events = given(bench.wake().application)
    assert [(item[1], item[2], item[3], item[6]) for item in events] == [
        (2, "mqtt", "delivered", 1),
        (2, "mqtt", "delivered", 1),
    ]
    assert isinstance(events[1][5], int) and isinstance(events[0][5], int)
    assert events[1][5] - events[0][5] == 5000
    assert not [key for _, key in bench.rows if "stored" in key]
    assert [event.detail["events"] for event in bench.events if event.kind == "events-given"] == [2]
    bench.sleep(b"i" * 16)
    assert given(bench.wake(b"i" * 16).application) == []


def test_stored_events_outlast_a_restart() -> None:
    bench = stored()
    bench.happened(size=1)
    bench.restart()
    bench.happened(size=2)
    assert len(given(bench.reclaim().application)) == 2


def test_event_after_the_answer_waits_for_the_next_one() -> None:
    bench = stored()
    bench.happened(size=1)
    assert len(given(bench.reclaim().application)) == 1
    bench.happened(size=2)
    bench.done()
    bench.sleep(b"i" * 16)
    (event,) = given(bench.wake(b"i" * 16).application)
    assert isinstance(event[4], dict) and event[4]["size"] == 2


def test_unanswered_reclaim_gives_nothing_away() -> None:
    bench = stored()
    bench.happened(size=1)
    first = given(bench.reclaim().application)
    bench.restart()
    assert given(bench.reclaim().application) == first


def test_entry_may_store_and_page_in_one() -> None:
    bench = stored(entry(2, STORE, PAGE, DIRECT))
    bench.happened()
    assert len(bench.pages) == 1
    device = bench.role.event_tables.of((HOA,))
    assert device is not None and len(device.stored) == 1


def test_flood_is_counted_where_there_is_no_room() -> None:
    bench = stored()
    for _ in range(10_000):
        bench.happened()
    events = given(bench.wake().application)
    assert len(events) == MAX_STORED
    assert sum(item[6] for item in events if isinstance(item[6], int)) == 10_000


def test_stored_events_outlast_the_entry() -> None:
    bench = stored()
    bench.happened()
    bench.changed(table(6))
    assert len(bench.role.event_tables.all()) == 1
    assert len(given(bench.wake().application)) == 1
    assert not bench.role.event_tables.all()
