"""The forwarding state that a role wants, as a value, and the actions that lead from one to another.

Roles say what shall be; only differences reach the data plane. It must not know why a state is wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from locum.roles.actions import (
    AcceptTunnel,
    Action,
    Addr,
    BindingEntry,
    InstallBinding,
    InstallOutbound,
    InstallTranslation,
    LocalEndpoint,
    NeighbourEntry,
    OutboundEntry,
    RefuseTunnel,
    RemoveBinding,
    RemoveLocalEndpoint,
    RemoveNeighbour,
    RemoveOutbound,
    RemoveTranslation,
    Side,
    Translation,
    TunnelAcceptance,
)

AcceptanceKey = tuple[Addr, Addr, Side]
NeighbourKey = tuple[str, Addr]
TranslationKey = tuple[Addr, Addr | None]


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Entries by their keys; flows are not part of it, they change step by step during a handover."""

    bindings: Mapping[Addr, BindingEntry] = field(default_factory=dict)
    acceptances: Mapping[AcceptanceKey, TunnelAcceptance] = field(default_factory=dict)
    outbound: Mapping[Addr, OutboundEntry] = field(default_factory=dict)
    neighbours: Mapping[NeighbourKey, NeighbourEntry] = field(default_factory=dict)
    endpoints: frozenset[Addr] = frozenset()
    translations: Mapping[TranslationKey, Translation] = field(default_factory=dict)


NOTHING = Forwarding()


def forwarding(
    *entries: BindingEntry | TunnelAcceptance | OutboundEntry | NeighbourEntry | LocalEndpoint | Translation,
) -> Forwarding:
    """The state that consists of these entries."""
    return Forwarding(
        bindings={e.home_address: e for e in entries if isinstance(e, BindingEntry)},
        acceptances={
            (e.outer_source, e.home_address, e.side): e for e in entries if isinstance(e, TunnelAcceptance)
        },
        outbound={e.home_address: e for e in entries if isinstance(e, OutboundEntry)},
        neighbours={(e.link, e.address): e for e in entries if isinstance(e, NeighbourEntry)},
        endpoints=frozenset(e.address for e in entries if isinstance(e, LocalEndpoint)),
        translations={(e.home_address, e.tunnel): e for e in entries if isinstance(e, Translation)},
    )


def changes(before: Forwarding, after: Forwarding) -> list[Action]:
    """Differences only. What is needed comes before what uses it, permissions are taken away last."""
    if before == after:
        return []
    actions: list[Action] = [
        LocalEndpoint(each) for each in sorted(after.endpoints - before.endpoints, key=str)
    ]
    actions += [AcceptTunnel(a) for key, a in after.acceptances.items() if before.acceptances.get(key) != a]
    actions += [n for key, n in after.neighbours.items() if before.neighbours.get(key) != n]
    actions += [InstallOutbound(o) for key, o in after.outbound.items() if before.outbound.get(key) != o]
    actions += [
        InstallTranslation(t) for key, t in after.translations.items() if before.translations.get(key) != t
    ]
    actions += [InstallBinding(b) for key, b in after.bindings.items() if before.bindings.get(key) != b]
    actions += [
        RemoveBinding(key, old.stage)
        for key, old in before.bindings.items()
        if key not in after.bindings or after.bindings[key].stage is not old.stage
    ]
    actions += [RemoveTranslation(*key) for key in before.translations if key not in after.translations]
    actions += [RemoveOutbound(key) for key in before.outbound if key not in after.outbound]
    actions += [RemoveNeighbour(*key) for key in before.neighbours if key not in after.neighbours]
    actions += [RefuseTunnel(a) for key, a in before.acceptances.items() if key not in after.acceptances]
    actions += [RemoveLocalEndpoint(each) for each in sorted(before.endpoints - after.endpoints, key=str)]
    return actions
