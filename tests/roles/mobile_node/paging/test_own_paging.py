"""A device tells its home agent (1204) and its stand-in (1206) what shall wake it, on a virtual clock."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import AppOrder
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.mobile_node.paging.configuration import PagingConfiguration
from locum.roles.mobile_node.paging.own_paging import (
    FIRST_RULES,
    FIRST_TABLES,
    PATIENCE,
    UNHEARD,
    WishRefused,
)
from locum.roles.mobile_node.paging.telling import MAX_ATTEMPTS, Telling, Told
from locum.roles.mobile_node.paging.wishes import MAX_WISHES, PRIORITY, Wish
from locum.roles.mobile_node.states import Down, SendingBack, Up
from locum.wire.control.paging.entry import ActionKind, Entry, EntryAction, Limits, Pattern
from locum.wire.control.paging.event_table import EventTable1206, decode_1206
from locum.wire.control.paging.page_rules import DeviceState, PageRules1204, decode_1204
from locum.wire.control.paging.rules import PageAction, PageRule
from locum.wire.control.paging.status import (
    MAX_LIFETIME,
    ItemStatus,
    PagingStatus,
    StatusAnswer,
    encode_status_answer,
)
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.world import HA, HOA, HOA6, STAND_IN, Host, World, asleep

SSH = Ipv4Selector(destination_port=(22, 22), protocol=(6, 6))
WEB = Ipv4Selector(destination_port=(80, 80), protocol=(6, 6))
BY_SSH = Wish(0, "ssh", (SSH,))
PAGE = (EntryAction(ActionKind.PAGE),)
ANY = Entry(1, (Pattern("*", "delivered"),), PAGE)
BY_FILE = Wish(0, "download", entry=ANY, proxy="download")
FILMS = AppOrder("films", "download", {"url": "http://example.org/film"})
ITS_RULE = PageRule(7, 7, (WEB,), PageAction.DROP)
NO_PAGING = PagingConfiguration()
PAGED = PagingConfiguration((ITS_RULE,), PageAction.HOLD)
Message = PageRules1204 | EventTable1206
OK = StatusAnswer(PagingStatus.OK, lifetime=MAX_LIFETIME)


class Answering(World):
    """Both nodes answer 1204 and 1206 as `reply` says; None: not at all."""

    def __init__(self, paging: PagingConfiguration = NO_PAGING, registers: bool = False) -> None:
        self.told: list[tuple[Addr, Message]] = []
        self.reply: Callable[[Message], StatusAnswer | bytes | None] = lambda message: OK
        super().__init__(0, registers=registers, default=not registers)
        self.paging = paging
        self.start(self.mn)
        self.advance(3)

    def _ask(self, host: Host, action: a.Ask) -> None:
        if action.path not in ("1204", "1206"):
            super()._ask(host, action)
            return
        message = decode_1204(action.body) if action.path == "1204" else decode_1206(action.body)
        least, most = (FIRST_RULES, FIRST_TABLES) if action.path == "1204" else (FIRST_TABLES, 1 << 61)
        assert least <= action.request < most
        assert ("wish", "told 1204" if action.path == "1204" else f"told 1206 {action.peer}") in host.rows
        self.told.append((action.peer, message))
        answer = self.reply(message)
        event: a.Event = a.NoAnswer(action.request, "timeout")
        if answer is not None:
            body = answer if isinstance(answer, bytes) else encode_status_answer(answer)
            event = a.Answered(action.request, body)
        self.at(0.02 if answer is not None else action.timeout, lambda: self.tell(host, event))

    def add(self, wish: Wish) -> Wish:
        made, actions = self.device.paging.add(wish, now=self.clock(self.mn))
        self.perform(self.mn, actions)
        return made

    def remove(self, number: int) -> None:
        self.perform(self.mn, self.device.paging.remove(number, now=self.clock(self.mn))[1])

    def news(self) -> list[Message]:
        """Messages since the last call."""
        found, self.told = [message for _, message in self.told], []
        return found

    def states(self) -> list[Told]:
        return [telling.state for telling in self.device.paging.tellings]


class Real(Answering):
    """The home agent itself answers 1204."""

    def __init__(self, registers: bool) -> None:
        super().__init__(registers=registers)

    def _ask(self, host: Host, action: a.Ask) -> None:
        if action.path != "1204":
            super()._ask(host, action)
            return
        number = next(self._exchange)
        self._exchanges[number] = (host, action.request)
        self._ends = getattr(self, "_ends", {}) | {(host.name, action.request): []}
        self.at(0.01, lambda: self.tell(self.ha, a.Asked(number, "1204", action.body, HOA, (HOA, HOA6))))

    def live(self) -> list[RuleVerdict]:
        """Rules of the kernel but those for the stand-in's own packets."""
        entry = self.ha.bindings.get(HOA)
        rules = () if entry is None else entry.rules
        return [rule.verdict for rule in rules if rule.verdict is not RuleVerdict.FORWARD]


