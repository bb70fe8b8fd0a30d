"""The forwarding state that actions build: the target of the kernel's maps, or the input of a model.

Values only; the difference of two states is what reconciliation has to do.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

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

# The last two: for one of our end points alone; the GRE key.
AcceptanceKey = tuple[Addr, Addr, Side, bool, int | None]
FilterKey = tuple[Addr, FilterPlace]
Service = tuple[int, int]  # protocol, port
Watched = tuple[Addr, int]  # home address, TCP port

K = TypeVar("K")
V = TypeVar("V")


class Compared(MutableMapping[K, V]):
    """A map that may know a cheaper way to compare itself."""

    def unlike(self, others: Mapping[K, V]) -> Iterator[V]:
        """The values that are not the same there."""
        return (value for key, value in self.items() if others.get(key) != value)


def _unlike(these: Mapping[K, V], others: Mapping[K, V]) -> Iterator[V]:
    if isinstance(these, Compared):
        return these.unlike(others)
    return (value for key, value in these.items() if others.get(key) != value)


def acceptance_key(value: TunnelAcceptance) -> AcceptanceKey:
    return (value.outer_source, value.home_address, value.side, value.end is not None, value.gre_key)


@dataclass(slots=True)
class ForwardingState:
    """All forwarding entries of one node; bindings of each stage are a table of their own."""

    endpoints: set[Addr] = field(default_factory=set)
    bindings: MutableMapping[Addr, BindingEntry] = field(default_factory=dict)  # Stage.HOME
    visited: dict[Addr, BindingEntry] = field(default_factory=dict)
    local_ends: dict[Addr, BindingEntry] = field(default_factory=dict)
    acceptances: MutableMapping[AcceptanceKey, TunnelAcceptance] = field(default_factory=dict)
    outbound: dict[Addr, dict[str | None, OutboundEntry]] = field(default_factory=dict)
    flows: dict[Flow, FlowVerdict] = field(default_factory=dict)
    filters: dict[FilterKey, Filter] = field(default_factory=dict)
    translations: dict[tuple[Addr, Addr | None], Translation] = field(default_factory=dict)
    groups: dict[Addr, ForwardGroup] = field(default_factory=dict)
    services: set[Service] = field(default_factory=set)
    watched: set[Watched] = field(default_factory=set)

    def stage(self, stage: Stage) -> MutableMapping[Addr, BindingEntry]:
        """The bindings that decide at this stage."""
        if stage is Stage.HOME:
            return self.bindings
        return self.visited if stage is Stage.VISITED else self.local_ends

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

    def entry(self, action: Action) -> forwarding_order.Install | None:
        """The action that installs the entry which `action` would change, as it is now; None if there is none."""
        match action:
            case InstallBinding(entry):
                held = self.stage(entry.stage).get(entry.home_address)
                return None if held is None else InstallBinding(held)
            case AcceptTunnel(acceptance) | RefuseTunnel(acceptance):
                accepted = self.acceptances.get(acceptance_key(acceptance))
                return None if accepted is None else AcceptTunnel(accepted)
            case RemoveBinding(home_address, stage):
                held = self.stage(stage).get(home_address)
                return None if held is None else InstallBinding(held)
            case LocalEndpoint(address) | RemoveLocalEndpoint(address):
                return LocalEndpoint(address) if address in self.endpoints else None
            case InstallFilter(wanted):
                return self._filter(wanted.home_address, wanted.place)
            case RemoveFilter(home_address, place):
                return self._filter(home_address, place)
            case InstallOutbound(wanted_outbound):
                return self._outbound(wanted_outbound.home_address, wanted_outbound.link)
            case RemoveOutbound(home_address, link):
                return self._outbound(home_address, link)
            case SetFlow(FlowEntry(flow)) | ClearFlow(flow):
                verdict = self.flows.get(flow)
                return None if verdict is None else SetFlow(FlowEntry(flow, verdict))
            case InstallTranslation(wanted_translation):
                return self._translation(wanted_translation.home_address, wanted_translation.tunnel)
            case RemoveTranslation(home_address, tunnel):
                return self._translation(home_address, tunnel)
            case ForwardGroup(group):
                return self.groups.get(group)
            case OfferService(protocol, port) | WithdrawService(protocol, port):
                return OfferService(protocol, port) if (protocol, port) in self.services else None
            case WatchPort(home_address, port) | UnwatchPort(home_address, port):
                return WatchPort(home_address, port) if (home_address, port) in self.watched else None
        return None

    def _filter(self, home_address: Addr, place: FilterPlace) -> InstallFilter | None:
        found = self.filters.get((home_address, place))
        return None if found is None else InstallFilter(found)

    def _outbound(self, home_address: Addr, link: str | None) -> InstallOutbound | None:
        found = self.outbound.get(home_address, {}).get(link)
        return None if found is None else InstallOutbound(found)

    def _translation(self, home_address: Addr, tunnel: Addr | None) -> InstallTranslation | None:
        found = self.translations.get((home_address, tunnel))
        return None if found is None else InstallTranslation(found)

    def restoring(self, actions: Sequence[Action]) -> list[Action]:
        """The actions that bring back the entries which `actions` change, the last change first."""
        if len(actions) == 1:
            return self._restoring_one(actions[0])
        found: list[Action] = []
        known: set[forwarding_order.Key] = set()
        for action in actions:
            key = forwarding_order.key_of(action)
            if key is None:
                continue
            before = len(known)
            known.add(key)
            if len(known) == before:  # changed once more; to look it up first would hash it twice
                continue
            found += self._restoring_one(action)
        found.reverse()
        return found

    def _restoring_one(self, action: Action) -> list[Action]:
        standing = self.entry(action)
        if standing is not None:
            return [standing]
        return [forwarding_order.opposite(action)] if isinstance(action, forwarding_order.INSTALLING) else []

    def keep_waiting(self, before: "ForwardingState", is_there: Callable[[str], bool]) -> None:
        """Take the entries of `before` on links that are gone: they are in no map until their link comes back."""
        there: dict[str, bool] = {}

        def waits(link: str | None) -> bool:
            if link is None:
                return False
            if link not in there:
                there[link] = is_there(link)
            return not there[link]

        for key, acceptance in before.acceptances.items():
            if waits(acceptance.link):
                self.acceptances.setdefault(key, acceptance)
        for entry in before.outbound_entries():
            if waits(entry.link):
                self.outbound.setdefault(entry.home_address, {}).setdefault(entry.link, entry)
        for group in before.groups.values():
            if any(waits(link) for link in (group.upstream, *group.links)):
                self.groups[group.group] = group

    def entries(self, but: "ForwardingState | None" = None) -> Iterator[forwarding_order.Install]:
        """The actions that install each entry, in no order; without those bindings and permissions that `but` has too."""
        without = ForwardingState() if but is None else but
        yield from map(LocalEndpoint, self.endpoints)
        for bindings, same in (
            (self.bindings, without.bindings),
            (self.visited, without.visited),
            (self.local_ends, without.local_ends),
        ):
            yield from map(InstallBinding, _unlike(bindings, same))
        yield from map(AcceptTunnel, _unlike(self.acceptances, without.acceptances))
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

    def leading_to(self, address: Addr) -> tuple[list[BindingEntry], list[BindingEntry], list[OutboundEntry]]:
        """The entries with tunnels to this address: bindings of Stage.HOME, of Stage.VISITED, and outbound entries."""

        def leads_there(tunnels: Iterable[Tunnel]) -> bool:
            return any(tunnel.destination == address for tunnel in tunnels)

        return (
            [entry for entry in self.bindings.values() if leads_there(tunnels_of(entry))],
            [entry for entry in self.visited.values() if leads_there(entry.tunnels)],
            [entry for entry in self.outbound_entries() if leads_there((entry.tunnel,))],
        )

    def tunnels(self) -> Iterator[Tunnel]:
        """Every tunnel that packets may be sent into; one may come more than once."""
        for entry in (*self.bindings.values(), *self.visited.values()):
            yield from tunnels_of(entry)
        for outbound in self.outbound_entries():
            yield outbound.tunnel


# A binding or permission before a change (None: it was not there), and after it; the same twice: it was removed.
Noted = tuple[BindingEntry | None, BindingEntry] | tuple[TunnelAcceptance | None, TunnelAcceptance]


def bringing_back(noted: Iterable[Noted]) -> list[Action]:
    """The actions that undo these changes, the last one first; the first change of an entry tells how it was."""
    found: dict[forwarding_order.Key | None, Action] = {}
    for before, after in noted:
        install = _installing(after)
        back = forwarding_order.opposite(install) if before is None else _installing(before)
        found.setdefault(forwarding_order.key_of(install), back)
    return [*found.values()][::-1]


def _installing(entry: BindingEntry | TunnelAcceptance) -> forwarding_order.Install:
    return InstallBinding(entry) if isinstance(entry, BindingEntry) else AcceptTunnel(entry)


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
    return [*forwarding_order.difference(have.entries(but=want), want.entries(but=have))]
