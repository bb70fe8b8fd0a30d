"""The forwarding state that a role wants, as a value, and the actions that lead from one to another.

Roles say what shall be; only differences reach the data plane. It must not know why a state is wanted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Filter,
    FilterPlace,
    InstallFilter,
    InstallTranslation,
    Translation,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    NeighbourEntry,
    OutboundEntry,
    Side,
    TunnelAcceptance,
)
from locum.roles.action_values.forwarding_order import Install, difference
from locum.roles.actions import Action

AcceptanceKey = tuple[Addr, Addr, Side]
OutboundKey = tuple[Addr, str | None]
NeighbourKey = tuple[str, Addr]
FilterKey = tuple[Addr, FilterPlace]
TranslationKey = tuple[Addr, Addr | None]


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Entries by their keys; flows are not part of it, they change step by step during a handover."""

    bindings: Mapping[Addr, BindingEntry] = field(default_factory=dict)
    acceptances: Mapping[AcceptanceKey, TunnelAcceptance] = field(default_factory=dict)
    outbound: Mapping[OutboundKey, OutboundEntry] = field(default_factory=dict)
    neighbours: Mapping[NeighbourKey, NeighbourEntry] = field(default_factory=dict)
    endpoints: frozenset[Addr] = frozenset()
    filters: Mapping[FilterKey, Filter] = field(default_factory=dict)
    translations: Mapping[TranslationKey, Translation] = field(default_factory=dict)

    def entries(self) -> Iterator[Install]:
        """The actions that install each entry, in no order that means anything."""
        yield from map(LocalEndpoint, sorted(self.endpoints, key=str))
        yield from map(InstallFilter, self.filters.values())
        yield from map(AcceptTunnel, self.acceptances.values())
        yield from self.neighbours.values()
        yield from map(InstallOutbound, self.outbound.values())
        yield from map(InstallTranslation, self.translations.values())
        yield from map(InstallBinding, self.bindings.values())


NOTHING = Forwarding()


def forwarding(
    *entries: BindingEntry
    | TunnelAcceptance
    | OutboundEntry
    | NeighbourEntry
    | LocalEndpoint
    | Filter
    | Translation,
) -> Forwarding:
    """The state that consists of these entries."""
    return Forwarding(
        bindings={e.home_address: e for e in entries if isinstance(e, BindingEntry)},
        acceptances={
            (e.outer_source, e.home_address, e.side): e for e in entries if isinstance(e, TunnelAcceptance)
        },
        outbound={(e.home_address, e.link): e for e in entries if isinstance(e, OutboundEntry)},
        neighbours={(e.link, e.address): e for e in entries if isinstance(e, NeighbourEntry)},
        endpoints=frozenset(e.address for e in entries if isinstance(e, LocalEndpoint)),
        filters={(e.home_address, e.place): e for e in entries if isinstance(e, Filter)},
        translations={(e.home_address, e.tunnel): e for e in entries if isinstance(e, Translation)},
    )


def changes(before: Forwarding, after: Forwarding) -> list[Action]:
    """The actions that turn `before` into `after`, in the order of `forwarding_order`."""
    if before == after:
        return []
    return [*difference(before.entries(), after.entries())]
