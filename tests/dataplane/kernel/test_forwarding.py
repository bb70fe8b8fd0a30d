"""Packets in real networks: cn - ha - fa - mn, 1500-byte links, TCP in both directions in every tunnel."""

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from subprocess import run as run_process

import pytest
from scapy.layers.inet import ICMP, IP, fragment

from locum.dataplane import DataPlane
from locum.dataplane.kernel.reassembly import Reassembly
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from tests.dataplane.chain import (
    CN4,
    CN6,
    FA4,
    HA4,
    HOME4,
    HOME6,
    Chain,
    Planes,
    foreign_actions,
    home_actions,
    install,
    planes,
    tunnels,
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    with planes(tmp_path_factory.mktemp("bpf")) as made:
        yield made


def ping(net: Chain, home: Addr, *options: str) -> str:
    """The output of ping, which waits for the last answer as long as between two requests."""
    command = [
        "nsenter",
        f"--net={net.cn.path}",
        "ping",
        "-c",
        "2",
        "-i",
        "0.4",
        "-W",
        "1",
        *options,
        str(home),
    ]
    return run_process(command, capture_output=True, text=True, check=False).stdout


def bulk(net: Chain, home: Addr, correspondent: Addr, size: str, seconds: int) -> None:
    """TCP in both directions between the device and the correspondent, so much in each and in that time."""
    server = net.cn.start("iperf3 -s")
    try:
        time.sleep(0.2)
        for direction in ("", "-R"):
            net.mn.run(f"timeout {seconds} iperf3 -n {size} -c {correspondent} -B {home} {direction}")
    finally:
        server.terminate()
        server.wait()


def grown(plane: DataPlane, before: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in plane.counters().items() if n != before[name]}


@pytest.mark.parametrize(
    ("encapsulation", "outer"),
    [
        *product((Encapsulation.IPIP, Encapsulation.GRE, Encapsulation.UDP), (4, 6)),
        (Encapsulation.MINIMAL, 4),
    ],
)
def test_tcp_both_ways(network: Planes, encapsulation: Encapsulation, outer: int) -> None:
    """R10, item "encapsulation in all four family combinations": bulk TCP, and nothing is dropped."""
    net, ha, fa = network
    to_foreign, to_home = tunnels(encapsulation, outer)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    before = ha.counters(), fa.counters()
    for home, correspondent in ((HOME4, CN4), (HOME6, CN6)):
        assert "2 received" in ping(net, home)
        bulk(net, home, correspondent, "40M", 10)
        assert ha.binding_counters(home).bytes > 30_000_000
        acceptance = next(a for a in ha.state.acceptances.values() if a.home_address == home)
        assert ha.acceptance_counters(acceptance).bytes > 30_000_000
        # A few early segments of 1500 bytes are answered with the path MTU; after that everything fits.
    assert not grown(ha, before[0]) and not grown(fa, before[1])


def test_held_at_the_home_agent(network: Planes) -> None:
    """Packets that waited for a binding go into its tunnel, in order, and as large as they came."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign, Verdict.HOLD), foreign_actions(to_home))
    with net.mn.inside():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.bind((str(HOME4), 7000))
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mouth.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: never DF
    for number in range(60):
        mouth.sendto(bytes([number]) * (40 * number + 1), (str(HOME4), 7000))
    time.sleep(0.05)
    with net.ha.inside():
        ha.apply([InstallBinding(BindingEntry(HOME4, Verdict.ENCAPSULATE, (to_foreign,)))])
        assert ha.release(HOME4) >= 60  # the largest came in two fragments
    ear.settimeout(1)
    assert [ear.recv(4000)[:1] for _ in range(60)] == [bytes([number]) for number in range(60)]
    assert "2 received" in ping(net, HOME4)


def test_link_that_segments(network: Planes) -> None:
    """A radio link with a token bucket: GSO packets that came out of a tunnel are cut into segments there."""
    net, ha, fa = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    shaped = ((net.fa, "fa1"), (net.mn, "mn0"), (net.ha, "ha1"))
    for space, device in shaped:
        space.run(f"tc qdisc add dev {device} root tbf rate 400mbit burst 16k limit 4m")
    before = ha.counters(), fa.counters()
    server = net.cn.start("iperf3 -s")
    try:
        time.sleep(0.2)
        for home, correspondent in ((HOME4, CN4), (HOME6, CN6)):
            for direction in ("", "-R"):
                net.mn.run(f"timeout 6 iperf3 -n 10M -c {correspondent} -B {home} {direction}")
    finally:
        server.terminate()
        server.wait()
        for space, device in shaped:
            space.run(f"tc qdisc del dev {device} root")
    assert not grown(ha, before[0]) and not grown(fa, before[1])


def test_too_big_is_answered_and_fragments_go_through(network: Planes) -> None:
    net, _, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    net.cn.run("ip route flush cache")
    assert "mtu = 1480" in ping(net, HOME4, "-M", "do", "-s", "1472")
    assert "2 received" in ping(net, HOME4, "-M", "do", "-s", "1452")
    assert "2 received" in ping(net, HOME4, "-M", "dont", "-s", "4000")
    net.cn.run("ip -6 route flush cache")
    assert "mtu=1480" in ping(net, HOME6, "-M", "do", "-s", "1452").replace("mtu: ", "mtu=")
    ping(
        net, HOME6, "-s", "4000"
    )  # the device learns the MTU of its own way by its first answer, which is lost
    assert "2 received" in ping(net, HOME6, "-s", "4000")


@pytest.mark.parametrize("unreachable", [False, True])
def test_time_exceeded(network: Planes, unreachable: bool) -> None:
    """Each router is a hop, a tunnel is one, and so it is where the home network is unreachable but for bindings."""
    net, _, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    if unreachable:
        net.ha.run("ip route add unreachable 10.9.0.0/16")
        net.ha.run("ip -6 route add unreachable fd09::/64")
    try:
        for home, first, second in ((HOME4, "10.1.0.1", "10.2.0.2"), (HOME6, "fd01::1", "fd02::2")):
            for hops, router in ((1, first), (2, second)):
                told = [line for line in ping(net, home, "-t", str(hops)).splitlines() if "From" in line]
                assert told and all(f"From {router} " in line for line in told), told
                assert all("exceeded" in line for line in told), told
            assert "2 received" in ping(net, home, "-t", "3")
    finally:
        if unreachable:
            net.ha.run("ip route del unreachable 10.9.0.0/16")
            net.ha.run("ip -6 route del unreachable fd09::/64")


SEND_FORGED = """
import socket
from scapy.all import IP, UDP, raw
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(5):
    s.sendto(raw(IP(src="10.1.0.2", dst="10.2.0.1") / IP(src="10.9.0.5", dst="10.1.0.2") / UDP(dport=9)), ("10.2.0.1", 0))
for size in range(1, 60):
    s.sendto(raw(IP(src="10.1.0.2", dst="10.2.0.1", proto=4, ttl=9) / bytes(range(size))), ("10.2.0.1", 0))
"""


def test_unregistered_source(network: Planes, python: str, tmp_path: Path) -> None:
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    script = tmp_path / "forge.py"
    script.write_text(SEND_FORGED)
    before = ha.counters()
    net.cn.run(f"{python} {script}")
    assert grown(ha, before) == {"unregistered-source": 5, "malformed-tunnel": 59}


def test_peer_rule(network: Planes) -> None:
    """The stand-in's own packets reach the device while everybody else's go to the default CoA."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    elsewhere = Tunnel(HA4, ip_address("10.2.0.77"))
    home = home_actions(to_foreign)
    home.append(InstallBinding(BindingEntry(HOME4, Verdict.ENCAPSULATE, (elsewhere,), CN4, to_foreign)))
    install(network, home, foreign_actions(to_home))
    assert "2 received" in ping(net, HOME4)
    home.append(InstallBinding(BindingEntry(HOME4, Verdict.ENCAPSULATE, (to_foreign,), CN4, None)))
    install(network, home, foreign_actions(to_home))
    before = ha.counters()
    assert "0 received" in ping(net, HOME4)
    assert grown(ha, before) == {"peer-unreachable": 2}


def test_simultaneous_bindings(network: Planes) -> None:
    """Each packet goes into every tunnel (RFC 5944 section 3.6.1.1)."""
    net, ha, fa = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    other_foreign, _ = tunnels(Encapsulation.GRE, 6)
    both = BindingEntry(HOME4, Verdict.ENCAPSULATE, (to_foreign, other_foreign))
    foreign: list[Action] = [*foreign_actions(to_home), LocalEndpoint(other_foreign.destination)]
    six = TunnelAcceptance(other_foreign.source, HOME4, Side.TO_HOME_ADDRESS, "fa1", HOME4, gre_key=77)
    install(network, [*home_actions(to_foreign), InstallBinding(both)], [*foreign, AcceptTunnel(six)])
    four = TunnelAcceptance(HA4, HOME4, Side.TO_HOME_ADDRESS)
    before = [fa.acceptance_counters(way).packets for way in (four, six)]
    assert "duplicates" in ping(net, HOME4)
    assert [fa.acceptance_counters(way).packets for way in (four, six)] == [n + 2 for n in before]
    assert ha.binding_counters(HOME4).packets >= 4


def test_tunnel_in_fragments(network: Planes) -> None:
    """The stack puts the tunnel packet together, and it is judged as any other."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    before = ha.counters()
    with net.ha.inside():
        raw = Reassembly(ha.take_reassembled)
    try:
        net.fa.run("ip route add 10.2.0.1/32 dev fa0 mtu lock 600")
        with net.fa.inside():
            sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
            inner = bytes(IP(src=str(HOME4), dst=str(CN4)) / ICMP() / bytes(1200))
            sender.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: fragments may be made
            sender.sendto(inner, (str(HA4), 0))
            sender.close()
        time.sleep(0.1)
        taken = sum(raw.read(fileno) for fileno in raw.filenos())
    finally:
        raw.close()
        net.fa.run("ip route del 10.2.0.1/32 dev fa0")
    assert taken == 1
    assert grown(ha, before).get("tunnel-fragment", 0) >= 2
    assert "unregistered-source-reassembled" not in grown(ha, before)


def spoofed(destination: Addr, inner: bytes, *, path_mtu: int | None = None) -> None:
    """An IP-in-IP packet that claims to come from the home agent, in fragments if it does not fit `path_mtu`."""
    whole = IP(src=str(HA4), dst=str(destination), proto=4, id=77) / inner
    packets = [whole] if path_mtu is None else fragment(whole, path_mtu)  # type: ignore[no-untyped-call]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for packet in packets:
            sender.sendto(bytes(packet), (str(destination), 0))


def test_a_visitor_is_no_home_agent(network: Planes) -> None:
    """Packets on an access link are never decapsulated for another visitor, whole or in fragments."""
    net, _, fa = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    inner = bytes(IP(src=str(CN4), dst=str(HOME4)) / ICMP() / bytes(1200))
    way = TunnelAcceptance(HA4, HOME4, Side.TO_HOME_ADDRESS)
    with net.fa.inside():
        raw = Reassembly(fa.take_reassembled)
    try:
        for served, taken in (((), 2), (("fa1",), 0)):
            with net.fa.inside():
                fa.serve_visitors(served, checked=False)  # the check of sources knows better
            before, accepted = fa.counters(), fa.acceptance_counters(way).packets
            with net.mn.inside():
                spoofed(FA4, inner)
                spoofed(FA4, inner, path_mtu=600)
            time.sleep(0.1)
            with net.fa.inside():
                assert sum(raw.read(fileno) for fileno in raw.filenos()) == 1
            time.sleep(0.1)
            assert fa.acceptance_counters(way).packets - accepted == taken
            refused = grown(fa, before)
            assert bool(refused.get("from-access-link")) is not bool(taken)
            assert bool(refused.get("unregistered-source-reassembled")) is not bool(taken)
    finally:
        raw.close()
        with net.fa.inside():
            fa.serve_visitors(())


def test_colocated_care_of_address(network: Planes) -> None:
    """R9: the mobile node is the end of the tunnel, its own sockets know the MTU, and reverse tunnelling is its own."""
    net, _, fa = network
    care_of = ip_address("10.3.0.5")
    net.mn.run("ip addr add 10.3.0.5/24 dev mn0")
    net.mn.run("ip route replace 10.2.0.0/24 via 10.3.0.1 src 10.3.0.5")
    net.ha.run("ip route add 10.3.0.0/24 via 10.2.0.2")
    tunnel, back = Tunnel(HA4, care_of), Tunnel(care_of, HA4)
    install(network, home_actions(tunnel), [])
    with net.mn.inside():
        mn = DataPlane.open("mn", ["mn0"], bpf_root=net.root, forwarding=False)
    try:
        actions: list[Action] = [LocalEndpoint(care_of)]
        for home in (HOME4, HOME6):
            actions.append(AcceptTunnel(TunnelAcceptance(HA4, home, Side.TO_HOME_ADDRESS)))
            actions.append(InstallOutbound(OutboundEntry(home, None, back)))
        with net.mn.inside():
            mn.apply(actions)
        for home, correspondent in ((HOME4, CN4), (HOME6, CN6)):
            assert "2 received" in ping(net, home)
            server = net.cn.start("iperf3 -s")
            try:
                time.sleep(0.2)
                for direction in ("", "-R"):
                    net.mn.run(f"timeout 10 iperf3 -n 40M -c {correspondent} -B {home} {direction}")
            finally:
                server.terminate()
                server.wait()
            assert mn.outbound_counters(OutboundEntry(home, None, back)).bytes > 30_000_000
        assert not {n: c for n, c in mn.counters().items() if c}
    finally:
        with net.mn.inside():
            mn.remove()
        net.mn.run("ip addr del 10.3.0.5/24 dev mn0")
        net.mn.run("ip route replace 10.3.0.1 dev mn0")
        net.mn.run("ip route replace default via 10.3.0.1 dev mn0 src 10.9.0.5")
    assert FA4 not in fa.state.endpoints
