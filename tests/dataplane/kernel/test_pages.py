"""Flow rules that page: packets wait with the rule's identifier, one is told, and all go out first and in order (P1, P17)."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from locum.dataplane import Limits
from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Candidate, Rule, RuleVerdict, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, LocalEndpoint, Verdict
from locum.roles.action_values.paging import FIRST_BYTES, DropPaged, PageTriggered, ReleasePaged
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.dataplane.one_node import OneNode, one_node

HOME, OTHER, HOME6 = (ip_address(a) for a in ("10.9.0.5", "10.9.0.6", "fd09::5"))
AGENT, AT, ELSEWHERE, PEER, PEER6 = (
    ip_address(a) for a in ("10.2.0.200", "10.2.0.2", "10.2.0.3", "10.1.0.2", "fd01::2")
)
SSH = Rule(7, Ipv4Selector(protocol=(6, 6), destination_port=(22, 22)), RuleVerdict.PAGE)
REST = Rule(9, Ipv4Selector(), RuleVerdict.DROP)
WAY = Rule(8, Ipv4Selector(protocol=(6, 6)), RuleVerdict.FORWARD, (Candidate(Tunnel(AGENT, ELSEWHERE)),))
ASLEEP = BindingEntry(HOME, Verdict.NATIVE, rules=(SSH, REST))
AWAKE = BindingEntry(HOME, Verdict.ENCAPSULATE, (Tunnel(AGENT, AT),))
EACH = 4  # packets of one home address
ETH_P_ALL = socket.htons(3)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    limits = Limits(bindings=1024, flows=1024, hold_packets=32, hold_packets_each=EACH)
    with one_node(tmp_path_factory.mktemp("pages"), limits) as made:
        for hop in (AT, ELSEWHERE):
            made.space.run(f"ip neigh add {hop} lladdr 02:00:00:00:00:fe dev out0 nud permanent")
        yield made


@pytest.fixture
def node(shared: OneNode) -> OneNode:
    shared.plane.reconcile([LocalEndpoint(AGENT)])
    for home_address in (HOME, OTHER, HOME6):
        shared.plane.apply([ReleasePaged(home_address)])
    told(shared)
    return shared


@pytest.fixture
def wire(node: OneNode) -> Iterator[socket.socket]:
    """A socket that sees packets which leave by out0."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL) as opened:
        opened.bind(("out0", 0))
        opened.setblocking(False)
        yield opened


def syn(number: int = 0, home_address: Addr = HOME, port: int = 22) -> Packet:
    return IP(src=str(PEER), dst=str(home_address)) / TCP(sport=4000, dport=port, seq=number, flags="S")


def left(wire: socket.socket) -> list[tuple[str, int]]:
    """Tunnel ends and sequence numbers of the packets that have left, in order."""
    found = []
    with suppress(BlockingIOError):
        while True:
            packet = IP(wire.recv(2048)[14:])
            if packet.proto == 4 and TCP in packet:
                found.append((packet.dst, packet[TCP].seq))
    return found


def told(node: OneNode) -> list[PageTriggered]:
    node.plane.held.serve()  # with a turn of its own
    return node.plane.held.read_pages()


def waiting(node: OneNode) -> int:
    return node.plane.held.waiting()["packets"]


def test_first_packet_is_told_and_all_wait(node: OneNode) -> None:
    node.plane.apply([InstallBinding(ASLEEP)])
    assert [node.run(syn(number)).outcome for number in range(3)] == [Outcome.HELD] * 3
    assert node.run(syn(port=80)).way is Reason.RULE_DROPPED
    [page] = told(node)
    packet = bytes(syn())
    assert (page.home_address, page.rule, page.flow) == (HOME, 7, Flow(6, HOME, 22, PEER, 4000))
    assert (page.packet, page.length) == (packet, len(packet)) and page.length <= FIRST_BYTES
    assert waiting(node) == 3
    assert node.run(syn(3)).outcome is Outcome.HELD and told(node) == []
    counters = node.plane.rule_counters(HOME)
    assert (counters[7].packets, counters[9].packets, counters[0].packets) == (4, 1, 0)


def test_long_packets_are_told_by_their_first_bytes(node: OneNode) -> None:
    pages = Rule(3, Ipv6Selector(next_header=(17, 17)), RuleVerdict.PAGE)
    node.plane.apply([InstallBinding(BindingEntry(HOME6, Verdict.NATIVE, rules=(pages,)))])
    packet = bytes(IPv6(src=str(PEER6), dst=str(HOME6)) / UDP(sport=9, dport=5060) / bytes(1000))
    assert node.run(packet).outcome is Outcome.HELD
    [page] = told(node)
    assert (page.rule, page.packet, page.length) == (3, packet[:FIRST_BYTES], len(packet))


def test_waiting_packets_go_out_once_in_order(node: OneNode, wire: socket.socket) -> None:
    node.plane.apply([InstallBinding(ASLEEP)])
    for number in range(3):
        node.run(syn(number))
    waking = replace(AWAKE, rules=(SSH,))  # the device is awake, and newcomers wait for a moment more
    node.plane.apply([InstallBinding(waking), ReleasePaged(HOME)])
    assert left(wire) == [(str(AT), number) for number in range(3)]
    assert node.run(syn(3)).outcome is Outcome.HELD
    node.plane.apply([InstallBinding(AWAKE), ReleasePaged(HOME)])
    assert left(wire) == [(str(AT), 3)] and waiting(node) == 0
    assert node.run(syn(4)).way == AT
    node.plane.apply([ReleasePaged(HOME)])
    assert left(wire) == [], "each once"


