"""cn - ha - fa - mn, MTU 1500: the mobile node has only its home addresses, on lo, as with a foreign agent CoA."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from locum.dataplane import DataPlane
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
from tests.dataplane.namespaces import Namespace, bpffs, join

HOME4, HOME6 = ip_address("10.9.0.5"), ip_address("fd09::5")
CN4, CN6 = ip_address("10.1.0.2"), ip_address("fd01::2")
HA4, HA6 = ip_address("10.2.0.1"), ip_address("fd02::1")
FA4, FA6 = ip_address("10.2.0.2"), ip_address("fd02::2")


@dataclass(slots=True)
class Chain:
    """The four namespaces and the data planes of the two in the middle."""

    cn: Namespace
    ha: Namespace
    fa: Namespace
    mn: Namespace
    root: Path

    def wire(self) -> None:
        join(self.cn, "cn0", self.ha, "ha0")
        join(self.ha, "ha1", self.fa, "fa0")
        join(self.fa, "fa1", self.mn, "mn0")
        for space, device, address in (
            (self.cn, "cn0", "10.1.0.2/24"),
            (self.cn, "cn0", "fd01::2/64"),
            (self.ha, "ha0", "10.1.0.1/24"),
            (self.ha, "ha0", "fd01::1/64"),
            (self.ha, "ha1", "10.2.0.1/24"),
            (self.ha, "ha1", "fd02::1/64"),
            (self.fa, "fa0", "10.2.0.2/24"),
            (self.fa, "fa0", "fd02::2/64"),
            (self.fa, "fa1", "10.3.0.1/24"),
            (self.fa, "fa1", "fd03::1/64"),
            (self.mn, "lo", "10.9.0.5/32"),
            (self.mn, "lo", "fd09::5/128"),
        ):
            nodad = " nodad" if ":" in address else ""
            space.run(f"ip addr add {address} dev {device}{nodad}")
        self.cn.run("ip route add default via 10.1.0.1")
        self.cn.run("ip -6 route add default via fd01::1")
        self.fa.run("ip route add default via 10.2.0.1")
        self.fa.run("ip -6 route add default via fd02::1")
        self.attach()

    def attach(self) -> None:
        """Routes between the foreign agent and the mobile node at its link."""
        self.fa.run("ip route add 10.9.0.5 dev fa1")
        self.fa.run("ip -6 route add fd09::5 dev fa1")
        # IPv6 answers for an address only on its own interface, and the home address is on lo: as NeighbourEntry does.
        hardware = self.mn.run("ip -o link show mn0").split("link/ether ")[1].split()[0]
        self.fa.run(f"ip -6 neigh add fd09::5 lladdr {hardware} dev fa1 nud permanent")
        self.mn.run("ip route add 10.3.0.1 dev mn0")
        self.mn.run("ip route add default via 10.3.0.1 dev mn0 src 10.9.0.5")
        self.mn.run("ip -6 route add fd03::1 dev mn0")
        self.mn.run("ip -6 route add default via fd03::1 dev mn0 src fd09::5")

    def open(self, space: Namespace, name: str, interfaces: list[str], *, tcx: bool = True) -> DataPlane:
        with space.inside():
            return DataPlane.open(name, interfaces, bpf_root=self.root, tcx=tcx)


def tunnels(encapsulation: Encapsulation, outer: int) -> tuple[Tunnel, Tunnel]:
    """(HA to FA, FA to HA), with an outer header of this family."""
    ha, fa = (HA4, FA4) if outer == 4 else (HA6, FA6)
    port = 434 if encapsulation is Encapsulation.UDP else 0
    key = 77 if encapsulation is Encapsulation.GRE and outer == 6 else None
    return Tunnel(ha, fa, encapsulation, port, port, key), Tunnel(fa, ha, encapsulation, port, port, key)


def home_actions(tunnel: Tunnel, verdict: Verdict = Verdict.ENCAPSULATE) -> list[Action]:
    """Actions of a home agent for both home addresses."""
    actions: list[Action] = [LocalEndpoint(tunnel.source)]
    for home in (HOME4, HOME6):
        accepted = TunnelAcceptance(tunnel.destination, home, Side.FROM_HOME_ADDRESS, gre_key=tunnel.gre_key)
        actions.append(AcceptTunnel(accepted))
        actions.append(
            InstallBinding(BindingEntry(home, verdict, (tunnel,) if verdict is Verdict.ENCAPSULATE else ()))
        )
    return actions


def foreign_actions(tunnel: Tunnel) -> list[Action]:
    """Actions of a foreign agent for both."""
    actions: list[Action] = [LocalEndpoint(tunnel.source)]
    for home in (HOME4, HOME6):
        accepted = TunnelAcceptance(
            tunnel.destination, home, Side.TO_HOME_ADDRESS, "fa1", home, gre_key=tunnel.gre_key
        )
        actions.append(AcceptTunnel(accepted))
        actions.append(InstallOutbound(OutboundEntry(home, "fa1", tunnel)))
    return actions


@contextmanager
def chain(directory: Path) -> Iterator[Chain]:
    """The network, wired; everything is removed afterwards."""
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(directory))
        spaces = []
        for label in ("cn", "ha", "fa", "mn"):
            space = Namespace(label)
            stack.callback(space.remove)
            spaces.append(space)
        cn, ha, fa, mn = spaces
        network = Chain(cn, ha, fa, mn, root)
        network.wire()
        yield network


Planes = tuple[Chain, DataPlane, DataPlane]


@contextmanager
def planes(directory: Path) -> Iterator[Planes]:
    """The network with the data planes at `ha` and `fa`, in this order; everything is removed afterwards."""
    with chain(directory) as net:
        ha = net.open(net.ha, "ha", ["ha0", "ha1"])
        fa = net.open(net.fa, "fa", ["fa0", "fa1"])
        try:
            yield net, ha, fa
        finally:
            for space, plane in ((net.ha, ha), (net.fa, fa)):
                with space.inside():
                    plane.remove()


def install(network: Planes, home: list[Action], foreign: list[Action]) -> None:
    """Make these the whole state of the two data planes."""
    net, ha, fa = network
    with net.ha.inside():
        ha.reconcile(home)
    with net.fa.inside():
        fa.reconcile(foreign)
