"""Packets that do not fit the path of their tunnel: answered, fragmented, or sent in tunnel packets that are fragments."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from subprocess import run as run_process
from threading import Event, Thread

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from locum.dataplane import DataPlane
from locum.dataplane.kernel.network import boot_time
from locum.dataplane.kernel.reassembly import Reassembly
from locum.dataplane.kernel.settings import NARROW
from locum.dataplane.layout import maps
from locum.dataplane.mtu import paths
from locum.dataplane.mtu.path_mtu import Verdict
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    LocalEndpoint,
    Side,
    TunnelAcceptance,
)
from locum.roles.action_values.forwarding import Verdict as ForwardingVerdict
from locum.roles.actions import Action
from tests.dataplane.chain import (
    CN4,
    FA4,
    HA4,
    HOME4,
    HOME6,
    Chain,
    Planes,
    chain,
    foreign_actions,
    home_actions,
    install,
    planes,
    tunnels,
)

OTHER, ELSEWHERE = ip_address("10.9.0.6"), ip_address("10.2.0.77")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    with planes(tmp_path_factory.mktemp("bpf")) as made:
        yield made


@contextmanager
def serving(network: Planes) -> Iterator[None]:
    """The daemons of both agents read what the programs and the kernel hand up."""
    net, ha, fa = network
    ended = Event()
    with net.ha.inside():
        at_home = Reassembly(ha.take_reassembled, ha.too_big)
    with net.fa.inside():
        abroad = Reassembly(fa.take_reassembled, fa.too_big)

    def serve() -> None:
        while not ended.wait(0.005):
            for space, plane, whole in ((net.ha, ha, at_home), (net.fa, fa, abroad)):
                with space.inside():
                    plane.held.read()
                    for fileno in whole.filenos():
                        whole.read(fileno)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        at_home.close()
        abroad.close()


def ping(net: Chain, home: Addr, size: int, *options: str, count: int = 3, known: bool = False) -> str:
    """The output of ping with packets of `size` bytes, IP header included.

    Unless the path is `known`, the correspondent forgets its MTU before.
    """
    data = size - (28 if home.version == 4 else 48)
    command = f"nsenter --net={net.cn.path} ping -c {count} -i 0.2 -W 1 -s {data}".split()
    flush = "ip -6 route flush cache" if home.version == 6 else "ip route flush cache"
    if not known:
        net.cn.run(flush)
    found = run_process([*command, *options, str(home)], capture_output=True, text=True, check=False)
    return (found.stdout + found.stderr).replace("mtu: ", "mtu=").replace("mtu = ", "mtu=")


def fragmented(net: Chain, home: Addr, size: int) -> str:
    """The output of ping with packets that may be fragmented, once both ends know the MTU of their paths."""
    options = ("-M", "dont") if home.version == 4 else ()
    ping(net, home, size, *options, count=2)
    return ping(net, home, size, *options, known=True)


def grown(plane: DataPlane, before: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in plane.counters().items() if n != before[name]}


@pytest.mark.parametrize("outer", [4, 6])
def test_the_route_says_the_mtu(network: Planes, outer: int) -> None:
    """A locked route, or the MTU of a router advertisement, is narrower than the interface."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, outer)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    undo = "ip route del 10.2.0.2/32 dev ha1" if outer == 4 else "sysctl -qw net.ipv6.conf.ha1.mtu=1500"
    overhead = 20 if outer == 4 else 40
    if outer == 4:
        net.ha.run("ip route add 10.2.0.2/32 dev ha1 mtu lock 1400")
    else:
        net.ha.run("sysctl -qw net.ipv6.conf.ha1.mtu=1400")
    before = ha.counters()
    try:
        with serving(network):
            for home in (HOME4, HOME6):
                ping(net, home, 1400, "-M", "do", count=1)  # answered with the next smaller MTU of the tables
                deadline = time.monotonic() + 10
                while 1400 - overhead not in ha._mtu_routes.mtus and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert f"mtu={1400 - overhead}" in ping(net, home, 1440, "-M", "do")
                assert "3 received" in ping(net, home, 1400 - overhead, "-M", "do")
                assert "3 received" in fragmented(net, home, 1500)
    finally:
        net.ha.run(undo)
    assert not {r: n for r, n in grown(ha, before).items() if r == "too-large"}


