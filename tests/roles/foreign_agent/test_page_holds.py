"""Packets at an access node whose device is paged: held until it answers, to its own link alone, and what is refused (1210)."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from locum.dataplane.layout.maps import Outcome
from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.forwarding import (
    FORWARDING,
    LocalEndpoint,
    NeighbourEntry,
    ReleaseHeld,
    RemoveNeighbour,
)
from locum.roles.action_values.page_calls import CallDecision, PageCallAnswer
from locum.roles.foreign_agent.configuration import StaticVisitor
from locum.roles.foreign_agent.contexts.in_flight import InFlight, Mobile, Waiting
from locum.roles.foreign_agent.pages import holds
from locum.roles.foreign_agent.pages.holds import HOLD_SECONDS, PageHolds
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.mobile_ipv4.page_calls import write_call_answer
from locum.security.association import Association
from locum.wire.control.paging.direct_message import DirectKind, DirectMessage
from locum.wire.control.paging.redirect import (
    Destination,
    Redirect1210,
    ToAgent,
    ToDevice,
    ToPaging,
    encode_1210,
)
from locum.wire.control.paging.status import PagingStatus, decode_status_answer
from tests.roles.packets import decision, ordinary

HOA, HOA6 = IPv4Address("10.50.0.9"), IPv6Address("2001:db8:50::9")
HA, COA, STAND_IN = IPv4Address("10.5.0.1"), IPv4Address("10.1.0.1"), IPv4Address("10.3.0.9")
MAC, OTHER = bytes.fromhex("020000000009"), bytes.fromhex("02000000000a")
VISITOR = Visitor(HOA, HA, "radio0", MAC, 300, 1300.0, 0)
KEY = Association(300, b"k" * 16)
PAGE = b"page-one"
HERE = ToDevice(COA, COA)


class Node:
    """An access node, and its data plane's state."""

    def __init__(self, *static: StaticVisitor) -> None:
        self.now, self.exchange = 1000.0, 0
        self.state = ForwardingState()
        self.visitors = VisitorList(COA, static, (HA,), 10)
        self.flights = InFlight(COA, self.visitors)
        self.holds = PageHolds(COA, self.visitors, self.flights)
        self.said: list[PagingStatus] = []
        self.done: list[str] = []  # releases and drops of held packets, and events
        self.perform([LocalEndpoint(COA), *self.visitors.start(())])

    def perform(self, actions: list[a.Action] | None) -> None:
        assert actions is not None
        for action in actions:
            match action:
                case a.Answer():
                    self.said.append(decode_status_answer(action.body).status)
                case a.Emit(kind):
                    self.done.append(kind)
                case ReleaseHeld(_, ahead):
                    self.done.append("release ahead" if ahead else "release")
                case DropHeld():
                    self.done.append("drop")
                case NeighbourEntry() | RemoveNeighbour() | a.Count() | a.Persist() | a.Forget():
                    pass
                case _:
                    assert type(action) in FORWARDING
                    self.state.perform(action)

    def visit_ended(self) -> "Node":
        """The device was here."""
        self.perform(self.visitors.admit(VISITOR))
        self.perform(self.visitors.dismiss(HOA))
        self.done.clear()
        return self

    def ask(
        self,
        to: Destination = HERE,
        homes: tuple[Addr, ...] = (HOA, HOA6),
        sent: int = 1,
        authorised: tuple[Addr, ...] = (HOA, HOA6, STAND_IN),
        peer: Addr = HA,
        page: bytes | None = PAGE,
    ) -> PagingStatus:
        body = encode_1210(Redirect1210(homes, to, sent, page))
        self.perform(self.holds.happened(a.Asked(1, "1210", body, peer, authorised), now=self.now))
        return self.said.pop()

    def hear(
        self,
        page: bytes = PAGE,
        decision: CallDecision = CallDecision.WAKING,
        link: str = "radio0",
        mac: bytes = MAC,
    ) -> None:
        message = write_call_answer(PageCallAnswer(page, HOA, 7, decision), KEY)
        self.perform(self.holds.heard(message, Source(HOA, 434, link, mac)))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for part in (self.flights, self.holds):
            while (due := part.deadline()) is not None and due <= self.now:
                self.perform(part.timeout(now=self.now))

    def verdict(self, home: Addr = HOA) -> str:
        outcome = decision(self.state, ordinary(home, outer_source=HA)).outcome
        return {Outcome.HELD: "held", Outcome.DELIVERED: "delivered"}.get(outcome, "neither")


