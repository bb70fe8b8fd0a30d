"""The forwarding state that a role wants, as a value, and the actions that lead from one to another.

Roles say what shall be; only differences reach the data plane. It must not know why a state is wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Filter,
    FilterPlace,
    InstallFilter,
    InstallTranslation,
    RemoveFilter,
    RemoveTranslation,
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
    RefuseTunnel,
    RemoveBinding,
    RemoveLocalEndpoint,
    RemoveNeighbour,
    RemoveOutbound,
    Side,
    TunnelAcceptance,
)
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
    """Differences only. What is needed comes before what uses it, permissions are taken away last."""
    if before == after:
        return []
    actions: list[Action] = [
        LocalEndpoint(each) for each in sorted(after.endpoints - before.endpoints, key=str)
    ]
    actions += [InstallFilter(f) for key, f in after.filters.items() if before.filters.get(key) != f]
    accepted = [a for key, a in after.acceptances.items() if before.acceptances.get(key) != a]
    actions += [AcceptTunnel(a) for a in accepted if not _looked_up(a)]
    actions += [n for key, n in after.neighbours.items() if before.neighbours.get(key) != n]
    actions += [InstallOutbound(o) for key, o in after.outbound.items() if before.outbound.get(key) != o]
    actions += [
        InstallTranslation(t) for key, t in after.translations.items() if before.translations.get(key) != t
    ]
    actions += [InstallBinding(b) for key, b in after.bindings.items() if before.bindings.get(key) != b]
    actions += [AcceptTunnel(a) for a in accepted if _looked_up(a)]
    actions += [
        RemoveBinding(key, old.stage)
        for key, old in before.bindings.items()
        if key not in after.bindings or after.bindings[key].stage is not old.stage
    ]
    actions += [RemoveTranslation(*key) for key in before.translations if key not in after.translations]
    actions += [RemoveOutbound(*key) for key in before.outbound if key not in after.outbound]
    actions += [RemoveNeighbour(*key) for key in before.neighbours if key not in after.neighbours]
    actions += [RefuseTunnel(a) for key, a in before.acceptances.items() if key not in after.acceptances]
    actions += [RemoveFilter(*key) for key in before.filters if key not in after.filters]
    actions += [RemoveLocalEndpoint(each) for each in sorted(before.endpoints - after.endpoints, key=str)]
    return actions


def _looked_up(acceptance: TunnelAcceptance) -> bool:
    """What comes out is looked up once more: the binding that it is to meet must be there first."""
    return acceptance.side is Side.TO_HOME_ADDRESS and acceptance.link is None
