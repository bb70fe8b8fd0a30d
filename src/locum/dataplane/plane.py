"""The data plane of a node: applies forwarding actions to the kernel. Opens or adopts pinned maps.

Everything the kernel needs is pinned under <bpf_root>/locum/<node>/, so that packets flow while no daemon runs. The
object is not thread safe; it belongs to the thread of the node's event loop and never blocks there.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from pyroute2 import IPRoute

from locum.dataplane.held_packets import HeldPackets
from locum.dataplane.hold import HeldPacket
from locum.dataplane.kernel.attach import Attachments, check_bpffs, pin_name
from locum.dataplane.kernel.device import Reinjection
from locum.dataplane.kernel.groups import GroupTable
from locum.dataplane.kernel.libbpf import DataPlaneError, Object
from locum.dataplane.kernel.network import MtuRoutes, Sysctls, smallest_mtu
from locum.dataplane.kernel.pin_directory import discard_directory, make_directory, remove_directory
from locum.dataplane.kernel.route_socket import RouteSocket
from locum.dataplane.kernel.rule_tables import EndedRule
from locum.dataplane.kernel.services import ServiceTable
from locum.dataplane.kernel.settings import Uses
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.kernel.translation import TranslationTable
from locum.dataplane.layout import maps
from locum.dataplane.layout import rules as rule_layout
from locum.dataplane.layout.rules import Place
from locum.dataplane.limits import Limits
from locum.dataplane.model.explain import Explanation, Question, explain
from locum.dataplane.performer import Performer
from locum.dataplane.state import ForwardingState, difference, state_of
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import FilterPlace
from locum.roles.action_values.forwarding import OutboundEntry, TunnelAcceptance
from locum.roles.actions import Action
from locum.wire.control import Flow

OBJECT = Path(__file__).parent / "objects" / "locum.bpf.o"


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes made by a reconciliation."""

    actions: tuple[Action, ...]

    def __bool__(self) -> bool:
        return bool(self.actions)