def in_force(world: Answering) -> list[str]:
    """The reason of each wish that is not in force; empty for those that are."""
    return [
        "" if standing.in_force else standing.reason or "?" for standing in world.device.paging.standings()
    ]


def test_device_without_wishes_tells_nothing() -> None:
    world = Answering()
    world.sleep()
    world.advance(5)
    world.wake()
    world.advance(20)
    assert isinstance(world.device.state, Up) and world.told == []
    assert world.states() == [Told.NOTHING, Told.NOTHING]


def test_wish_is_told_at_once_and_before_each_sleep() -> None:
    world = Answering()
    made = world.add(BY_SSH)
    assert made.number == 1 and in_force(world) == ["no answer yet"]
    world.advance(1)
    assert in_force(world) == [""]
    [rules] = world.news()
    assert isinstance(rules, PageRules1204)
    assert rules.home_addresses == (HOA, HOA6) and rules.otherwise is PageAction.AGENT
    assert [(rule.priority, rule.selectors, rule.action) for rule in rules.rules] == [
        (PRIORITY + 1, (SSH,), PageAction.PAGE)
    ]
    assert (rules.state, rules.lifetime) == (DeviceState.AWAKE, MAX_LIFETIME)
    world.sleep()
    world.advance(5)
    assert asleep(world) and in_force(world) == [""]
    [again] = world.news()
    assert again == replace(rules, sent=again.sent) and again.sent > rules.sent
    world.wake()
    world.advance(20)
    assert world.news() == [], "the home agent has it"
    world.remove(1)
    world.advance(1)
    [gone] = world.news()
    assert isinstance(gone, PageRules1204) and (gone.rules, gone.lifetime) == ((), 0)
    assert not [key for table, key in world.mn.rows if table == "wish"]
    world.sleep()
    world.advance(5)
    assert world.news() == []


def test_sleep_waits_for_the_answers_before_the_device_is_gone() -> None:
    world = Answering(PAGED)
    world.news()
    late: list[str] = []
    world.watch = lambda action: late.append(action.path) if isinstance(action, a.Ask) else None
    world.sleep()
    assert isinstance(world.device.state, SendingBack), "the answer is awaited"
    world.advance(5)
    assert late[:2] == ["1204", "634"] and asleep(world)
    [rules] = world.news()
    assert isinstance(rules, PageRules1204) and rules.rules == (ITS_RULE,)
    assert rules.otherwise is PageAction.HOLD


def test_silent_home_agent_holds_a_sleep_up_for_seconds() -> None:
    world = Answering(PAGED)
    world.reply = lambda message: None
    began = world.now
    world.sleep()
    gone: list[float] = []
    world.watch = lambda action: (
        gone.append(world.now) if isinstance(action, a.Ask) and action.path == "634" else None
    )
    world.advance(30)
    assert asleep(world) and gone[0] - began == pytest.approx(PATIENCE, abs=0.1)
    assert world.states()[0] is Told.UNANSWERED
    world.news()
    world.reply = lambda message: OK
    world.advance(60)
    assert world.states()[0] is Told.TAKEN, "it was told again"


def test_cancelled_sleep_ends_its_wish() -> None:
    world = Answering()
    world.reply = lambda message: None
    world.sleep(until=BY_SSH)
    world.advance(1)
    world.reply = lambda message: OK
    world.perform(world.mn, world.device.cancel(now=world.clock(world.mn)))
    world.advance(10)
    assert isinstance(world.device.state, Up) and world.device.paging.all() == []
    first, last = world.news()
    assert isinstance(first, PageRules1204) and isinstance(last, PageRules1204)
    assert (len(first.rules), first.lifetime, last.lifetime) == (1, MAX_LIFETIME, 0)


def test_unanswered_message_is_repeated_and_given_up() -> None:
    world = Answering()
    world.reply = lambda message: None
    world.add(BY_SSH)
    world.advance(100)
    assert in_force(world) == ["timeout"]
    world.advance(2000)
    sent = world.news()
    assert len(sent) == MAX_ATTEMPTS and len(set(map(repr, sent))) == 1, "the same message, with its time"
    failed = [event for event in world.mn.events if event.kind == "paging-information-failed"]
    assert [event.detail["reason"] for event in failed] == ["no-answer"]
    world.reply = lambda message: OK
    world.advance(600)
    assert world.news() == []
    world.cut("radio0")
    world.advance(60)
    assert in_force(world) == [""], "at the next access node it is told again"


