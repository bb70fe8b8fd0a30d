"""Roles that share a host (R17): no tunnel from the host to itself, and no loops.

cn - ha - fa - mn as elsewhere; here `fa` plays several roles, and `ha` is a plain router unless a test says otherwise.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from subprocess import run as run_process

import pytest

from locum.dataplane import DataPlane
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
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    RefuseTunnel,
    RemoveBinding,
    RemoveOutbound,
    SetFlow,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector
from tests.dataplane.chain import CN4, FA4, HA4, HOME4, Chain, chain
from tests.dataplane.namespaces import Namespace

CARE_OF = ip_address("10.3.0.1")  # of the access node on `fa`, whose home agent's address is FA4
ELSEWHERE = ip_address("10.2.0.77")
PORT = 7000
IP_TTL, IP_RECVTTL = 2, 12  # Linux; the module has no names for them
TTL_AT_MN = 64 - 2  # two routers between the correspondent and the device, however many roles they play
CAME_HOME = Tunnel(FA4, CARE_OF)
HOME_AGENT: list[Action] = [
    LocalEndpoint(FA4),
    AcceptTunnel(TunnelAcceptance(CARE_OF, HOME4, Side.FROM_HOME_ADDRESS)),
    InstallBinding(BindingEntry(HOME4, Verdict.ENCAPSULATE, (CAME_HOME,))),
]
ACCESS_NODE: list[Action] = [
    LocalEndpoint(CARE_OF),
    AcceptTunnel(TunnelAcceptance(FA4, HOME4, Side.TO_HOME_ADDRESS, "fa1", HOME4)),
    InstallOutbound(OutboundEntry(HOME4, "fa1", Tunnel(CARE_OF, FA4))),
]
TAKEN = Flow(socket.IPPROTO_UDP, HOME4, PORT, CN4, PORT)
STAND_IN: list[Action] = [
    LocalEndpoint(CARE_OF),
    InstallBinding(BindingEntry(HOME4, Verdict.GUARD)),
    SetFlow(FlowEntry(TAKEN, FlowVerdict.DELIVER)),
]
POLICED = Filter(
    HOME4,
    FilterPlace.TO_VISITOR,
    (FilterRule(1, Ipv4Selector(protocol=(17, 17)), FilterVerdict.DROP),),
    FilterVerdict.ALLOW,
)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[tuple[Chain, DataPlane]]:
    with chain(tmp_path / "bpf") as net:
        net.ha.run("sysctl -qw net.ipv4.ip_forward=1")
        net.ha.run("ip route add 10.9.0.5 via 10.2.0.2")
        plane = net.open(net.fa, "fa", ["fa0", "fa1"])
        try:
            yield net, plane
        finally:
            with net.fa.inside():
                plane.remove()


@contextmanager
def ear(space: Namespace) -> Iterator[socket.socket]:
    """A UDP socket at PORT that gets the TTL of received packets."""
    with space.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", PORT))
    with sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        sock.settimeout(5)
        yield sock


def say(space: Namespace, text: bytes, port: int = PORT) -> None:
    """One packet to the home address, from `port`."""
    with space.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.bind(("", port))
        mouth.sendto(text, (str(HOME4), PORT))


def hear(sock: socket.socket) -> tuple[bytes, int]:
    """(payload, its TTL)"""
    data, ancillary, _, _ = sock.recvmsg(100, 100)
    [ttl] = [value for level, kind, value in ancillary if (level, kind) == (socket.IPPROTO_IP, IP_TTL)]
    return data, int.from_bytes(ttl, "little")


def drops(plane: DataPlane) -> dict[str, int]:
    return {reason: number for reason, number in plane.counters().items() if number}


def sent_packets(space: Namespace, link: str) -> int:
    [found] = json.loads(space.run(f"ip -s -j link show {link}"))
    return int(found["stats64"]["tx"]["packets"])


def local_for(net: Chain, *links: str) -> None:
    """The home address is this host's own for packets from these links, as at a stand-in."""
    net.fa.run("ip route add local 10.9.0.5/32 dev lo table 435")
    for link in links:
        net.fa.run(f"ip rule add iif {link} lookup 435")


