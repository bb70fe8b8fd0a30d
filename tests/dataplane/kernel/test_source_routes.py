"""Source routes and unread headers, where rules decide: no rule that drops is evaded by them."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_NOP, IPOption_SSRR
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.flows import (
    Candidate,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
    Rule,
    RuleVerdict,
    Tunnel,
)
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, LocalEndpoint, Verdict
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.dataplane.one_node import OneNode, one_node

HOME, HOME6 = IPv4Address("10.9.0.5"), IPv6Address("fd09::5")
NODE6, AGENT6, OTHER6 = (IPv6Address(a) for a in ("fd02::200", "fd05::1", "fd05::2"))
GOOD, GOOD6 = IPv4Address("10.1.0.2"), IPv6Address("fd01::2")
BAD, BAD6 = IPv4Address("10.1.0.66"), IPv6Address("fd66::66")
PLACES = {FilterPlace.FROM_VISITOR: ("lan0", "ingress"), FilterPlace.EMISSION: ("out0", "egress")}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with one_node(tmp_path_factory.mktemp("routes")) as made:
        yield made


@pytest.fixture
def node(shared: OneNode) -> OneNode:
    shared.plane.reconcile([])
    return shared


def routed(kind: int, destination: object, *finals: object) -> Packet:
    """Through `destination` to the first of `finals`; others are between."""
    header = IPv6ExtHdrRouting(type=kind, segleft=len(finals), addresses=[str(a) for a in finals])
    return IPv6(src=str(HOME6), dst=str(destination)) / header / UDP(dport=9) / b"data"


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
@pytest.mark.parametrize("kind", [2, 4])
def test_all_destinations_of_a_routing_header_are_judged(
    node: OneNode, place: FilterPlace, kind: int
) -> None:
    at = PLACES[place]
    dropped = {
        FilterPlace.FROM_VISITOR: Reason.FILTERED_FROM_VISITOR,
        FilterPlace.EMISSION: Reason.FILTERED_EMISSION,
    }[place]
    only_good = FilterRule(1, Ipv6Selector(destination=(GOOD6, GOOD6)), FilterVerdict.ALLOW)
    all_but_bad = FilterRule(1, Ipv6Selector(destination=(BAD6, BAD6)), FilterVerdict.DROP)
    for rule, otherwise in ((only_good, FilterVerdict.DROP), (all_but_bad, FilterVerdict.ALLOW)):
        node.plane.reconcile([InstallFilter(Filter(HOME6, place, (rule,), otherwise))])
        assert node.run(routed(kind, GOOD6, GOOD6), *at).way is Outcome.PASSED
        assert node.run(routed(kind, BAD6, GOOD6), *at).way is dropped
        assert node.run(routed(kind, GOOD6, BAD6), *at).way is dropped
        assert node.run(routed(kind, GOOD6, GOOD6, BAD6), *at).way is Reason.ROUTING_HEADER
    assert node.run(routed(3, GOOD6, GOOD6), *at).way is Reason.ROUTING_HEADER, "unknown"
    node.plane.reconcile([])
    assert node.run(routed(kind, GOOD6, GOOD6, BAD6), *at).way is Outcome.PASSED


@pytest.mark.parametrize("option", [IPOption_LSRR, IPOption_SSRR])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
def test_source_routes_of_ipv4_pass_no_filter(
    node: OneNode, place: FilterPlace, option: type[IPOption_LSRR]
) -> None:
    for before in ([], [IPOption_NOP()], [IPOption_NOP()] * 3):
        options = [*before, option(routers=[str(BAD)])]
        packet = IP(src=str(HOME), dst=str(GOOD), options=options) / UDP(dport=9) / b"data"
        rule = FilterRule(1, Ipv4Selector(destination=(BAD, BAD)), FilterVerdict.DROP)
        node.plane.reconcile([InstallFilter(Filter(HOME, place, (rule,), FilterVerdict.ALLOW))])
        assert node.run(packet, *PLACES[place]).way is Reason.ROUTING_HEADER
        packet[IP].options = before
        assert node.run(packet, *PLACES[place]).way is Outcome.PASSED


def chained(number: int, last: int, payload: bytes) -> bytes:
    """A packet to the home address with so many destination options headers before `last`."""
    packet = IPv6(src=str(GOOD6), dst=str(HOME6))
    for _ in range(number):
        packet /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    packet.lastlayer().nh = last
    return bytes(packet / Raw(payload))


SYN = bytes(TCP(sport=9, dport=22, flags="S", chksum=1))
CUT = bytes((6, 1, 1, 12)) + bytes(4)  # half of a destination options header


def rules(*found: Rule) -> list[InstallBinding | LocalEndpoint]:
    tunnels = (Tunnel(NODE6, AGENT6),)
    return [
        LocalEndpoint(NODE6),
        InstallBinding(BindingEntry(HOME6, Verdict.ENCAPSULATE, tunnels, rules=found)),
    ]


NO_SHELL = Rule(2, Ipv6Selector(next_header=(6, 6), destination_port=(22, 22)), RuleVerdict.DROP)
OF_PEER = Rule(
    1, Ipv6Selector(source=(GOOD6, GOOD6)), RuleVerdict.FORWARD, (Candidate(Tunnel(NODE6, OTHER6)),)
)
OF_OTHERS = Rule(3, Ipv6Selector(source=(BAD6, BAD6), next_header=(6, 6)), RuleVerdict.DROP)


def test_unread_headers_evade_no_drop_rule(node: OneNode) -> None:
    packet = chained(9, 6, SYN)
    node.plane.reconcile(rules(NO_SHELL))
    assert node.run(chained(7, 6, SYN)).way is Reason.RULE_DROPPED
    assert node.run(packet).way is Reason.UNREAD_HEADERS
    half = IPv6(src=str(GOOD6), dst=str(HOME6), nh=6) / Raw(SYN[:3])
    assert node.run(half).way is Reason.UNREAD_HEADERS
    assert node.run(IPv6(src=str(GOOD6), dst=str(HOME6), nh=17) / Raw(b"\0")).way == AGENT6, "no TCP"
    node.plane.reconcile(rules(OF_OTHERS))
    assert node.run(packet).way == AGENT6, "the rule cannot take it"
    node.plane.reconcile(rules(OF_PEER, NO_SHELL))
    assert node.run(packet).way == OTHER6, "an earlier rule takes it for certain"
    node.plane.reconcile(rules())
    assert node.run(packet).way == AGENT6


def test_fragments_of_unread_headers_evade_no_drop_rule(node: OneNode) -> None:
    def fragment(number: int, offset: int, payload: bytes) -> Packet:
        head = IPv6(src=str(GOOD6), dst=str(HOME6)) / IPv6ExtHdrFragment(
            nh=60, id=number, offset=offset, m=not offset
        )
        return head / Raw(payload)

    first, later = fragment(5, 0, CUT), fragment(5, 1, bytes(8) + SYN)
    for found, way in ((NO_SHELL, Reason.UNREAD_HEADERS), (OF_OTHERS, AGENT6)):
        node.plane.reconcile(rules(found))
        assert node.run(first).way == way
        assert node.run(later).way == way


def test_errors_about_packets_of_others_are_the_visitors(node: OneNode) -> None:
    """Rules see an error as a packet of the quoted flow only if that is a flow of the visitor."""

    def error(quoted_destination: object) -> Packet:
        quoted = IP(src=str(GOOD), dst=str(quoted_destination)) / UDP(sport=53, dport=999)
        return IP(src=str(HOME), dst=str(GOOD)) / ICMP(type=3, code=3) / quoted / Raw(bytes(40))

    own = FilterRule(1, Ipv4Selector(source=(HOME, HOME)), FilterVerdict.DROP)
    node.plane.reconcile([InstallFilter(Filter(HOME, FilterPlace.FROM_VISITOR, (own,), FilterVerdict.ALLOW))])
    for destination in (HOME, "203.0.113.9"):
        assert node.run(error(destination), "lan0").way is Reason.FILTERED_FROM_VISITOR
    answers = FilterRule(1, Ipv4Selector(protocol=(17, 17), destination_port=(53, 53)), FilterVerdict.ALLOW)
    node.plane.reconcile(
        [InstallFilter(Filter(HOME, FilterPlace.FROM_VISITOR, (answers,), FilterVerdict.DROP))]
    )
    assert node.run(error(HOME), "lan0").way is Outcome.PASSED
    assert node.run(error("203.0.113.9"), "lan0").way is Reason.FILTERED_FROM_VISITOR
