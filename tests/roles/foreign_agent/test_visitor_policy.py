"""An access node fetches its visitors' profiles from the policy server, and polices them (R20, P16)."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.flows import Filter, FilterPlace, FilterRule, FilterVerdict, InstallFilter
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.foreign_agent.visitor_policy import FETCH_AGAIN, LONGEST, VisitorPolicy
from locum.roles.profile import Policing, PolicingChange, Profile, ProfileChange
from locum.roles.profile_requests import (
    AnswerPush,
    DisconnectAsked,
    FetchProfile,
    ProfileFetched,
    ProfilePushed,
    ProfileRefused,
    ProfileUnavailable,
    PushOutcome,
    Session,
)
from locum.wire.control.context_blocks import BlockKind
from locum.wire.traffic_selector import Ipv4Selector

HOA, HA, AN = IPv4Address("10.50.0.9"), IPv4Address("10.5.0.1"), IPv4Address("10.1.0.1")
NAI = "device@example.org"
NOW = 1_790_000_000.0
RULE = FilterRule(7, Ipv4Selector(protocol=(17, 17)), FilterVerdict.DROP)
PROFILE = Profile(lifetime=600, to_visitor=Policing((RULE,)))
VISITOR = Visitor(HOA, HA, "radio", b"\2" * 6, 300, NOW + 300, 0)


class Node:
    """An access node's list of visitors, its contexts and its questions."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.contexts = ContextBook()
        self.visitors = VisitorList(AN, (), (HA,), 16)
        self.visitors.adjust(self.contexts.police)
        self.policy = VisitorPolicy(self.contexts, self.visitors, enabled=enabled)

    def register(self, nai: str | None = NAI) -> list[FetchProfile]:
        self.visitors.admit(VISITOR)
        return questions(self.policy.registered(HOA, nai))

    def tell(self, event: a.Event, now: float = NOW) -> list[a.Action]:
        actions = self.policy.happened(event, now=now)
        assert actions is not None
        return actions


def questions(actions: list[a.Action]) -> list[FetchProfile]:
    return [action for action in actions if isinstance(action, FetchProfile)]


def filters(actions: list[a.Action]) -> list[Filter]:
    return [action.filter for action in actions if isinstance(action, InstallFilter)]


def kinds(actions: list[a.Action]) -> list[str]:
    return [action.kind for action in actions if isinstance(action, a.Emit)]


def test_a_visitor_is_policed_by_its_profile() -> None:
    node = Node()
    assert node.register() == [FetchProfile(1, NAI, HOA)]
    assert node.register() == []  # it is under way
    (installed,) = filters(node.tell(ProfileFetched(1, PROFILE)))
    assert (installed.home_address, installed.place, installed.rules) == (
        HOA,
        FilterPlace.TO_VISITOR,
        (RULE,),
    )
    assert node.register() == []  # a renewal asks for nothing


def test_no_profile_is_fetched_without_a_policy_server() -> None:
    node = Node(enabled=False)
    assert node.register() == [] and node.policy.deadline() is None


def test_profile_is_fetched_again_when_its_lifetime_ends() -> None:
    node = Node()
    node.register()
    node.tell(ProfileFetched(1, PROFILE))
    assert node.policy.deadline() == NOW + 600
    assert questions(node.policy.timeout(now=NOW + 600)) == [FetchProfile(2, NAI, HOA)]
    changed = replace(PROFILE, lifetime=None, to_visitor=Policing(otherwise=FilterVerdict.DROP))
    (installed,) = filters(node.tell(ProfileFetched(2, changed), NOW + 601))
    assert (installed.rules, installed.otherwise) == ((), FilterVerdict.DROP)
    assert node.policy.deadline() == NOW + 601 + LONGEST


def test_refresh_fetches_before_the_lifetime_ends() -> None:
    node = Node()
    node.register()
    node.tell(ProfileFetched(1, PROFILE))
    (known,) = node.policy.known()
    assert (known.home_address, known.nai, known.profile) == (HOA, NAI, PROFILE)
    assert (known.fetched_at, known.fetch_at) == (NOW, NOW + 600)
    assert node.policy.refresh(HOA) == [FetchProfile(2, NAI, HOA)]
    assert node.policy.refresh(HOA) == [], "it is under way"
    assert node.policy.deadline() is None and node.policy.known()[0].profile == PROFILE, (
        "what is in force stays"
    )
    changed = replace(PROFILE, to_visitor=Policing((replace(RULE, identifier=8),)))
    actions = node.tell(ProfileFetched(2, changed), NOW + 5)
    (installed,) = filters(actions)
    assert [rule.identifier for rule in installed.rules] == [8]
    assert kinds(actions) == ["profile-changed"]
    assert node.policy.deadline() == NOW + 605
    node.policy.refresh(HOA)
    same = node.tell(ProfileFetched(3, changed), NOW + 6)
    assert filters(same) == [] and kinds(same) == []
    assert node.policy.known()[0].fetched_at == NOW + 6


@pytest.mark.parametrize("said", [ProfileUnavailable(2, "silence"), ProfileRefused(2, "no")])
def test_profile_stays_in_force_if_a_fetch_fails(said: a.Event) -> None:
    node = Node()
    node.register()
    node.tell(ProfileFetched(1, PROFILE))
    node.policy.refresh(HOA)
    actions = node.tell(said)
    assert filters(actions) == [] and kinds(actions) == ["profile-stale"]
    assert node.contexts.content(HOA, BlockKind.POLICY) is not None
    (known,) = node.policy.known()
    assert (known.profile, known.fetch_at) == (PROFILE, NOW + FETCH_AGAIN)