def test_answered_while_no_daemon_runs(network: Planes) -> None:
    """The MTU that is told is one of those that have a route: never more than the path takes."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    net.ha.run("ip route add 10.2.0.2/32 dev ha1 mtu lock 1390")
    before = ha.counters()
    try:
        answered = max(mtu for mtu in ha._mtu_routes.mtus if mtu <= 1370)
        assert answered < 1370
        assert f"mtu={answered}" in ping(net, HOME4, 1440, "-M", "do", count=1)
        assert "3 received" in fragmented(net, HOME4, 1440)
    finally:
        net.ha.run("ip route del 10.2.0.2/32 dev ha1")
    assert not grown(ha, before)


@pytest.mark.parametrize("outer", [4, 6])
def test_minimal_packets_over_a_minimal_path(network: Planes, outer: int) -> None:
    """RFC 2473 section 7.1: an IPv6 packet of 1280 bytes is never refused; the tunnel packet leaves in fragments."""
    net, ha, fa = network
    to_foreign, to_home = tunnels(Encapsulation.GRE if outer == 6 else Encapsulation.IPIP, outer)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    links = ((net.ha, "ha1", ha), (net.fa, "fa0", fa))
    for space, device, plane in links:
        space.run(f"ip link set {device} mtu 1280")
        with space.inside():
            plane.refresh()
    before = ha.counters()
    try:
        with serving(network):
            assert "3 received" in ping(net, HOME6, 1280, "-M", "do")
            assert "mtu=1280" in ping(net, HOME6, 1400, "-M", "do")
            assert "3 received" in fragmented(net, HOME6, 1500)
            received = datagrams(net, HOME6, bytes(range(200)) * 6)  # its checksum is unfinished at the veth
            assert received == bytes(range(200)) * 6
    finally:
        for space, device, plane in links:
            space.run(f"ip link set {device} mtu 1500")
            with space.inside():
                plane.refresh()
    changed = grown(ha, before)
    assert changed.pop("sent-in-fragments") >= 7
    assert set(changed) <= {"tunnel-fragment"}, changed


def datagrams(net: Chain, home: Addr, payload: bytes) -> bytes:
    """Send a datagram from the correspondent; returns the one that the mobile node receives."""
    with net.mn.inside():
        ear = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with ear, mouth:
        ear.bind((str(home), 7001))
        ear.settimeout(10)
        mouth.sendto(payload, (str(home), 7001))
        return ear.recv(4096)


def test_simultaneous_tunnels_of_different_size(network: Planes) -> None:
    """A packet that one of the tunnels does not take is refused before any copy leaves."""
    net, ha, fa = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    other, _ = tunnels(Encapsulation.GRE, 6)
    both = BindingEntry(HOME4, ForwardingVerdict.ENCAPSULATE, (to_foreign, other))
    six = TunnelAcceptance(other.source, HOME4, Side.TO_HOME_ADDRESS, "fa1", HOME4, gre_key=77)
    foreign: list[Action] = [*foreign_actions(to_home), LocalEndpoint(other.destination), AcceptTunnel(six)]
    install(network, [*home_actions(to_foreign), InstallBinding(both)], foreign)
    before, copies = ha.counters(), fa.acceptance_counters(six).packets
    assert "mtu=1452" in ping(net, HOME4, 1480, "-M", "do", count=1)
    assert fa.acceptance_counters(six).packets == copies
    assert "3 received" in ping(net, HOME4, 1452, "-M", "do")
    assert "3 received" in fragmented(net, HOME4, 1480)
    assert fa.acceptance_counters(six).packets == copies + 3 + 2 * 5
    assert not grown(ha, before)


def quoting(mtu: int, tunnel: Tunnel, inner_destination: Addr, length: int = 1500, quoted: int = 64) -> bytes:
    """An ICMP error by a router about a packet in this tunnel."""
    inner = IP(src=str(CN4), dst=str(inner_destination), len=length - 20) / UDP() / Raw(bytes(40))
    outer = IP(src=str(tunnel.source), dst=str(tunnel.destination), proto=4, len=length, flags="DF", id=0)
    return bytes(ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(outer / inner)[:quoted]))


def test_an_error_narrows_its_own_path(network: Planes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only errors about packets that may have been sent are believed, for one destination, and for a time."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    elsewhere = Tunnel(HA4, ELSEWHERE)
    entry = InstallBinding(BindingEntry(OTHER, ForwardingVerdict.ENCAPSULATE, (elsewhere,)))
    install(network, [*home_actions(to_foreign), entry], foreign_actions(to_home))
    monkeypatch.setattr(paths, "PATH_MTU_AGE", 3.0)
    told: list[tuple[Addr, int]] = []
    ha.tell_path_mtus(lambda destination, mtu: told.append((destination, mtu)))
    cases = {
        "another home address": (quoting(1000, to_foreign, OTHER), Verdict.NO_TUNNEL),
        "no tunnel": (quoting(1000, Tunnel(HA4, CN4), HOME4), Verdict.NO_TUNNEL),
        "below the least": (quoting(551, to_foreign, HOME4), Verdict.TOO_SMALL),
        "a shorter packet": (quoting(1000, to_foreign, HOME4, 999), Verdict.IMPLAUSIBLE),
        "another packet": (bytes(ICMP(type=3, code=4, nexthopmtu=1000) / Raw(bytes(64))), Verdict.MALFORMED),
        "another device's": (quoting(1000, elsewhere, OTHER), Verdict.BELIEVED),
        "eight bytes of it": (quoting(1200, to_foreign, HOME4, quoted=28), Verdict.BELIEVED),
        "about a packet that left before": (quoting(1100, to_foreign, HOME4, 1400), Verdict.IMPLAUSIBLE),
        "no mtu at all": (quoting(0, to_foreign, HOME4, 1200), Verdict.BELIEVED),
    }
    with net.cn.inside():
        router = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with net.ha.inside():
        whole = Reassembly(ha.take_reassembled, ha.too_big)
    try:
        assert "mtu=1480" in ping(net, HOME4, 1500, "-M", "do", count=1)
        for name, (icmp, verdict) in cases.items():
            before = ha.counters()
            router.sendto(icmp, (str(HA4), 0))
            deadline = time.monotonic() + 10
            while not grown(ha, before) and time.monotonic() < deadline:
                with net.ha.inside():
                    for fileno in whole.filenos():
                        whole.read(fileno)
            assert grown(ha, before) == {verdict.value: 1}, name
            if name == "another device's":
                assert "mtu=1480" in ping(net, HOME4, 1500, "-M", "do", count=1)
                assert told == [(ELSEWHERE, 1000)]
        assert told == [(ELSEWHERE, 1000), (FA4, 1280), (FA4, 1006)]
        with serving(network):
            assert "mtu=986" in ping(net, HOME4, 1480, "-M", "do", count=2)
            assert "3 received" in ping(net, HOME4, 986, "-M", "do")
            deadline = time.monotonic() + 20
            while "3 received" not in ping(net, HOME4, 1480, "-M", "do"):
                assert time.monotonic() < deadline
    finally:
        router.close()
        whole.close()
        ha.tell_path_mtus(lambda _destination, _mtu: None)


def test_half_written_path_is_not_believed(network: Planes) -> None:
    """The place of an entry may be given to another destination while a program reads it: the seal does not fit then."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    table, key = ha._paths.table, maps.address(FA4)
    until = int((boot_time() + 600) * 1e9)
    ha._paths.uses.set(NARROW, True)
    try:
        table.put(key, maps.path(maps.address(ELSEWHERE), 700, until))
        assert "1 received" in ping(net, HOME4, 1400, "-M", "do", count=1)
        table.put(key, maps.path(key, 700, until))
        assert "mtu=" in ping(net, HOME4, 1400, "-M", "do", count=1), (
            "but for its seal it would have been believed"
        )
    finally:
        table.delete(key)


