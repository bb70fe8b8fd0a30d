"""TCP through tunnels across routers that drop large packets and tell nothing: it stalls, and with probes it does not.

cn - ha - one - other - fa - mn: the link between the two routers is narrow, and nftables drops their "fragmentation needed" and
"packet too big".
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from threading import Event, Thread

import pytest

from locum.dataplane import DataPlane
from locum.dataplane.kernel.reassembly import Reassembly
from locum.dataplane.mtu import search
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from tests.dataplane.chain import (
    CN4,
    CN6,
    HA4,
    HA6,
    HOME4,
    HOME6,
    Chain,
    foreign_actions,
    home_actions,
)
from tests.dataplane.namespaces import Namespace, bpffs, join

NARROW = 1400
FAR4, FAR6 = ip_address("10.5.0.2"), ip_address("fd05::2")
CORRESPONDENTS = {4: CN4, 6: CN6}
HOMES = {4: HOME4, 6: HOME6}
DATA = bytes(range(256)) * 1200
STALLED = 0.5  # seconds without a byte
PATIENCE = 60.0  # seconds
TUNNELS = {
    "ipip4": (Tunnel(HA4, FAR4), Tunnel(FAR4, HA4)),
    "gre6": (
        Tunnel(HA6, FAR6, Encapsulation.GRE, gre_key=77),
        Tunnel(FAR6, HA6, Encapsulation.GRE, gre_key=77),
    ),
    "udp4": (Tunnel(HA4, FAR4, Encapsulation.UDP, 434, 434), Tunnel(FAR4, HA4, Encapsulation.UDP, 434, 434)),
}
MINIMAL = ("sent-in-fragments", "tunnel-fragment")  # while a search is at 1280 bytes: RFC 2473 section 7.1
EACH_TIME = {("ipip4", "to the device"), ("gre6", "to the device"), ("udp4", "from the device")}


@dataclass(slots=True)
class Far(Chain):
    """The chain with two routers between the agents."""

    one: Namespace
    other: Namespace

    def wire(self) -> None:
        join(self.cn, "cn0", self.ha, "ha0")
        join(self.ha, "ha1", self.one, "one0")
        join(self.one, "one1", self.other, "other0", NARROW)
        join(self.other, "other1", self.fa, "fa0")
        join(self.fa, "fa1", self.mn, "mn0")
        for space, device, v4, v6 in (
            (self.cn, "cn0", "10.1.0.2/24", "fd01::2/64"),
            (self.ha, "ha0", "10.1.0.1/24", "fd01::1/64"),
            (self.ha, "ha1", "10.2.0.1/24", "fd02::1/64"),
            (self.one, "one0", "10.2.0.3/24", "fd02::3/64"),
            (self.one, "one1", "10.4.0.1/24", "fd04::1/64"),
            (self.other, "other0", "10.4.0.2/24", "fd04::2/64"),
            (self.other, "other1", "10.5.0.1/24", "fd05::1/64"),
            (self.fa, "fa0", "10.5.0.2/24", "fd05::2/64"),
            (self.fa, "fa1", "10.3.0.1/24", "fd03::1/64"),
            (self.mn, "lo", "10.9.0.5/32", "fd09::5/128"),
        ):
            space.run(f"ip addr add {v4} dev {device}")
            space.run(f"ip addr add {v6} dev {device} nodad")
        for space, v4, v6 in (
            (self.cn, "10.1.0.1", "fd01::1"),
            (self.ha, "10.2.0.3", "fd02::3"),
            (self.one, "10.4.0.2", "fd04::2"),
            (self.other, "10.4.0.1", "fd04::1"),
            (self.fa, "10.5.0.1", "fd05::1"),
        ):
            space.run(f"ip route add default via {v4}")
            space.run(f"ip -6 route add default via {v6}")
        for router in (self.one, self.other):
            router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
            router.run("nft add table inet hole")
            router.run("nft add chain inet hole out { type filter hook output priority 0 ; }")
            router.run("nft add rule inet hole out icmp type destination-unreachable icmp code 4 drop")
            router.run("nft add rule inet hole out icmpv6 type packet-too-big drop")
        self.one.run("ip route add 10.1.0.0/24 via 10.2.0.1")
        self.one.run("ip -6 route add fd01::/64 via fd02::1")
        self.attach()
        for end in (self.cn, self.mn):  # the ends have no such mend of their own
            end.run("sysctl -qw net.ipv4.tcp_mtu_probing=0")


Planes = tuple[Far, DataPlane, DataPlane]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(tmp_path_factory.mktemp("bpf")))
        spaces = {}
        for label in ("cn", "ha", "fa", "mn", "one", "other"):
            spaces[label] = Namespace(label)
            stack.callback(spaces[label].remove)
        net = Far(**spaces, root=root)
        net.wire()
        ha = net.open(net.ha, "ha", ["ha0", "ha1"])
        fa = net.open(net.fa, "fa", ["fa0", "fa1"])
        try:
            yield net, ha, fa
        finally:
            for space, plane in ((net.ha, ha), (net.fa, fa)):
                with space.inside():
                    plane.remove()


@contextmanager
def serving(network: Planes) -> Iterator[Callable[[Callable[[], object]], None]]:
    """The daemons of both agents, in one thread; yields a function that has it call another one inside the home agent."""
    net, ha, fa = network
    ended, orders = Event(), SimpleQueue[Callable[[], object]]()
    agents = []
    for space, plane in ((net.ha, ha), (net.fa, fa)):
        with space.inside():
            agents.append((space, plane, Reassembly(plane.take_reassembled, plane.too_big)))

    def serve() -> None:
        while not ended.wait(0.005):
            for space, plane, whole in agents:
                with space.inside():
                    plane.held.read()
                    for fileno in whole.filenos():
                        whole.read(fileno)
                    for fileno in plane.probes.filenos():
                        plane.probes.read(fileno)
                    plane.probes.serve()
            try:
                orders.get_nowait()()
            except Empty:
                continue

    thread = Thread(target=serve)
    thread.start()
    try:
        yield orders.put
    finally:
        ended.set()
        thread.join()
        for _, plane, whole in agents:
            whole.close()
            plane.probes.close()


def connected(net: Chain, home: Addr) -> tuple[socket.socket, socket.socket]:
    """A TCP connection of the mobile node with the correspondent: their sockets."""
    family = socket.AF_INET if home.version == 4 else socket.AF_INET6
    with net.cn.inside(), socket.socket(family) as listener:
        listener.bind((str(CORRESPONDENTS[home.version]), 0))
        listener.listen()
        with net.mn.inside():
            there = socket.socket(family)
        there.bind((str(home), 0))
        there.settimeout(PATIENCE)
        there.connect(listener.getsockname()[:2])
        here, _ = listener.accept()
    return there, here


@pytest.mark.parametrize(
    ("kind", "direction"),
    [
        pytest.param(kind, direction, marks=() if (kind, direction) in EACH_TIME else pytest.mark.exhaustive)
        for kind in TUNNELS
        for direction in ("to the device", "from the device")
    ],
)
def test_tcp_across_a_black_hole(
    network: Planes, kind: str, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same connection stalls without probes, and goes on as soon as its tunnel's entry point sends some."""
    monkeypatch.setattr(search, "FIRST_TIMER", 0.15)
    monkeypatch.setattr(search, "LEAST_TIMER", 0.15)
    net, ha, fa = network
    to_foreign, to_home = TUNNELS[kind]
    with net.ha.inside():
        ha.reconcile(home_actions(to_foreign))
    with net.fa.inside():
        fa.reconcile(foreign_actions(to_home))
    for space in (net.cn, net.mn):
        space.run("ip route flush cache")
        space.run("ip -6 route flush cache")
    down = direction == "to the device"
    plane, space, tunnel = (ha, net.ha, to_foreign) if down else (fa, net.fa, to_home)
    before = [agent.counters() for agent in (ha, fa)]

    def probe() -> None:
        with space.inside():
            plane.probes.open()

    with serving(network) as order:
        there, here = connected(net, HOMES[tunnel.destination.version])
        sender, receiver = (here, there) if down else (there, here)
        sending = Thread(target=sender.sendall, args=(DATA,), daemon=True)
        sending.start()
        received = bytearray()
        receiver.settimeout(STALLED)
        try:
            with pytest.raises(TimeoutError):
                while len(received) < len(DATA):
                    received += receiver.recv(1 << 16)
            assert plane.narrow_paths == {}
            order(probe)
            receiver.settimeout(PATIENCE)
            while len(received) < len(DATA):
                data = receiver.recv(1 << 16)
                assert data
                received += data
            assert received == DATA
            deadline = time.monotonic() + PATIENCE
            while set(plane.probes.probing.states()) != {"search-complete"}:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert NARROW - search.COARSE < plane.narrow_paths[tunnel.destination] <= NARROW
        finally:
            sender.close()
            receiver.close()
            with space.inside():
                plane._paths.forget(tunnel.destination)
                plane._mtu_routes.widen(tunnel.destination)
    grown = {
        name
        for agent, past in zip((ha, fa), before, strict=True)
        for name, number in agent.counters().items()
        if number != past[name]
    }
    assert grown <= {"path-probes-sent", "path-probes-answered", *MINIMAL}
