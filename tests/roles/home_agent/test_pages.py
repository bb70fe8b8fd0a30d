"""Pages at the home agent: packets and requests that cause them, the device's place, outcomes (P1, P4, P11, P14, P17)."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.page_calls import CallDecision, PageCallAnswer
from locum.roles.action_values.paging import DropPaged, PageTriggered
from locum.roles.home_agent.binding import Binding
from locum.roles.home_agent.paging.pages import QUIET_FAILED, NotPaged
from locum.roles.home_agent.registry import Home as HomeEntry
from locum.roles.mobile_ipv4.page_calls import read_call, write_call_answer
from locum.wire.control.paging.cause import ApplicationEvent, EventCause, PacketCause
from locum.wire.control.paging.outcome import (
    AnsweredBy,
    Outcome,
    PageAnswer,
    decode_page_answer,
    encode_page_answer,
)
from locum.wire.control.paging.page import decode_1170
from locum.wire.control.paging.page_request import PageRequest1172, encode_1172
from locum.wire.flow import Flow
from locum.wire.mobile_ip.page_call import CallAnswerCode
from locum.wire.mobile_ip.page_call import PageCallAnswer as UnsignedAnswer
from tests.roles.home_agent.test_page_rules import BRIEF, PAGE, added
from tests.roles.homeworld import AN1, AN2, DEVICE_KEY, HOA, HOA6, MOBILE, ONE, Home

PEER, KEY = AN2, DEVICE_KEY
SSH = PageTriggered(HOA, 1, Flow(6, HOA, 22, PEER, 4000), b"first", 60)
MAIL = ApplicationEvent("mail", "message", {"from": "boss@example.org"})


class Pages:
    """A home agent, what it asks and answers, and what becomes of packets that wait."""

    def __init__(self, home: Home | None = None) -> None:
        self.home = home or Home()
        self.asked: list[a.Ask] = []
        self.dropped: list[DropPaged] = []

    def perform(self, actions: list[a.Action]) -> None:
        rest: list[a.Action] = []
        for action in actions:
            match action:
                case a.Ask():
                    self.asked.append(action)
                case DropPaged():
                    self.dropped.append(action)
                case _:
                    rest.append(action)
        self.home.perform(rest)

    @property
    def answers(self) -> list[a.Answer]:
        return self.home.answers

    def happened(self, event: a.Event) -> None:
        self.perform(self.home.role.happened(event, now=self.home.now))

    def advance(self, seconds: float) -> None:
        end = self.home.now + seconds
        while (due := self.home.role.deadline()) is not None and due <= end:
            self.home.now = max(self.home.now, due)
            self.perform(self.home.role.timeout(now=self.home.now))
        self.home.now = end

    def answer(self, outcome: Outcome) -> None:
        asked = self.asked[-1]
        page = decode_1170(asked.body)
        call = read_call(page.call)
        assert call.proof is not None and call.proof.holds(KEY) and call.page == page.page
        decision = CallDecision.REFUSED if outcome is Outcome.REFUSED else CallDecision.WAKING
        proof = write_call_answer(PageCallAnswer(page.page, HOA, call.identification, decision), KEY)
        said = PageAnswer(page.page, outcome, AnsweredBy.MOBILE_NODE, proof=proof)
        self.happened(a.Answered(asked.request, encode_page_answer(said)))

    def request(self, **changes: Any) -> None:
        said = replace(PageRequest1172(b"stand-in", HOA, MAIL), **changes)
        self.happened(a.Asked(5, "1172", encode_1172(said), ONE, (HOA, HOA6)))

    def kinds(self) -> list[str]:
        return [event.kind for event in self.home.events if event.message == "1170"]

    def detail(self) -> Any:
        return self.home.events[-1].detail


def asleep() -> Pages:
    """The device was at AN1 and has gone to sleep."""
    home = added(Home(), PAGE)
    home.device.register(AN1)
    home.device.register(AN1, BRIEF)
    home.advance(BRIEF + 1)
    home.events.clear()
    return Pages(home)


def test_packet_pages_the_device_where_it_was_last() -> None:
    pages = asleep()
    pages.happened(SSH)
    [ask] = pages.asked
    page = decode_1170(ask.body)
    assert (ask.peer, page.home_address) == (AN1, HOA)
    assert page.cause == PacketCause(1, SSH.flow, b"first")
    pages.answer(Outcome.REACHED)
    pages.home.released.clear()
    assert pages.home.device.register(AN2) == 0
    assert pages.kinds() == ["sent", "page-answered", "page-ended"] and pages.dropped == []
    assert len(pages.home.released) == 4


def test_brief_registration_does_not_end_a_page() -> None:
    pages = asleep()
    pages.happened(SSH)
    pages.home.device.register(AN2, BRIEF)
    assert pages.kinds() == ["sent"]
    pages.home.device.register(AN2)
    assert pages.kinds() == ["sent", "page-ended"]


def test_place_outlives_a_restart_of_the_home_agent() -> None:
    pages = asleep()
    pages.home.start()
    pages.happened(SSH)
    assert pages.asked[0].peer == AN1
    row = pages.home.rows["binding", str(HOA)].value
    assert Binding.from_row(HOA, row).access_node == AN1


def test_place_is_kept_when_a_registration_ends_during_a_restart() -> None:
    home = added(Home(), PAGE)
    home.device.register(AN1, BRIEF)
    home.now += BRIEF + 1
    for _ in range(2):
        home.start()
    pages = Pages(home)
    pages.happened(SSH)
    assert pages.asked[0].peer == AN1


def test_packet_to_the_ipv6_home_address_pages_the_same_device() -> None:
    pages = asleep()
    pages.happened(replace(SSH, home_address=HOA6))
    pages.happened(SSH)
    assert len(pages.asked) == 1 and decode_1170(pages.asked[0].body).home_address == HOA
    pages.happened(replace(SSH, home_address=HOA6))
    pages.answer(Outcome.REFUSED)
    assert [drop.home_address for drop in pages.dropped] == [HOA, HOA6]


class Walked(dict[IPv4Address, HomeEntry]):
    """Devices of a home agent; `times` they were all looked at."""

    times = 0

    def values(self) -> Any:
        self.times += 1
        return super().values()


def test_ipv6_home_address_is_found_without_a_search() -> None:
    pages = asleep()
    paging = pages.home.role.paging
    paging._homes = homes = Walked(pages.home.role._homes)
    for number in range(1, 100):
        pages.request(home_address=HOA6 + number)
    assert len(pages.answers) == 99 and homes.times == 1
    pages.request(home_address=HOA6)
    assert len(pages.asked) == 1 and homes.times == 1


def test_ipv6_home_address_may_change() -> None:
    pages = asleep()
    role, find = pages.home.role, pages.home.role.paging._home
    other = replace(MOBILE, home_address=HOA + 1, home_address_v6=HOA6 + 1)
    home = find(HOA6)
    assert home is not None and find(HOA6 + 1) is None
    role.serve(other, now=pages.home.now)
    assert find(HOA6 + 1) is role._homes[HOA + 1]
    role.serve(replace(MOBILE, home_address_v6=HOA6 + 2), now=pages.home.now)
    assert find(HOA6) is None and find(HOA6 + 2) is home
    role.withdraw(HOA + 1, now=pages.home.now)
    assert find(HOA6 + 1) is None


def test_packets_of_a_page_in_vain_are_dropped() -> None:
    pages = asleep()
    pages.happened(SSH)
    pages.answer(Outcome.REFUSED)
    assert pages.dropped == [DropPaged(HOA, QUIET_FAILED), DropPaged(HOA6, QUIET_FAILED)]
    pages.dropped.clear()
    pages.happened(SSH)
    assert len(pages.asked) == 1 and pages.home.events[-1].detail["outcome"] == "limited"
    assert pages.dropped[0].quiet > QUIET_FAILED, "the rule has an interval"


def test_device_that_is_awake_gets_its_packets() -> None:
    pages = asleep()
    pages.home.device.register(AN1)
    pages.home.released.clear()
    pages.happened(SSH)
    assert pages.asked == [] and len(pages.home.released) == 1
    pages.happened(replace(SSH, home_address=ONE))
    assert len(pages.home.released) == 2, "one that is not served"


def test_stand_in_asks_for_a_page_and_has_its_outcome() -> None:
    pages = asleep()
    pages.request()
    assert decode_1170(pages.asked[0].body).cause == EventCause("mail", "message")
    pages.home.device.register(AN1)
    assert [answer.exchange for answer in pages.answers] == [5]
    assert decode_page_answer(pages.answers[0].body).outcome is Outcome.REACHED


@pytest.mark.parametrize("fault", ["unsigned", "key", "page", "device", "decision", "malformed"])
def test_answer_without_the_proof_of_the_device_is_none(fault: str) -> None:
    pages = asleep()
    pages.happened(SSH)
    asked = pages.asked[-1]
    page = decode_1170(asked.body)
    named = b"another1" if fault == "page" else page.page
    home_address = IPv4Address(int(HOA) + 1) if fault == "device" else HOA
    decision = CallDecision.REFUSED if fault == "decision" else CallDecision.WAKING
    said = PageCallAnswer(named, home_address, read_call(page.call).identification, decision)
    proof = write_call_answer(said, replace(KEY, key=bytes(16)) if fault == "key" else KEY)
    if fault == "unsigned":
        code = CallAnswerCode.WAKING
        proof = UnsignedAnswer(page.page, HOA, said.identification, code).encode()
    elif fault == "malformed":
        proof = proof[:9]
    answer = PageAnswer(page.page, Outcome.REACHED, AnsweredBy.MOBILE_NODE, proof=proof)
    pages.happened(a.Answered(asked.request, encode_page_answer(answer)))
    assert "page-answered" not in pages.kinds()
    pages.advance(3)
    pages.answer(Outcome.REACHED)
    assert "page-answered" in pages.kinds(), "the page has gone on, and the device has answered"


def test_requests_are_answered_when_the_page_has_ended() -> None:
    pages = asleep()
    pages.happened(SSH)
    pages.request()
    assert pages.answers == [] and len(pages.asked) == 1
    pages.answer(Outcome.REFUSED)
    [answer] = pages.answers
    said = decode_page_answer(answer.body)
    assert (answer.exchange, said.page, said.outcome) == (5, b"stand-in", Outcome.REFUSED)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [({"home_address": ONE}, Outcome.UNKNOWN), ({"home_address": HOA6}, Outcome.NOT_AUTHORISED)],
)
def test_requests_about_other_devices_are_refused(changes: dict[str, Any], outcome: Outcome) -> None:
    pages = asleep()
    body = encode_1172(replace(PageRequest1172(b"stand-in", HOA, MAIL), **changes))
    pages.happened(a.Asked(5, "1172", body, ONE, (HOA,)))
    assert pages.asked == [] and decode_page_answer(pages.answers[0].body).outcome is outcome


def test_request_that_cannot_be_read_is_refused() -> None:
    pages = asleep()
    pages.happened(a.Asked(5, "1172", b"\xff", ONE, (HOA,)))
    assert decode_page_answer(pages.answers[0].body).outcome is Outcome.MALFORMED


def test_command_pages_a_sleeper_alone() -> None:
    pages = asleep()
    role = pages.home.role
    pages.perform(role.paging.command(HOA, now=pages.home.now))
    assert len(pages.asked) == 1
    with pytest.raises(NotPaged, match="is not served here"):
        role.paging.command(ONE, now=pages.home.now)
    pages.home.device.register(AN1)
    with pytest.raises(NotPaged, match="is awake"):
        role.paging.command(HOA, now=pages.home.now)


def test_a_device_without_a_place_is_unknown() -> None:
    pages = Pages(added(Home(replace(MOBILE, stand_ins=())), PAGE))
    pages.happened(SSH)
    assert pages.asked == [] and pages.detail()["outcome"] == "unknown"
    assert [drop.home_address for drop in pages.dropped] == [HOA, HOA6]


def test_page_of_a_device_that_is_served_no_more_ends() -> None:
    pages = asleep()
    pages.happened(SSH)
    pages.perform(pages.home.role.withdraw(HOA, now=pages.home.now))
    assert pages.kinds() == ["sent", "page-ended"] and not pages.home.role.paging.routine.pages()
