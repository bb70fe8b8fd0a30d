"""Pages at an access node: whom it calls and where, what it refuses, and its answer for a device (P11)."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.page_calls import CallDecision, PageCallAnswer
from locum.roles.foreign_agent import page_delivery
from locum.roles.foreign_agent.page_delivery import PageDelivery
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.ways.reach import EVERYBODY
from locum.roles.mobile_ipv4.page_calls import write_call_answer
from locum.security.association import Association
from locum.wire.control.paging.cause import CommandCause
from locum.wire.control.paging.direct_message import DirectKind, DirectMessage
from locum.wire.control.paging.direct_page import DirectPage1172A, encode_1172a
from locum.wire.control.paging.outcome import AnsweredBy, Outcome, PageAnswer, decode_page_answer
from locum.wire.control.paging.page import Page1170, encode_1170
from locum.wire.control.paging.way import Way

HOA, HOA6, HA = IPv4Address("10.50.0.9"), IPv6Address("2001:db8:50::9"), IPv4Address("10.5.0.1")
MAC, OTHER = bytes.fromhex("020000000009"), bytes.fromhex("02000000000a")
VISITOR = Visitor(HOA, HA, "radio0", MAC, 300, 1300.0, 0)
PAGE = Page1170(b"page-one", HOA, CommandCause(), 4, call=b"signed call")
KEY = Association(300, b"k" * 16)


class Node:
    """An access node with two links."""

    def __init__(self, visitor: Visitor | None = None, *, answers: bool = False) -> None:
        self.visitor, self.now = visitor, 1000.0
        self.delivery = PageDelivery(("radio0", "radio1"), lambda _home: self.visitor, answers=answers)
        self.sent: list[a.SendRegistration] = []
        self.said: list[PageAnswer] = []
        self.counts: list[str] = []

    def perform(self, actions: Sequence[a.Action] | None) -> None:
        assert actions is not None
        for action in actions:
            match action:
                case a.SendRegistration():
                    self.sent.append(action)
                case a.Answer():
                    self.said.append(decode_page_answer(action.body))
                case a.Count(reason):
                    self.counts.append(reason)
                case _:
                    assert isinstance(action, a.Emit)

    def page(self, body: bytes | None = None, **changes: Any) -> None:
        body = encode_1170(replace(PAGE, **changes)) if body is None else body
        self.perform(self.delivery.happened(a.Asked(1, "1170", body, HA, (HOA, HOA6)), now=self.now))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.delivery.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.perform(self.delivery.timeout(now=self.now))
        self.now = end

    def places(self) -> list[tuple[str | None, bytes | None]]:
        return [(sent.link, sent.link_layer) for sent in self.sent]

    def hear(self, page: bytes = PAGE.page, decision: CallDecision = CallDecision.WAKING) -> bytes:
        message = write_call_answer(PageCallAnswer(page, HOA, 7, decision), KEY)
        self.perform(self.delivery.heard(message, Source(HOA, 434, "radio0", MAC), now=self.now))
        return message


def test_visitor_is_called_where_it_is_until_the_page_ends() -> None:
    node = Node(VISITOR)
    node.page()
    node.advance(3.9)
    assert set(node.places()) == {("radio0", MAC)} and len(node.sent) == 5
    assert all(sent.message == b"signed call" and sent.to == HOA for sent in node.sent)
    node.advance(1)
    assert [said.outcome for said in node.said] == [Outcome.NO_ANSWER] and node.delivery.deadline() is None
    node.page()
    assert len(node.sent) > 5, "another page may begin"


def test_device_that_left_is_called_where_it_was() -> None:
    node = Node()
    node.perform(node.delivery.left(VISITOR))
    node.page()
    assert node.places() == [("radio0", MAC)]


@pytest.mark.parametrize(
    ("way", "link_layer"), [(None, EVERYBODY), (Way("link", OTHER), OTHER), (Way("link", b"odd"), EVERYBODY)]
)
def test_unknown_device_is_called_on_every_link(way: Way | None, link_layer: bytes) -> None:
    node = Node()
    stand_in = replace(VISITOR, next_hop=HA)  # not the device itself
    node.visitor = stand_in
    node.perform(node.delivery.left(stand_in))
    node.page(way=way)
    assert node.places() == [("radio0", link_layer), ("radio1", link_layer)]


@pytest.mark.parametrize(
    ("decision", "outcome"),
    [
        (CallDecision.WAKING, Outcome.REACHED),
        (CallDecision.AWAKE, Outcome.REACHED),
        (CallDecision.REFUSED, Outcome.REFUSED),
    ],
)
def test_answer_goes_to_the_home_agent_as_it_is(decision: CallDecision, outcome: Outcome) -> None:
    node = Node(VISITOR)
    node.page()
    message = node.hear(decision=decision)
    assert node.said == [PageAnswer(PAGE.page, outcome, AnsweredBy.MOBILE_NODE, proof=message)]
    node.advance(10)
    assert len(node.sent) == 1
    node.hear()
    assert node.counts == ["call-answer-late"]


def test_answers_to_other_pages_are_counted() -> None:
    node = Node(VISITOR)
    node.page()
    node.hear(b"page-two")
    node.perform(node.delivery.heard(b"\xff\x02", Source(HOA, 434, "radio0", MAC), now=node.now))
    assert node.said == [] and node.counts == ["call-answer-late", "call-answer-truncated"]


def test_access_node_answers_for_a_device_that_it_knows() -> None:
    node = Node(VISITOR, answers=True)
    node.page()
    assert node.said == [PageAnswer(PAGE.page, Outcome.REACHED, AnsweredBy.ACCESS_NODE)]
    node.advance(10)
    assert len(node.sent) == 5 and len(node.said) == 1, "it goes on calling, and has answered"
    node.visitor = None
    node.page()
    node.advance(10)
    assert [said.outcome for said in node.said[1:]] == [Outcome.NO_ANSWER], "one that it does not know"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"home_address": HA}, Outcome.NOT_AUTHORISED),
        ({"home_address": HOA6}, Outcome.UNKNOWN),
        ({"way": Way("pigeon")}, Outcome.REFUSED),
        ({"call": b""}, Outcome.REFUSED),
        ({"body": b"\xff"}, Outcome.MALFORMED),
    ],
)
def test_pages_are_refused_with_an_outcome(changes: dict[str, Any], outcome: Outcome) -> None:
    node = Node(VISITOR)
    node.page(**changes)
    assert [said.outcome for said in node.said] == [outcome] and node.sent == [] and len(node.counts) == 1


def test_pages_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_delivery, "MOST_KNOWN", 4)
    node = Node(VISITOR)
    node.page()
    node.page()
    assert [said.outcome for said in node.said] == [Outcome.BUSY]
    for number in range(9):
        node.perform(node.delivery.left(replace(VISITOR, home_address=HOA + number)))
    assert len(node.delivery._known) == 4
    monkeypatch.setattr(page_delivery, "MOST_CALLS", 1)
    other = encode_1170(replace(PAGE, home_address=HOA + 1))
    asked = a.Asked(2, "1170", other, HA, (HOA, HOA + 1))
    node.perform(node.delivery.happened(asked, now=node.now))
    assert node.said[-1].outcome is Outcome.BUSY


# Direct pages: the call is sealed by a stand-in, and its answer for it (P5)


DIRECT = DirectPage1172A(b"page-two", HOA, 4, b"sealed call")


def direct_page(node: Node, **changes: Any) -> None:
    body = encode_1172a(replace(DIRECT, **changes))
    node.perform(node.delivery.happened(a.Asked(2, "1172a", body, HA, (HOA, HOA6)), now=node.now))


def direct_answer(node: Node, page: bytes = DIRECT.page, kind: DirectKind = DirectKind.ANSWER) -> bytes:
    message = DirectMessage(kind, page, HOA, 7, b"sealed").encode()
    node.perform(node.delivery.heard(message, Source(HOA, 434, "radio0", MAC), now=node.now))
    return message


@pytest.mark.parametrize("answers", [False, True])
def test_direct_page_is_passed_on_in_both_directions(answers: bool) -> None:
    node = Node(VISITOR, answers=answers)
    direct_page(node)
    assert node.said == [], "nobody answers in the place of the device: it decides by the content"
    node.advance(1)
    assert {sent.message for sent in node.sent} == {b"sealed call"} and set(node.places()) == {
        ("radio0", MAC)
    }
    message = direct_answer(node)
    assert node.said == [PageAnswer(DIRECT.page, Outcome.REACHED, AnsweredBy.MOBILE_NODE, proof=message)]
    direct_answer(node)
    assert node.counts == ["call-answer-late"] and node.delivery.deadline() is None


def test_answers_belong_to_their_kind_of_page() -> None:
    node = Node(VISITOR)
    direct_page(node)
    node.hear(page=DIRECT.page)
    direct_answer(node, page=b"another!")
    direct_answer(node, kind=DirectKind.CALL)
    node.perform(node.delivery.heard(b"\xff\x04", Source(HOA, 434, "radio0", MAC), now=node.now))
    assert node.counts == [
        "call-answer-late",
        "call-answer-late",
        "call-answer-not-an-answer",
        "call-answer-truncated",
    ]
    node.advance(5)
    assert [said.outcome for said in node.said] == [Outcome.NO_ANSWER]
    node.page()
    direct_answer(node, page=PAGE.page)
    assert node.counts[-1] == "call-answer-late"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"home_address": IPv4Address("10.50.0.10")}, Outcome.NOT_AUTHORISED),
        ({"home_address": HOA6}, Outcome.UNKNOWN),
        ({"way": Way("pigeon")}, Outcome.REFUSED),
    ],
)
def test_direct_page_is_refused_as_others_are(changes: dict[str, Any], outcome: Outcome) -> None:
    node = Node(VISITOR)
    direct_page(node, **changes)
    assert [said.outcome for said in node.said] == [outcome] and node.sent == []


def test_direct_page_and_another_share_one_place() -> None:
    node = Node(VISITOR)
    node.page()
    direct_page(node)
    assert [said.outcome for said in node.said] == [Outcome.BUSY]
    node.perform(node.delivery.happened(a.Asked(3, "1172a", b"\xa0", HA, (HOA,)), now=node.now))
    assert node.said[-1].outcome is Outcome.MALFORMED and node.counts[-1] == "1172a-missing"
