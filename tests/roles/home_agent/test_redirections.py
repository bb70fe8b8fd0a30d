"""Changes of forwarding at the home agent (1210, P10): those of stand-ins, of access nodes that refuse, order and rights."""

from dataclasses import replace

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.paging import PageForwarding
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.device_location import LOCATED
from locum.roles.home_agent.paging.redirections import HOLD_SECONDS
from locum.roles.rules import KeptRule
from locum.wire.control.paging.outcome import Outcome
from locum.wire.control.paging.redirect import (
    Destination,
    Redirect1210,
    ToAgent,
    ToDevice,
    ToPaging,
    decode_1210,
    encode_1210,
)
from locum.wire.control.paging.status import (
    PagingStatus,
    StatusAnswer,
    decode_status_answer,
    encode_status_answer,
)
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.home_agent.test_page_rules import BRIEF, PAGE, added, kept
from tests.roles.home_agent.test_pages import SSH, Pages
from tests.roles.homeworld import AN1, AN2, AN3, AN4, HA, HOA, HOA6, MOBILE, ONE, TWO, Home

OK, REFUSED = StatusAnswer(PagingStatus.OK), StatusAnswer(PagingStatus.REFUSED, "full")
DEVICE = ToDevice(AN2, AN2)


class Redirected(Pages):
    """A home agent whose device sleeps, with a rule that pages it."""

    def __init__(self, forwarding: PageForwarding = PageForwarding.REGISTRATION, *rules: KeptRule) -> None:
        configuration = HomeAgentConfiguration(HA, page_forwarding=forwarding, located=True)
        home = added(Home(configuration=configuration), PAGE, *rules)
        home.device.register(AN1)
        home.device.register(AN1, BRIEF)
        home.advance(BRIEF + 1)
        home.events.clear()
        super().__init__(home)

    def want(
        self, to: Destination, sent: int = 1, peer: object = ONE, *, trigger: bool = True, exchange: int = 1
    ) -> None:
        body = encode_1210(Redirect1210((HOA, HOA6), to, sent))
        asked = a.Asked(exchange, "1210", body, peer, (HOA, HOA6), trigger)  # type: ignore[arg-type]
        self.happened(asked)

    def said(self) -> list[PagingStatus]:
        found = [decode_status_answer(answer.body).status for answer in self.answers]
        self.answers.clear()
        return found

    def asked_1210(self) -> list[tuple[a.Ask, Redirect1210]]:
        return [(ask, decode_1210(ask.body)) for ask in self.asked if ask.path == "1210"]

    def access_node_says(self, answer: StatusAnswer | None = OK) -> None:
        ask, _ = self.asked_1210()[-1]
        if answer is None:
            self.happened(a.NoAnswer(ask.request, "timeout"))
        else:
            self.happened(a.Answered(ask.request, encode_status_answer(answer)))

    def rule(self) -> tuple[RuleVerdict, list[object]]:
        rule = self.home.flow_rules()[0]
        return rule.verdict, [candidate.tunnel.destination for candidate in rule.candidates]


def test_stand_in_sends_packets_to_the_device() -> None:
    pages = Redirected()
    pages.want(DEVICE)
    ask, message = pages.asked_1210()[0]
    assert (ask.peer, message.to, message.home_addresses, message.home_agent) == (
        AN2,
        DEVICE,
        (HOA, HOA6),
        HA,
    )
    assert pages.said() == [] and pages.rule() == (RuleVerdict.PAGE, []), (
        "the access node has still to answer"
    )
    pages.home.released.clear()
    pages.access_node_says()
    assert pages.said() == [PagingStatus.OK] and pages.rule() == (RuleVerdict.FORWARD, [AN2])
    assert [rule.verdict for rule in pages.home.flow_rules(HOA6)] == [RuleVerdict.FORWARD]
    first, last = (entry for entry in pages.home.released if entry is not None and entry.home_address == HOA)
    assert [rule.verdict for rule in first.rules] == [RuleVerdict.PAGE, RuleVerdict.FORWARD]
    assert [rule.verdict for rule in last.rules] == [RuleVerdict.FORWARD], "those that waited go out first"
    assert AN2 in {acceptance.outer_source for acceptance in pages.home.state.acceptances.values()}
    told = pages.home.located[-1].location
    assert (told.access_node, told.care_of, told.lifetime) == (AN2, AN2, LOCATED)


def test_change_ends_with_its_time() -> None:
    pages = Redirected()
    pages.want(DEVICE)
    pages.access_node_says()
    pages.advance(HOLD_SECONDS + 1)
    assert pages.rule() == (RuleVerdict.PAGE, []) and pages.asked_1210()[-1][1].to == ToPaging()
    pages.access_node_says()
    assert pages.home.role.paging.redirections.of(HOA) is None


