"""The network paging routine on a virtual clock: one page a device, folding, back-off, give-up, limits, outcomes."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action, Answered, Ask, Count, Emit, NoAnswer
from locum.roles.paging import routine
from locum.roles.paging.limits import PageLimits
from locum.roles.paging.routine import FIRST_REQUEST, Located, PageEnded, PageInProgress, PagingRoutine
from locum.wire.control.paging.cause import Cause, CommandCause, EventCause, PacketCause
from locum.wire.control.paging.outcome import AnsweredBy, Outcome, PageAnswer, encode_page_answer
from locum.wire.control.paging.page import decode_1170
from locum.wire.control.paging.way import Way
from locum.wire.flow import Flow

HOA, PEER = IPv4Address("10.50.0.9"), IPv4Address("10.9.0.1")
AN1, AN2 = IPv4Address("10.1.0.1"), IPv4Address("10.2.0.1")
SSH = PacketCause(7, Flow(6, HOA, 22, PEER, 4000), b"first bytes")
MAIL = EventCause("mail", "message")
LIMITS = PageLimits(seconds=20.0, wake_seconds=45.0, per_hour=60, burst=3, rule_interval=5.0)
START = 1_790_000_000.0
HERE = Located(AN1)


@dataclass
class World:
    """A routine whose actions the test sees; `at` is where the device is."""

    limits: PageLimits = LIMITS
    at: Located | None = HERE
    now: float = START
    genuine: bool = True
    asked: list[Ask] = field(default_factory=list)
    events: list[Emit] = field(default_factory=list)
    ended: list[PageEnded] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.routine = PagingRoutine(
            self.limits, Random(7), lambda _page, _now: self.at, self._concluded, self._genuine
        )

    def _genuine(self, _page: PageInProgress, _answer: PageAnswer) -> bool:
        return self.genuine

    def _concluded(self, ended: PageEnded) -> list[Action]:
        self.ended.append(ended)
        return []

    def perform(self, actions: list[Action] | None) -> None:
        for action in actions or ():
            match action:
                case Ask():
                    self.asked.append(action)
                case Emit():
                    self.events.append(action)
                case Count(reason):
                    self.counts.append(reason)
                case _:
                    raise AssertionError(action)

    def page(self, cause: Cause = SSH, home: Addr = HOA, requester: tuple[int, bytes] | None = None) -> None:
        self.perform(self.routine.page(home, cause, now=self.now, requester=requester))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.routine.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.perform(self.routine.timeout(now=self.now))
        self.now = end

    def answer(self, outcome: Outcome, *, by: AnsweredBy | None = None, ask: int = -1) -> None:
        asked = self.asked[ask]
        page = decode_1170(asked.body).page
        body = encode_page_answer(PageAnswer(page, outcome, by))
        self.perform(self.routine.happened(Answered(asked.request, body), now=self.now))

    def silence(self) -> None:
        """The last request has no answer: its time goes by first."""
        self.advance(self.asked[-1].timeout)
        self.perform(self.routine.happened(NoAnswer(self.asked[-1].request, "no route"), now=self.now))

    def outcomes(self) -> list[Outcome]:
        return [ended.outcome for ended in self.ended]


def test_page_says_its_cause_and_the_way() -> None:
    way = Way("link", b"\x02\0\0\0\0\1")
    world = World(at=Located(AN1, way))
    world.page()
    [ask] = world.asked
    page = decode_1170(ask.body)
    assert (ask.peer, ask.path) == (AN1, "1170") and ask.request >= FIRST_REQUEST
    assert (page.home_address, page.cause, page.way) == (HOA, SSH, way)
    assert page.seconds == routine.FIRST_TRY and ask.timeout > page.seconds
    assert world.events[0].kind == "sent" and world.events[0].detail["rule"] == 7


def test_device_answers_and_registers() -> None:
    world = World()
    world.page()
    world.advance(1.0)
    world.answer(Outcome.REACHED, by=AnsweredBy.MOBILE_NODE)
    assert world.ended == [], "it is on its way"
    world.advance(2.0)
    world.perform(world.routine.registered(HOA, now=world.now))
    assert world.outcomes() == [Outcome.REACHED] and world.routine.deadline() is None
    assert [event.kind for event in world.events] == ["sent", "page-answered", "page-ended"]
    assert world.events[-1].detail["seconds"] == 3.0 and not world.routine.pages()


def test_registration_before_the_answer_ends_the_page() -> None:
    world = World()
    world.page()
    world.perform(world.routine.registered(HOA, now=world.now))
    world.answer(Outcome.REACHED)
    assert world.outcomes() == [Outcome.REACHED] and world.counts == ["page-answer-late"]


def test_further_causes_are_folded_into_one_page() -> None:
    world = World()
    world.page(requester=None)
    for number in range(5):
        world.page(MAIL, requester=(number, bytes(8)))
    assert len(world.asked) == 1 and world.counts == ["page-folded"] * 5
    world.perform(world.routine.registered(HOA, now=world.now))
    [ended] = world.ended
    assert ended.page.folded == 5 and [number for number, _ in ended.page.requesters] == [0, 1, 2, 3, 4]


def test_pages_of_several_devices_go_on_beside_each_other() -> None:
    world = World()
    for number in range(100):
        world.page(home=HOA + number)
    assert len({ask.request for ask in world.asked}) == len(world.routine.pages()) == 100
    assert len({decode_1170(ask.body).page for ask in world.asked}) == 100
    world.answer(Outcome.REFUSED, ask=40)
    assert [ended.page.home_address for ended in world.ended] == [HOA + 40]


def test_attempts_become_longer_and_end() -> None:
    """Each attempt asks anew where the device is."""
    world = World()
    world.page()
    world.answer(Outcome.NO_ANSWER)
    world.at = Located(AN2)
    while not world.ended:
        world.advance(0.01)
        if world.routine.deadline() is None and not world.ended:
            world.silence()
    assert world.outcomes() == [Outcome.NO_ANSWER]
    assert [ask.peer for ask in world.asked] == [AN1] + [AN2] * (len(world.asked) - 1)
    seconds = [decode_1170(ask.body).seconds for ask in world.asked]
    assert seconds[:2] == [4, 8] and len(seconds) >= 3
    assert LIMITS.seconds <= world.now - START <= LIMITS.seconds + 2 * routine.RETRY_MAX
    assert world.events[-1].detail["attempts"] == len(seconds)


def test_a_device_that_answers_and_does_not_register() -> None:
    world = World()
    world.page()
    world.answer(Outcome.REACHED, by=AnsweredBy.ACCESS_NODE)
    world.advance(LIMITS.wake_seconds + 1)
    [ended] = world.ended
    assert (ended.outcome, ended.page.answered_by) == (Outcome.NO_ANSWER, AnsweredBy.ACCESS_NODE)
    assert "did not register" in ended.text


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (Outcome.REFUSED, Outcome.REFUSED),
        (Outcome.NOT_AUTHORISED, Outcome.REFUSED),
        (Outcome.MALFORMED, Outcome.REFUSED),
    ],
)
def test_refusals_end_a_page_at_once(said: Outcome, outcome: Outcome) -> None:
    world = World()
    world.page()
    world.answer(said)
    assert world.outcomes() == [outcome] and world.routine.deadline() is None


@pytest.mark.parametrize("said", [Outcome.UNKNOWN, Outcome.BUSY])
def test_a_device_that_may_have_moved_is_tried_again(said: Outcome) -> None:
    world = World()
    world.page()
    while not world.ended:
        world.answer(said)
        world.advance(routine.RETRY_MAX)
    assert len(world.asked) > 3 and world.outcomes() == [said]


def test_a_device_without_an_access_node_is_unknown() -> None:
    world = World(at=None)
    world.page()
    assert world.outcomes() == [Outcome.UNKNOWN] and world.asked == []


def test_bad_answers_are_counted_and_tried_again() -> None:
    world = World()
    world.page()
    ask = world.asked[0]
    world.perform(world.routine.happened(Answered(ask.request, b"\xff"), now=world.now))
    world.advance(1.0)
    other = encode_page_answer(PageAnswer(bytes(8), Outcome.REACHED))
    world.perform(world.routine.happened(Answered(world.asked[1].request, other), now=world.now))
    world.advance(2.0)
    assert len(world.asked) == 3 and world.counts[-1] == "page-mismatch" and not world.ended
    assert world.routine.happened(Answered(FIRST_REQUEST - 1, other), now=world.now) is None


def test_answers_of_others_are_tried_again() -> None:
    world = World(genuine=False)
    world.page()
    world.answer(Outcome.REACHED, by=AnsweredBy.MOBILE_NODE)
    assert world.counts == ["page-answer-not-authentic"] and not world.ended
    world.genuine = True
    world.advance(1.0)
    world.answer(Outcome.REACHED, by=AnsweredBy.MOBILE_NODE)
    assert [event.kind for event in world.events] == ["sent", "sent", "page-answered"]


def test_pages_of_one_device_are_limited() -> None:
    """A burst, then its share of an hour; a command is always allowed."""
    world = World(limits=PageLimits(burst=3, per_hour=60, rule_interval=0.0))
    for _ in range(4):
        world.page()
        world.perform(world.routine.registered(HOA, now=world.now))
    assert world.outcomes() == [Outcome.REACHED] * 3 + [Outcome.BUSY]
    assert world.ended[-1].limited == pytest.approx(60.0) and len(world.asked) == 3
    assert world.events[-1].detail["outcome"] == "limited"
    world.page(CommandCause())
    assert len(world.asked) == 4
    world.perform(world.routine.registered(HOA, now=world.now))
    world.advance(60.0)
    world.page(MAIL)
    assert len(world.asked) == 5
    world.page(home=HOA + 1)
    assert len(world.asked) == 6, "others have their own"


def test_an_outsider_causes_a_bounded_number_of_pages_an_hour() -> None:
    world = World(limits=PageLimits(burst=6, per_hour=60, rule_interval=5.0))
    while world.now < START + 3600:
        world.page()
        if world.routine.in_progress(HOA) is not None:
            world.perform(world.routine.registered(HOA, now=world.now))
        world.advance(1.0)
    assert 60 <= len(world.asked) <= 66


def test_one_rule_pages_once_in_its_interval() -> None:
    world = World(limits=PageLimits(burst=6, per_hour=3600, rule_interval=10.0))
    world.page()
    world.answer(Outcome.REFUSED)
    world.advance(4.0)
    world.page()
    assert world.ended[-1].limited == pytest.approx(6.0)
    world.page(PacketCause(8, SSH.flow))
    assert len(world.asked) == 2, "another rule may"
    world.answer(Outcome.REFUSED)
    world.advance(6.0)
    world.page()
    assert len(world.asked) == 3


def test_budgets_and_outcomes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routine, "MOST_BUDGETS", 16)
    monkeypatch.setattr(routine, "MOST_PAGES", 40)
    world = World()
    for number in range(64):
        world.page(home=HOA + number)
    assert len(world.routine._budgets) <= 16 and len(world.routine.pages()) == 40
    assert world.outcomes() == [Outcome.BUSY] * 24
    for number in range(40):
        world.perform(world.routine.withdrawn(HOA + number, now=world.now))
    assert world.outcomes()[24:] == [Outcome.UNKNOWN] * 40
    world.advance(3600)
    for number in range(300):
        world.page(home=HOA + number)
        world.perform(world.routine.registered(HOA + number, now=world.now))
    assert len(world.routine.ended) == routine.LAST_ENDED


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["page", "event", "reached", "no", "silence", "register", "wait"]), max_size=40)
)
def test_every_page_has_one_outcome(steps: list[str]) -> None:
    """In any order of packets, answers and registrations each page that began ends once, and requesters are told."""
    world = World()
    asked = 0
    for step in steps:
        waiting = world.asked and world.asked[-1].request in world.routine._asked
        if step == "page":
            world.page()
        elif step == "event":
            world.page(MAIL, requester=(asked, bytes(8)))
            asked += 1
        elif step == "register":
            world.perform(world.routine.registered(HOA, now=world.now))
        elif step == "wait":
            world.advance(1.5)
        elif waiting and step == "silence":
            world.silence()
        elif waiting:
            world.answer(Outcome.REACHED if step == "reached" else Outcome.NO_ANSWER)
    for _ in range(20):
        if world.asked and world.asked[-1].request in world.routine._asked:
            world.silence()
        world.advance(60.0)
    assert not world.routine.pages() and world.routine.deadline() is None
    told = [number for ended in world.ended for number, _ in ended.page.requesters]
    assert sorted(told) == list(range(asked))
    assert len({ended.page.identifier for ended in world.ended}) == len(world.ended)


@pytest.mark.parametrize("by", [None, AnsweredBy.MOBILE_NODE])
def test_only_an_access_node_answers_without_a_proof(by: AnsweredBy | None) -> None:
    """An answer that does not say whose it is would else be the device's."""
    world = World(genuine=False)
    world.page()
    world.answer(Outcome.REACHED, by=by)
    assert world.counts == ["page-answer-not-authentic"]
    world.advance(1)
    world.answer(Outcome.REACHED, by=AnsweredBy.ACCESS_NODE)
    assert [event.kind for event in world.events].count("page-answered") == 1
