"""Home addresses from a policy server: asked for, waited for, changed, withdrawn (features R3, C9; RFC 2794)."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.actions import Reply
from locum.roles.home_agent.profile_homes import FETCH_AGAIN, MAX_ASKED, PATIENCE, REFUSAL_KEPT
from locum.roles.profile import GrantedStandIn, Profile
from locum.roles.profile_requests import (
    FetchProfile,
    ProfileEvent,
    ProfileFetched,
    ProfileRefused,
    ProfileUnavailable,
)
from locum.roles.registrant.attachment import Registering
from locum.roles.rules import PROFILE, KeptRule
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import Nai
from locum.wire.mobile_ip.registration import Code, RegistrationReply
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.policyworld import (
    AN1,
    AN3,
    CONFIGURED,
    FULL,
    HA,
    HOA,
    KEY,
    NAI,
    NOBODY,
    OTHER,
    POOL,
    POOLED,
    PolicyWorld,
)

ACCEPTED, DENIED, NO_ROOM = 0, int(Code.MOBILE_NODE_FAILED_AUTHENTICATION), int(Code.INSUFFICIENT_RESOURCES)
PROHIBITED, UNSPECIFIED = int(Code.ADMINISTRATIVELY_PROHIBITED), int(Code.REASON_UNSPECIFIED)
COLOCATED = IPv4Address("10.1.0.77")
RULE = KeptRule(7, 1, RuleVerdict.DROP, (Ipv4Selector(protocol=(17, 17)),), owner=PROFILE)


class Server:
    """A policy server whose profiles a test changes."""

    def __init__(self, **profiles: Profile) -> None:
        self.profiles = {name.replace("_", "@"): profile for name, profile in profiles.items()}
        self.silent = False

    def __call__(self, asked: FetchProfile) -> ProfileEvent | None:
        if self.silent:
            return ProfileUnavailable(asked.request, "no server answers")
        name = asked.nai or str(asked.home_address)
        if (profile := self.profiles.get(name)) is None:
            return ProfileRefused(asked.request, "no such mobile node")
        return ProfileFetched(asked.request, profile)


def knowing(profile: Profile = FULL) -> tuple[Server, PolicyWorld]:
    """A server that knows the device by its NAI and by its home address."""
    server = Server()
    server.profiles = {NAI: profile, str(HOA): profile}
    return server, PolicyWorld(server)


# Being served -------------------------------------------------------------------------------------------------------


def test_unknown_home_address_is_served_once_its_profile_comes() -> None:
    _, world = knowing()
    assert world.ask() == ACCEPTED
    assert [(profile.nai, profile.home_address) for profile in world.asked] == [(None, HOA)]
    assert world.care_of() == [COLOCATED]
    assert world.ask() == ACCEPTED and len(world.asked) == 1
    assert world.ask(lifetime=0) == ACCEPTED
    assert world.care_of() == [AN3]  # the profile's default care-of address (R3)


def test_key_of_the_profile_authenticates_the_device() -> None:
    _, world = knowing()
    assert world.ask(key=Association(300, b"x" * 16)) == DENIED
    assert world.care_of() == [AN3]  # served, and not registered


def test_no_profile_is_fetched_for_addresses_outside_home() -> None:
    _, world = knowing()
    assert world.ask(IPv4Address("192.0.2.9")) == DENIED
    assert world.ask(NOBODY) == int(Code.POORLY_FORMED_REQUEST)
    assert world.asked == []


def test_nai_gets_a_home_address_through_the_foreign_agent() -> None:
    _, world = knowing(POOLED)
    world.start_device()
    world.advance(5.0)
    given = world.device.configuration.home_address
    assert given == IPv4Address("10.50.0.100")
    assert [address.home_address for address in world.owned] == [given]
    assert [visitor.home_address for visitor in world.foreign.visitors()] == [given]
    assert world.care_of(given) == [AN1]
    assert world.asked == [FetchProfile(1, NAI, None)]


def test_a_device_keeps_the_address_it_was_given_over_a_restart() -> None:
    _, world = knowing(POOLED)
    world.start_device()
    world.advance(5.0)
    given = world.device.configuration.home_address
    world.start_device()
    assert world.device.configuration.home_address == given
    assert world.owned[-1].home_address == given
    world.advance(400.0)  # it renews under the address it has
    assert world.care_of(given) == [AN1]
    assert world.counts.get("reply-unexpected", 0) == 0


def test_unregistered_device_accepts_another_address() -> None:
    server, world = knowing(POOLED)
    world.start_device()
    world.advance(5.0)
    old = world.device.configuration.home_address
    server.profiles[NAI] = FULL
    world.advance(1400.0)  # the profile's lifetime; the old address is withdrawn, its registration runs out
    assert world.device.configuration.home_address == HOA
    assert (world.owned[-1].home_address, world.owned[-1].before) == (HOA, old)
    assert world.care_of() == [AN1] and world.care_of(old) == []


# Pools --------------------------------------------------------------------------------------------------------------


def test_an_assignment_is_for_good_and_a_pool_runs_out() -> None:
    world = PolicyWorld(Server(a_x=POOLED, b_x=POOLED, c_x=POOLED, d_x=POOLED))
    assert [world.ask(NOBODY, nai) for nai in ("a@x", "b@x", "c@x", "d@x")] == [0, 0, 0, NO_ROOM]
    assert world.counts["pool-exhausted"] == 1
    world.start_home_agent()
    world.now += 1
    assert world.ask(NOBODY, "b@x") == ACCEPTED
    assert world.replies[-1].home_address == IPv4Address("10.50.0.101")
    assert world.replies[-1].mobile_nai == "b@x"


def test_an_address_that_is_withdrawn_can_be_assigned_again() -> None:
    server = Server(a_x=POOLED, b_x=POOLED, c_x=POOLED, d_x=POOLED)
    world = PolicyWorld(server)
    for nai in ("a@x", "b@x", "c@x"):
        assert world.ask(NOBODY, nai) == ACCEPTED
    del server.profiles["b@x"]
    world.advance(601.0)
    assert world.ask(NOBODY, "d@x") == ACCEPTED
    assert world.replies[-1].home_address == IPv4Address("10.50.0.101")


def test_naming_an_address_assigned_to_another_nai_is_refused() -> None:
    world = PolicyWorld(Server(a_x=POOLED, b_x=POOLED))
    assert world.ask(NOBODY, "a@x") == ACCEPTED
    taken = world.replies[-1].home_address
    assert world.ask(NOBODY, "b@x") == ACCEPTED
    assert world.ask(IPv4Address("10.50.0.102"), "b@x") == PROHIBITED  # it has another
    before = dict(world.rows["ha"])
    world.ask(taken, "b@x", key=Association(300, b"x" * 16))
    assert dict(world.rows["ha"]) == before


# Refusals -----------------------------------------------------------------------------------------------------------


def test_refusal_is_answered_and_remembered() -> None:
    world = PolicyWorld(Server())
    assert world.ask() == DENIED and world.ask() == DENIED
    assert len(world.asked) == 1 and world.counts["profile-refused-before"] == 1
    world.now += REFUSAL_KEPT + 1
    assert world.ask() == DENIED and len(world.asked) == 2


def test_without_a_server_only_known_addresses_are_served() -> None:
    server, world = knowing()
    assert world.ask() == ACCEPTED
    server.silent = True
    assert world.ask(OTHER) == NO_ROOM
    world.advance(601.0 + 2 * FETCH_AGAIN)
    assert world.kinds().count("profile-stale") >= 2
    assert world.ask() == ACCEPTED  # by the profile that was fetched last
    world.start_home_agent()
    world.now += 1
    assert world.ask() == ACCEPTED  # after a restart too


def test_a_request_waits_for_a_bounded_time() -> None:
    world = PolicyWorld(lambda asked: None)
    assert world.ask() == -1
    world.advance(PATIENCE + 0.1)
    assert [int(reply.code) for reply in world.replies] == [NO_ROOM]
    world.answer(ProfileFetched(world.asked[0].request, FULL))  # late, and still of use
    world.settle()
    assert world.ask() == ACCEPTED and len(world.asked) == 1


def test_the_policy_server_is_asked_about_a_bounded_number() -> None:
    world = PolicyWorld(lambda asked: None)
    codes = [world.ask(NOBODY, f"{number}@flood") for number in range(MAX_ASKED + 5)]
    assert codes.count(-1) == MAX_ASKED == len(world.asked)
    assert codes[MAX_ASKED:] == [NO_ROOM] * 5
    world.now += PATIENCE - 1
    assert world.home.deadline() is not None


def test_repeated_requests_ask_once_and_are_answered_once() -> None:
    world = PolicyWorld(lambda asked: None)
    assert [world.ask() for _ in range(3)] == [-1, -1, -1]
    world.answer(ProfileFetched(world.asked[0].request, FULL))
    world.settle()
    assert len(world.asked) == 1 and [int(reply.code) for reply in world.replies] == [ACCEPTED]


@pytest.mark.parametrize(
    ("profile", "code", "counted"),
    [
        (replace(FULL, association=None), UNSPECIFIED, "profile-without-key"),
        (replace(FULL, home_address=None), UNSPECIFIED, "profile-without-home-address"),
        (replace(FULL, home_address=IPv4Address("192.0.2.1")), UNSPECIFIED, "profile-not-at-home"),
        (replace(FULL, home_address=CONFIGURED), PROHIBITED, "profile-of-another-home-address"),
        (replace(POOLED, pool="nowhere"), UNSPECIFIED, "pool-unknown"),
        (replace(FULL, rules=(RULE,) * 65), UNSPECIFIED, "profile-too-many-rules"),
        (replace(FULL, default_care_of=CONFIGURED), UNSPECIFIED, "profile-default-coa-loops"),
        (replace(FULL, default_care_of=HOA), UNSPECIFIED, "profile-default-coa-loops"),
        (replace(FULL, default_care_of=POOL.first), UNSPECIFIED, "profile-default-coa-loops"),
    ],
)
def test_unusable_profile_changes_no_tables(profile: Profile, code: int, counted: str) -> None:
    world = PolicyWorld(Server(a_x=profile))
    assert world.ask(NOBODY, "a@x") == code
    assert world.counts[counted] == 1 and world.rows["ha"] == {} and world.bindings == {}


def test_home_address_of_two_profiles_serves_only_the_first() -> None:
    world = PolicyWorld(Server(a_x=FULL, b_x=FULL))
    assert [world.ask(NOBODY, nai) for nai in ("a@x", "b@x")] == [ACCEPTED, PROHIBITED]


def test_unsolicited_profile_is_ignored() -> None:
    _, world = knowing()
    world.answer(ProfileFetched(99, FULL))
    world.settle()
    assert world.rows["ha"] == {} and world.bindings == {}


# Profiles that change -----------------------------------------------------------------------------------------------


def test_changed_profile_changes_only_affected_bindings() -> None:
    server, world = knowing()
    assert world.ask() == ACCEPTED
    stand_in = GrantedStandIn("one", IPv4Address("10.3.0.9"), Association(1100, b"1" * 16))
    server.profiles[str(HOA)] = replace(
        FULL, default_care_of=IPv4Address("10.3.0.2"), rules=(RULE,), stand_ins=(stand_in,)
    )
    world.advance(301.0)
    assert world.ask() == ACCEPTED
    world.advance(299.5)
    assert "profile-changed" in world.kinds()
    assert world.care_of() == [COLOCATED]  # the registration stands
    assert [rule.identifier for rule in world.bindings[HOA].rules] == [7]
    assert world.ask(lifetime=0) == ACCEPTED
    assert world.care_of() == [IPv4Address("10.3.0.2")]


def test_unchanged_profile_changes_no_tables() -> None:
    _, world = knowing()
    world.ask()
    world.advance(601.0)
    assert len(world.asked) == 2
    assert "profile-changed" not in world.kinds() and world.kinds().count("profile-fetched") == 1


def test_a_profile_can_be_fetched_at_once() -> None:
    server, world = knowing()
    world.ask()
    server.profiles[str(HOA)] = replace(FULL, default_care_of=None)
    assert world.home.refresh_profile(HOA, now=world.now)
    world.perform("ha", world.home.refresh_profile(HOA, now=world.now))
    with pytest.raises(KeyError):
        world.home.refresh_profile(CONFIGURED, now=world.now)


def test_withdrawn_address_loses_its_default_care_of_address() -> None:
    server, world = knowing()
    world.ask()
    server.profiles.clear()
    world.advance(601.0)
    assert "profile-withdrawn" in world.kinds()
    assert world.bindings == {} and world.rows["ha"] == {}
    assert world.ask() == DENIED
    assert HA not in world.care_of()


def test_unreadable_row_is_removed() -> None:
    _, world = knowing()
    world.ask()
    row = world.rows["ha"]["profile", str(HOA)]
    world.rows["ha"]["profile", str(HOA)] = replace(row, value={"nai": 7})
    world.start_home_agent()
    assert world.counts["unreadable-row"] >= 1 and world.bindings == {}


def test_a_profile_survives_its_row() -> None:
    stand_in = GrantedStandIn("one", IPv4Address("10.3.0.9"), Association(1100, b"1" * 16))
    whole = replace(FULL, rules=(RULE,), stand_ins=(stand_in,))
    assert Profile.from_row(whole.to_row()) == whole
    assert KEY.key.hex() in str(whole.to_row())


# At the foreign agent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("home_address", "nai", "code"),
    [
        (HOA, None, int(Code.FA_MISSING_NAI)),  # whose it is only its identification tells
        (HOA, "other@example.org", -1),
        (NOBODY, NAI, int(Code.FA_MISSING_HOME_ADDRESS)),
        (AN1, NAI, int(Code.FA_ADMINISTRATIVELY_PROHIBITED)),  # the agent's own address
    ],
)
def test_reply_without_a_usable_address_adds_no_visitor(
    home_address: IPv4Address, nai: str | None, code: int
) -> None:
    world = PolicyWorld(lambda asked: None)
    world.start_device()
    world.advance(0.0)
    state = world.device.state
    assert isinstance(state, Registering)
    extensions = () if nai is None else (Nai(nai),)
    reply = RegistrationReply(Code.ACCEPTED, 300, home_address, HA, state.identification, extensions)
    actions = world.foreign.receive(reply.encode(), Source(HA, 434, "core"), now=world.now)
    assert not world.foreign.visitors()
    said = [RegistrationReply.decode(action.message) for action in actions if isinstance(action, Reply)]
    assert [int(reply.code) for reply in said] == ([] if code < 0 else [code])
    assert all(reply.find(Nai) == Nai(NAI) for reply in said)


def test_device_ignores_replies_without_its_key() -> None:
    world = PolicyWorld(lambda asked: None)
    world.start_device()
    state = world.device.state
    assert isinstance(state, Registering)
    reply = RegistrationReply(Code.ACCEPTED, 300, OTHER, HA, state.identification, (Nai(NAI),))
    world.perform("mn", world.device.receive(reply.encode(), Source(AN1, 434, "radio"), now=world.now))
    assert world.device.configuration.home_address == NOBODY and world.owned == []
    assert world.counts["reply-not-authentic"] == 1