def test_errors_are_rationed(network: Planes) -> None:
    """A flood of errors that are believed costs no more than a few changes."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    sizes = range(900, 600, -1)
    with net.ha.inside():
        verdicts = [ha.too_big(quoting(size, to_foreign, HOME4, size + 1)[8:], size) for size in sizes]
        ha._paths._forget(FA4)
    assert verdicts.count(Verdict.TOO_MANY) > 200


def test_the_table_outlives_the_daemon(tmp_path: Path) -> None:
    """Path MTUs are in force before the next daemon has read them."""
    with chain(tmp_path) as net:
        ha = net.open(net.ha, "ha", ["ha0", "ha1"])
        try:
            to_foreign, _ = tunnels(Encapsulation.IPIP, 4)
            with net.ha.inside():
                ha.reconcile(home_actions(to_foreign))
                assert ha.too_big(quoting(1300, to_foreign, HOME4)[8:], 1300) is Verdict.BELIEVED
                ha.close()
                ha = net.open(net.ha, "ha", ["ha0", "ha1"])
                assert ha._paths.limit(FA4) == 1300
                assert ha.too_big(quoting(1200, to_foreign, HOME4)[8:], 1200) is Verdict.IMPLAUSIBLE
        finally:
            with net.ha.inside():
                ha.remove()