def test_released_packets_meet_later_rules(node: OneNode, wire: socket.socket) -> None:
    node.plane.apply([InstallBinding(replace(ASLEEP, rules=(SSH, WAY)))])
    node.run(syn(5))
    node.plane.apply([InstallBinding(replace(AWAKE, rules=(SSH, WAY))), ReleasePaged(HOME)])
    assert left(wire) == [(str(ELSEWHERE), 5)]


def test_packet_read_after_the_release_goes_out(node: OneNode, wire: socket.socket) -> None:
    """It was in the ring when the rule went."""
    node.plane.apply([InstallBinding(ASLEEP)])
    node.run(syn(6))
    node.plane.apply([InstallBinding(AWAKE)])
    node.plane.held.serve()
    assert left(wire) == [(str(AT), 6)] and told(node) == []


def test_flood_of_matching_packets_is_bounded(node: OneNode) -> None:
    """One address is flooded: it has its quota and one report, and another one still finds room."""
    node.plane.apply([InstallBinding(ASLEEP), InstallBinding(replace(ASLEEP, home_address=OTHER))])
    before = node.plane.counters()["hold-queue-share"]
    for number in range(500):
        node.run(syn(number))
    assert [page.home_address for page in told(node)] == [HOME]
    for _ in range(500):  # a turn reads a bounded number of them
        if node.plane.counters()["hold-queue-share"] == before + 500 - EACH:
            break
        node.plane.held.serve()
    assert waiting(node) == EACH and node.plane.counters()["hold-queue-share"] == before + 500 - EACH
    assert told(node) == []
    node.run(syn(0, OTHER))
    assert [page.home_address for page in told(node)] == [OTHER]
    assert waiting(node) == EACH + 1


def test_packets_of_a_page_in_vain_are_dropped(node: OneNode, wire: socket.socket) -> None:
    node.plane.apply([InstallBinding(ASLEEP)])
    for number in range(3):
        node.run(syn(number))
    before = node.plane.counters()["page-failed"]
    told(node)
    node.plane.apply([DropPaged(HOME, quiet=600.0)])
    assert node.plane.counters()["page-failed"] == before + 3 and waiting(node) == 0
    node.run(syn(4))
    assert told(node) == [] and node.plane.counters()["page-failed"] == before + 4
    node.plane.apply([DropPaged(HOME)])
    node.run(syn(5))
    assert [page.rule for page in told(node)] == [7]
    assert left(wire) == []


QUIET = Rule(5, Ipv4Selector(protocol=(17, 17)), RuleVerdict.HOLD)
SILENT = replace(ASLEEP, rules=(SSH, QUIET))


def sent(wire: socket.socket) -> list[tuple[int, int]]:
    """Protocols and destination ports of the packets that have left in tunnels, in order."""
    found = []
    with suppress(BlockingIOError):
        while True:
            packet = IP(wire.recv(2048)[14:])
            if packet.proto == 4:
                inner = packet.payload
                found.append((inner.proto, inner.payload.dport))
    return found


def datagram(number: int) -> Packet:
    return IP(src=str(PEER), dst=str(HOME)) / UDP(sport=4000, dport=number) / b"x"


def test_held_packets_page_nobody_and_go_out_last(node: OneNode, wire: socket.socket) -> None:
    node.plane.apply([InstallBinding(SILENT)])
    assert [node.run(datagram(number)).outcome for number in range(1, 4)] == [Outcome.HELD] * 3
    assert told(node) == [] and waiting(node) == 3
    assert node.run(syn()).outcome is Outcome.HELD
    assert [page.rule for page in told(node)] == [7], "it is told although others wait"
    assert node.plane.rule_counters(HOME)[5].packets == 3
    node.plane.apply([DropPaged(HOME, 0.0)])
    assert waiting(node) == 3, "a page in vain is not about them"
    node.run(syn(1))
    told(node)
    node.plane.apply([InstallBinding(replace(AWAKE, rules=(SSH, QUIET))), ReleasePaged(HOME)])
    went = sent(wire)
    assert went == [(6, 22), *((17, number) for number in range(1, 4))]
    assert node.run(datagram(9)).outcome is Outcome.HELD, "newcomers wait for a moment more"
    node.plane.apply([InstallBinding(AWAKE), ReleasePaged(HOME)])
    assert sent(wire) == [(17, 9)] and waiting(node) == 0


def test_a_flood_of_held_packets_leaves_room_for_a_page(node: OneNode) -> None:
    node.plane.apply([InstallBinding(SILENT)])
    before = node.plane.held.counters()["hold-queue-share"]
    for number in range(EACH + 4):
        node.run(datagram(number + 1))
    assert told(node) == [] and waiting(node) == EACH
    assert node.plane.held.counters()["hold-queue-share"] == before + 4
    node.run(syn())
    assert len(told(node)) == 1 and waiting(node) == EACH + 1


def test_rules_that_hold_are_adopted(node: OneNode) -> None:
    """They are read back from the kernel as they were written."""
    node.plane.apply([InstallBinding(SILENT)])
    assert not node.plane.reconcile([LocalEndpoint(AGENT), InstallBinding(SILENT)])
