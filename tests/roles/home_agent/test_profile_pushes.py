"""The policy server changes profiles at a home agent by itself, in the order of versions (P7)."""

from dataclasses import replace

import pytest

from locum.roles import actions as a
from locum.roles.action_values.flows import MAX_RULES, FilterRule, FilterVerdict, RuleVerdict
from locum.roles.home_agent.configuration import mobile_of
from locum.roles.home_agent.profile_homes import FETCH_AGAIN
from locum.roles.profile import PolicingChange, Profile, ProfileChange
from locum.roles.profile_requests import (
    AnswerPush,
    DisconnectAsked,
    FetchProfile,
    ProfileEvent,
    ProfileFetched,
    ProfilePushed,
    PushOutcome,
    Session,
)
from locum.roles.rules import PROFILE, KeptRule
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.policyworld import AN3, CONFIGURED, FULL, HOA, KEY, NAI, OTHER, PolicyWorld

PAGE = KeptRule(5, 3, RuleVerdict.PAGE, (Ipv4Selector(protocol=(6, 6)),), owner=PROFILE)
ACCEPTED = 0
MEANT = Session(None, HOA)


class Asked:
    """A policy server with one profile, and the home agent that has registered its device."""

    def __init__(self, profile: Profile = FULL, *, registered: bool = True) -> None:
        self.profile = profile
        self.world = PolicyWorld(self._says)
        if registered:
            assert self.world.ask(nai=NAI) == ACCEPTED

    def _says(self, asked: FetchProfile) -> ProfileEvent | None:
        return ProfileFetched(asked.request, self.profile)

    def push(
        self, version: int, session: Session = MEANT, **changes: object
    ) -> tuple[PushOutcome, list[a.Action]]:
        """The outcome, and the other actions."""
        change = ProfileChange(version, **(changes or {"rules": (PAGE,)}))  # type: ignore[arg-type]
        return self.tell(ProfilePushed(1, session, change))

    def tell(self, event: a.Event) -> tuple[PushOutcome, list[a.Action]]:
        *others, answer = self.world.home.happened(event, now=self.world.now)
        self.world.perform("ha", others)
        assert isinstance(answer, AnswerPush) and answer.push == 1
        return answer.outcome, others

    @property
    def rules(self) -> list[int]:
        return [line.rule.identifier for line in self.world.home.list_rules(HOA)]

    @property
    def version(self) -> int | None:
        (known,) = self.world.home.profiles()
        return known.profile.version


def test_a_push_changes_rules_and_is_kept_over_a_restart() -> None:
    asked = Asked()
    outcome, actions = asked.push(7)
    assert outcome is PushOutcome.DONE and asked.rules == [5] and asked.version == 7
    kinds = [action.kind for action in actions if isinstance(action, a.Emit)]
    assert kinds == ["profile-pushed"]
    asked.world.start_home_agent()
    assert asked.rules == [5] and asked.version == 7
    assert asked.push(7)[0] is PushOutcome.STALE


def test_an_older_push_changes_nothing_and_is_counted() -> None:
    asked = Asked()
    asked.push(7)
    for version in (6, 7, 0):
        outcome, actions = asked.push(version, rules=())
        assert outcome is PushOutcome.STALE and actions == [a.Count("push-stale")]
    assert asked.rules == [5] and asked.version == 7
    assert asked.push(8, rules=())[0] is PushOutcome.DONE and asked.rules == []


def test_the_rest_of_the_profile_stays() -> None:
    rule = FilterRule(1, Ipv4Selector(protocol=(17, 17)), FilterVerdict.DROP)
    asked = Asked()
    asked.push(1)
    asked.push(2, paging=PolicingChange((rule,)))
    (known,) = asked.world.home.profiles()
    assert known.profile.rules == (PAGE,) and known.profile.default_care_of == AN3
    assert known.profile.paging.rules == (rule,) and asked.world.care_of() != [AN3]


