"""The paging classifier (P16): it decides before the policing at the access node of a stand-in, and nowhere else."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from locum.dataplane.layout.rules import PORTS
from locum.dataplane.model.frames import Transport
from locum.dataplane.model.matching import Subject, first_match
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, FilterPlace, FilterRule, FilterVerdict, InstallFilter
from locum.roles.action_values.paging import PageAsked
from locum.roles.actions import Ask, Count
from locum.roles.foreign_agent.configuration import StaticVisitor
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.context import preconfigured
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.foreign_agent.visitor_policy import VisitorPolicy
from locum.roles.profile import Policing, Profile
from locum.roles.profile_requests import ProfileFetched
from locum.wire.control.paging.page_request import decode_1172
from locum.wire.flow import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.roles.foreign_agent.contexts.test_transfer import at
from tests.roles.moving_world import MovingWorld
from tests.roles.world import AN1, AN3, HA, HOA, HOA6, STAND_IN

ALLOW, DROP = FilterVerdict.ALLOW, FilterVerdict.DROP
PAGE, PAGE_AND_DROP = FilterVerdict.PAGE, FilterVerdict.PAGE_AND_DROP
UDP = (17, 17)
Filters = Mapping[tuple[Addr, FilterPlace], Filter]


def udp(identifier: int, port: int, verdict: FilterVerdict) -> tuple[FilterRule, FilterRule]:
    """A rule in both its forms."""
    ports = (port, port)
    v4 = Ipv4Selector(destination_port=ports, protocol=UDP)
    v6 = Ipv6Selector(destination_port=ports, next_header=UDP)
    return FilterRule(identifier, v4, verdict), FilterRule(identifier, v6, verdict)


def decision(filters: Filters, port: int, home: Addr = HOA) -> tuple[int, FilterVerdict]:
    """The rule that matches a datagram to that port of the device, 0 for none, and its verdict."""
    found = filters.get((home, FilterPlace.TO_VISITOR))
    if found is None:
        return 0, ALLOW
    subject = Subject(b"", b"", home.version, 17, 0, 0, Transport(5000, port, known=PORTS))
    rule = first_match(found.rules, subject)
    return (0, found.otherwise) if rule is None else (rule.identifier, rule.verdict)


def policed(profile: Profile, *, stand_in: bool = True) -> Filters:
    """The filters of a preconfigured visitor at an access node with this profile of a policy server."""
    book = ContextBook()
    static = StaticVisitor(HOA, HA, "wire0", STAND_IN, HOA6)
    visitors = VisitorList(AN3, (static,) if stand_in else (), (HA,), 16)
    visitors.adjust(book.police)
    policy = VisitorPolicy(book, visitors, enabled=True)
    visitors.start(())
    policy.restore((), now=0.0)
    actions = policy.happened(ProfileFetched(1, profile), now=1.0) or []
    found = [action.filter for action in actions if isinstance(action, InstallFilter)]
    return {(entry.home_address, entry.place): entry for entry in found}


PROFILE = Profile(
    to_visitor=Policing((*udp(7, 7001, DROP), *udp(8, 7002, DROP), *udp(9, 7003, ALLOW))),
    paging=Policing((*udp(7, 7001, ALLOW), *udp(8, 7003, DROP), *udp(9, 7004, DROP))),
)


def test_the_classifier_drops_and_forwards_before_the_policing() -> None:
    filters = policed(PROFILE)
    for home in (HOA, HOA6):
        assert decision(filters, 7001, home) == (1, ALLOW), (
            "forwarded, although policing refuses it elsewhere"
        )
        assert decision(filters, 7003, home) == (2, DROP), "dropped, although policing allows it elsewhere"
        assert decision(filters, 7004, home) == (3, DROP)
        assert decision(filters, 7002, home) == (5, DROP), "policed, as no rule of the classifier takes it"
        assert decision(filters, 7005, home) == (0, ALLOW)


def test_policing_cannot_allow_a_default_drop_of_the_classifier() -> None:
    paging = Policing(udp(1, 7001, ALLOW), DROP)
    filters = policed(Profile(to_visitor=Policing(udp(1, 7003, ALLOW), ALLOW), paging=paging))
    assert decision(filters, 7001) == (1, ALLOW)
    assert decision(filters, 7003) == (0, DROP)
    assert decision(filters, 7005) == (0, DROP)


def test_classifier_can_forward_a_default_drop_of_policing() -> None:
    paging = Policing(udp(1, 7001, ALLOW))
    filters = policed(Profile(to_visitor=Policing((), DROP), paging=paging))
    assert decision(filters, 7001) == (1, ALLOW)
    assert decision(filters, 7005) == (0, DROP)


def test_without_a_classifier_rules_keep_their_numbers() -> None:
    assert decision(policed(Profile(to_visitor=PROFILE.to_visitor)), 7002) == (8, DROP)


def test_packets_from_the_stand_in_are_not_classified() -> None:
    filters = policed(Profile(from_visitor=PROFILE.to_visitor, paging=PROFILE.paging))
    assert filters[HOA, FilterPlace.FROM_VISITOR].rules == PROFILE.to_visitor.rules[::2]


# On the way -----------------------------------------------------------------------------------------------------------

PROFILED: Mapping[Addr, Mapping[str, Any]] = {AN1: {"contexts": {HOA: preconfigured(PROFILE)}}}


def test_classifier_is_enforced_at_the_stand_in_access_node_only() -> None:
    world = at(MovingWorld(agents=PROFILED))
    assert decision(world.an1.forwarding.filters, 7001) == (7, DROP)
    assert decision(world.an1.forwarding.filters, 7004) == (0, ALLOW), "the device is here"
    assert not world.an3.forwarding.filters
    world.sleep()
    world.advance(3)
    assert decision(world.an3.forwarding.filters, 7001) == (1, ALLOW)
    assert decision(world.an3.forwarding.filters, 7004) == (3, DROP)
    assert decision(world.an3.forwarding.filters, 7002) == (5, DROP)
    world.links("radio1")
    world.wake()
    world.advance(5)
    assert decision(world.an2.forwarding.filters, 7002) == (8, DROP)
    assert decision(world.an2.forwarding.filters, 7004) == (0, ALLOW), (
        "it came along, and is not for a device"
    )
    assert decision(world.an3.forwarding.filters, 7004) == (3, DROP), "what still comes to the stand-in"


def test_page_verdicts_ask_by_the_numbers_of_the_classifier() -> None:
    paging = Policing((*udp(7, 7001, ALLOW), *udp(8, 7003, PAGE), *udp(9, 7004, PAGE_AND_DROP)), ALLOW)
    filters = policed(replace(PROFILE, paging=paging))
    assert decision(filters, 7003) == (2, PAGE) and decision(filters, 7004, HOA6) == (3, PAGE_AND_DROP)
    asking: Mapping[Addr, Mapping[str, Any]] = {
        AN3: {"contexts": {HOA: preconfigured(replace(PROFILE, paging=paging))}}
    }
    world = at(MovingWorld(agents=asking))
    flow = Flow(17, HOA, 7003, IPv4Address("198.51.100.7"), 4000)
    for number, rule in ((2, 8), (3, 9)):
        fresh = at(MovingWorld(agents=asking))
        ask, _ = fresh.an3.role.happened(PageAsked(HOA, number, flow, 60), now=fresh.now)
        assert isinstance(ask, Ask) and ask.peer == HA
        assert decode_1172(ask.body).event.kind == f"rule-{rule}-udp"
    for number in (4, 1000):  # of the policing, and of no rule
        late = world.an3.role.happened(PageAsked(HOA, number, flow, 60), now=world.now)
        assert late == [Count("classifier-page-late")]


def test_changed_profile_changes_the_classifier() -> None:
    book = ContextBook({HOA: preconfigured(PROFILE)})
    visitors = VisitorList(AN3, (StaticVisitor(HOA, HA, "wire0", STAND_IN, HOA6),), (HA,), 16)
    visitors.adjust(book.police)
    visitors.start(())
    book.learn(HOA, Profile(to_visitor=PROFILE.to_visitor, paging=Policing(udp(1, 7005, DROP))))
    found = [action.filter for action in visitors.refresh(HOA) if isinstance(action, InstallFilter)]
    filters = {(entry.home_address, entry.place): entry for entry in found}
    assert decision(filters, 7005) == (1, DROP)
    assert decision(filters, 7004) == (0, ALLOW) and decision(filters, 7001) == (2, DROP)
