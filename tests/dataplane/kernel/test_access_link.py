"""Access links: a visitor's filter holds for whatever reaches it, and its packets have its own source address (RFC 2827)."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from locum.dataplane import DataPlane
from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import MARK_LOCAL, MARK_RELEASED, Outcome, Reason
from locum.roles.action_values.flows import (
    Encapsulation,
    Filter,
    FilterPlace,
    FilterVerdict,
    InstallFilter,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    LocalEndpoint,
    RefuseTunnel,
    ReleaseHeld,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from tests.dataplane.chain import CN4, FA4, HA4, HOME4, Chain, chain, foreign_actions, tunnels
from tests.dataplane.one_node import HEADER, OneNode, one_node

VISITOR, OTHER, HOST = ip_address("10.9.0.5"), ip_address("10.9.0.6"), ip_address("10.3.0.77")
VISITOR6, HOST6 = ip_address("fd09::5"), ip_address("fd03::77")
AGENT, ELSEWHERE = ip_address("10.5.0.1"), ip_address("192.0.2.99")
BEHIND = ip_network("10.8.0.0/16")
ITS_OWN, FOREIGN = bytes.fromhex("0200000000aa"), HEADER[6:]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with one_node(tmp_path_factory.mktemp("access")) as made:
        yield made


@pytest.fixture
def node(shared: OneNode) -> Iterator[OneNode]:
    """With two visitors: one on lan0, the other on out0."""
    actions: list[Action] = [
        AcceptTunnel(TunnelAcceptance(AGENT, home, Side.TO_HOME_ADDRESS, link, home, hardware=ITS_OWN))
        for home, link in ((VISITOR, "lan0"), (VISITOR6, "lan0"), (OTHER, "out0"))
    ]
    shared.plane.reconcile(actions)
    shared.plane.serve_visitors(("lan0",), allowed=(BEHIND,))
    yield shared
    shared.plane.serve_visitors(())


def from_(source: object, destination: object = CN4, port: int = 9, data: bytes = b"\x09") -> Packet:
    version = ip_address(str(source)).version
    head = IP(src=str(source), dst=str(destination)) if version == 4 else IPv6(src=str(source), dst="fd01::2")
    return head / UDP(sport=1000, dport=port) / data


SOURCES = [
    (VISITOR, True),
    (VISITOR6, True),
    (HOST, True),
    (HOST6, True),
    (BEHIND[7], True),
    (OTHER, False),  # a visitor on another link
    (ELSEWHERE, False),
    ("fd07::1", False),
]


@pytest.mark.parametrize(("source", "right"), SOURCES)
def test_sources_on_access_links_are_checked(node: OneNode, source: object, right: bool) -> None:
    way = Outcome.PASSED if right else Reason.SPOOFED_SOURCE
    assert node.run(from_(source), "lan0").way is way
    assert node.run(from_(source), "out0").way is Outcome.PASSED, "no access link"
    node.plane.serve_visitors(("lan0",), checked=False)
    assert node.run(from_(source), "lan0").way is Outcome.PASSED


@pytest.mark.parametrize("kind", [b"\x01", b"\xff"])
def test_a_device_that_is_not_registered_may_register(node: OneNode, kind: bytes) -> None:
    """With the node itself and no other, and answer its calls; link-scope packets are no concern of the check."""
    request = from_(ELSEWHERE, "10.3.0.1", port=434, data=kind + bytes(23))
    assert node.run(request, "lan0").way is Outcome.PASSED
    request[IP].dst = str(CN4)
    assert node.run(request.copy(), "lan0").way is Reason.SPOOFED_SOURCE
    for source, destination in (("0.0.0.0", "255.255.255.255"), (str(ELSEWHERE), "224.0.0.11")):
        assert node.run(from_(source, destination), "lan0").way is Outcome.PASSED


def test_a_visitor_that_went_sends_no_more(node: OneNode) -> None:
    [gone] = [a for a in node.plane.state.acceptances.values() if a.home_address == VISITOR]
    second = TunnelAcceptance(ip_address("10.5.0.2"), VISITOR, Side.TO_HOME_ADDRESS, "lan0", VISITOR)
    node.plane.apply([AcceptTunnel(second), RefuseTunnel(gone)])
    assert node.run(from_(VISITOR), "lan0").way is Outcome.PASSED, "another home agent's is still there"
    node.plane.apply([RefuseTunnel(second)])
    assert node.run(from_(VISITOR), "lan0").way is Reason.SPOOFED_SOURCE
    moved = TunnelAcceptance(AGENT, OTHER, Side.TO_HOME_ADDRESS, "lan0", OTHER)
    node.plane.apply([AcceptTunnel(moved)])
    assert node.run(from_(OTHER), "lan0").way is Outcome.PASSED
    node.plane.apply([RefuseTunnel(moved)])
    assert [maps.address_of(key[:16]) for key, _ in node.plane._entries["senders"].items()] == [VISITOR6] * 2


@pytest.mark.parametrize("by_hardware", [False, True])
def test_a_visitor_sends_while_its_packets_go_by_the_route(node: OneNode, by_hardware: bool) -> None:
    """Packets to it that leave the tunnel wait, or go elsewhere; nothing changes for its own."""
    node.plane.serve_visitors(("lan0",), by_hardware=by_hardware)
    [direct] = [a for a in node.plane.state.acceptances.values() if a.home_address == VISITOR]
    tunnelled = IP(src=str(AGENT), dst="10.2.0.1", proto=4) / from_(CN4, VISITOR)
    node.plane.apply([LocalEndpoint(ip_address("10.2.0.1"))])
    assert node.run(tunnelled, "out0").way is Outcome.DELIVERED
    node.plane.apply([AcceptTunnel(replace(direct, by_route=True))])
    assert node.run(tunnelled, "out0").way is Outcome.PASSED, "the stack has it"
    assert node.run(from_(VISITOR), "lan0", source=ITS_OWN).way is Outcome.PASSED
    assert node.plane.snapshot().acceptances == node.plane.state.acceptances
    hold = InstallBinding(BindingEntry(VISITOR, Verdict.HOLD, at=Stage.VISITED))
    node.plane.apply([hold])
    assert node.run(tunnelled, "out0").way is Outcome.HELD
    assert node.run(from_(VISITOR), "lan0", source=ITS_OWN).way is Outcome.PASSED


def test_hardware_addresses_are_checked_where_configured(node: OneNode) -> None:
    assert node.run(from_(VISITOR), "lan0", source=FOREIGN).way is Outcome.PASSED
    node.plane.serve_visitors(("lan0",), by_hardware=True)
    assert node.run(from_(VISITOR), "lan0", source=FOREIGN).way is Reason.SPOOFED_SOURCE
    assert node.run(from_(VISITOR), "lan0", source=ITS_OWN).way is Outcome.PASSED
    assert node.run(from_(HOST), "lan0", source=FOREIGN).way is Outcome.PASSED
    stand_in = TunnelAcceptance(ip_address("10.5.0.2"), VISITOR, Side.TO_HOME_ADDRESS, "lan0", HOST)
    node.plane.apply([AcceptTunnel(stand_in)])
    assert node.run(from_(VISITOR), "lan0", source=FOREIGN).way is Outcome.PASSED, "a stand-in's may be any"
    assert set(node.plane.snapshot().acceptances) == set(node.plane.state.acceptances)


def test_an_adopted_plane_checks_on(tmp_path: Path) -> None:
    """The check needs no daemon; the next daemon takes it over, without visitors that went meanwhile."""
    with one_node(tmp_path) as node:
        visitor = TunnelAcceptance(AGENT, VISITOR, Side.TO_HOME_ADDRESS, "lan0", VISITOR, hardware=ITS_OWN)
        node.plane.apply([AcceptTunnel(visitor)])
        node.plane.serve_visitors(("lan0",), by_hardware=True)
        found = node.plane.snapshot()
        assert list(found.acceptances.values()) == [visitor]
        lost = maps.outbound_key(OTHER, node.links["lan0"])
        node.plane._entries["senders"].put(lost, maps.SENDER.pack(ITS_OWN))
        root = node.plane._directory.parents[1]
        node.plane.close()
        second = DataPlane.open("one", ["out0", "lan0"], bpf_root=root)
        try:
            assert second.state.acceptances == found.acceptances
            assert second._entries["senders"].get(lost) is None
            again = OneNode(node.space, second)
            assert again.run(from_(VISITOR), "lan0", source=FOREIGN).way is Reason.SPOOFED_SOURCE
            assert again.run(from_(VISITOR), "lan0", source=ITS_OWN).way is Outcome.PASSED
        finally:
            second.remove()


def test_filters_see_packets_that_came_in_no_tunnel(node: OneNode) -> None:
    node.plane.apply([InstallFilter(Filter(VISITOR, FilterPlace.TO_VISITOR, (), FilterVerdict.DROP))])
    to_visitor = from_(CN4, VISITOR)
    closed = Reason.FILTERED_TO_VISITOR
    assert node.run(to_visitor, "lan0", "egress", entered="out0").way is closed
    assert node.run(to_visitor, "lan0", "egress", entered="tap", mark=MARK_RELEASED).way is closed
    assert node.run(to_visitor, "lan0", "egress").way is Outcome.PASSED, "this node's own"
    assert node.run(to_visitor, "lan0", "egress", entered="out0", mark=MARK_LOCAL).way is Outcome.PASSED
    assert node.run(to_visitor, "out0", "egress", entered="lan0").way is Outcome.PASSED, "not to the visitor"
    assert node.plane.filter_counters(VISITOR, FilterPlace.TO_VISITOR)[0].packets == 2


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chain, DataPlane]]:
    with chain(tmp_path_factory.mktemp("bpf")) as net:
        fa = net.open(net.fa, "fa", ["fa0", "fa1"])
        yield net, fa
        with net.fa.inside():
            fa.remove()


def test_filters_hold_for_released_and_untunnelled_packets(network: tuple[Chain, DataPlane]) -> None:
    """Real packets: from the correspondent without a tunnel, and out of the hold queue of a context transfer."""
    net, fa = network
    closed = InstallFilter(Filter(HOME4, FilterPlace.TO_VISITOR, (), FilterVerdict.DROP))
    net.ha.run("sysctl -qw net.ipv4.ip_forward=1")
    net.ha.run("ip route add 10.9.0.5/32 via 10.2.0.2")
    with net.mn.inside():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ear, mouth:
        ear.bind((str(HOME4), 7000))
        ear.settimeout(5)

        def arrives(data: bytes, *, awaited: bool) -> bool:
            ear.settimeout(5 if awaited else 0.3)
            try:
                return ear.recv(100) == data
            except TimeoutError:
                return False

        for filters, awaited in (((), True), ((closed,), False)):
            with net.fa.inside():
                fa.reconcile([*foreign_actions(tunnels(Encapsulation.IPIP, 4)[1]), *filters])
                fa.serve_visitors(("fa1",))
            mouth.sendto(b"untunnelled", (str(HOME4), 7000))
            assert arrives(b"untunnelled", awaited=awaited) is awaited
            held: list[Action] = [
                LocalEndpoint(FA4),
                AcceptTunnel(TunnelAcceptance(HA4, HOME4, Side.TO_HOME_ADDRESS)),
                InstallBinding(BindingEntry(HOME4, Verdict.HOLD, at=Stage.VISITED)),
            ]
            with net.fa.inside():
                fa.reconcile([*held, *filters])
            with net.ha.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                packet = IP(src=str(HA4), dst=str(FA4), proto=4) / from_(CN4, HOME4, 7000, b"held")
                raw.sendto(bytes(packet), (str(FA4), 0))
            until, waiting = time.monotonic() + 10, 0
            while not waiting and time.monotonic() < until:
                waiting = len(fa.held.read())
            with net.fa.inside():
                fa.apply([ReleaseHeld(HOME4, True)])
            assert arrives(b"held", awaited=awaited) is awaited
        assert fa.filter_counters(HOME4, FilterPlace.TO_VISITOR)[0].packets == 2
