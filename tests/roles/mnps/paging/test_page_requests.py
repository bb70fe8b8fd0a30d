"""Pages that a stand-in asks for: repeated until an outcome, joined, and never lost (P4, P5)."""

from random import Random
from time import process_time

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.mnps.paging.page_requests import (
    AGAIN_FIRST,
    AGAIN_MAX,
    ANSWER_TIMEOUT,
    SETTLING,
    PageRequests,
)
from locum.roles.paging.events import Firing
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import ActionKind, EntryAction
from locum.wire.control.paging.outcome import Outcome, PageAnswer, encode_page_answer
from locum.wire.control.paging.page_request import Order, decode_1172
from tests.roles.mnps.paging.table_bench import DIRECT, HA, HOA, Bench, entry, table


def fired(*entries: object, bench: Bench | None = None) -> Bench:
    """The device sleeps, and the home agent is silent when the event comes."""
    bench = bench or Bench()
    bench.outcome = lambda _page: None
    bench.changed(table(5, *(entries or (entry(),))))  # type: ignore[arg-type]
    bench.sleep()
    bench.happened(size=7)
    return bench


def waits(bench: Bench) -> bool:
    return bench.role.event_tables.pages.get(HOA) is not None


def test_silent_home_agent_is_asked_again_and_again() -> None:
    bench = fired()
    bench.advance(3 * 3600)
    assert len({page.page for page in bench.pages}) == 1 and waits(bench)
    assert 30 < len(bench.pages) < 60 and bench.counts["page-unanswered"] >= len(bench.pages) - 1
    bench.outcome = lambda _page: Outcome.REACHED
    bench.advance(400)
    assert bench.outcomes() == ["reached"] and not waits(bench)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.NO_ANSWER,
        Outcome.REFUSED,
        Outcome.UNKNOWN,
        Outcome.BUSY,
        Outcome.NOT_AUTHORISED,
        Outcome.MALFORMED,
    ],
)
def test_other_outcomes_are_told_and_the_page_is_repeated(outcome: Outcome) -> None:
    bench = fired()
    bench.outcome = lambda _page: outcome
    bench.advance(ANSWER_TIMEOUT + 3)
    word = outcome.name.lower().replace("_", "-")
    assert bench.outcomes() == [word] and bench.counts[f"page-{word}"] == 1 and waits(bench)
    bench.advance(AGAIN_FIRST)
    assert bench.outcomes() == [word, word]
    bench.restart()
    bench.advance(24 * 3600)
    times = len(bench.pages)
    assert 24 < times < 40, "at most once an hour in the end"
    bench.outcome = lambda _page: Outcome.REACHED
    bench.advance(AGAIN_MAX + 1)
    assert bench.outcomes()[-1] == "reached" and not waits(bench)


def test_device_that_comes_back_ends_the_page() -> None:
    bench = fired()
    bench.wake()
    assert bench.outcomes() == ["back"] and not waits(bench)
    asked = len(bench.pages)
    bench.advance(3600)
    assert len(bench.pages) == asked
    assert not [key for _, key in bench.rows if key.endswith("page")]


def test_removed_entry_ends_the_page() -> None:
    bench = fired()
    bench.changed(table(9))
    assert bench.outcomes() == ["withdrawn"] and not waits(bench)


def test_answer_to_a_page_that_is_over_is_ignored() -> None:
    bench = fired()
    number = 1 + max(bench.role.event_tables.pages._by_request)
    body = encode_page_answer(PageAnswer(bench.pages[0].page, Outcome.REACHED))
    bench.tell(a.Answered(number, body))
    assert waits(bench)
    bench.wake()
    bench.tell(a.Answered(number - 1, body))
    assert bench.outcomes() == ["back"]


@pytest.mark.parametrize("body", [b"", b"\xff", encode_page_answer(PageAnswer(b"another1", Outcome.REACHED))])
def test_malformed_answer_counts_as_none(body: bytes) -> None:
    bench = fired()
    (number,) = bench.role.event_tables.pages._by_request
    bench.tell(a.Answered(number, body))
    assert waits(bench) and any(name.startswith("page-answer-") for name in bench.counts)
    bench.outcome = lambda _page: Outcome.REACHED
    bench.advance(5)
    assert bench.outcomes() == ["reached"]


