"""Forwarding actions -> kernel: each action changes the tables, routes and settings that it is about.

It must not know how the programs were loaded and attached; the data plane gives it the tables.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import groupby
from typing import TypeVar, assert_never, cast

from locum.dataplane.held_packets import HeldPackets
from locum.dataplane.kernel.groups import GroupTable
from locum.dataplane.kernel.network import MtuRoutes, Sysctls
from locum.dataplane.kernel.services import ServiceTable
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.kernel.translation import TranslationTable
from locum.dataplane.layout import maps
from locum.dataplane.state import tunnels_of
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.flows import (
    ForwardGroup,
    InstallFilter,
    InstallTranslation,
    OfferService,
    RemoveFilter,
    RemoveTranslation,
    Tunnel,
    UnwatchPort,
    WatchPort,
    WithdrawService,
)
from locum.roles.action_values.forwarding import (
    FORWARDING,
    AcceptTunnel,
    BindingEntry,
    ClearFlow,
    FlowVerdict,
    ForwardingAction,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    RefuseTunnel,
    ReleaseHeld,
    RemoveBinding,
    RemoveLocalEndpoint,
    RemoveOutbound,
    SetFlow,
    Stage,
)
from locum.roles.actions import Action
from locum.wire.control import Flow

A_ = TypeVar("A_", bound=ForwardingAction)


@dataclass(slots=True)
class Performer:
    """Performs forwarding actions on the tables of one node."""

    tables: Tables
    translations: TranslationTable
    groups: GroupTable
    services: ServiceTable
    mtu_routes: MtuRoutes
    sysctls: Sysctls
    held: HeldPackets

    def apply(self, actions: Iterable[Action]) -> None:
        """Perform the forwarding actions in their order; other actions are left alone. Raises DataPlaneError."""
        for kind, group in groupby(actions, type):
            if kind in FORWARDING:
                run = cast(Iterator[ForwardingAction], group)
                for action in run:
                    self._perform(action, run)

    def need(self, tunnel: Tunnel) -> None:
        """Make the host ready to send into this tunnel: a route with room for its headers, and forwarding from lo."""
        self.mtu_routes.need(maps.overhead(tunnel))
        if isinstance(tunnel.destination, IPv6Address):
            self.sysctls.set("net/ipv6/conf/lo/forwarding", "1")

    def _install_bindings(self, entries: Sequence[BindingEntry]) -> None:
        tunnels: dict[int, Tunnel] = {}  # by identity: many bindings lead to few agents
        home: list[BindingEntry] = []
        others: list[BindingEntry] = []
        for entry in entries:
            (home if entry.stage is Stage.HOME else others).append(entry)
            for tunnel in tunnels_of(entry):
                tunnels[id(tunnel)] = tunnel
        for tunnel in tunnels.values():
            self.need(tunnel)
        self.tables.install_bindings(home)
        for entry in others:
            if entry.stage is Stage.VISITED:
                self.tables.install_visited(entry)
            else:
                self.tables.install_local_end(entry)

    def _perform(self, action: ForwardingAction, following: Iterator[ForwardingAction]) -> None:
        """Perform an action, together with the following ones of its class where the kernel takes many at once."""
        match action:
            case InstallBinding():
                self._install_bindings([installed.entry for installed in _run(action, following)])
            case AcceptTunnel():
                self.tables.accept([accepted.acceptance for accepted in _run(action, following)])
            case RefuseTunnel():
                self.tables.refuse([refused.acceptance for refused in _run(action, following)])
            case RemoveBinding(home_address, stage):
                self.tables.remove_binding(home_address, stage)
            case InstallFilter(value):
                self.tables.install_filter(value)
            case RemoveFilter(home_address, place):
                self.tables.remove_filter(home_address, place)
            case InstallOutbound(outbound):
                self._install_outbound(outbound)
            case RemoveOutbound(home_address, link):
                self._remove_outbound(home_address, link)
            case SetFlow(flow):
                self._set_flow(flow.flow, flow.verdict)
            case ClearFlow(key):
                self.tables.clear_flow(key)
            case ReleaseHeld(home_address, ahead):
                self.held.release(home_address, ahead=ahead)
            case DropHeld(home_address):
                self.held.forget(home_address)
            case LocalEndpoint(address):
                self.tables.add_endpoint(address)
            case RemoveLocalEndpoint(address):
                self.tables.remove_endpoint(address)
            case InstallTranslation(translation):
                self.translations.install(self.tables.state, translation)
            case RemoveTranslation(home_address, tunnel):
                self.translations.remove(self.tables.state, home_address, tunnel)
            case ForwardGroup():
                self.groups.install(self.tables.state, action)
            case OfferService(protocol, port):
                self.services.offer(self.tables.state, protocol, port)
            case WithdrawService(protocol, port):
                self.services.withdraw(self.tables.state, protocol, port)
            case WatchPort(home_address, port):
                self.services.watch(self.tables.state, home_address, port)
            case UnwatchPort(home_address, port):
                self.services.unwatch(self.tables.state, home_address, port)
            case _:
                assert_never(action)

    def _install_outbound(self, entry: OutboundEntry) -> None:
        self.need(entry.tunnel)
        old = self.tables.state.outbound.get(entry.home_address, {}).get(entry.link)
        self.tables.install_outbound(entry)
        if entry.link is None:
            self.mtu_routes.local("add", entry.home_address, maps.overhead(entry.tunnel))
            if old is not None and maps.overhead(old.tunnel) != maps.overhead(entry.tunnel):
                self.mtu_routes.local("del", entry.home_address, maps.overhead(old.tunnel))

    def _remove_outbound(self, home_address: Addr, link: str | None) -> None:
        entry = self.tables.state.outbound.get(home_address, {}).get(link)
        if entry is not None and link is None:
            self.mtu_routes.local("del", home_address, maps.overhead(entry.tunnel))
        self.tables.remove_outbound(home_address, link)

    def _set_flow(self, flow: Flow, verdict: FlowVerdict) -> None:
        """DELIVER after HOLD first empties the queue while newcomers still wait, so that order is kept."""
        waits = self.tables.state.flows.get(flow) in (FlowVerdict.HOLD, FlowVerdict.SUSPEND)
        if verdict is FlowVerdict.DELIVER and waits:
            self.held.send_of(flow)
        self.tables.set_flow(flow, verdict)
        if verdict is FlowVerdict.DELIVER:
            self.held.send_of(flow)


def _run(action: A_, following: Iterator[ForwardingAction]) -> list[A_]:
    """The action and all that follow, which are of its class."""
    kind = type(action)
    return [action, *(other for other in following if isinstance(other, kind))]
