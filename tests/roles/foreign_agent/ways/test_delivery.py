"""Pages by each way on a virtual clock: in slots, by magic packets, by a program (P11, P13)."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.page_calls import CallDecision, PageCallAnswer
from locum.roles.action_values.paging import CallByCommand, CommandEnded, EndCommand, SendMagicPacket
from locum.roles.foreign_agent.page_delivery import PageDelivery
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.ways.settings import (
    CommandSettings,
    Kind,
    WaysConfiguration,
    WaySettings,
)
from locum.roles.mobile_ipv4.page_calls import write_call_answer
from locum.security.association import Association
from locum.wire.control.paging.cause import EventCause
from locum.wire.control.paging.outcome import AnsweredBy, Outcome, PageAnswer, decode_page_answer
from locum.wire.control.paging.page import Page1170, encode_1170
from locum.wire.control.paging.way import Way

HOA, HA = IPv4Address("10.50.0.9"), IPv4Address("10.5.0.1")
MAC, OTHER = bytes.fromhex("020000000009"), bytes.fromhex("02000000000a")
KEY = Association(300, b"k" * 16)
START = 1_796_000_000.0
PROGRAM = CommandSettings(("/opt/push", "--now"), None, 5.0, 2)
CONFIGURATION = WaysConfiguration(
    (
        WaySettings("push", Kind.COMMAND, command=PROGRAM),
        WaySettings("wake-on-lan", Kind.WAKE_ON_LAN, b"secret"),
    )
)
SLOTS = Way("link", b"", 320, 100, 20)


def slot(sent: float, way: Way = SLOTS) -> float:
    """Milliseconds since the beginning of a slot."""
    return (1000 * sent - way.offset) % way.cycle


class Node:
    """An access node. `ahead` is the wall clock's, `late` the greatest lateness of its timers, in seconds."""

    def __init__(self, configuration: WaysConfiguration = CONFIGURATION, *, late: float = 0.0) -> None:
        self.now, self.ahead, self.random, self.late = START, 0.0, Random(1), late
        self.visitors: dict[IPv4Address, Visitor] = {}
        self.delivery = PageDelivery(("radio0",), self._visitor, reaching=configuration)
        self.sent: list[tuple[float, a.SendRegistration]] = []  # with the time on the wall
        self.magic: list[tuple[float, SendMagicPacket]] = []
        self.run: list[tuple[float, CallByCommand]] = []
        self.killed: list[bytes] = []
        self.said: list[PageAnswer] = []
        self.counts: list[str] = []
        self.visit(HOA)

    def _visitor(self, home_address: Addr) -> Visitor | None:
        return self.visitors.get(home_address) if isinstance(home_address, IPv4Address) else None

    def visit(self, home_address: IPv4Address) -> None:
        self.visitors[home_address] = Visitor(home_address, HA, "radio0", MAC, 300, START + 300, 0)

    def perform(self, actions: Sequence[a.Action] | None) -> None:
        for action in actions or ():
            match action:
                case a.SendRegistration():
                    self.sent.append((self.now + self.ahead, action))
                case SendMagicPacket():
                    self.magic.append((self.now, action))
                case CallByCommand():
                    self.run.append((self.now, action))
                case EndCommand():
                    self.killed.append(action.page)
                case a.Answer():
                    self.said.append(decode_page_answer(action.body))
                case a.Count(reason):
                    self.counts.append(reason)

    def tell(self, event: a.Event) -> None:
        self.perform(self.delivery.happened(event, now=self.now))

    def step(self, ahead: float) -> None:
        """Set the wall clock."""
        self.ahead = ahead
        self.tell(a.WallClockStepped(ahead))

    def page(
        self, way: Way | None, home: IPv4Address = HOA, page: bytes = b"page-one", **changes: Any
    ) -> None:
        message = Page1170(page, home, EventCause("mail", "message"), 20, way, call=b"signed call")
        body = encode_1170(replace(message, **changes))
        self.tell(a.Asked(len(self.said) + 1, "1170", body, HA, (home,)))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.delivery.deadline()) is not None and due <= end:
            self.now = max(self.now, due) + self.random.uniform(0, self.late)
            self.perform(self.delivery.timeout(now=self.now))
        self.now = max(self.now, end)

    def answer(self, page: bytes = b"page-one") -> None:
        message = write_call_answer(PageCallAnswer(page, HOA, 7, CallDecision.WAKING), KEY)
        self.perform(self.delivery.heard(message, Source(HOA, 434, "radio0", MAC), now=self.now))

    def ended(self, code: int | None, page: bytes = b"page-one", text: str = "") -> None:
        self.tell(CommandEnded("push", page, code, text))