def test_the_rest_for_a_sleeper_is_pushed_too() -> None:
    asked = Asked()
    asked.push(1, asleep_otherwise=RuleVerdict.HOLD)
    asked.push(2)
    (known,) = asked.world.home.profiles()
    assert known.profile.asleep_otherwise is RuleVerdict.HOLD
    assert Profile.from_row(known.profile.to_row()) == known.profile
    assert mobile_of(HOA, known.profile).asleep_otherwise is RuleVerdict.HOLD
    assert mobile_of(HOA, FULL, RuleVerdict.DROP).asleep_otherwise is RuleVerdict.DROP


def test_a_fetch_of_an_older_version_is_not_used() -> None:
    asked = Asked(replace(FULL, version=3))
    asked.push(7)
    home = asked.world.home
    asked.world.perform("ha", home.refresh_profile(HOA, now=asked.world.now))
    asked.world.settle()
    assert asked.rules == [5] and asked.version == 7
    assert asked.world.counts["profile-older"] == 1
    assert [event.kind for event in asked.world.events][-1] == "profile-stale"
    asked.profile = replace(FULL, version=8)
    asked.world.advance(FETCH_AGAIN + 1)
    assert asked.rules == [] and asked.version == 8


def test_a_fetch_without_version_counts_and_leaves_the_version() -> None:
    asked = Asked()
    asked.push(7)
    asked.world.perform("ha", asked.world.home.refresh_profile(HOA, now=asked.world.now))
    asked.world.settle()
    assert asked.rules == [] and asked.version == 7
    assert asked.push(7)[0] is PushOutcome.STALE


@pytest.mark.parametrize(
    "session",
    [
        Session(None, OTHER),
        Session("other@example.org", HOA),
        Session("other@example.org"),
        Session(NAI, OTHER),
    ],
)
def test_unknown_mobile_nodes_are_said_so(session: Session) -> None:
    asked = Asked()
    assert asked.push(7, session) == (PushOutcome.UNKNOWN, [])
    assert asked.tell(DisconnectAsked(1, session))[0] is PushOutcome.UNKNOWN
    assert asked.version is None and asked.rules == []


def test_a_mobile_node_is_named_by_nai_or_address() -> None:
    asked = Asked(registered=False)
    assert asked.world.ask(HOA, nai=NAI) == ACCEPTED
    for number, session in enumerate((Session(NAI), Session(NAI, HOA), MEANT, Session(str(HOA))), start=1):
        assert asked.push(number, session)[0] is PushOutcome.DONE


def test_changes_that_do_not_fit_are_refused_whole() -> None:
    asked = Asked()
    filters = tuple(
        FilterRule(number, Ipv4Selector(), FilterVerdict.DROP) for number in range(1, MAX_RULES + 2)
    )
    assert asked.push(7, paging=PolicingChange(filters))[0] is PushOutcome.NO_ROOM
    rules = tuple(replace(PAGE, identifier=number, priority=number) for number in range(1, MAX_RULES + 2))
    assert asked.push(7, rules=rules)[0] is PushOutcome.NO_ROOM
    assert asked.version is None and asked.rules == []


def test_a_disconnection_ends_the_registration() -> None:
    asked = Asked()
    assert asked.world.care_of() != [AN3]
    outcome, actions = asked.tell(DisconnectAsked(1, MEANT))
    assert outcome is PushOutcome.DONE and asked.world.care_of() == [AN3]
    assert any(isinstance(action, a.Persist | a.Forget) for action in actions)
    assert asked.tell(DisconnectAsked(1, MEANT))[0] is PushOutcome.UNKNOWN
    assert asked.world.ask(nai=NAI) == ACCEPTED, "it may register again"


def test_a_configured_home_address_can_be_disconnected() -> None:
    asked = Asked(registered=False)
    assert asked.world.ask(CONFIGURED, key=replace(KEY, spi=900)) == ACCEPTED
    assert asked.tell(DisconnectAsked(1, Session(None, CONFIGURED)))[0] is PushOutcome.DONE
    assert asked.world.care_of(CONFIGURED) == []