@pytest.mark.parametrize(
    ("answer", "reason", "counted"),
    [
        (StatusAnswer(PagingStatus.REFUSED, "not here"), "not here", "1204-refused"),
        (StatusAnswer(PagingStatus.NOT_AUTHORISED), "not-authorised", "1204-not-authorised"),
        (StatusAnswer(PagingStatus.STALE, "a later one is known"), "a later one is known", "1204-stale"),
        (StatusAnswer(PagingStatus.BUSY), "busy", "1204-busy"),
        (b"\xff", "a malformed answer", "1204-answer-"),
        (
            StatusAnswer(PagingStatus.OK, items=(ItemStatus(0x4001, PagingStatus.OVERLAPS, "with rule 3"),)),
            f"{HA} has refused it: with rule 3",
            "",
        ),
        (
            StatusAnswer(PagingStatus.OK, items=(ItemStatus(0x4001, PagingStatus.LIMIT),)),
            f"{HA} has refused it: limit",
            "",
        ),
    ],
)
def test_refusals_are_reported_with_their_reasons(
    answer: StatusAnswer | bytes, reason: str, counted: str
) -> None:
    world = Answering()
    world.reply = lambda message: answer
    world.add(BY_SSH)
    world.advance(0.5)
    assert in_force(world) == [reason]
    assert not counted or any(key.startswith(counted) for key in world.mn.counts)
    world.sleep()
    world.advance(20)
    assert asleep(world), "a sleep goes on"


def test_missing_association_is_reported_and_nothing_is_asked() -> None:
    world = Answering(PagingConfiguration(peers=frozenset({STAND_IN})))
    world.add(BY_SSH)
    assert in_force(world) == [f"no [[control.association]] with {HA}"] and world.told == []
    began = world.now
    world.sleep()
    world.advance(1)
    assert asleep(world) and world.now - began < PATIENCE and world.told == []


def test_events_are_told_with_the_names_of_the_proxies() -> None:
    world = Answering()
    world.add(BY_FILE)
    assert in_force(world) == ["there is no proxy of the kind download"] and world.told == []
    world.apps = (FILMS, AppOrder("mail", "mail", {}))
    world.start(world.mn)
    world.advance(3)
    [table] = world.news()
    assert isinstance(table, EventTable1206) and [one.patterns for one in table.entries] == [
        (Pattern("films", "delivered"),)
    ]
    assert in_force(world) == [""]
    world.sleep()
    world.advance(5)
    world.wake()
    world.advance(20)
    assert world.news() == [replace(table, sent=world.device.paging.tables[STAND_IN].last_sent)]
    world.remove(1)
    world.advance(1)
    [gone] = world.news()
    assert isinstance(gone, EventTable1206) and gone.entries == ()
    assert world.states() == [Told.NOTHING, Told.NOTHING]


def test_many_proxies_of_a_kind_have_several_entries() -> None:
    apps = [replace(FILMS, name=f"film{number}") for number in range(10)]
    entries = replace(BY_FILE, number=2).entries(apps)
    assert [len(entry.patterns) for entry in entries] == [8, 2]
    assert len({entry.identifier for entry in entries}) == 2
    assert all(replace(BY_FILE, number=2).owns(entry.identifier) for entry in entries)
    assert not any(replace(BY_FILE, number=3).owns(entry.identifier) for entry in entries)


def test_quiet_hours_come_with_the_offset_of_the_clock() -> None:
    world = Answering(PagingConfiguration(information={"limit": 7}))
    world.device.paging.offset = 120
    world.add(Wish(0, "event", entry=replace(ANY, limits=Limits(quiet=((1320, 420),)))))
    world.advance(1)
    [table] = world.news()
    assert isinstance(table, EventTable1206)
    assert (table.offset, table.information) == (120, {"limit": 7})


def test_wish_for_one_sleep_ends_with_it() -> None:
    world = Answering()
    world.add(Wish(0, "web", (WEB,)))
    world.news()
    world.sleep(until=BY_SSH)
    world.advance(5)
    [rules] = world.news()
    assert isinstance(rules, PageRules1204) and [rule.selectors for rule in rules.rules] == [(WEB,), (SSH,)]
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(1)
    assert isinstance(world.device.state, Down) and [wish.once for wish in world.device.paging.all()] == [
        False,
        True,
    ]
    world.news()
    world.wake()
    world.advance(20)
    [rules] = world.news()
    assert isinstance(rules, PageRules1204) and [rule.selectors for rule in rules.rules] == [(WEB,)]
    assert [wish.text for wish in world.device.paging.all()] == ["web"]
    world.sleep(until=Wish(0, "web", (WEB,)))
    world.advance(5)
    world.wake()
    world.advance(20)
    assert [wish.text for wish in world.device.paging.all()] == ["web"], "a standing wish stays"


