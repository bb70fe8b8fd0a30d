"""Profiles of pages at an access node: in force before the first packet, all or nothing, and forgotten without a visit (P8)."""

from ipaddress import IPv4Address

import pytest

from locum.dataplane.layout.maps import Outcome
from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import FilterRule, FilterVerdict
from locum.roles.action_values.forwarding import FORWARDING, LocalEndpoint
from locum.roles.action_values.page_calls import CallDecision, PageCallAnswer
from locum.roles.foreign_agent.configuration import AccessLink, ForeignAgentConfiguration
from locum.roles.foreign_agent.pages import profiles
from locum.roles.foreign_agent.pages.profiles import FIRST_REQUEST, KEPT
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.mobile_ipv4.page_calls import write_call_answer
from locum.roles.profile import Policing, Profile, policy_blocks
from locum.roles.profile_requests import (
    FetchProfile,
    ProfileEvent,
    ProfileFetched,
    ProfileRefused,
    ProfileUnavailable,
)
from locum.security.association import Association
from locum.wire.control.context import ContextBlock
from locum.wire.control.context_blocks import BlockKind, SecurityBlock, encode_block, kind_of
from locum.wire.control.paging.cause import CommandCause
from locum.wire.control.paging.outcome import Outcome as PageOutcome
from locum.wire.control.paging.outcome import decode_page_answer
from locum.wire.control.paging.page import Page1170, encode_1170
from locum.wire.control.paging.provision import Pointer, Provision
from locum.wire.control.paging.redirect import Redirect1210, ToDevice, encode_1210
from locum.wire.flow import Flow
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.packets import decision, packet_of

HOA, HA, COA = IPv4Address("10.50.0.9"), IPv4Address("10.5.0.1"), IPv4Address("10.1.0.1")
SERVER, PEER = IPv4Address("10.6.0.1"), IPv4Address("10.9.0.1")
MAC, KEY, PAGE = bytes.fromhex("020000000009"), Association(300, b"k" * 16), b"page-one"
DROP = FilterRule(7, Ipv4Selector(protocol=(17, 17)), FilterVerdict.DROP)
PROFILE = Profile(to_visitor=Policing((DROP,)))
UDP, TCP = Flow(17, HOA, 53, PEER, 4000), Flow(6, HOA, 22, PEER, 4000)
NAI = "device@example.org"


def block(content: object) -> ContextBlock:
    return ContextBlock(int(kind_of(content)), 1, encode_block(content))  # type: ignore[arg-type]


WHOLE = Provision(tuple(block(content) for content in policy_blocks(PROFILE)))
POINTER = Provision(pointer=Pointer(SERVER, NAI))


class Node:
    """An access node at which the device was."""

    def __init__(self, *, policy: bool = True) -> None:
        self.now = 1000.0
        self.state = ForwardingState()
        self.asked: list[FetchProfile] = []
        self.calls = 0
        self.answers: list[bytes] = []
        self.counts: list[str] = []
        configuration = ForeignAgentConfiguration(
            COA, (AccessLink("radio0", COA),), policy=policy, policy_servers=frozenset((SERVER,))
        )
        import random

        self.role = ForeignAgent(configuration, {}, {}, (), random.Random(1))
        self.perform([LocalEndpoint(COA), *self.role.restore([], now=self.now)])
        visitor = Visitor(HOA, HA, "radio0", MAC, 300, self.now + 300, 0)
        self.perform(self.role._visitors.admit(visitor))
        self.perform(self.role._visitors.dismiss(HOA))

    def perform(self, actions: list[a.Action]) -> None:
        for action in actions:
            match action:
                case FetchProfile():
                    self.asked.append(action)
                case a.SendRegistration():
                    self.calls += 1
                case a.Answer():
                    self.answers.append(action.body)
                case a.Count(reason):
                    self.counts.append(reason)
                case _ if type(action) in FORWARDING:
                    self.state.perform(action)

    def tell(self, event: a.Event) -> None:
        self.perform(self.role.happened(event, now=self.now))

    def page(self, provision: Provision, home: IPv4Address = HOA, authorised: IPv4Address = HOA) -> None:
        body = encode_1170(Page1170(PAGE, home, CommandCause(), 10, provision=provision, call=b"call"))
        self.tell(a.Asked(1, "1170", body, HA, (authorised,)))

    def hold(self) -> None:
        body = encode_1210(Redirect1210((HOA,), ToDevice(COA, COA), 1, PAGE))
        self.tell(a.Asked(2, "1210", body, HA, (HOA,)))

    def hear(self) -> None:
        message = write_call_answer(PageCallAnswer(PAGE, HOA, 7, CallDecision.WAKING), KEY)
        self.perform(self.role.receive(message, Source(HOA, 434, "radio0", MAC), now=self.now))

    def verdict(self, flow: Flow) -> str:
        outcome = decision(self.state, packet_of(flow, outer_source=HA)).outcome
        known = {Outcome.HELD: "held", Outcome.DELIVERED: "delivered", Outcome.DROPPED: "dropped"}
        return known.get(outcome, "neither")

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.role.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.perform(self.role.timeout(now=self.now))
        self.now = end

    def context(self) -> set[BlockKind]:
        found = self.role.contexts.get(HOA)
        return set() if found is None else set(found.blocks)