def test_profile_of_a_departed_visitor_is_unknown() -> None:
    node = Node()
    node.register()
    node.tell(ProfileFetched(1, PROFILE))
    node.visitors.dismiss(HOA)
    assert node.policy.known() == []
    for home_address in (HOA, IPv4Address("10.50.0.10")):
        with pytest.raises(KeyError):
            node.policy.refresh(home_address)


def test_departed_visitor_is_not_fetched_or_policed() -> None:
    node = Node()
    node.register()
    node.visitors.dismiss(HOA)
    assert node.tell(ProfileFetched(1, PROFILE)) == []
    node.register()
    node.tell(ProfileFetched(2, PROFILE))
    node.visitors.dismiss(HOA)
    assert node.policy.timeout(now=NOW + 600) == [] and node.policy.deadline() is None


def test_unknown_profile_is_fetched_again() -> None:
    node = Node()
    node.register()
    assert node.tell(ProfileUnavailable(1, "silence")) == [a.Count("profile-unavailable")]
    assert questions(node.policy.timeout(now=NOW + FETCH_AGAIN)) == [FetchProfile(2, NAI, HOA)]
    assert node.tell(ProfileRefused(2, "no")) == [a.Count("profile-refused")]
    assert node.tell(ProfileFetched(2, PROFILE)) == []  # no request is pending


def test_new_name_or_lost_context_fetches_the_profile_again() -> None:
    node = Node()
    node.register()
    node.tell(ProfileFetched(1, PROFILE))
    assert node.register("other@example.org") == [FetchProfile(2, "other@example.org", HOA)]
    node.tell(ProfileFetched(2, PROFILE))
    node.contexts.drop(HOA)
    assert node.register("other@example.org") == [FetchProfile(3, "other@example.org", HOA)]


def test_other_events_are_ignored() -> None:
    assert Node().policy.happened(a.LinkDown("radio"), now=NOW) is None


# Pushed changes -----------------------------------------------------------------------------------------------------


def push(node: Node, version: int, session: Session, **changes: object) -> tuple[PushOutcome, list[a.Action]]:
    change = ProfileChange(version, **(changes or {"to_visitor": PolicingChange(())}))  # type: ignore[arg-type]
    *others, answer = node.tell(ProfilePushed(1, session, change))
    assert isinstance(answer, AnswerPush)
    return answer.outcome, others


def test_a_push_changes_the_filters_of_a_visitor() -> None:
    node = Node()
    node.register()
    assert push(node, 7, Session(NAI))[0] is PushOutcome.UNKNOWN, "its profile is not known yet"
    node.tell(ProfileFetched(1, PROFILE))
    outcome, actions = push(node, 7, Session(NAI, HOA), to_visitor=PolicingChange(None, FilterVerdict.DROP))
    assert outcome is PushOutcome.DONE and kinds(actions) == ["profile-pushed"]
    (installed,) = filters(actions)
    assert (installed.rules, installed.otherwise) == ((RULE,), FilterVerdict.DROP)
    assert push(node, 7, Session(None, HOA)) == (PushOutcome.STALE, [a.Count("push-stale")])
    many = tuple(replace(RULE, identifier=number) for number in range(1, 66))
    assert push(node, 8, Session(str(HOA)), paging=PolicingChange(many))[0] is PushOutcome.NO_ROOM
    for stranger in (Session("other@example.org"), Session(NAI, HA), Session(None, HA)):
        assert push(node, 9, stranger)[0] is PushOutcome.UNKNOWN
    node.visitors.dismiss(HOA)
    assert push(node, 9, Session(NAI))[0] is PushOutcome.UNKNOWN


def test_an_older_fetch_does_not_undo_a_push() -> None:
    node = Node()
    node.register()
    node.tell(ProfileFetched(1, replace(PROFILE, version=3)))
    push(node, 7, Session(NAI))
    node.policy.refresh(HOA)
    actions = node.tell(ProfileFetched(2, replace(PROFILE, version=4)), NOW + 5)
    assert a.Count("profile-older") in actions and kinds(actions) == ["profile-stale"]
    assert node.policy.deadline() == NOW + 5 + FETCH_AGAIN
    (known,) = node.policy.known()
    assert known.profile is not None and known.profile.to_visitor.rules == ()
    node.policy.refresh(HOA)
    (installed,) = filters(node.tell(ProfileFetched(3, PROFILE), NOW + 6))
    assert installed.rules == (RULE,) and node.policy.known()[0].profile == replace(PROFILE, version=7)


def test_a_disconnection_ends_the_visit() -> None:
    node = Node()
    node.register()
    ended: list[IPv4Address] = []

    def revoke(home_address: IPv4Address, now: float) -> list[a.Action]:
        ended.append(home_address)
        return node.visitors.dismiss(home_address)

    node.policy.revoke = revoke
    assert node.tell(DisconnectAsked(1, Session("other@example.org"))) == [
        AnswerPush(1, PushOutcome.UNKNOWN, "it is no visitor")
    ]
    assert node.tell(DisconnectAsked(1, Session(None, HOA)))[-1] == AnswerPush(1, PushOutcome.DONE)
    assert ended == [HOA] and HOA not in node.visitors
