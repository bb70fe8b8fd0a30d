"""The forwarding state that actions build: the target of the kernel's maps, or the input of a model.

Values only; the difference of two states is what reconciliation has to do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from locum.roles.action_values import forwarding_order
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Filter,
    FilterPlace,
    ForwardGroup,
    InstallFilter,
    InstallTranslation,
    OfferService,
    RemoveFilter,
    RemoveTranslation,
    Translation,
    Tunnel,
    UnwatchPort,
    WatchPort,
    WithdrawService,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    ClearFlow,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    RefuseTunnel,
    RemoveBinding,
    RemoveLocalEndpoint,
    RemoveOutbound,
    SetFlow,
    Side,
    Stage,
    TunnelAcceptance,
)
from locum.roles.actions import Action
from locum.wire.control import Flow

AcceptanceKey = tuple[Addr, Addr, Side, bool]  # the last: for one of our end points alone
FilterKey = tuple[Addr, FilterPlace]
Service = tuple[int, int]  # protocol, port
Watched = tuple[Addr, int]  # home address, TCP port


def acceptance_key(value: TunnelAcceptance) -> AcceptanceKey:
    return (value.outer_source, value.home_address, value.side, value.end is not None)


@dataclass(slots=True)
class ForwardingState:
    """All forwarding entries of one node; bindings of each stage are a table of their own."""

    endpoints: set[Addr] = field(default_factory=set)
    bindings: dict[Addr, BindingEntry] = field(default_factory=dict)  # Stage.HOME
    visited: dict[Addr, BindingEntry] = field(default_factory=dict)
    local_ends: dict[Addr, BindingEntry] = field(default_factory=dict)
    acceptances: dict[AcceptanceKey, TunnelAcceptance] = field(default_factory=dict)
    outbound: dict[Addr, dict[str | None, OutboundEntry]] = field(default_factory=dict)
    flows: dict[Flow, FlowVerdict] = field(default_factory=dict)
    filters: dict[FilterKey, Filter] = field(default_factory=dict)
    translations: dict[tuple[Addr, Addr | None], Translation] = field(default_factory=dict)
    groups: dict[Addr, ForwardGroup] = field(default_factory=dict)
    services: set[Service] = field(default_factory=set)
    watched: set[Watched] = field(default_factory=set)

    def stage(self, stage: Stage) -> dict[Addr, BindingEntry]:
        """The bindings that decide at this stage."""
        return {Stage.HOME: self.bindings, Stage.VISITED: self.visited, Stage.LOCAL: self.local_ends}[stage]

    def perform(self, action: Action) -> None:
        """Change the state by this action; actions about other things change nothing."""
        match action:
            case LocalEndpoint(address):
                self.endpoints.add(address)
            case RemoveLocalEndpoint(address):
                self.endpoints.discard(address)
            case InstallBinding(entry):
                self.stage(entry.stage)[entry.home_address] = entry
            case RemoveBinding(home_address, stage):
                self.stage(stage).pop(home_address, None)
            case InstallFilter(found):
                self.filters[found.home_address, found.place] = found
            case RemoveFilter(home_address, place):
                self.filters.pop((home_address, place), None)
            case AcceptTunnel(acceptance):
                self.acceptances[acceptance_key(acceptance)] = acceptance
            case RefuseTunnel(acceptance):
                self.acceptances.pop(acceptance_key(acceptance), None)
            case InstallOutbound(outbound):
                self.outbound.setdefault(outbound.home_address, {})[outbound.link] = outbound
            case RemoveOutbound(home_address, link):
                entries = self.outbound.get(home_address, {})
                entries.pop(link, None)
                if not entries:
                    self.outbound.pop(home_address, None)
            case SetFlow(flow):
                self.flows[flow.flow] = flow.verdict
            case ClearFlow(key):
                self.flows.pop(key, None)
            case InstallTranslation(translation):
                self.translations[translation.home_address, translation.tunnel] = translation
            case RemoveTranslation(home_address, tunnel):
                self.translations.pop((home_address, tunnel), None)
            case ForwardGroup(group, upstream, links) if links:
                self.groups[group] = ForwardGroup(group, upstream, tuple(links))
            case ForwardGroup(group):
                self.groups.pop(group, None)
            case OfferService(protocol, port):
                self.services.add((protocol, port))
            case WithdrawService(protocol, port):
                self.services.discard((protocol, port))
            case WatchPort(home_address, port):
                self.watched.add((home_address, port))
            case UnwatchPort(home_address, port):
                self.watched.discard((home_address, port))

    def entries(self) -> Iterator[forwarding_order.Install]:
        """The actions that install each entry, in no order."""
        yield from map(LocalEndpoint, self.endpoints)
        for bindings in (self.bindings, self.visited, self.local_ends):
            yield from map(InstallBinding, bindings.values())
        yield from map(AcceptTunnel, self.acceptances.values())
        yield from map(InstallOutbound, self.outbound_entries())
        for flow, verdict in self.flows.items():
            yield SetFlow(FlowEntry(flow, verdict))
        yield from map(InstallFilter, self.filters.values())
        yield from map(InstallTranslation, self.translations.values())
        yield from self.groups.values()
        yield from (OfferService(*service) for service in self.services)
        yield from (WatchPort(*watched) for watched in self.watched)

    def outbound_entries(self) -> list[OutboundEntry]:
        return [entry for entries in self.outbound.values() for entry in entries.values()]

    def tunnels(self) -> Iterator[Tunnel]:
        """Every tunnel that packets may be sent into; one may come more than once."""
        for entry in (*self.bindings.values(), *self.visited.values()):
            yield from tunnels_of(entry)
        for outbound in self.outbound_entries():
            yield outbound.tunnel


def tunnels_of(entry: BindingEntry) -> Sequence[Tunnel]:
    """Those of a binding: its own, its peer's and its rules'."""
    if entry.peer_tunnel is None and not entry.rules:
        return entry.tunnels
    peers = () if entry.peer_tunnel is None else (entry.peer_tunnel,)
    return (
        *entry.tunnels,
        *peers,
        *[candidate.tunnel for rule in entry.rules for candidate in rule.candidates],
    )


def state_of(actions: Iterable[Action]) -> ForwardingState:
    state = ForwardingState()
    for action in actions:
        state.perform(action)
    return state


def difference(have: ForwardingState, want: ForwardingState) -> list[Action]:
    """The actions that turn `have` into `want`, in the order of `forwarding_order`."""
    return [*forwarding_order.difference(have.entries(), want.entries())]
