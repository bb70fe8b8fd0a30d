"""The course of 1210 at a stand-in, with a real home agent behind it: repetitions, refusals, order, and what is taken back."""

from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.mnps.paging.page_redirects import HOLD_SECONDS, PageRedirects
from locum.wire.control.paging.redirect import ToDevice, ToPaging, decode_1210
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, encode_status_answer
from tests.roles.home_agent.test_redirections import Redirected
from tests.roles.homeworld import AN2, HA, HOA, HOA6, ONE

PAGE = b"page-one"
DEVICE = ToDevice(AN2, AN2)
REFUSALS = (
    PagingStatus.REFUSED,
    PagingStatus.NOT_AUTHORISED,
    PagingStatus.UNKNOWN,
    PagingStatus.LIMIT,
    PagingStatus.MALFORMED,
)


class Asking:
    """The changes of a stand-in; its messages wait until they are given, refused or lost."""

    def __init__(self, home_agent: IPv4Address | None = HA) -> None:
        self.now = 1000.0
        self.redirects = PageRedirects(lambda _homes: home_agent)
        self.asks: list[a.Ask] = []
        self.counts: list[str] = []

    def perform(self, actions: list[a.Action] | None) -> None:
        for action in actions or ():
            match action:
                case a.Ask():
                    self.asks.append(action)
                case a.Count():
                    self.counts.append(action.reason)

    def begin(self, homes: tuple[Addr, ...] = (HOA, HOA6)) -> None:
        self.perform(self.redirects.begin(homes, DEVICE, PAGE, now=self.now))

    def end(self) -> None:
        self.perform(self.redirects.end(HOA, now=self.now))

    def happened(self, event: a.Event) -> None:
        self.perform(self.redirects.happened(event, now=self.now))

    def answer(self, status: PagingStatus, at: int = -1) -> None:
        self.happened(a.Answered(self.asks[at].request, encode_status_answer(StatusAnswer(status))))

    def lose(self) -> None:
        self.happened(a.NoAnswer(self.asks[-1].request, "timeout"))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.redirects.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.perform(self.redirects.timeout(now=self.now))
        self.now = end


class Both(Asking):
    """With the home agent, whose access node consents."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = Redirected()

    def give(self, at: int = -1) -> None:
        """The home agent gets a message, and its answer comes back."""
        ask = self.asks[at]
        assert (ask.peer, ask.path) == (HA, "1210")
        before = len(self.agent.answers)
        self.agent.happened(a.Asked(len(self.asks), "1210", ask.body, ONE, (HOA, HOA6), True))
        if len(self.agent.answers) == before:
            self.agent.access_node_says()
        self.happened(a.Answered(ask.request, self.agent.answers[-1].body))


def test_change_is_made_and_taken_back() -> None:
    both = Both()
    both.begin()
    both.give()
    message = decode_1210(both.asks[0].body)
    assert (message.home_addresses, message.to, message.page) == ((HOA, HOA6), DEVICE, PAGE)
    assert both.agent.rule() == (RuleVerdict.FORWARD, [AN2])
    both.advance(30)
    both.end()
    both.give()
    assert both.agent.rule() == (RuleVerdict.PAGE, []) and both.counts == []
    assert decode_1210(both.asks[1].body).to == ToPaging() and both.redirects.deadline() is None


def test_messages_doubled_and_in_another_order_end_the_same() -> None:
    both = Both()
    both.begin()
    both.end()
    for at in (1, 0, 1, 0):
        both.give(at)
    assert both.agent.rule() == (RuleVerdict.PAGE, [])
    assert both.agent.home.counts["1210-stale"] == 2 and both.redirects.deadline() is None
    assert both.counts == ["redirect-answer-late"] * 3


def test_message_without_an_answer_is_repeated_unchanged() -> None:
    asking, times = Asking(), []
    asking.begin()
    while asking.redirects.deadline() is not None and len(asking.asks) < 100:
        asked = len(asking.asks)
        asking.lose()
        times.append(asking.now)
        while len(asking.asks) == asked and asking.redirects.deadline() is not None:
            asking.advance(0.25)
    assert len({ask.body for ask in asking.asks}) == 1
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:5] == [0.5, 1.0, 2.0, 4.0, 8.0] and max(waits) == 8.0
    assert asking.now <= 1000 + HOLD_SECONDS + 0.25
    assert set(asking.counts) == {"redirect-unanswered"}


@pytest.mark.parametrize("status", REFUSALS)
def test_refusal_is_counted_and_final(status: PagingStatus) -> None:
    asking = Asking()
    asking.begin()
    asking.answer(status)
    assert asking.counts == [f"redirect-{status.name.lower().replace('_', '-')}"]
    asking.end()
    assert len(asking.asks) == 1 and asking.redirects.deadline() is None, "nothing has changed"


def test_stale_message_goes_out_again_with_a_later_time() -> None:
    both = Both()
    both.happened(a.WallClockStepped(15.0))
    both.begin()
    both.give()
    both.end()
    both.give()
    behind = Both()
    behind.agent = both.agent
    behind.begin()
    for _ in range(2):
        behind.give()
        behind.advance(1.0)
    behind.give()
    assert behind.counts == ["redirect-stale"] * 2
    assert both.agent.rule() == (RuleVerdict.FORWARD, [AN2])


def test_busy_home_agent_and_unusable_answers_are_asked_again() -> None:
    asking = Asking()
    asking.begin()
    asking.answer(PagingStatus.BUSY)
    asking.advance(1)
    asking.happened(a.Answered(asking.asks[-1].request, b"\xff"))
    asking.advance(2)
    assert len(asking.asks) == 3 and asking.counts[0] == "redirect-busy" and len(asking.counts) == 2
    asking.answer(PagingStatus.OK, at=0)
    assert asking.counts[-1] == "redirect-answer-late"


def test_device_that_is_back_needs_no_message() -> None:
    asking = Asking()
    asking.begin()
    asking.redirects.over(HOA)
    asking.answer(PagingStatus.OK)
    asking.end()
    assert len(asking.asks) == 1 and asking.redirects.deadline() is None


def test_change_that_the_home_agent_has_ended_is_forgotten() -> None:
    asking = Asking()
    asking.begin()
    asking.answer(PagingStatus.OK)
    asking.advance(HOLD_SECONDS + 1)
    asking.end()
    assert len(asking.asks) == 1 and asking.redirects.deadline() is None


def test_device_without_a_home_agent_is_counted() -> None:
    asking = Asking(None)
    asking.begin()
    assert asking.asks == [] and asking.counts == ["redirect-no-home-agent"]
