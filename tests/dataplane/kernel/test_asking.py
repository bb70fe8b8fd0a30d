"""Filter rules that ask for a page (P16): the packet goes on or not, and one a second of each rule is reported."""

import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from locum.dataplane.layout.maps import MARK_RELEASED, Outcome, Reason
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, FilterPlace, FilterRule, FilterVerdict, InstallFilter
from locum.roles.action_values.forwarding import AcceptTunnel, LocalEndpoint, Side, TunnelAcceptance
from locum.roles.action_values.paging import PageAsked
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.dataplane.one_node import OneNode, one_node

NODE, AGENT = ip_address("10.2.0.200"), ip_address("10.2.0.9")
HOME, HOME6 = ip_address("10.36.0.4"), ip_address("fd36::4")
PEER, PEER6 = ip_address("10.1.0.2"), ip_address("fd01::2")
PAGE, PAGE_AND_DROP, PLAIN = 7001, 7002, 7003
VERDICTS = {PAGE: FilterVerdict.PAGE, PAGE_AND_DROP: FilterVerdict.PAGE_AND_DROP}


def rules(home: Addr, port: int, verdict: FilterVerdict) -> FilterRule:
    if home.version == 4:
        return FilterRule(port, Ipv4Selector(destination_port=(port, port), protocol=(17, 17)), verdict)
    return FilterRule(port, Ipv6Selector(destination_port=(port, port), next_header=(17, 17)), verdict)


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """An access node with a stand-in on lan0."""
    with one_node(tmp_path_factory.mktemp("asking")) as made:
        made.plane.apply([LocalEndpoint(NODE)])
        for home in (HOME, HOME6):
            hop = ip_address("10.3.0.2" if home.version == 4 else "fd03::2")
            made.plane.apply(
                [
                    AcceptTunnel(TunnelAcceptance(AGENT, home, Side.TO_HOME_ADDRESS, "lan0", hop)),
                    InstallFilter(
                        Filter(
                            home,
                            FilterPlace.TO_VISITOR,
                            tuple(rules(home, port, verdict) for port, verdict in VERDICTS.items()),
                        )
                    ),
                ]
            )
        yield made


def to_home(port: int, home: Addr = HOME, size: int = 4) -> Packet:
    inner: Packet
    if home.version == 4:
        inner = IP(src=str(PEER), dst=str(HOME)) / UDP(sport=4000, dport=port) / Raw(bytes(size))
    else:
        inner = IPv6(src=str(PEER6), dst=str(HOME6)) / UDP(sport=4000, dport=port) / Raw(bytes(size))
    return IP(src=str(AGENT), dst=str(NODE)) / inner


def told(node: OneNode) -> list[PageAsked]:
    node.plane.held.serve()
    return node.plane.held.read_asked()


def test_a_packet_that_asks_goes_on_and_is_reported(node: OneNode) -> None:
    assert node.run(to_home(PLAIN)).outcome is Outcome.DELIVERED and told(node) == []
    assert node.run(to_home(PAGE)).outcome is Outcome.DELIVERED
    assert told(node) == [PageAsked(HOME, PAGE, Flow(17, HOME, PAGE, PEER, 4000), 32)]
    assert node.run(to_home(PAGE, HOME6, 300)).outcome is Outcome.DELIVERED
    assert told(node) == [PageAsked(HOME6, PAGE, Flow(17, HOME6, PAGE, PEER6, 4000), 348)]
    assert node.plane.held.waiting()["packets"] == 0


def test_a_packet_that_asks_and_is_dropped_is_reported(node: OneNode) -> None:
    assert node.run(to_home(PAGE_AND_DROP)).way is Reason.FILTERED_TO_VISITOR
    assert [event.rule for event in told(node)] == [PAGE_AND_DROP]


def test_each_rule_reports_once_a_second(node: OneNode) -> None:
    packet, dropped, begin = bytes(to_home(PAGE)), to_home(PAGE_AND_DROP), time.monotonic()
    for _ in range(50):
        assert node.run(packet).outcome is Outcome.DELIVERED
    assert node.run(dropped).way is Reason.FILTERED_TO_VISITOR
    found = told(node)
    time.sleep(1.1)
    node.run(packet)
    seconds = time.monotonic() - begin
    found += told(node)
    of_page = [event for event in found if event.rule == PAGE]
    assert 2 <= len(of_page) <= seconds + 1 and len(found) == len(of_page) + 1
    assert sum(1 + event.further for event in of_page) == 51, "those without a report are counted in the next"
    counters = node.plane.filter_counters(HOME, FilterPlace.TO_VISITOR)
    assert (counters[PAGE].packets, counters[PAGE_AND_DROP].packets) == (51, 1)


def test_packets_that_waited_here_ask_for_nothing(node: OneNode) -> None:
    released = to_home(PAGE).payload
    assert node.run(released, "lan0", "egress", entered="out0", mark=MARK_RELEASED).outcome is Outcome.PASSED
    assert told(node) == []


def test_reports_between_two_looks_are_bounded(node: OneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.dataplane.held_packets.MAX_OPENINGS", 2)
    for home in (HOME, HOME6):
        for port in VERDICTS:
            node.run(to_home(port, home))
    assert len(told(node)) == 2 and told(node) == []