# Slots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cycle", [1, 40, 320, 1280, 5120, 10_000])
@pytest.mark.parametrize("at", [0.0, 0.013, 0.31])
def test_calls_go_out_in_slots_alone(cycle: int, at: float) -> None:
    node, way = Node(), Way("link", b"", cycle, cycle // 3, min(20, cycle))
    node.advance(at)
    node.page(way)
    node.advance(19.9)
    assert all(slot(sent, way) < way.length for sent, _ in node.sent)
    assert 1 <= len(node.sent) <= 14, "bounded by the pauses between calls"
    assert node.sent[0][0] <= START + at + cycle / 1000 + 0.003
    node.advance(1)
    assert [said.outcome for said in node.said] == [Outcome.NO_ANSWER]


def test_cycle_without_slots_is_called_at_once() -> None:
    node = Node()
    node.page(Way("link"))
    assert [sent for sent, _ in node.sent] == [START]


@pytest.mark.parametrize("ahead", [3600.0, -3600.0, 0.123, -0.2])
def test_step_of_the_wall_clock_moves_the_slots(ahead: float) -> None:
    node = Node()
    node.page(SLOTS)
    node.advance(3)
    before = len(node.sent)
    node.step(ahead)
    node.advance(10)
    assert len(node.sent) > before and all(slot(sent) < 20 for sent, _ in node.sent)


def test_step_while_no_page_waits_counts_for_the_next() -> None:
    node = Node()
    node.step(0.171)
    node.page(SLOTS)
    node.advance(1)
    assert node.sent and slot(node.sent[0][0]) < 20


def test_missed_slot_is_no_call_outside_it() -> None:
    node = Node(late=0.4)  # a machine so busy that timers come after the slot
    node.page(SLOTS)
    node.advance(18)
    assert "page-slot-missed" in node.counts
    assert all(slot(sent) < 20 for sent, _ in node.sent)


def test_missed_slots_are_made_up_for() -> None:
    node = Node(late=0.017)
    node.page(SLOTS)
    node.advance(18)
    assert len(node.sent) >= 8 and all(slot(sent) < 20 for sent, _ in node.sent)


def test_answer_ends_the_calls() -> None:
    node = Node()
    node.page(SLOTS)
    node.advance(0.33)
    assert len(node.sent) == 1
    node.answer()
    node.advance(30)
    assert len(node.sent) == 1 and [said.outcome for said in node.said] == [Outcome.REACHED]
    assert node.delivery.deadline() is None


def test_thousands_of_devices_are_called_in_their_own_slots() -> None:
    node, ways = Node(late=0.001), {}
    for number in range(3000):
        home = HOA + number
        node.visit(home)
        ways[home] = Way("link", b"", 1280, (number * 37) % 1280, 10)
        node.page(ways[home], home, number.to_bytes(8, "big"))
    node.advance(1.4)
    called = [sent.to for _, sent in node.sent]
    assert set(called) == set(ways) and len(called) < 1.2 * len(ways), "some twice in more than a cycle"
    for at, sent in node.sent:
        assert isinstance(sent.to, IPv4Address) and slot(at, ways[sent.to]) < 10


def test_device_that_is_configured_needs_no_way_in_the_page() -> None:
    node = Node(WaysConfiguration(devices={HOA: SLOTS}))
    node.page(None)
    node.advance(10)
    assert node.sent and all(slot(sent) < 20 for sent, _ in node.sent)
    node = Node(WaysConfiguration(devices={HOA: SLOTS}))
    node.page(Way("link"))
    assert len(node.sent) == 1, "the page's own way comes first"


# Wake-on-LAN ------------------------------------------------------------------------------------------------------


def test_magic_packets_are_repeated_and_calls_go_beside_them() -> None:
    node = Node()
    node.page(Way("wake-on-lan"))
    node.advance(19.9)
    pauses = [round(at - START, 2) for at, _ in node.magic]
    assert pauses[0] == 0 and 4 <= len(pauses) <= 6 and pauses == sorted(pauses)
    assert {action for _, action in node.magic} == {SendMagicPacket("radio0", MAC, b"secret")}
    assert len(node.sent) > len(node.magic), "a device that is up hears the call soon"
    node.answer()
    node.advance(60)
    assert [said.outcome for said in node.said] == [Outcome.REACHED] and len(pauses) == len(node.magic)


@pytest.mark.parametrize(("way", "card"), [(Way("wake-on-lan", OTHER), OTHER), (Way("wake-on-lan"), None)])
def test_card_of_a_device_that_is_not_known(way: Way, card: bytes | None) -> None:
    node = Node()
    node.visitors.clear()
    node.page(way)
    assert [action.card for _, action in node.magic] == ([] if card is None else [card])
    assert [said.outcome for said in node.said] == ([Outcome.REFUSED] if card is None else [])
    assert card is not None or "card is not known" in node.said[0].text


def test_configured_card_completes_the_way_of_a_page() -> None:
    node = Node(WaysConfiguration(devices={HOA: Way("wake-on-lan", OTHER)}))
    node.visitors.clear()
    node.page(Way("wake-on-lan"))
    assert [action.card for _, action in node.magic] == [OTHER]


# Commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "outcome"), [(0, Outcome.REACHED), (2, Outcome.REFUSED), (3, Outcome.UNKNOWN)]
)
def test_exit_code_of_the_program_is_the_outcome(code: int, outcome: Outcome) -> None:
    node = Node()
    node.page(Way("push"), call=b"")
    [(_, run)] = node.run
    assert (run.command, run.user, run.timeout) == (("/opt/push", "--now"), None, 5.0)
    assert dict(run.told) == {
        "home_address": str(HOA), "page": b"page-one".hex(), "attempt": 1, "link_address": "",
        "cause": "event", "app": "mail", "event": "message",
    }  # fmt: skip
    node.ended(code, text="the gateway's word")
    [said] = node.said
    assert (said.outcome, said.answered_by) == (outcome, AnsweredBy.ACCESS_NODE)
    assert code == 0 or said.text == "the gateway's word"
    assert node.delivery.deadline() is None and node.sent == []


