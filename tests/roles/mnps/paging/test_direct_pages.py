"""The course of direct pages at a stand-in alone: answers of access nodes, limits, and outcomes."""

from ipaddress import IPv4Address
from random import Random
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.mnps.configuration import StandInConfiguration
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.paging.direct_pages import DirectPages
from locum.roles.paging.direct_calls import read_call, write_answer
from locum.roles.paging.events import Firing
from locum.roles.paging.limits import PageLimits
from locum.security.sealing import sealing_keys
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.direct_message import DirectMessage
from locum.wire.control.paging.direct_page import (
    Decision,
    DirectDecision,
    decode_1172a,
    encode_1172a_answer,
)
from locum.wire.control.paging.entry import ActionKind, Entry, EntryAction, Pattern
from locum.wire.control.paging.outcome import AnsweredBy, Outcome, PageAnswer

HOME, AN, STAND_IN = IPv4Address("10.50.0.9"), IPv4Address("10.1.0.1"), IPv4Address("10.36.0.1")
OWN, DEVICE = sealing_keys(b"s" * 16, b"", b"\1", b"\2"), sealing_keys(b"s" * 16, b"", b"\2", b"\1")
ENTRY = Entry(7, (Pattern("mail"),), (EntryAction(ActionKind.PAGE_DIRECT),))
FIRING = Firing(ENTRY, ENTRY.actions, (ApplicationEvent("mail", "arrived"),))


class Node:
    """Direct pages of a device that sleeps until `awake` is set."""

    def __init__(self, *, limits: PageLimits | None = None, keyed: bool = True) -> None:
        configuration = StandInConfiguration(
            STAND_IN, AN, (), pages=limits or PageLimits(), sealing={HOME: OWN} if keyed else {}
        )
        holdings = Holdings(STAND_IN, lambda _home: None)
        self.now, self.awake = 1000.0, False
        self.pages = DirectPages(configuration, holdings, lambda _homes: AN, Random(1))
        self.pages.asleep = lambda _home: not self.awake
        self.fallen_back: list[int] = []
        self.pages.fall_back = self._fall_back
        self.asks: list[a.Ask] = []
        self.rows: set[str] = set()
        self.written = 0
        self.counts: list[str] = []
        self.ended: list[dict[str, Any]] = []

    def _fall_back(self, _home: Addr, firing: Firing, _now: float) -> list[a.Action]:
        self.fallen_back.append(firing.count)
        return []

    def perform(self, actions: list[a.Action] | None) -> None:
        for action in actions or ():
            match action:
                case a.Ask():
                    self.asks.append(action)
                case a.Persist():
                    self.written += 1
                    self.rows.add(action.key)
                case a.Forget():
                    self.rows.discard(action.key)
                case a.Count():
                    self.counts.append(action.reason)
                case a.Emit(kind="direct-page-ended"):
                    self.ended.append(dict(action.detail))

    def page(self) -> None:
        self.perform(self.pages.page(HOME, FIRING, now=self.now))

    def answer(self, outcome: Outcome, by: AnsweredBy | None = None, **changes: Any) -> None:
        page = decode_1172a(self.asks[-1].body).page
        answer = PageAnswer(changes.pop("page", page), outcome, by, **changes)
        body = encode_1172a_answer(answer)
        self.perform(self.pages.happened(a.Answered(self.asks[-1].request, body), now=self.now))

    def decide(self, decision: Decision) -> None:
        message = DirectMessage.decode(decode_1172a(self.asks[-1].body).call)
        assert read_call(message, DEVICE.peer).event == FIRING.events[-1]
        proof = write_answer(DirectDecision(decision), message, DEVICE.own, bytes(12))
        self.answer(Outcome.REACHED, AnsweredBy.MOBILE_NODE, proof=proof)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.pages.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.perform(self.pages.timeout(now=self.now))
        self.now = end

    def outcomes(self) -> list[str]:
        return [ended["outcome"] for ended in self.ended]


def test_pages_per_hour_are_bounded_and_no_event_is_lost() -> None:
    node = Node()
    answered = 0
    for _ in range(3600):
        node.page()
        if len(node.asks) > answered:
            answered += 1
            node.decide(Decision.GO_ON)
        node.advance(1)
    assert 60 <= len(node.asks) <= 66 and "direct-page-limited" in node.counts
    waiting = sum(firing.count for queue in node.pages._queues.values() for firing in queue.values())
    assert sum(ended["count"] for ended in node.ended) + waiting == 3600
    assert node.fallen_back == []


