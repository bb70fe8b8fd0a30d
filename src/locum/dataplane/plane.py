"""The data plane of a node: applies forwarding actions to the kernel. Opens or adopts pinned maps.

Everything the kernel needs is pinned under <bpf_root>/locum/<node>/, so that packets flow while no daemon runs. The
object is not thread safe; it belongs to the thread of the node's event loop and never blocks there.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from pyroute2 import IPRoute

from locum.dataplane.compact import compact_state
from locum.dataplane.held_packets import HeldPackets
from locum.dataplane.kept import Kept
from locum.dataplane.kernel.attach import Attachments, Displacement, check_bpffs, pin_name
from locum.dataplane.kernel.device import Reinjection
from locum.dataplane.kernel.entries import open_entries, settle, settle_some
from locum.dataplane.kernel.groups import GroupTable
from locum.dataplane.kernel.hooks import bare
from locum.dataplane.kernel.host.inheritance import give_to_heir, hand_over
from locum.dataplane.kernel.host.numbering import claim
from locum.dataplane.kernel.host.sysctls import Sysctls
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.dataplane.kernel.loading import Object
from locum.dataplane.kernel.network import MtuRoutes, smallest_mtus
from locum.dataplane.kernel.pin_directory import discard_directory, make_directory, remove_directory
from locum.dataplane.kernel.renewal import Renewal
from locum.dataplane.kernel.replacing import Replacement
from locum.dataplane.kernel.route_socket import RouteSocket
from locum.dataplane.kernel.rule_tables import EndedRule
from locum.dataplane.kernel.senders.access_links import Network
from locum.dataplane.kernel.services import HeaderLogs, ServiceTable
from locum.dataplane.kernel.settings import SOURCES, Uses
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.kernel.translation import TranslationTable
from locum.dataplane.layout import entries, maps
from locum.dataplane.layout import rules as rule_layout
from locum.dataplane.layout.rules import Place
from locum.dataplane.limits import Limits
from locum.dataplane.model.explain import Explanation, Question, explain
from locum.dataplane.mtu.path_mtu import Verdict
from locum.dataplane.mtu.paths import Paths
from locum.dataplane.mtu.probes import PathProbes
from locum.dataplane.performer import Performer, Refused
from locum.dataplane.state import ForwardingState, difference
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
    refused: tuple[Refused, ...] = ()  # those that were not made

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
        names = {direction: f"locum_{direction}" for direction in ("ingress", "egress", "renewed")}
        self._object = Object(
            OBJECT,
            limits.sizes(),
            directory / "maps",
            programs=(*names.values(), bare.INGRESS, entries.PROGRAM),
            needed=maps.FIXED_TABLES,
            kept=("found_sysctls",),
        )
        self._replacement = Replacement(self._object, directory / "maps")
        programs = {direction: self._object.program(name) for direction, name in names.items()}
        renewed = {"egress": programs.pop("renewed")}
        self._sysctls = Sysctls(self._object.maps["found_sysctls"])
        if forwarding:
            self._sysctls.forward()
        # Routes of outer packets are looked up from lo.
        self._sysctls.set("net/ipv4/conf/lo/forwarding", "1")
        self._device = Reinjection(node, route)
        self.number = claim(route, self._device.ifindex)  # among the nodes of this namespace
        self._uses = Uses(self._object.maps["settings"])
        self._uses.number(self.number)
        without_headers = bare.BarePrograms(self._object)
        self._attachments = Attachments(
            directory / "links", programs, route, number=self.number, tcx=tcx, bare=without_headers
        )
        self._attachments.deferred = self._replacement.unfilled
        self._prepare_device()
        self.renewal = Renewal(
            node,
            route,
            self._object.maps["renewal"],
            self._sysctls,
            Attachments(directory / "renewal", renewed, route, tcx=tcx),
        )
        self._entries = open_entries(self._object)
        self._tables = Tables(
            self._entries,
            self._object.maps,
            self._attachments.find,
            lambda place, used: self._uses.set(rule_layout.uses(place), used),
            lambda used: self._uses.set(SOURCES, used),
        )
        self._translations = TranslationTable(self._entries, self._uses)
        self._groups = GroupTable(self._entries, self._uses, self._attachments.find_with_address)
        self._services = ServiceTable(self._object.maps)
        self.header_logs = HeaderLogs(self._object.maps)
        self.header_logs.clear()
        self._paths = Paths(self._object.maps["paths"], self._uses, self._tables)
        self._mtu_routes = MtuRoutes(
            route,
            self._device.ifindex,
            self.number,
            self._object.maps["inner_mtus"],
            self._object.maps["told_paths"],
            self._paths.limit,
        )
        self.kept = Kept(route, self._device.ifindex, self._mtu_routes, self.renewal)
        self.held = HeldPackets(
            self._object.maps["held"], self._device, self._tables, limits, self._mtu_routes.ask
        )
        self.tell_of_error = self.held.tell_of_error  # of tunnel packets; for ErrorSockets
        told_large = self._object.maps["told_large"]
        self.probes = PathProbes(self._uses, told_large, self._tables, self._paths, self._mtu_routes)
        self.held.tell_large = self.probes.large
        self._performer = Performer(
            self._tables,
            self._translations,
            self._groups,
            self._services,
            self._mtu_routes,
            self._sysctls,
            self.held,
        )
        self._as_read = False  # nothing was changed since the maps were read
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
            if not plane._replacement.unfilled:
                plane._finish_replacement()
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
        """Take the kernel's maps for what is known of them."""
        self._tables.adopt(self._names())
        self._groups.adopt()
        self._as_read = True
        self._performer.adopt()

    def close(self) -> None:
        """Let go, and leave everything forwarding."""
        if not self._released:
            self._released = True
            self.probes.close()
            settle(self._entries)
            self.held.close()
            self._device.close()
            self._object.close()
            self._route.close()

    def remove(self) -> None:
        """Leave the network as it was found: programs, pins, device, rules and sysctls are gone."""
        if self._released:
            return
        self._released = True
        self.probes.close()
        for interface in self._attachments.known():
            self._attachments.detach(interface)
        self._mtu_routes.remove()
        self.renewal.remove()
        hand_over(self._route, self._directory, self._device.ifindex, self._sysctls)
        self._device.remove()
        self.held.close()
        self._object.close()
        remove_directory(self._directory)
        self._route.close()

    # Interfaces

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Attached interfaces, without the re-injection device."""
        return tuple(name for name in self._attachments.interfaces if name != self._device.name)

    @property
    def device(self) -> str:
        """Name of the re-injection device."""
        return self._device.name

    def attach(self, interface: str) -> None:
        """Put the programs on an interface, which may have come back with another index. Raises DataPlaneError."""
        before = self._attachments.interfaces.get(interface)
        index = self._attachments.attach(interface)
        self._sysctls.loosen(interface)
        if before != index:
            self._tables.link_changed(interface)
            self._groups.link_changed(self._tables.state, interface)
        self.refresh()

    def serve_visitors(
        self,
        links: Collection[str],
        *,
        checked: bool = True,
        by_hardware: bool = False,
        allowed: Iterable[Network] = (),
    ) -> None:
        """Access links: tunnel packets to home addresses that arrive there are dropped as "from-access-link".

        `checked`: so are packets from an address that is neither a visitor's there, nor of a network of the link, nor
        `allowed`, as "spoofed-source" (RFC 2827); `by_hardware` those from another hardware address than the visitor's.
        """
        self._tables.access.serve(links, checked=checked, by_hardware=by_hardware, allowed=allowed)

    def detach(self, interface: str) -> None:
        """Take them off; works as well when the interface is gone."""
        self._attachments.detach(interface)
        self._sysctls.release(interface)
        self.refresh()

    def refresh(self) -> None:
        """Read the attached interfaces' addresses and MTUs again; to be called when they change."""
        addresses: set[Addr] = set()
        networks: dict[int, list[Network]] = {}
        for index in self._present():
            for message in self._route.get_addr(index=index):
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                addresses.add(ip_address(text))
                network = ip_network(
                    f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}", strict=False
                )
                networks.setdefault(index, []).append(network)
        self._tables.access.set_networks(networks)
        self._tables.set_own({a for a in addresses if not a.is_multicast})  # some are groups that were joined
        self._paths.expire()
        self._mtu_routes.set_mtu(*smallest_mtus(self._route, self._present()))

    # Paths of tunnels

    def too_big(self, quote: bytes, mtu: int) -> Verdict:
        """Judge an ICMP error: a packet that begins with `quote` met a link of `mtu` bytes; 0: not told.

        One that is believed limits packets to that destination for PATH_MTU_AGE; the result is counted.
        """
        believed = self._paths.judge(quote, mtu)
        if believed.verdict is Verdict.BELIEVED:
            self._mtu_routes.expect(believed.destination, believed.mtu)
            self.probes.told(believed.destination, believed.mtu)
        return believed.verdict

    @property
    def narrow_paths(self) -> dict[Addr, int]:
        """MTUs in bytes, by the end of tunnels, of paths that are narrower than their routes say."""
        return self._paths.narrow()

    def tell_path_mtus(self, tell: Callable[[Addr, int], None]) -> None:
        """Call `tell` with each destination of tunnels whose path is narrower than thought, and the new MTU in bytes."""
        self._paths.tell = tell

    def _present(self) -> list[int]:
        there = set(self._names())
        device = self._device.ifindex
        return [i for i in self._attachments.interfaces.values() if i in there and i != device]

    # Other programs of the host

    def inherit(self, name: str, found: str) -> bool:
        """True if another node needs this sysctl of an interface, and will restore the found value."""
        return give_to_heir(self._route, self._directory, self._device.ifindex, name, found)

    @property
    def sysctls(self) -> Sysctls:
        """The sysctls that this node needs."""
        return self._sysctls

    def displaced(self, *, filters: bool = True) -> Iterator[Displacement]:
        """Programs of ours that were detached, or that have foreign ones before them. Raises DataPlaneError."""
        for attachments in (self._attachments, self.renewal.attachments):
            yield from attachments.displaced(filters=filters)

    def put_back(self, displaced: Displacement) -> bool:
        """Attach such a program again, before all others; false if its interface is gone. Raises DataPlaneError."""
        of_renewal = displaced.interface == self.renewal.name
        return (self.renewal.attachments if of_renewal else self._attachments).put_back(displaced)

    # Actions

    def apply(self, actions: Iterable[Action]) -> None:
        """Perform the forwarding actions, all or none; others are left alone. Raises DataPlaneError or ValueError."""
        self._as_read = False
        self._performer.apply(actions)

    def apply_each(self, actions: Iterable[Action]) -> list[Refused]:
        """The same of each home address, for no more than some 50 ms of refusals. Returns those not performed."""
        self._as_read = False
        return self._performer.apply_each(actions)

    def tidy(self) -> float | None:
        """Delete some of what was removed before; seconds until there is more, None: nothing waits."""
        return settle_some(self._entries)

    def take_lost(self) -> list[Action]:
        """The entries, since the last call, that a failed change could not bring back; they are not in the kernel."""
        lost, self._performer.lost = self._performer.lost, []
        return lost

    def reconcile(self, desired: Iterable[Action]) -> Changes:
        """Make the kernel's maps, as they are now, match `desired`; counters of unchanged entries are kept."""
        if not self._as_read:
            self._adopt()
        wanted = compact_state(desired)
        actions = difference(self._tables.state, wanted)
        self._as_read = False
        refused = self._performer.apply_each(actions, most_undone=None)
        if not refused:
            self._tables.share(wanted)
        self.refresh()
        if self._replacement.unfilled:
            self._finish_replacement()
        return Changes(tuple(actions), tuple(refused))

    def _finish_replacement(self) -> None:
        """The tables are filled: our programs take over from those of an earlier daemon, and our maps from theirs."""
        if self._attachments.deferred:
            self._attachments.exchange()
        if (ring := self._replacement.earlier("held")) is not None:
            self.held.take_over(ring)
        self._replacement.finish()

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
        return self.held.fileno()

    def release(self, of: Addr | Flow, *, ahead: bool = False) -> int:
        """Put the held packets of a home address or flow, which are now allowed, into the kernel, in order.

        With `ahead` those of a home address that are not allowed yet as well, while newcomers still wait.
        Returns the number of packets that went at once; `held.serve` sends the rest.
        """
        return self.held.release(of, ahead=ahead)

    def divert(self, flow: Flow, take: Callable[[bytes], None] | None) -> None:
        """Give the held packets of this flow, from the IP header on, to a function instead of the queue; None: no more."""
        self.held.divert(flow, take)

    def inject(self, packet: bytes) -> None:
        """Put a packet (from its IP header on) into the kernel as if it had arrived; it is not held."""
        self.held.inject(packet)

    def take_reassembled(self, packet: bytes, index: int = 0) -> bool:
        """A tunnel packet (from its outer IP header on) that the stack put together: it goes in again whole, if allowed.

        `index` is that of the link on which it came.
        Forbidden packets are dropped and counted as "unregistered-source-reassembled".
        """
        return self.held.inject_reassembled(packet, index)

    # Reports of it

    def tell_ended_rules(self, tell: Callable[[EndedRule], None]) -> None:
        """Call `tell` with each flow rule removed from now on and its counters, within the removing call."""
        self._tables.rules.tell_ended = tell

    def explain(self, question: Question) -> Explanation:
        """The model's decision about a packet, by the written state. Raises ValueError (see `explain`)."""
        return explain(self.state, question, links=self.interfaces, own=self._tables.own)

    def counters(self) -> dict[str, int]:
        """Drops by reason; "tunnel-fragment" went to the stack, "fragment-follows" to its first; "hold-queue-overflow" was this daemon's queue."""
        paths = {verdict.value: self._paths.counters[verdict] for verdict in Verdict}
        return {**self._tables.reason_counts(), **self.held.counters(), **paths, **self.probes.probing.counts}

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