def test_home_agent_and_access_node(network: tuple[Chain, DataPlane]) -> None:
    """Both directions, without a tunnel header and without another hop, TCP at full size; each packet counts once."""
    net, plane = network
    with net.fa.inside():
        plane.reconcile(HOME_AGENT + ACCESS_NODE)
    with ear(net.mn) as mn:
        for _ in range(20):
            say(net.cn, b"hello")
            assert hear(mn) == (b"hello", TTL_AT_MN)
    acceptance = TunnelAcceptance(FA4, HOME4, Side.TO_HOME_ADDRESS)
    assert plane.acceptance_counters(acceptance).packets == 20
    command = ["nsenter", f"--net={net.cn.path}", "ping", "-c", "5", "-i", "0.3", "-W", "5", str(HOME4)]
    answered = run_process(command, capture_output=True, text=True, check=False).stdout
    assert answered.count("ttl=62 ") == 5 and "DUP" not in answered
    assert plane.outbound_counters(OutboundEntry(HOME4, "fa1", CAME_HOME)).packets == 5
    assert plane.binding_counters(HOME4).packets == 0
    server = net.cn.start("iperf3 -s -1 --forceflush")
    try:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        net.mn.run(f"timeout 60 iperf3 -n 5M -c {CN4} -B {HOME4}")
    finally:
        server.terminate()
        server.wait()
    assert drops(plane) == {}


def test_home_agent_and_stand_in(network: tuple[Chain, DataPlane]) -> None:
    """The stand-in's guard and flow table are asked after the home agent; neither entry takes the other's place."""
    net, plane = network
    local_for(net, "fa0", "lc-fa")
    away = Rule(
        5,
        Ipv4Selector(source_port=(PORT + 1,) * 2),
        RuleVerdict.FORWARD,
        (Candidate(Tunnel(FA4, ELSEWHERE)),),
    )
    here = Rule(6, Ipv4Selector(protocol=(17, 17)), RuleVerdict.FORWARD, (Candidate(CAME_HOME),))
    split = BindingEntry(HOME4, Verdict.DROP, rules=(away, here))
    with net.fa.inside():
        plane.reconcile([LocalEndpoint(FA4), InstallBinding(split), *STAND_IN])
        assert plane.snapshot().bindings == {HOME4: split} and HOME4 in plane.snapshot().local_ends
    with ear(net.fa) as stand_in:
        say(net.cn, b"taken")
        assert hear(stand_in)[0] == b"taken"
        say(net.cn, b"the device's", PORT + 1)
        say(net.cn, b"nobody's", PORT + 2)
        say(net.cn, b"taken too")
        assert hear(stand_in)[0] == b"taken too"
        counted = plane.rule_counters(HOME4)
        assert (counted[5].packets, counted[6].packets) == (1, 2)
        assert drops(plane) == {"no-session": 1}
        with net.fa.inside():
            plane.apply([RemoveBinding(HOME4, Stage.LOCAL)])
            assert plane.snapshot().bindings == {HOME4: split}
        say(net.fa, b"from this host", PORT + 3)
        assert hear(stand_in)[0] == b"from this host"