def test_flood_of_firings_is_few_rows() -> None:
    node = Node()
    for _ in range(1000):
        node.page()
    assert node.written < 20
    (queue,) = node.pages._queues.values()
    assert [firing.count for firing in queue.values()] == [999]


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.NOT_AUTHORISED, Outcome.MALFORMED])
def test_refusal_of_the_access_node_falls_back_at_once(outcome: Outcome) -> None:
    node = Node()
    node.page()
    node.answer(outcome, text="no")
    assert node.outcomes() == [outcome.name.lower().replace("_", "-")]
    assert node.fallen_back == [1] and node.rows == set() and node.pages.deadline() is None


@pytest.mark.parametrize("outcome", [Outcome.NO_ANSWER, Outcome.UNKNOWN, Outcome.BUSY])
def test_passing_outcome_is_tried_again_with_the_same_call(outcome: Outcome) -> None:
    node = Node()
    node.page()
    for attempt in range(1, 20):
        node.answer(outcome)
        if node.ended:
            break
        node.advance(10)
        assert len(node.asks) == attempt + 1
    assert len({decode_1172a(ask.body).call for ask in node.asks}) == 1
    assert node.outcomes() == [outcome.name.lower().replace("_", "-")] and node.fallen_back == [1]
    assert node.now - 1000.0 <= 30.0


def test_unusable_answers_are_counted_and_tried_again() -> None:
    node = Node(limits=PageLimits(seconds=45.0))
    node.page()
    node.answer(Outcome.REACHED, AnsweredBy.MOBILE_NODE, page=b"another!")
    node.advance(1)
    node.answer(Outcome.REACHED, AnsweredBy.MOBILE_NODE)
    node.advance(2)
    node.answer(Outcome.REACHED, AnsweredBy.MOBILE_NODE, proof=decode_1172a(node.asks[-1].body).call)
    node.advance(3)
    node.perform(node.pages.happened(a.Answered(node.asks[-1].request, b""), now=node.now))
    node.advance(5)
    node.perform(node.pages.happened(a.NoAnswer(node.asks[-1].request, "timeout"), now=node.now))
    assert node.counts == [
        "direct-page-mismatch",
        "direct-page-answer-not-authentic",
        "direct-page-answer-not-authentic",
        "direct-page-truncated",
        "direct-page-unanswered",
    ]
    assert len(node.asks) == 5 and node.ended == []
    node.advance(8)
    node.decide(Decision.GO_ON)
    assert node.outcomes() == ["directed"] and node.rows == set()
    node.answer(Outcome.REACHED)
    assert node.counts[-1] == "direct-page-answer-late"


@pytest.mark.parametrize("by", AnsweredBy)
def test_waking_device_has_a_while_to_come_back(by: AnsweredBy) -> None:
    for awake in (True, False):
        node = Node()
        node.page()
        if by is AnsweredBy.ACCESS_NODE:
            node.answer(Outcome.REACHED, by)
        else:
            node.decide(Decision.WAKING)
        assert node.ended == [] and node.rows == {f"{HOME}/7"}
        node.advance(10)
        if awake:
            node.awake = True
            node.perform(node.pages.happened(a.Asked(1, "634", b"", HOME, (HOME,)), now=node.now))
            node.perform(node.pages.follow(now=node.now))
        else:
            node.advance(40)
        assert node.outcomes() == (["reached"] if awake else ["no-answer"])
        assert node.fallen_back == ([] if awake else [1]) and node.rows == set()


def test_device_without_an_association_falls_back() -> None:
    node = Node(keyed=False)
    node.page()
    assert node.asks == [] and node.outcomes() == ["not-authorised"] and node.fallen_back == [1]
    assert node.rows == set()


def test_clock_that_is_set_back_is_followed() -> None:
    """A device believes calls of the last minute only."""
    node = Node()
    node.perform(node.pages.happened(a.WallClockStepped(3600.0), now=node.now))
    node.page()
    first = DirectMessage.decode(decode_1172a(node.asks[-1].body).call).identification
    node.decide(Decision.GO_ON)
    node.perform(node.pages.happened(a.WallClockStepped(0.0), now=node.now))
    node.page()
    second = DirectMessage.decode(decode_1172a(node.asks[-1].body).call).identification
    assert first - second > 3000 << 32