def test_events_of_other_entries_join_the_page() -> None:
    bench = fired(entry(1), entry(2, kind="message"))
    bench.happened("message")
    bench.happened()
    assert len(bench.pages) == 1 and bench.counts["page-joined"] == 2
    page = bench.role.event_tables.pages.get(HOA)
    assert page is not None and page.events == 3
    bench.restart()
    page = bench.role.event_tables.pages.get(HOA)
    assert page is not None and page.events >= 2


def test_event_after_an_outcome_waits_until_the_device_had_time() -> None:
    bench = fired()
    bench.outcome = lambda _page: Outcome.REACHED
    bench.advance(ANSWER_TIMEOUT + 5)
    assert bench.outcomes() == ["reached"]
    asked = len(bench.pages)
    for _ in range(50):
        bench.happened()
    assert len(bench.pages) == asked and waits(bench)
    bench.advance(SETTLING + 1)
    assert len(bench.pages) == asked + 1 and not waits(bench)


def test_event_of_the_next_sleep_waits_for_no_earlier_page() -> None:
    bench = fired()
    bench.outcome = lambda _page: Outcome.REACHED
    bench.advance(ANSWER_TIMEOUT + 5)
    asked = len(bench.pages)
    bench.wake()
    bench.sleep(b"i" * 16)
    bench.happened(handover=b"i" * 16)
    assert len(bench.pages) == asked + 1, "the device was back meanwhile"


def test_order_of_the_entry_goes_to_the_home_agent() -> None:
    bench = fired(entry(1, EntryAction(ActionKind.PAGE, Order.WITH)))
    assert bench.pages[0].order is Order.WITH


def test_page_goes_to_the_home_agent_of_the_device() -> None:
    bench = fired()
    (asked,) = [event for event in bench.events if event.kind == "page-asked"]
    assert asked.message == "1172" and asked.detail["to"] == str(HA) and asked.detail["events"] == 1


def test_direct_page_that_is_not_possible_goes_to_the_home_agent() -> None:
    bench = fired(entry(1, DIRECT))
    assert len(bench.pages) == 1 and waits(bench)
    (ended,) = [event for event in bench.events if event.kind == "direct-page-ended"]
    assert (ended.detail["outcome"], ended.detail["entry"]) == ("not-authorised", 1)
    assert not [key for table_, key in bench.rows if table_ == "direct_page"]


def test_direct_page_comes_first_and_alone() -> None:
    bench, paged = Bench(), []

    def direct(home: Addr, firing: Firing, _now: float) -> list[a.Action]:
        paged.append((home, firing))
        return []

    bench.role.event_tables._acting.direct = direct
    fired(entry(1, EntryAction(ActionKind.PAGE, Order.WITH), DIRECT), bench=bench)
    ((home, firing),) = paged
    assert home == HOA and firing.entry.identifier == 1 and not bench.pages
    bench._perform(bench.role.event_tables.by_home_agent(HOA, firing, bench.now))
    assert [page.order for page in bench.pages] == [Order.WITH], "it falls back to the other action"
    assert bench.role.event_tables.by_home_agent(HA, firing, bench.now) == [a.Count("page-no-table")]


def cost(devices: int) -> float:
    """Processor seconds for each of so many devices that are reached at the same time; the least of three runs."""
    taken = []
    for _ in range(3):
        pages = PageRequests(lambda _homes: HA, Random(1))
        event = ApplicationEvent("mqtt", "delivered")
        answers = []
        for number in range(devices):
            for action in pages.page((HOA + number,), 1, event, now=1000.0):
                if isinstance(action, a.Ask):
                    said = PageAnswer(decode_1172(action.body).page, Outcome.REACHED)
                    answers.append(a.Answered(action.request, encode_page_answer(said)))
        assert len(answers) == devices
        begun = process_time()
        for answer in answers:
            pages.happened(answer, now=1001.0)
        taken.append((process_time() - begun) / devices)
        assert len(pages._reached) == devices
        (late,) = pages.page((HOA,), 1, event, now=1001.5)
        assert isinstance(late, a.Persist), "a device on its way back is not asked for at once"
    return min(taken)


def test_many_devices_that_are_reached_cost_no_more_each() -> None:
    assert cost(4000) < 3 * cost(250)


def test_devices_that_have_settled_are_forgotten() -> None:
    bench = fired()
    bench.outcome = lambda _page: Outcome.REACHED
    bench.advance(400)
    pages = bench.role.event_tables.pages
    assert list(pages._reached) == [HOA]
    pages._settle(HOA + 1, bench.now + SETTLING)
    assert list(pages._reached) == [HOA + 1]