def test_access_node_and_stand_in(network: tuple[Chain, DataPlane]) -> None:
    """Out of the home agent's tunnel, to the stand-in on the access node itself: no neighbour is looked for."""
    net, plane = network
    local_for(net, "fa0")
    to_itself = TunnelAcceptance(HA4, HOME4, Side.TO_HOME_ADDRESS, "fa1", CARE_OF)
    ha = net.open(net.ha, "ha", ["ha0", "ha1"])
    try:
        with net.ha.inside():
            entry = BindingEntry(HOME4, Verdict.ENCAPSULATE, (Tunnel(HA4, CARE_OF),))
            ha.reconcile([LocalEndpoint(HA4), InstallBinding(entry)])
            net.ha.run("ip route add 10.3.0.0/24 via 10.2.0.2")
        with net.fa.inside():
            plane.reconcile([AcceptTunnel(to_itself), *STAND_IN])
        with ear(net.fa) as stand_in:
            say(net.cn, b"taken")
            assert hear(stand_in)[0] == b"taken"
            say(net.cn, b"nobody's", PORT + 2)
            say(net.cn, b"taken too")
            assert hear(stand_in)[0] == b"taken too"
            with net.fa.inside():
                plane.apply([InstallFilter(POLICED)])
            say(net.cn, b"refused")
            say(net.cn, b"nobody's, and refused", PORT + 2)
        assert plane.acceptance_counters(to_itself).packets == 5
        assert drops(plane) == {"no-session": 1, "filtered-to-visitor": 2}
        with net.fa.inside():
            assert plane.snapshot() == plane.state
    finally:
        with net.ha.inside():
            ha.remove()


def test_tunnel_without_a_visitor_is_dropped_once(network: tuple[Chain, DataPlane]) -> None:
    """A tunnel that ends here, for an unknown visitor: dropped and counted once, without a loop."""
    net, plane = network
    with net.fa.inside():
        plane.reconcile([*HOME_AGENT, LocalEndpoint(CARE_OF)])
    before = sent_packets(net.fa, "fa1")
    for _ in range(10):
        say(net.cn, b"lost")
    with ear(net.mn) as mn:
        say(net.cn, b"lost")
        with net.fa.inside():
            plane.apply(ACCESS_NODE)
        say(net.cn, b"found")
        assert hear(mn) == (b"found", TTL_AT_MN)
    assert drops(plane) == {"unclaimed": 11}
    # The packet that was found, and the packets of neighbour discovery.
    assert sent_packets(net.fa, "fa1") - before < 8


def test_left_for_another_access_node(network: tuple[Chain, DataPlane]) -> None:
    """620 on the home agent's own host: packets to the old access node go on, and both entries stay."""
    net, plane = network
    onwards = Tunnel(CARE_OF, HA4)
    gone = BindingEntry(HOME4, Verdict.ENCAPSULATE, (onwards,), at=Stage.VISITED)
    other = net.open(net.ha, "ha", ["ha0", "ha1"])
    with net.fa.inside():
        plane.reconcile([*HOME_AGENT, LocalEndpoint(CARE_OF), InstallBinding(gone)])
    try:
        with net.ha.inside():
            net.ha.run("ip route add 10.3.0.0/24 via 10.2.0.2")
            back = TunnelAcceptance(CARE_OF, HOME4, Side.TO_HOME_ADDRESS, "ha0", CN4)
            other.reconcile([LocalEndpoint(HA4), AcceptTunnel(back)])
        for _ in range(3):
            say(net.cn, b"moved", PORT + 1)
        assert plane.visited_counters(HOME4).packets == 3
        assert other.acceptance_counters(back).packets == 3
        with net.fa.inside():
            plane.apply([RemoveBinding(HOME4, Stage.VISITED)])
            assert plane.snapshot().bindings == plane.state.bindings and not plane.snapshot().visited
    finally:
        with net.ha.inside():
            other.remove()


def test_outbound_entries_of_two_roles_are_independent(network: tuple[Chain, DataPlane]) -> None:
    """A visitor's packets, and those of the stand-in on this host, have an entry each: one role removes its own alone."""
    net, plane = network
    visitors = OutboundEntry(HOME4, "fa1", Tunnel(CARE_OF, HA4))
    own = OutboundEntry(HOME4, None, Tunnel(FA4, HA4))
    with net.fa.inside():
        plane.reconcile([LocalEndpoint(CARE_OF), InstallOutbound(visitors), InstallOutbound(own)])
        assert plane.snapshot().outbound == {HOME4: {"fa1": visitors, None: own}}
        plane.apply([RemoveOutbound(HOME4)])
        assert plane.snapshot().outbound == plane.state.outbound == {HOME4: {"fa1": visitors}}
        plane.apply([InstallOutbound(own), RemoveOutbound(HOME4, "fa1")])
        assert plane.snapshot().outbound == plane.state.outbound == {HOME4: {None: own}}
        plane.reconcile([InstallOutbound(visitors)])
        assert plane.snapshot().outbound == {HOME4: {"fa1": visitors}}