def test_wish_of_a_sleeping_device_is_told_at_once() -> None:
    world = Answering()
    world.sleep()
    world.advance(5)
    world.add(BY_SSH)
    world.advance(0.5)
    [rules] = world.news()
    assert isinstance(rules, PageRules1204) and rules.state is DeviceState.ASLEEP and in_force(world) == [""]


def test_restarted_sleeper_repeats_only_what_was_not_taken() -> None:
    world = Answering()
    world.add(BY_SSH)
    world.sleep()
    world.advance(5)
    world.news()
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(5)
    assert world.news() == [] and in_force(world) == [""]
    world.reply = lambda message: None
    world.add(Wish(0, "web", (WEB,)))
    world.advance(10)
    assert in_force(world) == [UNHEARD, UNHEARD]
    world.news()
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(1)
    [rules] = world.news()
    assert isinstance(rules, PageRules1204) and rules.state is DeviceState.ASLEEP and len(rules.rules) == 2


@pytest.mark.parametrize("registers", [False, True])
def test_rules_are_in_force_while_the_device_sleeps(registers: bool) -> None:
    world = Real(registers)
    world.add(Wish(0, "web", (replace(WEB, destination_port=(8080, 8080)),)))
    world.advance(1)
    assert in_force(world) == [""] and world.live() == []
    world.sleep()
    world.advance(5)
    assert asleep(world) and world.live() == [RuleVerdict.PAGE]
    world.advance(900)
    assert world.live() == [RuleVerdict.PAGE], "also without a registration"
    world.wake()
    world.advance(20)
    assert isinstance(world.device.state, Up) and world.live() == []
    world.remove(1)
    world.sleep()
    world.advance(5)
    assert asleep(world) and world.live() == []


def test_restarted_device_tells_its_rows_again() -> None:
    world = Answering()
    world.add(BY_SSH)
    world.advance(1)
    [before] = world.news()
    world.mn.rows["wish", "wish 9"] = a.Persist("wish", "wish 9", {"text": "damaged"})
    world.mn.rows["wish", "told 1208"] = a.Persist("wish", "told 1208", {"sent": 1})
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(3)
    [again] = world.news()
    assert again == replace(before, sent=again.sent) and again.sent > before.sent
    assert world.mn.counts["unreadable-row"] == 2
    assert sorted(key for table, key in world.mn.rows if table == "wish") == ["told 1204", "wish 1"]


def test_time_of_messages_never_goes_back() -> None:
    world = Answering()
    world.add(BY_SSH)
    world.advance(1)
    world.step_wall_clock(world.mn, -3600.0)
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(3)
    world.remove(1)
    world.advance(1)
    sent = [message.sent for message in world.news()]
    assert sent == sorted(sent) and len(set(sent)) == 3


def test_short_lifetime_is_renewed() -> None:
    world = Answering()
    world.reply = lambda message: replace(OK, lifetime=600)
    world.add(BY_SSH)
    world.advance(1000)
    assert len(world.news()) == 4


def test_wishes_that_cannot_be_are_refused() -> None:
    world = Answering()
    for number in range(MAX_WISHES):
        port = 1000 + number
        world.add(Wish(0, f"tcp {port}", (replace(SSH, destination_port=(port, port)),)))
    for wish, reason in (
        (BY_SSH, "32 wishes"),
        (Wish(0, "tcp 1000", (replace(SSH, destination_port=(1000, 1000)),)), "same"),
    ):
        with pytest.raises(WishRefused, match=reason):
            world.add(wish)
    with pytest.raises(WishRefused, match="no wish 40"):
        world.remove(40)
    with pytest.raises(WishRefused, match="32 wishes"):
        world.sleep(until=BY_SSH)
    assert isinstance(world.device.state, Up)
    world.remove(3)
    assert world.add(BY_SSH).number == 3


def test_clock_that_is_set_back_is_followed() -> None:
    """A node whose clock agrees refuses the times of before; what it takes goes on."""
    told = Telling("1204", lambda: HA, iter(range(1, 100)), lambda: HOA)
    message = PageRules1204((HOA,), (), PageAction.AGENT, 300, DeviceState.AWAKE, 0)
    told.tell(message, left=True, at=9_000_000, now=0.0)
    told.tell(replace(message, lifetime=301), left=True, at=5_400_000, now=0.0)
    refused = encode_status_answer(StatusAnswer(PagingStatus.REFUSED, "the sender's clock is ahead"))
    actions = told.happened(a.Answered(2, refused), now=1.0)
    [again] = [decode_1204(action.body) for action in actions or () if isinstance(action, a.Ask)]
    assert (again.sent, again.lifetime, told.last_sent) == (5_400_000, 301, 5_400_000)
    told.happened(a.Answered(3, refused), now=1.0)
    assert told.state is Told.REFUSED, "once"
