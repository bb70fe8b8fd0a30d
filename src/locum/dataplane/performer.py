"""Forwarding actions -> kernel: each action changes the tables, routes and settings that it is about.

It must not know how the programs were loaded and attached; the data plane gives it the tables.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from itertools import groupby
from typing import TypeVar, assert_never, cast

from locum.dataplane.held_packets import HeldPackets
from locum.dataplane.kernel.groups import GroupTable
from locum.dataplane.kernel.host.sysctls import Sysctls
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.dataplane.kernel.network import MtuRoutes
from locum.dataplane.kernel.services import ServiceTable
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.kernel.translation import TranslationTable
from locum.dataplane.layout import maps
from locum.dataplane.state import Noted, bringing_back, tunnels_of
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
from locum.roles.action_values.forwarding_order import by_home_address, home_address_of, in_batches
from locum.roles.action_values.paging import DropPaged, ReleasePaged
from locum.roles.actions import Action
from locum.wire.control import Flow

A_ = TypeVar("A_", bound=ForwardingAction)


log = logging.getLogger("locum.dataplane")

MOST_UNDONE = 1024  # actions in one call: to make and undo one takes some 40 microseconds
_NOTED = frozenset((InstallBinding, AcceptTunnel, RefuseTunnel))
"""Nearly all changes; the tables note what these replace, so that it is not looked up before."""
_TOGETHER = 512  # actions: so many are undone together when one of them fails
_PARTS = 16  # of a batch that failed, each tried by itself
_NOT_TRIED = DataPlaneError("the tables had no room for many others; it is tried in a moment")


@dataclass(frozen=True, slots=True)
class Refused:
    """Changes of one home address (None: of an entry of the host) that were not made, none of them, and the reason."""

    home_address: Addr | None
    actions: tuple[Action, ...]
    problem: Exception
    tried: bool = True  # False: so many others were refused that these were left for another call


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

    lost: list[Action] = field(
        default_factory=list
    )  # entries that a change which failed could not bring back

    def apply(self, actions: Iterable[Action]) -> None:
        """Perform the forwarding actions in their order, all or none of them; other actions are left alone.

        Raises DataPlaneError or ValueError; then the entries are as they were before, but for those in `lost`.
        """
        wanted = cast(list[ForwardingAction], [it for it in actions if type(it) in FORWARDING])
        if not _NOTED.issuperset(map(type, wanted)):
            back = self.tables.state.restoring(wanted)
            try:
                self._perform_all(wanted)
            except Exception:
                self._bring_back(back)
                raise
            return
        noted: list[Noted] = []
        self.tables.noted = noted
        try:
            self._perform_all(wanted)
        except Exception:
            self.tables.noted = None
            self._bring_back(bringing_back(noted))
            raise
        finally:
            self.tables.noted = None

    def apply_each(
        self, actions: Iterable[Action], *, most_undone: int | None = MOST_UNDONE
    ) -> list[Refused]:
        """Perform the forwarding actions; of each home address all or none. Returns those that were not performed.

        One home address that finds no room takes nothing from others whose changes come with its own. Once more than
        `most_undone` actions had to be undone, no others are tried.
        """
        refused: list[Refused] = []
        undone = 0
        wanted = [action for action in actions if type(action) in FORWARDING]
        waiting = [*reversed(in_batches(wanted, _TOGETHER))]
        while waiting:
            batch = waiting.pop()
            if most_undone is not None and undone > most_undone:
                for part in by_home_address(batch):
                    refused.append(Refused(home_address_of(part[0]), tuple(part), _NOT_TRIED, tried=False))
                continue
            try:
                self.apply(batch)
            except Exception as problem:
                undone += len(batch)
                if len(parts := _parts(batch)) > 1:
                    waiting += reversed(parts)
                else:
                    refused.append(Refused(home_address_of(batch[0]), tuple(batch), problem))
        return refused

    def _perform_all(self, actions: Iterable[ForwardingAction]) -> None:
        for _, group in groupby(actions, type):
            run: Iterator[ForwardingAction] = group
            for action in run:
                self._perform(action, run)

    def _bring_back(self, actions: Iterable[Action]) -> None:
        """Undo a change that failed: each entry by itself, so that one that fails keeps no other."""
        tell, self.tables.rules.tell_ended = self.tables.rules.tell_ended, None  # they never stood alone
        try:
            for action in actions:
                try:
                    self._perform_all((cast(ForwardingAction, action),))
                except Exception as problem:
                    log.warning("%s was not brought back: %s", action, problem)
                    self.lost.append(action)
        finally:
            self.tables.rules.tell_ended = tell

    def adopt(self) -> None:
        """Make the routes and rules of the tables' entries, those of an earlier daemon, unless they are there."""
        for tunnel in self.tables.state.tunnels():
            self.need(tunnel)
        for entry in self.tables.state.outbound_entries():
            if entry.link is None:
                self.mtu_routes.local(entry.home_address, entry.tunnel)
        self.mtu_routes.tidy()

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
            case RemoveBinding():
                for stage, some in groupby(_run(action, following), lambda removed: removed.stage):
                    self.tables.remove_bindings([removed.home_address for removed in some], stage)
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
            case ReleasePaged(home_address):
                self.held.release_paged(home_address)
            case DropPaged(home_address, quiet):
                self.held.paged.drop(home_address, quiet)
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
        self.tables.install_outbound(entry)
        if entry.link is None:
            self.mtu_routes.local(entry.home_address, entry.tunnel)

    def _remove_outbound(self, home_address: Addr, link: str | None) -> None:
        entry = self.tables.state.outbound.get(home_address, {}).get(link)
        if entry is not None and link is None:
            self.mtu_routes.not_local(home_address)
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


def _parts(actions: Sequence[Action]) -> list[list[Action]]:
    """At most _PARTS parts of as many home addresses each, with their actions in the order given."""
    homes = by_home_address(actions)
    size = -(-len(homes) // _PARTS)
    place = {id(action): at // size for at, home in enumerate(homes) for action in home}
    parts: list[list[Action]] = [[] for _ in range(-(-len(homes) // size))]
    for action in actions:
        parts[place[id(action)]].append(action)
    return [part for part in parts if part]  # an action that is there twice is in one of them