def test_a_visitor_and_its_stand_in(network: tuple[Chain, DataPlane]) -> None:
    """Two tunnels of one home agent, for one home address, end on one host: which end it is says whose the packet is."""
    net, plane = network
    local_for(net, "fa0")
    visitors = TunnelAcceptance(HA4, HOME4, Side.TO_HOME_ADDRESS, "fa1", HOME4)
    own = TunnelAcceptance(HA4, HOME4, Side.TO_HOME_ADDRESS, end=FA4)
    away = Rule(
        5, Ipv4Selector(source_port=(PORT, PORT)), RuleVerdict.FORWARD, (Candidate(Tunnel(HA4, FA4)),)
    )
    entry = BindingEntry(HOME4, Verdict.ENCAPSULATE, (Tunnel(HA4, CARE_OF),), rules=(away,))
    ha = net.open(net.ha, "ha", ["ha0", "ha1"])
    try:
        with net.ha.inside():
            ha.reconcile([LocalEndpoint(HA4), InstallBinding(entry)])
            net.ha.run("ip route add 10.3.0.0/24 via 10.2.0.2")
        with net.fa.inside():
            plane.reconcile([AcceptTunnel(visitors), *STAND_IN, LocalEndpoint(FA4), AcceptTunnel(own)])
        with ear(net.fa) as stand_in, ear(net.mn) as mn:
            say(net.cn, b"taken")
            say(net.cn, b"the device's", PORT + 1)
            assert (hear(stand_in)[0], hear(mn)[0]) == (b"taken", b"the device's")
            assert plane.acceptance_counters(own).packets == plane.acceptance_counters(visitors).packets == 1
            with net.fa.inside():
                assert plane.snapshot() == plane.state and len(plane.state.acceptances) == 2
                plane.apply([RefuseTunnel(own)])
            say(net.cn, b"the device's again")
            assert hear(mn)[0] == b"the device's again"
            with net.fa.inside():
                plane.apply([AcceptTunnel(own), RefuseTunnel(visitors)])
            say(net.cn, b"taken again")
            say(net.cn, b"nobody's", PORT + 1)
            say(net.cn, b"and again")
            assert (hear(stand_in)[0], hear(stand_in)[0]) == (b"taken again", b"and again")
        assert drops(plane) == {"unregistered-source": 1}
    finally:
        with net.ha.inside():
            ha.remove()


def test_home_agent_access_node_and_stand_in(network: tuple[Chain, DataPlane]) -> None:
    """All three: the home agent's rules say which of the other two has a packet, and none of them makes a tunnel."""
    net, plane = network
    local_for(net, "fa0", "lc-fa")
    away = Rule(
        5, Ipv4Selector(source_port=(PORT, PORT)), RuleVerdict.FORWARD, (Candidate(Tunnel(FA4, FA4)),)
    )
    entry = BindingEntry(HOME4, Verdict.ENCAPSULATE, (CAME_HOME,), rules=(away,))
    own = TunnelAcceptance(FA4, HOME4, Side.TO_HOME_ADDRESS, end=FA4)
    with net.fa.inside():
        plane.reconcile([*HOME_AGENT, *ACCESS_NODE, *STAND_IN, AcceptTunnel(own), InstallBinding(entry)])
        assert plane.snapshot() == plane.state
    with ear(net.fa) as stand_in, ear(net.mn) as mn:
        for _ in range(5):
            say(net.cn, b"taken")
            say(net.cn, b"the device's", PORT + 1)
            assert hear(stand_in)[0] == b"taken"
            assert hear(mn) == (b"the device's", TTL_AT_MN)
    visitors = TunnelAcceptance(FA4, HOME4, Side.TO_HOME_ADDRESS)
    assert plane.acceptance_counters(own).packets == plane.acceptance_counters(visitors).packets == 5
    assert drops(plane) == {}