@pytest.mark.parametrize("answer", [REFUSED, StatusAnswer(PagingStatus.BUSY), None])
def test_access_node_that_refuses_changes_nothing(answer: StatusAnswer | None) -> None:
    pages = Redirected()
    pages.want(DEVICE)
    pages.access_node_says(answer)
    assert pages.rule() == (RuleVerdict.PAGE, [])
    expected = PagingStatus.REFUSED if answer is None else answer.status
    assert pages.said() == [expected]
    change, end = (message for _, message in pages.asked_1210())
    assert (change.to, end.to) == (DEVICE, ToPaging())
    assert change.sent < end.sent, "in one millisecond, too: the access node takes the later one"


def test_answer_that_cannot_be_read_is_none() -> None:
    pages = Redirected()
    pages.want(DEVICE)
    ask, _ = pages.asked_1210()[0]
    pages.happened(a.Answered(ask.request, b"\xff"))
    assert pages.rule() == (RuleVerdict.PAGE, []) and pages.said() == [PagingStatus.REFUSED]
    pages.happened(a.Answered(ask.request, encode_status_answer(OK)))
    assert pages.home.counts["redirect-answer-late"] == 1


def test_stand_in_sends_packets_to_an_agent_and_back() -> None:
    pages = Redirected()
    pages.home.one.register(AN4, bid=7, takes=Takes.RULED)
    pages.want(ToAgent(ONE))
    assert pages.said() == [PagingStatus.OK] and pages.rule() == (RuleVerdict.FORWARD, [AN4])
    pages.want(ToPaging(), 2)
    assert pages.said() == [PagingStatus.OK] and pages.rule() == (RuleVerdict.PAGE, [])


def test_agent_at_the_default_care_of_address_is_one() -> None:
    pages = Redirected()
    pages.want(ToAgent(ONE))
    assert pages.said() == [PagingStatus.OK] and pages.rule() == (RuleVerdict.FORWARD, [AN3])
    pages.want(ToAgent(TWO), 2)
    assert pages.said() == [PagingStatus.UNKNOWN] and pages.rule() == (RuleVerdict.FORWARD, [AN3])


def test_change_to_the_device_replaces_one_to_an_agent() -> None:
    pages = Redirected()
    pages.want(ToAgent(ONE))
    pages.want(DEVICE, 2)
    pages.access_node_says()
    assert pages.rule() == (RuleVerdict.FORWARD, [AN2])
    pages.want(ToAgent(ONE), 3)
    assert pages.rule() == (RuleVerdict.FORWARD, [AN3]) and pages.asked_1210()[-1][1].to == ToPaging()


def test_later_place_ends_an_earlier_one() -> None:
    pages = Redirected()
    pages.want(DEVICE)
    pages.access_node_says()
    pages.want(ToDevice(AN4, AN4), 2)
    assert [(ask.peer, type(message.to)) for ask, message in pages.asked_1210()[1:]] == [
        (AN2, ToPaging),
        (AN4, ToDevice),
    ]
    assert pages.rule() == (RuleVerdict.PAGE, []), "packets wait here meanwhile"
    pages.access_node_says()
    assert pages.rule() == (RuleVerdict.FORWARD, [AN4])


def test_messages_of_one_sender_are_in_order() -> None:
    pages = Redirected()
    pages.want(ToAgent(ONE), 5)
    pages.want(ToPaging(), 4)
    pages.want(ToPaging(), 5)
    pages.want(ToAgent(ONE), 5)
    ok, stale = PagingStatus.OK, PagingStatus.STALE
    assert pages.said() == [ok, stale, stale, ok] and pages.rule() == (RuleVerdict.FORWARD, [AN3])
    pages.want(ToPaging(), 1, TWO)
    assert pages.said() == [ok] and pages.rule() == (RuleVerdict.PAGE, []), "of another sender"


def test_repeated_message_has_the_same_answer() -> None:
    pages = Redirected()
    pages.want(DEVICE, exchange=1)
    pages.want(DEVICE, exchange=2)
    assert len(pages.asked_1210()) == 1
    pages.access_node_says()
    assert [answer.exchange for answer in pages.answers] == [1, 2]


@pytest.mark.parametrize(
    ("to", "trigger", "homes", "authorised", "status"),
    [
        (ToPaging(), False, (HOA,), (HOA,), PagingStatus.NOT_AUTHORISED),
        (ToPaging(), True, (HOA, HOA6), (HOA,), PagingStatus.NOT_AUTHORISED),
        (ToPaging(), True, (ONE,), (ONE,), PagingStatus.UNKNOWN),
        (ToPaging(), True, (HOA, ONE), (HOA, ONE), PagingStatus.UNKNOWN),
        (ToDevice(AN3, AN3), True, (HOA,), (HOA,), PagingStatus.REFUSED),
        (ToDevice(HA, AN2), True, (HOA,), (HOA,), PagingStatus.REFUSED),
        (ToDevice(AN2, HOA6), True, (HOA,), (HOA,), PagingStatus.REFUSED),
        (ToAgent(AN1), True, (HOA,), (HOA,), PagingStatus.UNKNOWN),
    ],
)
def test_changes_are_refused_with_a_status(
    to: Destination,
    trigger: bool,
    homes: tuple[object, ...],
    authorised: tuple[object, ...],
    status: PagingStatus,
) -> None:
    pages = Redirected()
    body = encode_1210(Redirect1210(homes, to, 1))  # type: ignore[arg-type]
    pages.happened(a.Asked(1, "1210", body, ONE, authorised, trigger))  # type: ignore[arg-type]
    assert pages.said() == [status] and pages.asked == [] and pages.rule() == (RuleVerdict.PAGE, [])


