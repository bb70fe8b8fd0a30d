"""An access node admits no visitor whose filters may find no place in the data plane, and forwards nothing without them."""

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest

from locum.dataplane.layout.rules import FEW
from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import (
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
    RemoveFilter,
)
from locum.roles.action_values.forwarding import AcceptTunnel, RefuseTunnel
from locum.roles.foreign_agent.configuration import AccessLink, ForeignAgentConfiguration
from locum.roles.foreign_agent.filter_room import LARGEST
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.profile import Policing, Profile
from locum.roles.profile_requests import FetchProfile, ProfileFetched
from locum.roles.room import SMALL_RULES, FilterPlaces
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import (
    REGISTRATION_REPLY,
    Code,
    Flag,
    RegistrationReply,
    RegistrationRequest,
)
from locum.wire.traffic_selector import Ipv4Selector

CARE_OF, RADIO, HA = (IPv4Address(text) for text in ("10.2.0.1", "10.36.0.1", "10.1.0.1"))
FIRST = IPv4Address("10.50.0.1")
KEY = Association(300, b"k" * 16)
NOW = 1_790_000_000.0


def policing(rules: int) -> Policing:
    return Policing(
        tuple(
            FilterRule(number, Ipv4Selector(destination_port=(number, number)), FilterVerdict.DROP)
            for number in range(1, rules + 1)
        )
    )


def profile(rules: int) -> Profile:
    return Profile(to_visitor=policing(rules), from_visitor=policing(rules))


class Agent:
    """A foreign agent with a policy server, and the filters and acceptances that it has installed."""

    def __init__(self, room: FilterPlaces) -> None:
        configuration = ForeignAgentConfiguration(
            CARE_OF, (AccessLink("radio0", RADIO),), policy=True, filter_room=room
        )
        self.role = ForeignAgent(configuration, {}, {}, (), Random(1))
        self.filters: dict[tuple[object, FilterPlace], int] = {}
        self.served: set[object] = set()
        self.asked: dict[object, int] = {}
        self.told: list[str] = []
        self.perform(self.role.restore([], now=NOW))

    def perform(self, actions: list[a.Action]) -> list[int]:
        """Codes of registration replies among the actions."""
        codes = []
        for action in actions:
            match action:
                case InstallFilter(found):
                    self.filters[found.home_address, found.place] = len(found.rules)
                case RemoveFilter(home_address, place):
                    del self.filters[home_address, place]
                case AcceptTunnel(acceptance):
                    self.served.add(acceptance.home_address)
                case RefuseTunnel(acceptance):
                    self.served.discard(acceptance.home_address)
                case FetchProfile(number, _, home_address):
                    self.asked[home_address] = number
                case a.Reply(_, message) if message[:1] == bytes((REGISTRATION_REPLY,)):
                    codes.append(int(RegistrationReply.decode(message).code))
                case a.Emit(kind=kind):
                    self.told.append(kind)
        return codes

    def register(self, home_address: IPv4Address, lifetime: int = 300) -> int:
        """The code of the agent's answer; the home agent accepts all that reaches it."""
        request = RegistrationRequest(lifetime, home_address, HA, CARE_OF, ntp64(NOW) | 0x5A5A, Flag.T)
        radio = Source(home_address, 434, "radio0", b"\2" * 6, CARE_OF)
        message = signed(request.encode(), AuthKind.MN_HA, KEY)
        refused = self.perform(self.role.receive(message, radio, now=NOW))
        if refused:
            return refused[0]
        reply = RegistrationReply(Code.ACCEPTED, lifetime, home_address, HA, request.identification)
        (code,) = self.perform(self.role.receive(reply.encode(), Source(HA, 434, "core"), now=NOW))
        return code

    def fetched(self, home_address: IPv4Address, rules: int) -> None:
        event = ProfileFetched(self.asked.pop(home_address), profile(rules))
        self.perform(self.role.happened(event, now=NOW) or [])

    def places(self) -> FilterPlaces:
        """Those that the installed filters take."""
        large = sum(rules > FEW for rules in self.filters.values())
        return FilterPlaces(large, sum(1 + rules for rules in self.filters.values()))


def test_small_filters_are_those_of_the_data_plane() -> None:
    assert SMALL_RULES == FEW


@pytest.mark.parametrize(
    "room",
    [
        FilterPlaces(3 * LARGEST.large + 1, 100 * LARGEST.counters),
        FilterPlaces(100 * LARGEST.large, 3 * LARGEST.counters + 1),
    ],
    ids=["large", "counters"],
)
def test_visitors_whose_filters_may_find_no_room_are_refused(room: FilterPlaces) -> None:
    """Profiles come after the registration: those that are not known yet count with the most that they can bring."""
    agent = Agent(room)
    visitors = [FIRST + number for number in range(3)]
    assert [agent.register(visitor) for visitor in visitors] == [Code.ACCEPTED] * 3
    assert agent.register(FIRST + 3) == Code.FA_INSUFFICIENT_RESOURCES
    assert agent.register(FIRST) == Code.ACCEPTED, "a renewal takes nothing"
    for visitor in visitors:
        agent.fetched(visitor, 64)
    assert agent.served == set(visitors) and not agent.told.count("no-room-for-filters")
    assert len(agent.filters) == 6 and agent.places().large == 6
    # Half of what was kept for them is free: they have one home address each.
    assert agent.register(FIRST + 3) == Code.ACCEPTED
    assert agent.register(FIRST + 4) == Code.FA_INSUFFICIENT_RESOURCES
    agent.fetched(FIRST + 3, 2)
    assert agent.register(FIRST + 4) == Code.ACCEPTED, "its filters are few: the rest is free again"


def test_filters_that_grow_beyond_the_room_stop_their_visitor() -> None:
    """They open it again when another visitor leaves, and the others never notice."""
    room = FilterPlaces(2 * LARGEST.large, 3 * LARGEST.counters)
    agent = Agent(room)
    for number in range(2):
        assert agent.register(FIRST + number) == Code.ACCEPTED
        agent.fetched(FIRST + number, 2)
    for number in range(2, 5):
        assert agent.register(FIRST + number) == Code.ACCEPTED
        agent.fetched(FIRST + number, 64)
    assert agent.served == {FIRST + number for number in range(5)}
    for number in range(2):
        agent.perform(agent.role.refresh_profile(FIRST + number, now=NOW))
    agent.fetched(FIRST, 64)
    agent.fetched(FIRST + 1, 64)
    closed = FIRST + 1
    assert agent.told.count("no-room-for-filters") == 1
    assert agent.served == {FIRST + number for number in range(5)} - {closed}
    assert not [place for home, place in agent.filters if home == closed]
    assert agent.places().large <= room.large and agent.places().counters <= room.counters
    assert agent.register(closed) == Code.ACCEPTED  # still closed, and told once
    assert closed not in agent.served and agent.told.count("no-room-for-filters") == 1
    agent.register(FIRST + 4, 0)
    assert agent.served == {FIRST + number for number in range(4)}
    assert agent.filters[closed, FilterPlace.TO_VISITOR] == 64


def test_without_filters_there_is_nothing_to_count() -> None:
    agent = Agent(FilterPlaces())
    configuration = replace(agent.role.configuration, policy=False)
    agent.role = ForeignAgent(configuration, {}, {}, (), Random(1))
    assert agent.register(FIRST) == Code.ACCEPTED