@pytest.mark.parametrize("code", [1, 77, None])
def test_program_that_fails_runs_again_later(code: int | None) -> None:
    node = Node()
    node.page(Way("push"))
    for pause in (1.0, 2.0, 4.0):
        before = len(node.run)
        node.ended(code)
        node.advance(pause - 0.1)
        assert len(node.run) == before
        node.advance(0.2)
        assert len(node.run) == before + 1
    node.advance(30)
    assert [said.outcome for said in node.said] == [Outcome.NO_ANSWER]
    assert node.killed == [b"page-one"], "the last one still ran"
    node.ended(0)
    assert "page-command-late" in node.counts and len(node.said) == 1


def test_programs_beyond_the_limit_wait_in_order() -> None:
    node = Node()
    pages = [number.to_bytes(8, "big") for number in range(5)]
    for number, page in enumerate(pages):
        node.visit(HOA + number)
        node.page(Way("push"), HOA + number, page)
    assert [run.page for _, run in node.run] == pages[:2]
    node.ended(0, pages[1])
    assert [run.page for _, run in node.run] == pages[:3]
    node.ended(None, pages[0])
    assert [run.page for _, run in node.run] == pages[:4]
    node.advance(1.5)
    assert len(node.run) == 4, "the one that failed waits as well"
    for page in (*pages[2:4], pages[4], pages[0]):
        node.ended(0, page)
    assert sorted(run.page for _, run in node.run) == sorted([*pages, pages[0]])
    assert len(node.said) == 5


def test_program_of_a_page_that_waits_is_not_run_after_its_end() -> None:
    node = Node()
    pages = [number.to_bytes(8, "big") for number in range(3)]
    for number, page in enumerate(pages):
        node.visit(HOA + number)
        node.page(Way("push"), HOA + number, page, seconds=20 if number < 2 else 5)
    node.advance(6)
    node.ended(0, pages[0])
    assert [run.page for _, run in node.run] == pages[:2]


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (Way("pigeon"), "no way 'pigeon'"),
        (Way("link"), "no signed call"),
        (Way("wake-on-lan"), "no signed call"),
    ],
)
def test_ways_that_cannot_be_used_are_refused_with_the_reason(way: Way, text: str) -> None:
    node = Node()
    node.page(way, call=b"")
    [said] = node.said
    assert said.outcome is Outcome.REFUSED and text in said.text
    assert node.counts == ["page-refused"] and node.sent == [] and node.delivery.deadline() is None
