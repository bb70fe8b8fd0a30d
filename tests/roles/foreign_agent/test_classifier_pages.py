"""The paging classifier asks the home agent for pages: folded, limited, answered (P16)."""

from ipaddress import IPv4Address
from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.paging import PageAsked
from locum.roles.foreign_agent.classifier_pages import FIRST_REQUEST, Classified, ClassifierPages
from locum.roles.paging.limits import PageLimits
from locum.wire.control.paging.outcome import Outcome, PageAnswer, encode_page_answer
from locum.wire.control.paging.page_request import PageRequest1172, decode_1172
from locum.wire.flow import Flow
from tests.roles.world import HA, HOA, HOA6

PEER, NOW = IPv4Address("198.51.100.7"), 1000.0
FLOW = Flow(6, HOA, 22, PEER, 40_000)
ASKED = PageAsked(HOA, 2, FLOW, 60)


class Node:
    """The part, with one device whose classifier's rule 7 is the second of its filter."""

    def __init__(self, limits: PageLimits | None = None) -> None:
        self.pages = ClassifierPages(self._classified, Random(3), limits)

    @staticmethod
    def _classified(home_address: Addr, number: int) -> Classified | None:
        rules = {2: 7, 3: 8}
        known = home_address in (HOA, HOA6) and number in rules
        return Classified(HOA, HA, rules[number]) if known else None

    def tell(self, event: a.Event, now: float = NOW) -> list[a.Action]:
        actions = self.pages.happened(event, now=now)
        assert actions is not None
        return actions

    def asked(self, event: PageAsked = ASKED, now: float = NOW) -> a.Ask:
        """The request that the report leads to."""
        (ask,) = (action for action in self.tell(event, now) if isinstance(action, a.Ask))
        return ask

    def answer(
        self, ask: a.Ask, outcome: Outcome, now: float = NOW, page: bytes | None = None
    ) -> list[a.Action]:
        said = PageAnswer(decode_1172(ask.body).page if page is None else page, outcome)
        return self.tell(a.Answered(ask.request, encode_page_answer(said)), now)


def ended(actions: list[a.Action]) -> a.Emit:
    (found,) = (action for action in actions if isinstance(action, a.Emit))
    assert found.kind == "classifier-page-ended"
    return found


def test_a_report_becomes_a_request_to_the_home_agent() -> None:
    node = Node()
    ask, said = node.tell(ASKED)
    assert isinstance(ask, a.Ask) and (ask.peer, ask.path) == (HA, "1172")
    assert ask.request == FIRST_REQUEST
    request = decode_1172(ask.body)
    assert isinstance(request, PageRequest1172) and request.home_address == HOA and request.order is None
    assert (request.event.app, request.event.kind) == ("classifier", "rule-7-tcp")
    assert request.event.detail == {
        "rule": 7,
        "protocol": 6,
        "source": str(PEER),
        "source_port": 40_000,
        "destination": str(HOA),
        "destination_port": 22,
        "length": 60,
    }
    assert isinstance(said, a.Emit) and (said.kind, said.message) == ("sent", "1172")
    assert said.detail == {"to": str(HA), "rule": 7}


def test_a_packet_to_the_ipv6_address_asks_for_the_device() -> None:
    flow = Flow(132, HOA6, 9, HOA6, 9)
    request = decode_1172(Node().asked(PageAsked(HOA6, 3, flow, 90)).body)
    assert (request.home_address, request.event.kind) == (HOA, "rule-8-132")


def test_further_packets_are_folded_into_the_request() -> None:
    node = Node()
    ask = node.asked()
    assert node.tell(PageAsked(HOA, 3, FLOW, 60)) == [a.Count("classifier-page-folded", 1)]
    assert node.tell(PageAsked(HOA, 2, FLOW, 60, 99)) == [a.Count("classifier-page-folded", 100)]
    found = ended(node.answer(ask, Outcome.REACHED, NOW + 3))
    assert found.detail == {"outcome": "reached", "rule": 7, "seconds": 3.0, "folded": 101}


def test_each_rule_rests_after_a_request() -> None:
    node = Node()
    node.answer(node.asked(), Outcome.NO_ANSWER, NOW + 20)
    limited = [a.Count("classifier-page-limited")]
    assert node.tell(ASKED, NOW + 24.9) == limited
    other = node.asked(PageAsked(HOA, 3, FLOW, 60), NOW + 24.9)
    node.answer(other, Outcome.REACHED, NOW + 25)
    assert node.asked(ASKED, NOW + 25.1).peer == HA


def test_requests_of_an_hour_are_bounded() -> None:
    """An outsider who sends all the time."""
    node = Node()
    sent = 0
    for second in range(3600):
        asks = [action for action in node.tell(ASKED, NOW + second) if isinstance(action, a.Ask)]
        sent += len(asks)
        for ask in asks:
            node.answer(ask, Outcome.NO_ANSWER, NOW + second)
    assert 60 <= sent <= 66


def test_devices_have_limits_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.roles.foreign_agent.classifier_pages.MOST_ASKED", 2)
    monkeypatch.setattr("locum.roles.foreign_agent.classifier_pages.MOST_BUDGETS", 2)
    pages = ClassifierPages(lambda home, _: Classified(IPv4Address(int(home)), HA, 1), Random(3))
    homes = [IPv4Address("203.0.113.1") + number for number in range(3)]
    for number, home in enumerate(homes):
        actions = pages.happened(PageAsked(home, 1, FLOW, 60), now=NOW) or []
        assert isinstance(actions[0], a.Ask) is (number < 2)
    assert actions == [a.Count("classifier-page-limited")]


def test_a_rule_that_is_gone_asks_for_nothing() -> None:
    late = [a.Count("classifier-page-late")]
    assert Node().tell(PageAsked(HOA, 1, FLOW, 60)) == late
    assert Node().tell(PageAsked(PEER, 2, FLOW, 60)) == late


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (Outcome.NO_ANSWER, "classifier-page-no-answer"),
        (Outcome.REFUSED, "classifier-page-refused"),
        (Outcome.UNKNOWN, "classifier-page-unknown"),
        (Outcome.BUSY, "classifier-page-busy"),
        (Outcome.NOT_AUTHORISED, "classifier-page-not-authorised"),
    ],
)
def test_outcomes_are_told_and_counted(outcome: Outcome, counted: str) -> None:
    node = Node()
    actions = node.answer(node.asked(), outcome, NOW + 1)
    assert a.Count(counted) in actions
    assert ended(actions).detail["outcome"] == counted.removeprefix("classifier-page-")


def test_answers_that_cannot_be_used_end_the_request() -> None:
    for answer, counted in ((b"\xff", "classifier-page-"), (None, "classifier-page-unanswered")):
        node = Node()
        number = node.asked().request
        event: a.Event = a.NoAnswer(number, "silence") if answer is None else a.Answered(number, answer)
        actions = node.tell(event)
        assert isinstance(actions[0], a.Count) and actions[0].reason.startswith(counted)
        assert ended(actions).detail["outcome"] == "unanswered"
        assert node.tell(event) == [], "it has ended"
    node = Node()
    actions = node.answer(node.asked(), Outcome.REACHED, page=bytes(8))
    assert a.Count("classifier-page-mismatch") in actions


def test_answers_to_other_parts_are_left_to_them() -> None:
    node = Node()
    for number in (1, FIRST_REQUEST - 1, 2 * FIRST_REQUEST):
        assert node.pages.happened(a.NoAnswer(number, "silence"), now=NOW) is None
    assert node.pages.happened(a.LinkUp("radio"), now=NOW) is None
