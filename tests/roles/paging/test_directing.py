"""Direct pages from the stand-in to the sleeping device and back, over lossy links: directions, wakes, and what wakes nobody (P5)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.apps import AppTold
from locum.roles.action_values.direct_pages import DeciderCommand, Direction, PageDecided
from locum.roles.foreign_agent.page_delivery import PageDelivery
from locum.roles.mnps.handover import Stopped
from locum.roles.mnps.paging.direct_pages import FIRST_REQUEST, DirectPages
from locum.roles.mnps.role import StandIn
from locum.roles.paging.events import Firing
from locum.wire.control import Done, decode_634
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.direct_page import Decision, DirectDecision, Directions
from locum.wire.control.paging.entry import ActionKind, Condition, Entry, EntryAction, Operator, Pattern
from tests.roles.world import AN1, HOA, HOA6, World, asleep, awake

MAC = b"\x02" * 6
DIRECT = (EntryAction(ActionKind.PAGE_DIRECT),)
ENTRY = Entry(7, (Pattern("mail", "arrived"),), DIRECT)
OTHER = Entry(8, (Pattern("file", "complete"),), DIRECT)
NEW = Directions((Entry(9, (Pattern("mail", "urgent"),), DIRECT),), {"seen": 3})
FROM_BOSS = Condition("from", Operator.GLOB, "boss@*")
STAY = Direction(
    (Pattern("mail", "*", (Condition("from", Operator.NOT_EQUAL, "boss"),)),), Decision.GO_ON, NEW
)


def firing(entry: Entry = ENTRY, detail: Mapping[str, object] | None = None) -> Firing:
    pattern = entry.patterns[0]
    return Firing(entry, entry.actions, (ApplicationEvent(pattern.app, pattern.kind, detail or {}),))


def mail(sender: str, text: str = "") -> Firing:
    return firing(ENTRY, {"from": sender, "text": text})


class Directed:
    """A world whose device sleeps, and what the stand-in's event table and its home agent's pages get."""

    def __init__(self, *directions: Direction, seed: int = 0, located: bool = True) -> None:
        self.world = World(seed, located=("an", "mn") if located else ())
        world = self.world
        world.directed = replace(world.directed, directions=directions)
        world.start(world.mn)
        world.advance(3)
        world.sleep()
        world.advance(30)
        assert asleep(world)
        self.changes: list[tuple[Addr, Directions]] = []
        self.fallen_back: list[Firing] = []
        self.join()

    def join(self) -> None:
        """Take the place of the event table and of 1172; again after a restart of the stand-in."""

        def directed(home: Addr, directions: Directions, _now: float) -> list[a.Action]:
            self.changes.append((home, directions))
            return []

        def fall_back(_home: Addr, fallen: Firing, _now: float) -> list[a.Action]:
            self.fallen_back.append(fallen)
            return []

        self.pages.directed, self.pages.fall_back = directed, fall_back

    @property
    def pages(self) -> DirectPages:
        return cast(StandIn, self.world.mnps.role).direct_pages

    def page(self, what: Firing | None = None, home: Addr = HOA) -> None:
        world = self.world
        what = firing() if what is None else what
        world.perform(world.mnps, self.pages.page(home, what, now=world.clock(world.mnps)))

    def outcomes(self) -> list[object]:
        events = self.world.mnps.events
        return [event.detail["outcome"] for event in events if event.kind == "direct-page-ended"]

    def decisions(self) -> list[object]:
        return [event.detail["decision"] for event in self.world.mn.events if event.kind == "paged"]

    def rows(self) -> list[str]:
        return [key for table, key in self.world.mnps.rows if table == "direct_page"]

    def hear(self, message: bytes) -> None:
        """A message to the device on its access link, whoever has sent it."""
        self.world.give(self.world.mn, message, Source(AN1, 434, "radio0", MAC, HOA))


def test_event_without_a_direction_wakes_the_device() -> None:
    directed = Directed()
    directed.page()
    directed.world.advance(20)
    assert awake(directed.world) and directed.outcomes() == ["reached"]
    assert directed.decisions() == ["waking"] and directed.fallen_back == [] and directed.rows() == []
    kinds = [(it.message, it.kind) for it in directed.world.mnps.events if it.message == "1172A"]
    assert kinds == [("1172A", "sent"), ("1172A", "page-answered"), ("1172A", "direct-page-ended")]
    assert [it.kind for it in directed.world.an1.events if it.message == "1172A"] == ["calling", "called"]


def test_device_gives_directions_and_sleeps_on() -> None:
    directed = Directed(STAY)
    world = directed.world
    seen: list[a.Action] = []
    world.watch = seen.append
    directed.page(mail("news"))
    world.advance(20)
    assert asleep(world) and directed.outcomes() == ["directed"]
    assert directed.changes == [(HOA, NEW)] and directed.fallen_back == [] and directed.rows() == []
    sent = [type(action) for action in seen if not isinstance(action, a.Emit | a.Persist)]
    assert sent == [a.SendRegistration], "an answer, and nothing else: no radio, no registration"
    directed.page(mail("boss"))
    world.advance(20)
    assert awake(world) and directed.outcomes() == ["directed", "reached"]


def test_conditions_may_be_about_the_state() -> None:
    about = Condition("state.unread", Operator.LESS, 10)
    directed = Directed(Direction((Pattern("mail", "*", (about,)),), Decision.GO_ON))
    taken = cast(StandIn, directed.world.mnps.role).handovers()
    (handover,) = (it.identifier for it in taken)
    for unread, outcome in ((3, "directed"), (12, "reached")):
        directed.world.tell(directed.world.mnps, AppTold(handover, "mail", "x", state={"unread": unread}))
        directed.page()
        directed.world.advance(20)
        assert directed.outcomes()[-1] == outcome


@pytest.mark.parametrize("state", [None, {"x": "y" * 1100}])
def test_state_that_does_not_fit_is_left_out(state: dict[str, object] | None) -> None:
    by_state = Direction(
        (Pattern("mail", "*", (Condition("state.x", Operator.NOT_EQUAL, 1),)),), Decision.GO_ON
    )
    directed = Directed(by_state)
    (handover,) = (it.identifier for it in cast(StandIn, directed.world.mnps.role).handovers())
    directed.world.tell(directed.world.mnps, AppTold(handover, "mail", "x", state=state))
    directed.page(mail("news", "z" * 200))
    directed.world.advance(20)
    assert awake(directed.world), "nobody can tell whether the condition holds"
    assert all(len(call.message) <= 1200 for call in directed.world.calls)


def test_long_detail_is_left_out_and_the_device_wakes() -> None:
    directed = Directed(STAY)
    directed.page(mail("news", "z" * 4000))
    directed.world.advance(20)
    assert awake(directed.world) and directed.outcomes() == ["reached"]


def test_program_decides_where_no_direction_does() -> None:
    directed = Directed()
    world = directed.world
    world.kill(world.mn)
    world.directed = replace(world.directed, command=DeciderCommand(("decide",), 3.0))
    world.start(world.mn)
    directed.page(mail("news"))
    world.advance(1)
    (asked,) = world.asked_to_decide
    assert (asked.command, asked.seconds) == (("decide",), 3.0)
    assert (asked.told["app"], asked.told["detail"]) == ("mail", {"from": "news", "text": ""})
    world.tell(world.mn, PageDecided(asked.page, DirectDecision(Decision.GO_ON, NEW)))
    world.advance(10)
    assert asleep(world) and directed.outcomes() == ["directed"] and directed.changes == [(HOA, NEW)]
    assert world.mn.counts["direct-call-deciding"] > 0, "repeated calls start no second program"
    world.tell(world.mn, PageDecided(asked.page, DirectDecision(Decision.WAKING)))
    assert asleep(world) and world.mn.counts["direct-call-decision-late"] == 1


def long_directions() -> DirectDecision:
    return DirectDecision(Decision.GO_ON, Directions((), {f"name{number}": "x" * 90 for number in range(20)}))


@pytest.mark.parametrize("decision", [None, long_directions()], ids=["failed", "too long"])
def test_program_without_a_usable_decision_wakes(decision: DirectDecision | None) -> None:
    directed = Directed()
    world = directed.world
    world.kill(world.mn)
    world.directed = replace(world.directed, command=DeciderCommand(("decide",)))
    world.start(world.mn)
    directed.page()
    world.advance(1)
    world.tell(world.mn, PageDecided(world.asked_to_decide[0].page, decision, "it took too long"))
    world.advance(20)
    assert awake(world) and directed.outcomes() == ["reached"]


def test_access_node_is_known_by_a_trigger_too() -> None:
    directed = Directed(located=False)
    directed.pages._device_at = lambda _homes: AN1
    directed.page(home=HOA6)
    directed.world.advance(20)
    assert awake(directed.world) and directed.outcomes() == ["reached"]


def test_unknown_place_falls_back_to_the_home_agent() -> None:
    directed = Directed(located=False)
    directed.page()
    assert directed.outcomes() == ["unknown"] and directed.fallen_back == [firing()]
    assert directed.rows() == [] and directed.pages.pages() == ()


@pytest.mark.parametrize("seed", range(8))
def test_direct_page_gets_through_lossy_links(seed: int) -> None:
    directed = Directed(STAY, seed=seed)
    directed.world.loss = 0.5
    directed.page(mail("news"))
    directed.world.advance(60)
    assert asleep(directed.world)
    assert directed.outcomes() == ["directed"] or directed.fallen_back
    assert len(directed.changes) == directed.outcomes().count("directed")
    assert len(directed.decisions()) <= 1, "a repeated call is decided once"


def test_device_out_of_reach_falls_back() -> None:
    directed = Directed(STAY)
    directed.world.cut("radio0")
    directed.world.cut("radio1")
    directed.page()
    directed.page(firing(OTHER))
    directed.world.advance(60)
    assert directed.outcomes() == ["no-answer"] and directed.rows() == []
    assert sorted(it.entry.identifier for it in directed.fallen_back) == [7, 8], (
        "those that wait fall back too"
    )


def test_device_that_does_not_wake_as_said_falls_back() -> None:
    directed = Directed()
    world = directed.world
    world.stand_in_silent = True
    directed.page()
    world.advance(1)
    world.kill(world.mn)
    world.advance(60)
    assert directed.outcomes() == ["no-answer"] and directed.fallen_back == [firing()]


def test_further_firings_wait_for_the_page_in_progress() -> None:
    directed = Directed(Direction((Pattern(),), Decision.GO_ON))
    for entry in (ENTRY, OTHER, OTHER, ENTRY):
        directed.page(firing(entry))
    assert len(directed.pages.pages()) == 1
    directed.world.advance(30)
    ended = [it.detail for it in directed.world.mnps.events if it.kind == "direct-page-ended"]
    assert [(it["entry"], it["count"], it["outcome"]) for it in ended] == [
        (7, 1, "directed"),
        (8, 2, "directed"),
        (7, 1, "directed"),
    ]
    assert directed.rows() == []


def test_waking_device_gets_the_waiting_events_without_a_page() -> None:
    directed = Directed()
    for entry in (ENTRY, OTHER):
        directed.page(firing(entry))
    directed.world.advance(30)
    assert awake(directed.world) and directed.outcomes() == ["reached"] and directed.rows() == []
    directed.page()
    assert directed.outcomes() == ["reached", "reached"] and directed.rows() == [], "it is awake"


def test_recorded_calls_wake_nobody() -> None:
    directed = Directed()
    world = directed.world
    directed.page()
    world.advance(20)
    call = world.calls[0].message
    world.sleep()
    world.advance(5)
    directed.hear(call)
    assert asleep(world) and world.mn.counts["direct-call-repeated"] == 1
    world.kill(world.mn)
    world.start(world.mn)
    directed.hear(call)
    assert world.mn.counts["direct-call-repeated"] == 2, "the row outlasts a restart"
    directed.page()
    world.advance(20)
    assert awake(world)
    world.sleep()
    world.advance(5)
    directed.hear(call)
    assert asleep(world) and world.mn.counts["direct-call-replayed"] == 1


def test_call_that_was_kept_back_wakes_nobody_later() -> None:
    directed = Directed()
    world = directed.world
    world.cut("radio0")
    directed.page()
    world.advance(1)
    call = world.calls[0].message
    world.mend("radio0")
    world.kill(world.an1)
    world.advance(90)
    directed.hear(call)
    assert asleep(world) and world.mn.counts["direct-call-clock"] == 1


def test_forged_calls_wake_nobody() -> None:
    directed = Directed()
    world = directed.world
    world.cut("radio0")
    directed.page()
    world.advance(1)
    call = world.calls[0].message
    for place in (4, 15, 20, 24, 36, len(call) - 1):
        directed.hear(call[:place] + bytes((call[place] ^ 1,)) + call[place + 1 :])
    directed.hear(call[:20])
    directed.hear(bytes((255, 4)) + call[2:])
    assert asleep(world) and directed.decisions() == []
    counts = world.mn.counts
    assert counts["direct-call-not-authentic"] == 5 and counts["direct-call-for-another"] == 1
    assert counts["direct-call-truncated"] == 1 and counts["direct-call-not-a-call"] == 1
    directed.hear(call)
    assert directed.decisions() == ["waking"], "the true one is believed"


def test_access_node_can_forge_no_answer() -> None:
    directed = Directed(STAY)
    world = directed.world
    role = world.an1.role
    heard: Callable[..., list[a.Action]] = PageDelivery.heard

    def forged(self: PageDelivery, message: bytes, source: Source, *, now: float) -> list[a.Action]:
        return heard(self, message[:-1] + bytes((message[-1] ^ 1,)), source, now=now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PageDelivery, "heard", forged)
        directed.page(mail("news"))
        world.advance(3)
        assert world.mnps.counts["direct-page-answer-not-authentic"] > 0 and directed.changes == []
    world.advance(20)
    assert role is world.an1.role and directed.outcomes() == ["directed"], "the true answer counts"


def test_recorded_answers_are_not_taken() -> None:
    directed = Directed(STAY)
    world = directed.world
    answers: list[bytes] = []
    heard: Callable[..., list[a.Action]] = PageDelivery.heard

    def recorded(self: PageDelivery, message: bytes, source: Source, *, now: float) -> list[a.Action]:
        answers.append(message)
        old = answers[0]
        return heard(self, message[:24] + old[24:], source, now=now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PageDelivery, "heard", recorded)
        for _ in range(2):
            directed.page(mail("news"))
            world.advance(3)
    assert len(directed.changes) == 1 and world.mnps.counts["direct-page-answer-not-authentic"] > 0


def test_stand_in_that_is_killed_goes_on_with_its_pages() -> None:
    directed = Directed(STAY)
    world = directed.world
    world.cut("radio0")
    directed.page(mail("news"))
    directed.page(firing(OTHER))
    world.advance(1)
    assert len(directed.rows()) == 2
    world.kill(world.mnps)
    world.advance(5)
    world.mend("radio0")
    world.advance(40)
    world.start(world.mnps)
    directed.join()
    world.advance(60)
    assert directed.outcomes()[:1] == ["directed"] and awake(world) and directed.rows() == []


def test_rows_that_cannot_be_read_are_counted() -> None:
    directed = Directed()
    world = directed.world
    world.kill(world.mnps)
    world.kill(world.mn)
    for host, table in ((world.mnps, "direct_page"), (world.mn, "direct_call")):
        host.rows[table, "x"] = a.Persist(cast(a.Table, table), "x", {"firing": "00", "page": "zz"})
        world.start(host)
        assert host.counts["unreadable-row"] == 1 and (table, "x") not in host.rows


def test_numbers_of_requests_are_its_own() -> None:
    directed = Directed(located=False)
    pages = directed.pages
    assert pages.happened(a.NoAnswer(FIRST_REQUEST - 1, ""), now=0.0) is None or FIRST_REQUEST - 1 >= 1 << 57
    assert pages.happened(a.NoAnswer(1 << 60, ""), now=0.0) is None
    assert pages.happened(a.NoAnswer(FIRST_REQUEST, ""), now=0.0) == [a.Count("direct-page-answer-late")]


def test_event_during_a_wake_is_not_lost() -> None:
    directed = Directed(STAY)
    world = directed.world
    world.drop_634 = lambda body: isinstance(decode_634(body), Done)
    world.wake()
    world.advance(3)
    (taken,) = cast(StandIn, world.mnps.role).handovers()
    assert isinstance(taken.state, Stopped)
    directed.page(mail("news"))
    assert directed.outcomes() == [] and directed.rows() == [f"{HOA}/7"], "the wake may be called off"
    world.drop_634 = lambda body: False
    world.advance(60)
    assert awake(world) and directed.outcomes() == ["reached"] and directed.rows() == []
