"""Queries to a location server: one at a time for a device, repeated without an answer, kept for a short time, bounded."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.location.asking import (
    FIRST_REQUEST,
    FRESH,
    LAST_REQUEST,
    MAX_ATTEMPTS,
    MOST_ASKED,
    MOST_KEPT,
    UNKNOWN_FRESH,
    LocationQueries,
)
from locum.wire.control.paging.location import (
    Location1212,
    LocationAnswer,
    decode_query,
    encode_query_answer,
)
from locum.wire.control.paging.status import PagingStatus

HOME, OTHER = ip_address("10.50.0.9"), ip_address("10.50.0.10")
SERVER, AN = ip_address("10.5.0.1"), ip_address("10.1.0.1")
START = 1_790_000_000.0
AT_AN = Location1212((HOME,), 300, 0, access_node=AN)


class Asker:
    """Queries, and the locations that were found."""

    def __init__(self, server: Addr | None = SERVER) -> None:
        self.ended: list[tuple[Addr, Location1212 | None]] = []
        self.queries = LocationQueries(server, self._found)

    def _found(self, home_address: Addr, location: Location1212 | None, now: float) -> list[a.Action]:
        self.ended.append((home_address, location))
        return []

    def ask(self, home_address: Addr = HOME, *, at: float = START) -> list[a.Ask]:
        return asks(self.queries.ask(home_address, now=at))

    def answer(self, ask: a.Ask, *found: Location1212, at: float = START, status: int = 0) -> list[str]:
        body = encode_query_answer(LocationAnswer(PagingStatus(status), found))
        return words(self.queries.happened(a.Answered(ask.request, body), now=at))


def asks(actions: list[a.Action] | None) -> list[a.Ask]:
    return [action for action in actions or () if isinstance(action, a.Ask)]


def words(actions: list[a.Action] | None) -> list[str]:
    """Reasons of counters, and kinds of events."""
    told = [it for it in actions or () if isinstance(it, a.Count | a.Emit)]
    return [it.reason if isinstance(it, a.Count) else it.kind for it in told]


@pytest.fixture
def asker() -> Asker:
    return Asker()


def test_answer_is_found_and_kept_for_a_while(asker: Asker) -> None:
    (ask,) = asker.ask()
    assert (ask.peer, ask.path, decode_query(ask.body).home_address) == (SERVER, "1135", HOME)
    assert asker.ask() == [], "one query at a time"
    assert asker.answer(ask, AT_AN) == []
    assert asker.ended == [(HOME, AT_AN)]
    assert asker.ask(at=START + FRESH - 1) == [] and asker.ended == [(HOME, AT_AN)] * 2
    assert len(asker.ask(at=START + FRESH)) == 1


def test_location_is_used_until_it_ends(asker: Asker) -> None:
    asker.answer(asker.ask()[0], replace(AT_AN, lifetime=4))
    assert asker.ask(at=START + 3) == []
    assert len(asker.ask(at=START + 4)) == 1


def test_forgotten_location_is_asked_for_again(asker: Asker) -> None:
    asker.answer(asker.ask()[0], AT_AN)
    asker.queries.forget(HOME)
    assert len(asker.ask()) == 1


def test_device_that_is_not_known_is_remembered_shortly(asker: Asker) -> None:
    assert asker.answer(asker.ask()[0], status=PagingStatus.UNKNOWN) == ["location-asking-unknown"]
    assert asker.ended == [(HOME, None)]
    assert asker.ask(at=START + UNKNOWN_FRESH / 2) == [] and len(asker.ended) == 2
    assert len(asker.ask(at=START + UNKNOWN_FRESH)) == 1


def test_silent_server_is_asked_again_and_given_up(asker: Asker) -> None:
    now = START
    (ask,) = asker.ask()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        told = words(asker.queries.happened(a.NoAnswer(ask.request, "no answer"), now=now))
        if attempt == MAX_ATTEMPTS:
            assert told == ["location-asking-unanswered", "location-query-failed"]
            break
        assert told == ["location-asking-unanswered"] and asker.ended == []
        at = asker.queries.deadline()
        assert at is not None and at > now
        assert asks(asker.queries.timeout(now=at - 0.01)) == []
        (ask,) = asks(asker.queries.timeout(now=at))
        now = at
    assert asker.ended == [(HOME, None)] and asker.queries.deadline() is None
    assert len(asker.ask(at=now)) == 1, "a failure is not kept"


@pytest.mark.parametrize("status", [PagingStatus.BUSY, PagingStatus.LIMIT])
def test_busy_server_is_asked_again(asker: Asker, status: PagingStatus) -> None:
    assert asker.answer(asker.ask()[0], status=status) == ["location-asking-busy"]
    (again,) = asks(asker.queries.timeout(now=START + 1))
    asker.answer(again, AT_AN, at=START + 1)
    assert asker.ended == [(HOME, AT_AN)]


@pytest.mark.parametrize("status", [PagingStatus.NOT_AUTHORISED, PagingStatus.MALFORMED, PagingStatus.STALE])
def test_refusal_ends_the_query_and_is_told(asker: Asker, status: PagingStatus) -> None:
    reason = status.name.lower().replace("_", "-")
    assert asker.answer(asker.ask()[0], status=status) == [
        f"location-asking-{reason}",
        "location-query-failed",
    ]
    assert asker.ended == [(HOME, None)]


def test_location_of_another_device_is_refused(asker: Asker) -> None:
    told = asker.answer(asker.ask()[0], replace(AT_AN, home_addresses=(OTHER,)))
    assert told == ["location-asking-mismatch", "location-query-failed"]
    assert asker.ended == [(HOME, None)]


def test_damaged_answer_is_counted_and_the_query_repeated(asker: Asker) -> None:
    (ask,) = asker.ask()
    assert words(asker.queries.happened(a.Answered(ask.request, b""), now=START)) == [
        "location-asking-truncated"
    ]
    assert len(asks(asker.queries.timeout(now=START + 1))) == 1


def test_doubled_answer_counts_once(asker: Asker) -> None:
    (ask,) = asker.ask()
    asker.answer(ask, AT_AN)
    assert asker.answer(ask, AT_AN) == ["location-asking-late"] and len(asker.ended) == 1


def test_without_a_server_nothing_is_known() -> None:
    asker = Asker(None)
    assert asker.ask() == [] and asker.ended == [(HOME, None)]


def test_queries_and_kept_answers_are_bounded(asker: Asker) -> None:
    for number in range(MOST_KEPT + MOST_ASKED):
        address = ip_address(0x0A000000 + number)
        (ask,) = asker.ask(address)
        if number < MOST_KEPT:
            asker.answer(ask, replace(AT_AN, home_addresses=(address,)))
    assert words(asker.queries.ask(HOME, now=START)) == ["location-asking-limit"]
    assert asker.ended[-1] == (HOME, None)
    fresh = Asker()
    for number in range(MOST_KEPT + 1):
        address = ip_address(0x0A000000 + number)
        fresh.answer(fresh.ask(address)[0], replace(AT_AN, home_addresses=(address,)))
    assert len(fresh.ask(ip_address(0x0A000000))) == 1, "the oldest is forgotten"
    assert fresh.ask(ip_address(0x0A000001)) == []


def test_other_requests_and_events_are_left_to_others(asker: Asker) -> None:
    assert asker.queries.happened(a.Answered(FIRST_REQUEST - 1, b""), now=START) is None
    assert asker.queries.happened(a.NoAnswer(LAST_REQUEST + 1, ""), now=START) is None
    assert asker.queries.happened(a.WallClockStepped(1.0), now=START) is None
