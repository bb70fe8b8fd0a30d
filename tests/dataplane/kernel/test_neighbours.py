"""A data plane beside others in its namespace: other nodes, router advertisements, programs of somebody else."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.hooks import tcx
from locum.dataplane.kernel.hooks.clsact import PARENTS
from locum.lab.programs import foreign_program
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, LocalEndpoint, Verdict
from locum.roles.actions import Action
from tests.dataplane.namespaces import Namespace, bpffs, join

ROUTER_ADVERTISEMENT = 134
END = ip_address("10.2.0.200")
FEW = Limits(bindings=1024, flows=1024)


@dataclass(slots=True)
class Bench:
    """A host with two links to another one."""

    here: Namespace
    there: Namespace
    root: Path

    def open(self, name: str, *interfaces: str, tcx: bool = True) -> DataPlane:
        return DataPlane.open(name, interfaces, bpf_root=self.root, limits=FEW, tcx=tcx)

    def sysctl(self, name: str) -> str:
        return self.here.run(f"sysctl -n {name}").strip()

    def routes(self, device: str) -> list[str]:
        lines = self.here.run("ip route show table all").splitlines()
        return [line for line in lines if f"default dev {device} table" in line]

    def rules(self) -> list[str]:
        return [line for line in self.here.run("ip rule").splitlines() if "fwmark" in line]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(tmp_path / "bpf"))
        here, there = Namespace("nb"), Namespace("nb-other")
        stack.callback(here.remove)
        stack.callback(there.remove)
        for link in ("out0", "lan0"):
            join(here, link, there, f"{link}p")
        here.run("ip addr add 10.2.0.200/24 dev out0")
        for setting in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            here.run(f"sysctl -qw net.{setting}=0")
        yield Bench(here, there, root)


def binding(home_address: str) -> list[Action]:
    tunnel = Tunnel(END, ip_address("10.3.0.1"))
    entry = BindingEntry(ip_address(home_address), Verdict.ENCAPSULATE, (tunnel,))
    return [LocalEndpoint(END), InstallBinding(entry)]


def test_nodes_of_a_namespace_keep_apart(bench: Bench) -> None:
    """Tables, marks, rules and MTU are a node's own; the first to end leaves the other's, the last leaves none."""
    bench.here.run("sysctl -qw net.ipv4.conf.lan0.rp_filter=1 net.ipv4.conf.lan0.forwarding=1")
    bench.here.run("ip link set out0 mtu 1400")
    with bench.here.inside():
        first = bench.open("first", "out0")
        first.apply(binding("10.9.0.1"))
        mine = bench.routes("lc-first")
        assert any("mtu lock 1380" in route for route in mine)
        second = bench.open("second", "lan0")
        second.apply(binding("10.9.0.2"))
        assert (first.number, second.number) == (0, 1)
        assert bench.routes("lc-first") == mine
        assert any("mtu lock 1480" in route for route in bench.routes("lc-second"))
        first.remove()
        assert bench.sysctl("net.ipv4.ip_forward") == bench.sysctl("net.ipv6.conf.all.forwarding") == "1"
        assert bench.sysctl("net.ipv4.conf.lan0.rp_filter") == "0"
        assert bench.rules() and all("fwmark 0x10c001" in rule for rule in bench.rules())
        again = bench.open("first", "out0")
        assert again.number == 0
        again.remove()
        second.remove()
    assert bench.sysctl("net.ipv4.ip_forward") == bench.sysctl("net.ipv6.conf.all.forwarding") == "0"
    assert (
        bench.sysctl("net.ipv4.conf.lan0.rp_filter") == bench.sysctl("net.ipv4.conf.lan0.forwarding") == "1"
    )
    assert not bench.rules()


def test_node_of_an_earlier_version_keeps_its_number(bench: Bench) -> None:
    """Its device has no number, and its tables are those of number 0; its successor replaces its rules."""
    with bench.here.inside():
        older = bench.open("older", "out0")
        older.apply(binding("10.9.0.1"))
        bench.here.run("ip link property del dev lc-older altname locum-node-0")
        rules = bench.rules()
        for rule in rules:
            bench.here.run("ip rule del pref 100")
            bench.here.run(f"ip rule add pref 100 {rule.split('all ')[1]}")
        newer = bench.open("newer", "lan0")
        newer.apply(binding("10.9.0.2"))
        assert newer.number == 1
        newer.remove()
        assert sorted(bench.rules()) == sorted(rules)
        older.close()
        successor = bench.open("older", "out0")
        assert successor.number == 0
        assert sorted(bench.rules()) == sorted(rules)
        assert "proto kernel" in bench.here.run("ip -details rule")
        successor.remove()
    assert not bench.rules()


def test_router_advertisements_count_when_forwarding_begins(bench: Bench) -> None:
    """The default route that was learnt stays, and later advertisements count; afterwards all is as it was."""
    bench.there.run("sysctl -qw net.ipv6.conf.out0p.forwarding=1")

    def advertise(lifetime: int) -> None:
        with (
            bench.there.inside(),
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender,
        ):
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            message = struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, lifetime, 0, 0)
            sender.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("out0p")))

    def default() -> bool:
        return "default" in bench.here.run("ip -6 route show default")

    def advertised(lifetime: int) -> bool:
        """True if the host does as the advertisement says; a link that has just come up is given some time."""
        deadline = time.monotonic() + 20
        while default() != (lifetime > 0) and time.monotonic() < deadline:
            with suppress(OSError):
                advertise(lifetime)
            time.sleep(0.1)
        return default() == (lifetime > 0)

    bench.here.run("sysctl -qw net.ipv6.conf.lan0.accept_ra=0")
    assert advertised(1800)
    with bench.here.inside():
        plane = bench.open("router", "out0")
        assert bench.sysctl("net.ipv6.conf.all.forwarding") == "1"
        assert default()
        assert bench.sysctl("net.ipv6.conf.out0.accept_ra") == "2"
        assert bench.sysctl("net.ipv6.conf.lan0.accept_ra") == "0"
        assert advertised(0) and advertised(1800)
        bench.here.run("sysctl -qw net.ipv6.conf.default.accept_ra=0")  # by a program that reads them itself
        assert not list(plane.sysctls.lost())
        bench.here.run("sysctl -qw net.ipv6.conf.out0.accept_ra=1")
        assert list(plane.sysctls.lost()) == ["net/ipv6/conf/out0/accept_ra"]
        plane.sysctls.again("net/ipv6/conf/out0/accept_ra")
        plane.remove()
    assert bench.sysctl("net.ipv6.conf.out0.accept_ra") == "1"
    assert bench.sysctl("net.ipv6.conf.default.accept_ra") == "0"
    assert default()


def test_foreign_programs_stand_behind(bench: Bench) -> None:
    """A program that comes before ours, or takes ours off, is noticed; ours comes back before it, in both directions."""
    with bench.here.inside():
        plane = bench.open("node", "out0")
        index = plane._attachments.interfaces["out0"]
        assert not list(plane.displaced())
        for direction, kind in (("ingress", tcx.INGRESS), ("egress", tcx.EGRESS)):
            ours = tcx.order(index, kind)[0].program
            foreign_program.attach_first(foreign_program.load(b"foreign"), index, kind)
            (displaced,) = plane.displaced()
            assert (displaced.interface, displaced.direction) == ("out0", direction)
            assert displaced.behind[0].startswith("program foreign (")
            assert plane.put_back(displaced)
            found = tcx.order(index, kind)
            assert len(found) == 2 and found[0].program == ours
            bench.here.run(f"bpftool link detach id {found[0].link}")
            (displaced,) = plane.displaced()
            assert not displaced.behind
            assert plane.put_back(displaced)
            assert tcx.order(index, kind)[0].program == ours
            assert not list(plane.displaced())
        second = bench.open("second", "out0")  # whose programs are no strangers
        assert not list(plane.displaced()) and not list(second.displaced())
        second.remove()
        plane.remove()


def test_foreign_filters_stand_behind(bench: Bench) -> None:
    """The same for clsact; filters of others, with our number, too, are left alone."""
    with bench.here.inside(), IPRoute() as route:
        foreign = foreign_program.load(b"foreign")
        index = route.link_lookup(ifname="out0")[0]

        def add(preference: int, handle: int = 1) -> None:
            route.tc(
                "add-filter", "bpf", index=index, handle=handle, prio=preference, fd=foreign, name="foreign",
                parent=PARENTS["ingress"], direct_action=True,
            )  # fmt: skip

        def order() -> list[str]:
            lines = bench.here.run("tc filter show dev out0 ingress").splitlines()
            return [line.split("handle")[1].split()[1] for line in lines if "handle" in line]

        route.tc("add", "clsact", index=index)
        add(434)
        plane = bench.open("node", "out0", tcx=False)
        assert order() == ["locum_ingress", "foreign"]
        for preference in (200, 1):
            add(preference)
            (displaced,) = plane.displaced()
            assert displaced.behind == (f"bpf filter foreign, preference {preference}",)
            assert plane.put_back(displaced)
            assert order()[0] == "locum_ingress" and order().count("locum_ingress") == 1
            assert not list(plane.displaced())
        bench.here.run("tc qdisc del dev out0 clsact")
        both = list(plane.displaced())
        assert [displaced.direction for displaced in both] == ["ingress", "egress"]
        assert all(plane.put_back(displaced) for displaced in both)
        assert order() == ["locum_ingress"]
        route.tc(
            "add-filter", "bpf", index=index, handle=1, prio=1, fd=foreign, name="of IPv4", protocol=0x0800,
            parent=PARENTS["egress"], direct_action=True,
        )  # fmt: skip
        (displaced,) = plane.displaced()
        assert plane.put_back(displaced)  # nothing can go before it
        assert [found.direction for found in plane.displaced()] == ["egress"]
        second = bench.open("second", "out0", tcx=False)
        second.remove()
        assert order() == ["locum_ingress"]
        plane.remove()
        assert order() == []
        assert "of IPv4" in bench.here.run("tc filter show dev out0 egress")
