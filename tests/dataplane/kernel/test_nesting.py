"""Tunnels in tunnels: a packet that would come back for ever goes into none."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, ip_address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from locum.dataplane import DataPlane
from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    LocalEndpoint,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.ip.minimal import MinimalHeader
from tests.dataplane.chain import CN4, FA4, HA4, HOME4, Chain, Planes, planes
from tests.dataplane.one_host import ETHERTYPES, OneHost, one_host

HOMES = {4: ip_address("10.9.0.5"), 6: ip_address("fd09::5")}
PEERS = {4: ip_address("10.1.0.2"), 6: ip_address("fd01::2")}
ENDS = {4: ip_address("10.3.0.1"), 6: ip_address("fd03::1")}
OWN = {4: ip_address("10.2.0.1"), 6: ip_address("fd02::1")}
WENT = (Outcome.ENCAPSULATED, Reason.NONE)
LOOP, TOO_DEEP = (Outcome.DROPPED, Reason.TUNNEL_LOOP), (Outcome.DROPPED, Reason.NESTING_LIMIT)
SPOOFED = (Outcome.DROPPED, Reason.SPOOFED_SOURCE)


class Agent(OneHost):
    """A home agent whose devices are at the far ends; the program and the model do the same with each packet."""

    def bind(self, encapsulation: Encapsulation, outer: int, care_of: Addr | None = None) -> None:
        """Bind the home addresses to the far end of this family, or to `care_of`."""
        port = 434 if encapsulation is Encapsulation.UDP else 0
        tunnel = Tunnel(OWN[outer], care_of or ENDS[outer], encapsulation, port, port)
        entries = [BindingEntry(home, Verdict.ENCAPSULATE, (tunnel,)) for home in HOMES.values()]
        self.plane.reconcile([LocalEndpoint(OWN[outer]), *(InstallBinding(entry) for entry in entries)])

    def receive(self, packet: Packet) -> tuple[Outcome, Reason]:
        """The outcome for a packet that arrives."""
        wanted, _ = self.arrive(packet)
        return wanted.outcome, wanted.reason


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    way = (
        "ip addr add 10.2.0.200/24 dev out0",
        "ip addr add fd02::200/64 dev out0 nodad",
        "ip route add default via 10.2.0.254",
        "ip -6 route add default via fd02::254",
    )
    with one_host(tmp_path_factory.mktemp("bpf"), "nest", *way) as plane:
        yield Agent(plane)


def header(family: int, source: Addr, destination: Addr) -> Packet:
    return (IP if family == 4 else IPv6)(src=str(source), dst=str(destination))


DATA = UDP(sport=7, dport=9) / b"hello"


@pytest.mark.parametrize("family", [4, 6])
def test_ends_of_the_tunnel(agent: Agent, family: int) -> None:
    """RFC 2003 section 3.2: nothing from this end or from the far one. A NAT speaks for others as well.

    A packet to the far end goes: a mobile node talks to its own home agent through a reverse tunnel (RFC 3024).
    """
    for encapsulation in Encapsulation:
        agent.bind(encapsulation, family)
        home = HOMES[family]
        assert agent.receive(header(family, PEERS[family], home) / DATA) == WENT
        assert agent.receive(header(family, OWN[family], home) / DATA) == SPOOFED
        wanted = WENT if encapsulation is Encapsulation.UDP else LOOP
        assert agent.receive(header(family, ENDS[family], home) / DATA) == wanted
        agent.bind(encapsulation, family, home)
        assert agent.receive(header(family, PEERS[family], home) / DATA) == WENT


def datagram(inside: Packet) -> bytes:
    """Content of a tunnel's UDP datagram (RFC 3519 section 3.2)."""
    return bytes((4, 4 if inside.version == 4 else 41, 0, 0)) + bytes(inside)


def test_depth(agent: Agent) -> None:
    """A packet that is in four tunnels goes into no fifth, whatever their shapes and families."""
    agent.bind(Encapsulation.IPIP, 4)
    shapes: list[Callable[[Packet, Packet], Packet]] = [
        lambda head, inside: head / inside,
        lambda head, inside: head / GRE() / inside,
        lambda head, inside: head / GRE(key_present=1, seqnum_present=1) / inside,
        lambda head, inside: head / UDP(sport=434, dport=434) / Raw(datagram(inside)),
    ]
    for first in range(len(shapes)):
        for outer in (4, 6):
            packet = header(4, PEERS[4], HOMES[4]) / DATA
            for depth in range(1, 6):
                family = 4 if depth % 2 else 6
                family = family if depth < 5 else outer
                packet = shapes[(first + depth) % len(shapes)](
                    header(family, PEERS[family], HOMES[family]), packet
                )
                assert agent.receive(packet) == (WENT if depth < 4 else TOO_DEEP), (first, outer, depth)


