"""Reports to a location server: the last one counts, is repeated without an answer, and ends in an event."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from locum.roles import actions as a
from locum.roles.location.reports import FIRST_REQUEST, MAX_ATTEMPTS, LocationReports
from locum.wire.control.paging.location import Location1212, decode_1212
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, encode_status_answer

HOME, OTHER = ip_address("10.50.0.9"), ip_address("10.50.0.10")
SERVER, AN1, AN2 = ip_address("10.5.0.1"), ip_address("10.1.0.1"), ip_address("10.2.0.1")
START = 1_790_000_000.0
AT_ONE = Location1212((HOME,), 300, 0, access_node=AN1)
OK = encode_status_answer(StatusAnswer(PagingStatus.OK))


def asks(actions: list[a.Action] | None) -> list[a.Ask]:
    return [action for action in actions or () if isinstance(action, a.Ask)]


def words(actions: list[a.Action] | None) -> list[str]:
    """Kinds of events and reasons of counters."""
    found = []
    for action in actions or ():
        match action:
            case a.Emit():
                found.append(action.kind)
            case a.Count():
                found.append(action.reason)
    return found


@pytest.fixture
def reports() -> LocationReports:
    return LocationReports(SERVER)


def test_report_has_the_time_of_the_wall_clock(reports: LocationReports) -> None:
    assert reports.happened(a.WallClockStepped(3.0), now=START) is None, "others need it too"
    (ask,) = asks(reports.report(AT_ONE, now=START))
    assert (ask.peer, ask.path) == (SERVER, "1212")
    assert decode_1212(ask.body) == replace(AT_ONE, sent=round((START + 3) * 1000))
    assert words(reports.happened(a.Answered(ask.request, OK), now=START)) == []
    assert reports.deadline() is None


def test_reports_at_one_moment_are_in_order(reports: LocationReports) -> None:
    sent = [decode_1212(ask.body).sent for _ in range(3) for ask in asks(reports.report(AT_ONE, now=START))]
    assert sent == sorted(set(sent)) and len(sent) == 3


def test_later_report_takes_the_place_of_the_first(reports: LocationReports) -> None:
    (first,) = asks(reports.report(AT_ONE, now=START))
    (second,) = asks(reports.report(replace(AT_ONE, access_node=AN2), now=START + 1))
    assert reports.happened(a.NoAnswer(first.request, "late"), now=START + 2) == []
    assert reports.deadline() is None, "the first is not repeated"
    assert reports.happened(a.Answered(second.request, OK), now=START + 2) == []


def test_unanswered_report_is_repeated_and_given_up(reports: LocationReports) -> None:
    now, bodies = START, set()
    (ask,) = asks(reports.report(AT_ONE, now=now))
    for attempt in range(1, MAX_ATTEMPTS + 1):
        bodies.add(ask.body)
        told = words(reports.happened(a.NoAnswer(ask.request, "no answer"), now=now))
        if attempt == MAX_ATTEMPTS:
            assert told == ["location-report-unanswered", "location-report-failed"]
            break
        assert told == ["location-report-unanswered"]
        at = reports.deadline()
        assert at is not None and at > now
        now = at
        (ask,) = asks(reports.timeout(now=now))
    assert reports.deadline() is None
    assert len(bodies) == 1, "the time is that of the observation, not that of the attempt"
    assert 200 < now - START < 400


def test_busy_server_is_asked_again(reports: LocationReports) -> None:
    (ask,) = asks(reports.report(AT_ONE, now=START))
    busy = encode_status_answer(StatusAnswer(PagingStatus.BUSY))
    assert words(reports.happened(a.Answered(ask.request, busy), now=START)) == ["location-report-busy"]
    assert len(asks(reports.timeout(now=START + 1))) == 1


def test_refusal_is_told_and_ends_the_report(reports: LocationReports) -> None:
    (ask,) = asks(reports.report(AT_ONE, now=START))
    refused = encode_status_answer(StatusAnswer(PagingStatus.NOT_AUTHORISED, "no"))
    told = words(reports.happened(a.Answered(ask.request, refused), now=START))
    assert told == ["location-report-not-authorised", "location-report-failed"]
    assert reports.deadline() is None


def test_damaged_answer_is_counted_and_the_report_repeated(reports: LocationReports) -> None:
    (ask,) = asks(reports.report(AT_ONE, now=START))
    assert words(reports.happened(a.Answered(ask.request, b""), now=START)) == ["location-report-truncated"]
    assert len(asks(reports.timeout(now=START + 1))) == 1


def test_report_soon_is_due_at_once(reports: LocationReports) -> None:
    reports.report_soon(AT_ONE)
    assert reports.deadline() == 0.0
    assert len(asks(reports.timeout(now=START))) == 1
    assert reports.deadline() is None


def test_devices_are_reported_side_by_side(reports: LocationReports) -> None:
    first = asks(reports.report(AT_ONE, now=START)) + asks(
        reports.report(replace(AT_ONE, home_addresses=(OTHER,)), now=START)
    )
    for ask in first:
        reports.happened(a.NoAnswer(ask.request, ""), now=START)
    again = asks(reports.timeout(now=START + 1))
    assert {decode_1212(ask.body).home_addresses for ask in again} == {(HOME,), (OTHER,)}


def test_other_requests_and_events_are_left_to_others(reports: LocationReports) -> None:
    for event in (a.Answered(1, b""), a.NoAnswer(FIRST_REQUEST - 1, ""), a.LinkDown("radio0")):
        assert reports.happened(event, now=START) is None


def test_nothing_is_reported_without_a_server() -> None:
    reports = LocationReports(None)
    reports.report_soon(AT_ONE)
    assert reports.report(AT_ONE, now=START) == []
    assert reports.deadline() is None