def test_packets_wait_until_the_device_answers() -> None:
    node = Node().visit_ended()
    assert node.ask() is PagingStatus.OK
    assert node.verdict() == node.verdict(HOA6) == "held"
    node.hear()
    assert node.verdict() == node.verdict(HOA6) == "delivered"
    assert node.done == [
        "page-holding",
        *("release ahead",) * 2,
        *("release",) * 2,
        "page-delivering",
    ], "held ones first, then those that came meanwhile"


def test_answer_that_came_first_needs_no_hold() -> None:
    node = Node().visit_ended()
    node.hear()
    assert node.ask() is PagingStatus.OK and node.verdict() == "delivered"


def test_answer_to_a_direct_page_counts_for_that_page_alone() -> None:
    """The stand-in alone can read whether the device wakes: it says so with the page of its change."""
    answer = DirectMessage(DirectKind.ANSWER, PAGE, HOA, 7, b"sealed").encode()
    call = DirectMessage(DirectKind.CALL, PAGE, HOA, 7, b"sealed").encode()
    for page, message, verdict in (
        (PAGE, answer, "delivered"),
        (PAGE, call, "held"),
        (PAGE, answer[:10], "held"),
        (b"page-two", answer, "held"),
        (None, answer, "held"),
    ):
        for first in (True, False):
            node = Node().visit_ended()
            if first:
                node.perform(node.holds.heard(message, Source(HOA, 434, "radio0", MAC)))
            assert node.ask(page=page) is PagingStatus.OK
            if not first:
                node.perform(node.holds.heard(message, Source(HOA, 434, "radio0", MAC)))
            assert node.verdict() == verdict
    node = Node().visit_ended()
    node.ask()
    node.perform(node.holds.heard(answer, Source(HOA, 434, "radio0", OTHER)))
    assert node.verdict() == "held", "another host has answered"


def test_earlier_answer_is_none_to_a_change_without_a_page() -> None:
    """The device has answered, registered, and gone to sleep again: it does not listen."""
    node = Node().visit_ended()
    node.hear()
    node.advance(3600)
    node.perform(node.visitors.admit(VISITOR))
    node.perform(node.visitors.dismiss(HOA))
    assert node.ask(page=None) is PagingStatus.OK and node.verdict() == "held"
    node.ask(page=None, sent=2)
    assert node.verdict() == "held"
    node.hear(page=b"page-two")
    node.ask(page=None, sent=3)
    assert node.verdict() == "delivered", "it has answered since"


def test_end_for_a_visitor_delivers_what_waits() -> None:
    """A change that came late, behind the registration: the device is awake."""
    node = Node()
    node.perform(node.visitors.admit(VISITOR))
    node.perform(node.holds.admitted(HOA))
    node.ask()
    assert node.verdict() == "held"
    node.ask(ToPaging(), sent=2)
    assert node.verdict() == "delivered" and "drop" not in node.done


@pytest.mark.parametrize(
    "answer",
    [
        {"page": b"page-two"},
        {"decision": CallDecision.REFUSED},
        {"link": "radio1"},
        {"mac": OTHER},
    ],
)
def test_other_answers_open_nothing(answer: dict[str, object]) -> None:
    node = Node().visit_ended()
    node.ask()
    node.hear(**answer)  # type: ignore[arg-type]
    assert node.verdict() == "held"
    node.perform(node.holds.heard(b"\xff", Source(HOA, 434, "radio0", MAC)))
    assert node.verdict() == "held"


def test_unknown_device_waits_for_its_registration() -> None:
    """Its packets go to no host that only answers."""
    node = Node()
    assert node.ask() is PagingStatus.OK and node.verdict() == "held"
    node.hear()
    assert node.verdict() == "held"
    node.perform(node.visitors.admit(VISITOR))
    node.perform(node.holds.admitted(HOA))
    assert node.verdict() == "delivered" and node.holds.visitor(HOA) is None
    assert node.done[-4:] == ["release ahead", "release ahead", "release", "release"]


def test_registration_takes_the_place_of_the_hold() -> None:
    node = Node().visit_ended()
    node.ask()
    node.hear()
    node.perform(node.visitors.admit(VISITOR))
    node.perform(node.holds.admitted(HOA))
    node.advance(HOLD_SECONDS + 1)
    assert node.verdict() == "delivered" and "drop" not in node.done
    node.perform(node.holds.admitted(HOA))