def test_profile_of_a_page_polices_the_first_packet() -> None:
    node = Node()
    node.hold()
    node.page(WHOLE)
    assert node.calls == 1 and node.verdict(UDP) == node.verdict(TCP) == "held"
    node.hear()
    assert (node.verdict(UDP), node.verdict(TCP)) == ("dropped", "delivered")
    assert node.context() == {BlockKind.POLICY, BlockKind.PAGING} and node.asked == []


def test_profile_waits_for_the_registration_of_a_visit() -> None:
    node = Node(policy=False)
    node.page(WHOLE)
    visitor = Visitor(HOA, HA, "radio0", MAC, 300, node.now + 300, 0)
    node.perform(node.role._visitors.admit(visitor))
    assert (node.verdict(UDP), node.verdict(TCP)) == ("dropped", "delivered")
    node.advance(KEPT + 11)
    assert node.context() == {BlockKind.POLICY, BlockKind.PAGING}


def test_profile_without_a_visit_is_forgotten() -> None:
    node = Node()
    node.page(WHOLE)
    node.advance(5)
    assert node.context()
    node.advance(KEPT + 11)
    assert node.context() == set()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda number: ProfileFetched(number, PROFILE), "dropped"),
        (lambda number: ProfileRefused(number, "unknown"), "delivered"),
        (lambda number: ProfileUnavailable(number, "silent"), "delivered"),
    ],
)
def test_packets_wait_for_the_profile_behind_a_pointer(answer: object, verdict: str) -> None:
    node = Node()
    node.hold()
    node.page(POINTER)
    [asked] = node.asked
    assert asked == FetchProfile(FIRST_REQUEST, NAI, HOA) and node.calls == 1
    node.hear()
    assert node.verdict(UDP) == node.verdict(TCP) == "held", "the device listens, its profile is not here"
    event: ProfileEvent = answer(asked.request)  # type: ignore[operator]
    node.tell(event)
    assert (node.verdict(UDP), node.verdict(TCP)) == (verdict, "delivered")
    node.tell(event)
    assert node.verdict(TCP) == "delivered", "a second answer is none"


def test_pointer_with_a_home_address_names_no_identifier() -> None:
    node = Node()
    node.page(Provision(pointer=Pointer(SERVER, str(HOA))))
    node.page(POINTER)
    assert node.asked == [FetchProfile(FIRST_REQUEST, None, HOA)], "one fetch at a time"


@pytest.mark.parametrize(("policy", "server"), [(True, PEER), (False, SERVER)])
def test_pointer_to_another_server_is_not_followed(policy: bool, server: IPv4Address) -> None:
    node = Node(policy=policy)
    node.page(Provision(pointer=Pointer(server, NAI)))
    assert node.asked == [] and node.counts == ["page-pointer-unknown"] and node.calls == 1


@pytest.mark.parametrize(
    "bad",
    [
        ContextBlock(int(BlockKind.POLICY), 1, b"\xff"),
        block(SecurityBlock(256, b"k" * 16, "hmac-sha-256", "timestamp", None)),
        ContextBlock(99, 1, b""),
    ],
)
def test_bad_profile_refuses_the_page_and_changes_nothing(bad: ContextBlock) -> None:
    node = Node()
    node.page(Provision((WHOLE.profile[1], bad)))
    assert decode_page_answer(node.answers[0]).outcome is PageOutcome.MALFORMED
    assert node.calls == 0 and node.context() == set() and node.counts == ["page-profile-malformed"]


def test_profile_for_a_device_of_another_is_not_taken() -> None:
    node = Node()
    node.page(WHOLE, authorised=PEER)
    assert decode_page_answer(node.answers[0]).outcome is PageOutcome.NOT_AUTHORISED
    assert node.context() == set()


def test_profiles_without_a_visit_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "MOST_KEPT", 1)
    node = Node()
    node.page(WHOLE)
    node.page(WHOLE, HOA + 1, HOA + 1)
    node.page(POINTER, HOA + 2, HOA + 2)
    assert node.counts.count("page-profile-no-room") == 2 and node.asked == []
    assert node.calls == 3, "they are called all the same"