def test_change_that_cannot_be_read_is_refused() -> None:
    pages = Redirected()
    pages.happened(a.Asked(1, "1210", b"\xff", ONE, (HOA,), True))
    assert pages.said() == [PagingStatus.MALFORMED]


def test_device_that_is_awake_has_its_packets() -> None:
    pages = Redirected()
    pages.home.device.register(AN1)
    pages.want(DEVICE)
    assert pages.said() == [PagingStatus.OK] and pages.asked == [] and pages.home.flow_rules() == ()


def test_registration_ends_the_change() -> None:
    pages = Redirected()
    pages.want(DEVICE)
    pages.access_node_says()
    pages.perform(registered(pages, AN1))
    assert pages.home.flow_rules() == () and pages.home.care_of() == [AN1]
    assert pages.asked_1210()[-1][1].to == ToPaging(), "the access node at which it is not"
    pages = Redirected()
    pages.want(DEVICE)
    pages.access_node_says()
    pages.perform(registered(pages, AN2))
    assert len(pages.asked_1210()) == 1 and pages.home.care_of() == [AN2]


def test_registration_ends_a_change_that_is_still_asked_for() -> None:
    """The request may arrive behind the registration: the access node would hold the packets of an awake device."""
    pages = Redirected()
    pages.want(DEVICE)
    pages.perform(registered(pages, AN2))
    (_, asked), (_, ended) = pages.asked_1210()
    assert ended.to == ToPaging() and ended.sent > asked.sent


def registered(pages: Redirected, at: object) -> list[a.Action]:
    request = pages.home.device.request(at, 300)  # type: ignore[arg-type]
    actions = pages.home.role.receive(request, Source(AN1, 434, "core"), now=pages.home.now)
    return [action for action in actions if not isinstance(action, a.Reply)]


def test_page_goes_out_whatever_the_access_node_says() -> None:
    pages = Redirected(PageForwarding.BEFORE)
    pages.happened(SSH)
    assert [ask.path for ask in pages.asked] == ["1210"]
    pages.access_node_says(None)
    assert [ask.path for ask in pages.asked] == ["1210", "1210", "1170"]
    assert pages.rule() == (RuleVerdict.PAGE, [])


def test_page_that_waits_in_vain_goes_out() -> None:
    pages = Redirected(PageForwarding.BEFORE)
    pages.happened(SSH)
    pages.advance(5)
    assert "1170" in [ask.path for ask in pages.asked]


def test_device_without_rules_that_page_needs_no_change() -> None:
    pages = Redirected(PageForwarding.WITH)
    pages.perform(pages.home.role.remove_rule(HOA, PAGE.identifier, now=pages.home.now))
    pages.request()
    assert [ask.path for ask in pages.asked] == ["1170"]


def test_device_has_a_setting_of_its_own() -> None:
    configuration = HomeAgentConfiguration(HA, page_forwarding=PageForwarding.REGISTRATION)
    home = added(Home(replace(MOBILE, page_forwarding=PageForwarding.WITH), configuration), PAGE)
    home.device.register(AN1, BRIEF)
    home.advance(BRIEF + 1)
    pages = Pages(home)
    pages.happened(SSH)
    assert [ask.path for ask in pages.asked] == ["1210", "1170"]


def test_failed_page_restores_forwarding() -> None:
    pages = Redirected(PageForwarding.WITH)
    pages.happened(SSH)
    request = pages.asked_1210()[-1][0].request
    pages.happened(a.Answered(request, encode_status_answer(OK)))
    assert pages.rule() == (RuleVerdict.FORWARD, [AN1])
    pages.answer(Outcome.REFUSED)
    assert pages.rule() == (RuleVerdict.PAGE, []) and pages.asked_1210()[-1][1].to == ToPaging()
    assert len(pages.dropped) == 2


def test_rules_that_would_not_fit_beside_each_other_page() -> None:
    """While packets that waited go out, both forms of a rule are there."""
    ports = [Ipv4Selector(protocol=(6, 6), destination_port=(port, port)) for port in range(3000, 3040)]
    more = [kept(100 + place, RuleVerdict.PAGE, selector) for place, selector in enumerate(ports)]
    pages = Redirected(PageForwarding.REGISTRATION, *more)
    pages.want(DEVICE)
    pages.access_node_says()
    assert pages.said() == [PagingStatus.LIMIT] and pages.rule() == (RuleVerdict.PAGE, [])
    assert pages.home.counts["redirect-no-room"] == 1


def test_device_that_is_served_no_more_is_left_alone() -> None:
    pages = Redirected()
    pages.want(DEVICE)
    pages.access_node_says()
    pages.perform(pages.home.role.withdraw(HOA, now=pages.home.now))
    assert pages.asked_1210()[-1][1].to == ToPaging()
    assert pages.home.role.paging.redirections.of(HOA) is None