class DataPlane:
    """See the module. Make one with `open`; end with `close` (restart) or `remove` (for good)."""

    def __init__(
        self, node: str, directory: Path, limits: Limits, *, forwarding: bool, tcx: bool, route: IPRoute
    ) -> None:
        self.node = node
        self._directory = directory
        self._route = route
        self._released = False
        self.adopted = (directory / "maps" / "bindings").exists()  # an earlier daemon's state was taken over
        make_directory(directory)
        names = {direction: f"locum_{direction}" for direction in ("ingress", "egress")}
        self._object = Object(
            OBJECT,
            limits.sizes(),
            directory / "maps",
            programs=tuple(names.values()),
            needed=maps.FIXED_TABLES,
        )
        programs = {direction: self._object.program(name) for direction, name in names.items()}
        self._attachments = Attachments(directory / "links", programs, route, tcx=tcx)
        self._sysctls = Sysctls(self._object.maps["found_sysctls"])
        if forwarding:
            self._sysctls.forward()
        # Routes of outer packets are looked up from lo.
        self._sysctls.set("net/ipv4/conf/lo/forwarding", "1")
        self._device = Reinjection(node, route)
        self._uses = Uses(self._object.maps["settings"])
        self._prepare_device()
        self._tables = Tables(
            self._object.maps,
            self._attachments.find,
            lambda place, used: self._uses.set(rule_layout.uses(place), used),
        )
        self._translations = TranslationTable(self._object.maps, self._uses)
        self._groups = GroupTable(self._object.maps, self._uses, self._attachments.find_with_address)
        self._services = ServiceTable(self._object.maps)
        self._mtu_routes = MtuRoutes(route, self._device.ifindex)
        self._held = HeldPackets(self._object.maps["held"], self._device, self._tables, limits)
        self._performer = Performer(
            self._tables,
            self._translations,
            self._groups,
            self._services,
            self._mtu_routes,
            self._sysctls,
            self._held,
        )
        if self.adopted:
            self._adopt()

    @classmethod
    def open(
        cls,
        node: str,
        interfaces: Sequence[str],
        *,
        bpf_root: Path,
        limits: Limits | None = None,
        forwarding: bool = True,
        tcx: bool = True,
    ) -> Self:
        """Load the programs, or take over pinned ones, and attach to `interfaces` (those that exist).

        `forwarding` makes the host a router; `tcx=False` uses clsact. Raises DataPlaneError, in one line.
        """
        check_bpffs(bpf_root)
        route = cast(IPRoute, RouteSocket())
        directory = bpf_root / "locum" / pin_name(node)
        existed = directory.exists()
        try:
            plane = cls(node, directory, limits or Limits(), forwarding=forwarding, tcx=tcx, route=route)
        except (DataPlaneError, PermissionError) as error:
            route.close()
            if not existed:
                discard_directory(directory)
            if isinstance(error, DataPlaneError):
                raise
            raise DataPlaneError(f"{error.filename}: not permitted; the data plane needs root") from error
        try:
            for interface in plane._attachments.known() - set(interfaces) - {plane._device.name}:
                plane.detach(interface)
            for interface in interfaces:
                if plane._attachments.find(interface) is not None:
                    plane.attach(interface)
        except DataPlaneError:
            if plane.adopted:
                plane.close()
            else:
                plane.remove()
            raise
        return plane

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # Start and end

    def _prepare_device(self) -> None:
        name, index = self._device.name, self._device.ifindex
        for setting in ("accept_ra", "autoconf", "accept_dad"):
            self._sysctls.set(f"net/ipv6/conf/{name}/{setting}", "0")
        self._sysctls.set(f"net/ipv6/conf/{name}/addr_gen_mode", "1")
        self._sysctls.set(f"net/ipv4/conf/{name}/accept_local", "1")
        self._sysctls.loosen(name)
        self._uses.device(index)
        self._attachments.attach(name)
        self._route.link("set", index=index, state="up")

    def _names(self) -> dict[int, str]:
        return {link["index"]: link.get_attr("IFLA_IFNAME") for link in self._route.get_links()}

    def _adopt(self) -> None:
        self._tables.adopt(self._names())
        self._groups.adopt()
        for tunnel in self._tables.state.tunnels():
            self._performer.need(tunnel)

    def close(self) -> None:
        """Let go, and leave everything forwarding."""
        if not self._released:
            self._released = True
            self._held.close()
            self._device.close()
            self._object.close()
            self._route.close()

    def remove(self) -> None:
        """Leave the network as it was found: programs, pins, device, rules and sysctls are gone."""
        if self._released:
            return
        self._released = True
        for interface in self._attachments.known():
            self._attachments.detach(interface)
        self._mtu_routes.remove()
        self._device.remove()
        self._sysctls.restore()
        self._held.close()
        self._object.close()
        remove_directory(self._directory)
        self._route.close()

    # Interfaces

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Attached interfaces, without the re-injection device."""
        return tuple(name for name in self._attachments.interfaces if name != self._device.name)

    def attach(self, interface: str) -> None:
        """Put the programs on an interface, which may have come back with another index. Raises DataPlaneError."""
        before = self._attachments.interfaces.get(interface)
        index = self._attachments.attach(interface)
        self._sysctls.loosen(interface)
        if before != index:
            self._tables.link_changed(interface)
            self._groups.link_changed(self._tables.state, interface)
        self.refresh()

    def serve_visitors(self, links: Collection[str]) -> None:
        """Access links: tunnel packets to home addresses that arrive there are dropped as "from-access-link"."""
        self._tables.serve_visitors(links)

    def detach(self, interface: str) -> None:
        """Take them off; works as well when the interface is gone."""
        self._attachments.detach(interface)
        self._sysctls.restore(f"/{interface}/")
        self.refresh()

    def refresh(self) -> None:
        """Read the attached interfaces' addresses and MTUs again; to be called when they change."""
        addresses: set[Addr] = set()
        for index in self._present():
            for message in self._route.get_addr(index=index):
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                addresses.add(ip_address(text))
        addresses = {address for address in addresses if not address.is_multicast}  # groups that were joined
        self._tables.set_own(addresses)
        self._mtu_routes.set_mtu(smallest_mtu(self._route, self._present()))

    def path_mtu(self, destination: Addr, mtu: int) -> None:
        """Limit packets to the far end of a tunnel to `mtu` bytes; `refresh` removes the limit in time."""
        if any(tunnel.destination == destination for tunnel in self._tables.state.tunnels()):
            self._mtu_routes.path_mtu(destination, mtu)

    def _present(self) -> list[int]:
        there = set(self._names())
        device = self._device.ifindex
        return [i for i in self._attachments.interfaces.values() if i in there and i != device]

    # Actions

    def apply(self, actions: Iterable[Action]) -> None:
        """Perform the forwarding actions in their order; other actions are left alone. Raises DataPlaneError."""
        self._performer.apply(actions)

    def reconcile(self, desired: Iterable[Action]) -> Changes:
        """Make the kernel's state match `desired`; counters of unchanged entries are kept."""
        actions = difference(self._tables.state, state_of(desired))
        self.apply(actions)
        self.refresh()
        return Changes(tuple(actions))

    def snapshot(self) -> ForwardingState:
        """The kernel's state, read from its maps."""
        return self._tables.read(self._names())

    @property
    def state(self) -> ForwardingState:
        """The written state, without reading it back."""
        return self._tables.state

    # Held packets

    def fileno(self) -> int:
        """Readable when packets were held or reported."""
        return self._held.fileno()

    def read_openings(self) -> list[bytes]:
        """SYNs to watched ports since the last call, from their IP headers on; `inject` accepted ones."""
        return self._held.read_openings()

    def read_held(self) -> list[HeldPacket]:
        """Move packets from the kernel into the queue; returns the new ones."""
        return self._held.read()

    def release(self, of: Addr | Flow, *, ahead: bool = False) -> int:
        """Put the held packets of a home address or flow, which are now allowed, into the kernel, in order.

        With `ahead` those of a home address that are not allowed yet as well, while newcomers still wait.
        """
        return self._held.release(of, ahead=ahead)

    def divert(self, flow: Flow, take: Callable[[bytes], None] | None) -> None:
        """Give the held packets of this flow, from the IP header on, to a function instead of the queue; None: no more."""
        self._held.divert(flow, take)

    def inject(self, packet: bytes) -> None:
        """Put a packet (from its IP header on) into the kernel as if it had arrived; it is not held."""
        self._held.inject(packet)

    def take_reassembled(self, packet: bytes, index: int = 0) -> bool:
        """A tunnel packet (from its outer IP header on) that the stack put together: it goes in again whole, if allowed.

        `index` is that of the link on which it came.
        Forbidden packets are dropped and counted as "unregistered-source-reassembled".
        """
        return self._held.inject_reassembled(packet, index)

    # Reports of it

    def tell_ended_rules(self, tell: Callable[[EndedRule], None]) -> None:
        """Call `tell` with each flow rule removed from now on and its counters, within the removing call."""
        self._tables.rules.tell_ended = tell

    def explain(self, question: Question) -> Explanation:
        """The model's decision about a packet, by the written state. Raises ValueError (see `explain`)."""
        return explain(self.state, question, links=self.interfaces, own=self._tables.own)

    def counters(self) -> dict[str, int]:
        """Drops by reason; "tunnel-fragment" went to the stack; "hold-queue-overflow" was this daemon's queue."""
        return {**self._tables.reason_counts(), **self._held.counters()}

    def binding_counters(self, home_address: Addr) -> maps.Counter:
        """Packets and bytes that the home agent's binding sent into tunnels."""
        return self._tables.binding_counter(home_address)

    def visited_counters(self, home_address: Addr) -> maps.Counter:
        """Packets and bytes that an access node sent on to another one (620)."""
        return self._tables.rules.counters(home_address, Place.VISITED).get(0, maps.Counter())

    def rule_counters(self, home_address: Addr) -> dict[int, maps.Counter]:
        """Packets and bytes that each flow rule forwarded or dropped, by identifier; 0: no rule took them."""
        return self._tables.rules.counters(home_address, Place.FLOW_RULES)

    def filter_counters(self, home_address: Addr, place: FilterPlace) -> dict[int, maps.Counter]:
        """Packets and bytes that each rule of the filter decided, by identifier; 0: `otherwise` did."""
        return self._tables.rules.counters(home_address, rule_layout.PLACES[place])

    def acceptance_counters(self, acceptance: TunnelAcceptance) -> maps.Counter:
        """Packets and bytes that came out of the tunnel."""
        return self._tables.acceptance_counter(acceptance)

    def outbound_counters(self, entry: OutboundEntry) -> maps.Counter:
        """Packets and bytes that the entry sent into its tunnel."""
        return self._tables.outbound_counter(entry)

    def translation_counters(
        self, home_address: Addr, tunnel: Addr | None
    ) -> tuple[maps.Counter, maps.Counter]:
        """Packets and bytes that the translation changed towards the interface address, and back."""
        return self._translations.counters(home_address, tunnel)

    def group_counters(self, group: Addr) -> maps.Counter:
        """Copies of the group's packets for access links, and their bytes."""
        return self._groups.counter(group)