def test_depth_of_minimal_encapsulation(agent: Agent) -> None:
    """It has no second IP header inside (RFC 2004 section 3), with a source or without."""
    agent.bind(Encapsulation.IPIP, 4)
    for source in (None, IPv4Address("10.1.0.9")):
        packet = header(4, PEERS[4], HOMES[4]) / DATA
        for depth in range(1, 6):
            if depth % 2:
                lead = MinimalHeader(packet.proto, IPv4Address("10.1.0.8"), source).encode()
                packet = IP(bytes(header(4, PEERS[4], HOMES[4]) / Raw(lead + bytes(packet)[20:])))
                packet.proto = 55
                del packet.chksum
                packet = IP(bytes(packet))
            else:
                packet = IP(bytes(header(4, PEERS[4], HOMES[4]) / packet))
            assert agent.receive(packet) == (WENT if depth < 4 else TOO_DEEP), (source, depth)


def test_limit_of_others(agent: Agent) -> None:
    """RFC 2473 section 4.1.1: a packet whose encapsulation limit is 0 goes into no tunnel."""
    agent.bind(Encapsulation.IPIP, 6)
    for limit in range(3):
        for padding in (b"", b"\x00", b"\x01\x01\x00"):
            options = (padding + bytes((4, 1, limit))).ljust(6, b"\x00")
            body = bytes((17, 0)) + options + bytes(UDP(sport=7, dport=9, chksum=1) / b"x")
            packet = IPv6(src=str(PEERS[6]), dst=str(HOMES[6]), nh=60) / Raw(body)
            assert agent.receive(packet) == (WENT if limit else TOO_DEEP), (limit, padding)


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    """Two home agents, beside each other."""
    with planes(tmp_path_factory.mktemp("bpf")) as made:
        yield made


def send(net: Chain, source: Addr, destination: Addr) -> None:
    """One packet of the correspondent node."""
    hardware = net.ha.run("ip -o link show ha0").split("link/ether ")[1].split()[0]
    packet = IP(src=str(source), dst=str(destination)) / UDP(dport=9) / b"one"
    frame = bytes.fromhex(hardware.replace(":", "")) + bytes(6) + ETHERTYPES[4] + bytes(packet)
    with net.cn.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind(("cn0", 0))
        link.send(frame)


def until_dropped(
    planes: Sequence[DataPlane], before: list[dict[str, int]], reasons: set[str]
) -> dict[str, int]:
    """The growth of these counters, once one of them has grown."""
    for _ in range(300):
        after = [plane.counters() for plane in planes]
        grown = {r: sum(a[r] - b[r] for a, b in zip(after, before, strict=True)) for r in reasons}
        if any(grown.values()):
            break
        time.sleep(0.05)
    return {reason: n for reason, n in grown.items() if n}


def test_home_agents_that_tunnel_to_each_other(agents: tuple[Chain, DataPlane, DataPlane]) -> None:
    """A packet to a device whose care-of address is a home address of the other agent, and so on in a circle."""
    net, one, other = agents
    away = ip_address("10.8.0.5")
    net.fa.run("ip route replace 10.9.0.5 via 10.2.0.1")
    net.ha.run("ip route add 10.8.0.5 via 10.2.0.2")
    first = BindingEntry(HOME4, Verdict.ENCAPSULATE, (Tunnel(HA4, away),))
    second = BindingEntry(away, Verdict.ENCAPSULATE, (Tunnel(FA4, HOME4),))
    with net.ha.inside():
        one.reconcile([LocalEndpoint(HA4), InstallBinding(first)])
    with net.fa.inside():
        other.reconcile([LocalEndpoint(FA4), InstallBinding(second)])
    before = [plane.counters() for plane in agents[1:]]
    send(net, CN4, HOME4)
    assert until_dropped(agents[1:], before, {"nesting-limit"}) == {"nesting-limit": 1}
    assert one.binding_counters(HOME4).packets == 2
    assert other.binding_counters(away).packets == 2


def test_home_agents_that_hand_a_packet_back(agents: tuple[Chain, DataPlane, DataPlane]) -> None:
    """A packet that each agent takes out of its tunnel, and sends back in another, ends by its own TTL."""
    net, one, other = agents
    away = ip_address("10.9.0.6")
    for space, plane, own, far in ((net.ha, one, HA4, FA4), (net.fa, other, FA4, HA4)):
        entry = BindingEntry(HOME4, Verdict.ENCAPSULATE, (Tunnel(own, far),))
        accepted = TunnelAcceptance(far, away, Side.FROM_HOME_ADDRESS)
        with space.inside():
            plane.reconcile([LocalEndpoint(own), AcceptTunnel(accepted), InstallBinding(entry)])
    was = one.binding_counters(HOME4).packets + other.binding_counters(HOME4).packets
    send(net, away, HOME4)
    passed = -1
    for _ in range(300):
        now = one.binding_counters(HOME4).packets + other.binding_counters(HOME4).packets - was
        if now and now == passed:
            break
        passed = now
        time.sleep(0.1)
    assert passed == 63