def test_end_of_the_page_drops_and_forgets() -> None:
    node = Node().visit_ended()
    node.ask()
    assert node.ask(ToPaging(), sent=2) is PagingStatus.OK
    assert node.verdict() == "neither" and node.done.count("drop") == 2
    assert node.done[-1] == "page-hold-ended"
    assert node.ask(ToPaging(), sent=3) is PagingStatus.OK, "once more"
    assert not node.state.acceptances and node.flights.waiting(HOA) is None


def test_hold_has_a_time() -> None:
    node = Node().visit_ended()
    node.ask()
    node.advance(HOLD_SECONDS - 1)
    node.ask(sent=2)
    node.advance(HOLD_SECONDS - 1)
    assert node.verdict() == "held", "a repetition renews it"
    node.advance(2)
    assert node.verdict() == "neither" and node.done.count("drop") == 2


def test_delivery_without_a_registration_has_a_time() -> None:
    node = Node().visit_ended()
    node.ask()
    node.hear()
    node.advance(HOLD_SECONDS + 1)
    assert node.verdict() == "neither" and node.done[-1] == "page-hold-ended"


def test_repetition_for_a_device_that_listens_goes_on_delivering() -> None:
    node = Node().visit_ended()
    node.ask()
    node.hear()
    node.ask(sent=2)
    assert node.verdict() == "delivered"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"authorised": (HOA,)}, PagingStatus.NOT_AUTHORISED),
        ({"homes": (HOA6,)}, PagingStatus.REFUSED),
        ({"homes": (HOA, STAND_IN)}, PagingStatus.REFUSED),
        ({"to": ToAgent(STAND_IN)}, PagingStatus.REFUSED),
        ({"to": ToDevice(COA, HA)}, PagingStatus.REFUSED),
        ({"peer": HOA6}, PagingStatus.REFUSED),
    ],
)
def test_changes_are_refused(changes: dict[str, object], status: PagingStatus) -> None:
    node = Node().visit_ended()
    assert node.ask(**changes) is status  # type: ignore[arg-type]
    assert node.verdict() == "neither" and node.holds.deadline() is None


def test_messages_are_in_order_and_readable() -> None:
    node = Node().visit_ended()
    node.ask(sent=5)
    assert node.ask(ToPaging(), sent=4) is PagingStatus.STALE and node.verdict() == "held"
    node.perform(node.holds.happened(a.Asked(1, "1210", b"\xff", HA, (HOA,)), now=node.now))
    assert node.said.pop() is PagingStatus.MALFORMED
    assert node.holds.happened(a.Asked(1, "1170", b"", HA, (HOA,)), now=node.now) is None


def test_care_of_address_of_a_stand_in_is_refused() -> None:
    """Both would come in the same tunnel: those that the stand-in has taken over must stay with it."""
    assert Node(StaticVisitor(HOA, HA, "eth0", STAND_IN, None)).ask() is PagingStatus.REFUSED
    node = Node()
    node.perform(node.visitors.admit(replace(VISITOR, next_hop=STAND_IN)))
    assert node.ask() is PagingStatus.REFUSED


def test_device_on_the_list_is_held_like_any_other() -> None:
    """It has a very short registration on its way to sleep, or one that the home agent has forgotten."""
    node = Node()
    node.perform(node.visitors.admit(VISITOR))
    node.ask()
    assert node.verdict() == "held"
    node.hear()
    assert node.verdict() == "delivered"


def test_packets_that_wait_for_another_reason_go_on_waiting() -> None:
    node = Node().visit_ended()
    node.perform(node.flights.strand(Mobile(HOA, HA, HOA6), now=node.now))
    assert node.ask() is PagingStatus.OK and node.flights.waiting(HOA) is Waiting.STRANDED
    node.hear()
    assert node.flights.waiting(HOA) is Waiting.STRANDED


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "MOST_KNOWN", 4)
    monkeypatch.setattr(holds, "MOST_HOLDS", 1)
    node = Node().visit_ended()
    node.ask()
    other = HOA + 1
    assert node.ask(homes=(other,), authorised=(other,)) is PagingStatus.LIMIT
    for number in range(9):
        node.perform(node.holds.left(replace(VISITOR, home_address=HOA + number)))
    assert len(node.holds._visits) == 4
