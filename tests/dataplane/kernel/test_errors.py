"""ICMP errors go the way of the flow that they are about: rules, shares, filters, captured flows, translated ones."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Candidate,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
    InstallTranslation,
    Rule,
    RuleVerdict,
    Selector,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    BindingEntry,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    SetFlow,
    Verdict,
)
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.dataplane.one_node import OneNode, one_node

PAIRS = [
    (ip_address("10.9.0.5"), ip_address("10.1.0.2")),
    (ip_address("fd09::5"), ip_address("fd01::2")),
]
IDS = ["ipv4", "ipv6"]
ROUTER = {4: "10.1.0.254", 6: "fd01::254"}
AGENT, NEAR, FAR = (ip_address(a) for a in ("10.2.0.200", "10.5.0.1", "10.5.0.9"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with one_node(tmp_path_factory.mktemp("errors")) as made:
        yield made


@pytest.fixture
def node(shared: OneNode) -> OneNode:
    shared.plane.reconcile([])
    return shared


def network(source: object, destination: object) -> Packet:
    made = IP if ip_address(str(source)).version == 4 else IPv6
    return made(src=str(source), dst=str(destination))


def error(quoted: Packet, *, source: object = None, destination: object = None, size: int = 1000) -> Packet:
    """A router's error about a packet, to its sender, unless told otherwise."""
    sender = quoted.src if destination is None else destination
    version = ip_address(str(sender)).version
    head = network(ROUTER[version] if source is None else source, sender)
    kind = ICMP(type=3, code=4, nexthopmtu=1300) if version == 4 else ICMPv6PacketTooBig(mtu=1300)
    return head / kind / Raw(bytes(quoted)[:size])


def web(home: Addr) -> Selector:
    if home.version == 4:
        return Ipv4Selector(source_port=(443, 443), protocol=(6, 6))
    return Ipv6Selector(source_port=(443, 443), next_header=(6, 6))


@pytest.mark.parametrize(("home", "peer"), PAIRS, ids=IDS)
def test_errors_take_the_rule_of_their_flow(node: OneNode, home: Addr, peer: Addr) -> None:
    rule = Rule(1, web(home), RuleVerdict.FORWARD, (Candidate(Tunnel(AGENT, NEAR)),))
    entry = BindingEntry(home, Verdict.ENCAPSULATE, (Tunnel(AGENT, FAR),), rules=(rule,))
    node.plane.apply([InstallBinding(entry)])
    sent = network(home, peer) / TCP(sport=5000, dport=443)
    assert node.run(network(peer, home) / TCP(sport=443, dport=5000)).way == NEAR
    assert node.run(error(sent)).way == NEAR
    assert node.run(error(network(home, peer) / TCP(sport=5000, dport=80))).way == FAR
    assert node.run(error(network(peer, home) / TCP(sport=5000, dport=443), destination=home)).way == FAR, (
        "a packet that the home address has not sent"
    )
    assert node.run(error(sent, size=20 if home.version == 4 else 40)).way == FAR, "no ports are quoted"
    assert node.run(error(sent, size=12)).way == FAR
    assert node.plane.rule_counters(home)[1].packets == 2


@pytest.mark.parametrize(("home", "peer"), PAIRS, ids=IDS)
def test_errors_take_the_share_of_their_flow(node: OneNode, home: Addr, peer: Addr) -> None:
    ways = (Tunnel(AGENT, NEAR), Tunnel(AGENT, FAR))
    node.plane.apply([InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, ways, weights=(1, 1)))])
    taken = set()
    for port in range(5000, 5020):
        way = node.run(network(peer, home) / UDP(sport=443, dport=port) / b"data").way
        assert node.run(error(network(home, peer) / UDP(sport=port, dport=443) / b"data")).way == way
        taken.add(way)
    assert taken == {NEAR, FAR}


@pytest.mark.parametrize(("home", "peer"), PAIRS, ids=IDS)
def test_errors_pass_the_filter_of_their_flow(node: OneNode, home: Addr, peer: Addr) -> None:
    """Flows that a visitor's filter allows may have errors, in both directions; those that it drops may not."""
    allowed = FilterRule(1, web(home), FilterVerdict.ALLOW)
    node.plane.apply([InstallFilter(Filter(peer, FilterPlace.FROM_VISITOR, (allowed,), FilterVerdict.DROP))])
    for port, way in ((443, Outcome.PASSED), (80, Reason.FILTERED_FROM_VISITOR)):
        assert node.run(network(peer, home) / TCP(sport=port, dport=5000), "lan0").way == way
        about = network(home, peer) / TCP(sport=5000, dport=port)
        assert node.run(error(about, source=peer), "lan0").way == way


@pytest.mark.parametrize(("home", "peer"), PAIRS, ids=IDS)
def test_errors_are_held_and_delivered_with_their_flow(node: OneNode, home: Addr, peer: Addr) -> None:
    flow = Flow(6, home, 5000, peer, 443)
    about = error(network(home, peer) / TCP(sport=5000, dport=443))
    other = error(network(home, peer) / TCP(sport=5001, dport=443))
    for verdict in (FlowVerdict.HOLD, FlowVerdict.SUSPEND):
        node.plane.apply([SetFlow(FlowEntry(flow, verdict))])
        assert node.run(other).outcome is Outcome.PASSED
        assert node.run(about).outcome is Outcome.HELD
        [held] = node.plane.held.read()
        assert (held.flow, held.data) == (flow, bytes(about))
    answer = network(home, peer) / (ICMP(type=3, code=3) if home.version == 4 else ICMPv6DestUnreach(code=4))
    refusal = answer / Raw(bytes(network(peer, home) / TCP(sport=443, dport=5000)))
    assert node.run(refusal, hook="egress").way is Reason.SUSPENDED
    node.plane.apply([SetFlow(FlowEntry(flow, FlowVerdict.DELIVER))])
    assert node.run(about).outcome is Outcome.PASSED
    assert node.run(refusal, hook="egress").outcome is Outcome.PASSED


@pytest.mark.parametrize(("home", "peer"), PAIRS, ids=IDS)
def test_errors_of_a_translated_flow_take_its_tunnel(node: OneNode, home: Addr, peer: Addr) -> None:
    """The rule's tunnel leads to a stand-in that has the flow under an address of its own (R12)."""
    inside = ip_address("10.4.0.1" if home.version == 4 else "fd04::1")
    rule = Rule(1, web(home), RuleVerdict.FORWARD, (Candidate(Tunnel(AGENT, NEAR)),))
    entry = BindingEntry(home, Verdict.ENCAPSULATE, (Tunnel(AGENT, FAR),), rules=(rule,))
    node.plane.apply([InstallBinding(entry), InstallTranslation(Translation(home, inside, NEAR))])
    assert node.run(network(peer, home) / TCP(sport=443, dport=5000)).way == NEAR
    run = node.run(error(network(home, peer) / TCP(sport=5000, dport=443)))
    assert run.way == NEAR
    inner = (IP if home.version == 4 else IPv6)(run.packet[20:])
    quoted = bytes(inner.payload)[8:]
    source = quoted[12:16] if home.version == 4 else quoted[8:24]
    assert (inner.dst, source) == (str(inside), inside.packed)
