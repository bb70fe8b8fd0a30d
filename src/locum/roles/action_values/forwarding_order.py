"""The order in which forwarding entries are installed and removed, for all that compare or combine forwarding state.

Entries change one at a time, and packets pass between two changes. While one home address goes from any state to any
other, this is the law for a packet that meets its entries in between:

- Nothing is let in before it may be: a packet that neither state lets in is dropped or held.
- Nothing is dropped in between: a packet that both states let in alike, or both hold, meets the same treatment.

The order that follows:

1. Inward permissions (tunnels to the home address) that are only taken away go first. New ones come last, when all
   that judges their packets is in place and all that would have let them pass is gone.
2. Entries are installed in the order of `_TABLES`: the next stage of a packet comes before the entry that sends it there.
   The end points of this host come first, since every tunnel to them needs them, then restrictions (filters).
3. Two roles of one host may have one home address. Its local end comes after the home agent's entry and goes before it, and
   a flow that is delivered changes between the two: else a guard would drop packets that other entries decide about both
   before and after. An entry that let nothing past is replaced by one that does when the local end is in place.
4. Permissions that replace another of the same source change between the installations and the removals; one for a single
   end point that takes the place of one for any, without a link, comes first, and goes last the other way round. A local
   translation is a permission too, at the guard: it is removed before them and installed after them.
5. Entries are removed against the order of `_TABLES`.

Reverse tunnels (from the home address) have no entry that judges their packets. Their permission comes before the
binding and goes after it, so that an answer is let in while the packets that ask for it are sent.

An entry with a key that was there is replaced, and counts as installed. The law has three limits: of two home addresses
that change together each keeps it for itself; a source that sends both inward and reverse tunnels for one packet is
judged by two permissions; and where two tables with rules are both replaced, no order suits all packets, because
rules may send one packet from the first table to the second before the change and another one after it.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias, TypeVar, get_args

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.flows import (
    ForwardGroup,
    InstallFilter,
    InstallTranslation,
    OfferService,
    RemoveFilter,
    RemoveTranslation,
    Translation,
    UnwatchPort,
    WatchPort,
    WithdrawService,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    ClearFlow,
    FlowVerdict,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    NeighbourEntry,
    RefuseTunnel,
    ReleaseHeld,
    RemoveBinding,
    RemoveLocalEndpoint,
    RemoveNeighbour,
    RemoveOutbound,
    SetFlow,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.action_values.paging import DropPaged, ReleasePaged
from locum.wire.values import value

Install: TypeAlias = (
    LocalEndpoint | InstallFilter | AcceptTunnel | NeighbourEntry | InstallOutbound | InstallTranslation
    | ForwardGroup | OfferService | WatchPort | SetFlow | InstallBinding
)  # fmt: skip
Remove: TypeAlias = (
    RemoveLocalEndpoint | RemoveFilter | RefuseTunnel | RemoveNeighbour | RemoveOutbound | RemoveTranslation
    | ForwardGroup | WithdrawService | UnwatchPort | ClearFlow | RemoveBinding
)  # fmt: skip
Change: TypeAlias = Install | Remove
INSTALLING = get_args(Install)
Key: TypeAlias = tuple[object, ...]
Action_ = TypeVar("Action_")

_TABLES: tuple[object, ...] = (
    LocalEndpoint, InstallFilter, AcceptTunnel, NeighbourEntry, InstallOutbound, ForwardGroup, OfferService,
    WatchPort, SetFlow, InstallTranslation, Stage.LOCAL, Stage.VISITED, Stage.HOME,
)  # fmt: skip
_ORDER = {table: place for place, table in enumerate(_TABLES)}
_WIDTH = len(_TABLES)  # places in each phase
(
    _NARROW_IN, _NARROW_OUT, _REVOKE, _INSTALL, _DELIVER, _CLOSE_LOCAL, _OPEN, _REVOKE_LOCAL, _SWAP_IN, _SWAP_OUT,
    _GRANT_LOCAL, _OPEN_LOCAL, _DELIVER_NO_MORE, _REMOVE, _GRANT, _WIDEN_IN, _WIDEN_OUT,
) = range(0, 17 * _WIDTH, _WIDTH)  # fmt: skip
_CLOSING = (Verdict.HOLD, Verdict.REPORT, Verdict.DROP)
_PERMISSIONS = (AcceptTunnel, RefuseTunnel)


def _acceptance_key(value: TunnelAcceptance) -> Key:
    return (
        AcceptTunnel,
        value.outer_source,
        value.home_address,
        value.side,
        value.end is not None,
        value.gre_key,
    )


_KEYS: dict[type, Callable[[Any], Key]] = {
    LocalEndpoint: lambda it: (LocalEndpoint, it.address),
    RemoveLocalEndpoint: lambda it: (LocalEndpoint, it.address),
    InstallFilter: lambda it: (InstallFilter, it.filter.home_address, it.filter.place),
    RemoveFilter: lambda it: (InstallFilter, it.home_address, it.place),
    AcceptTunnel: lambda it: _acceptance_key(it.acceptance),
    RefuseTunnel: lambda it: _acceptance_key(it.acceptance),
    NeighbourEntry: lambda it: (NeighbourEntry, it.link, it.address),
    RemoveNeighbour: lambda it: (NeighbourEntry, it.link, it.address),
    InstallOutbound: lambda it: (InstallOutbound, it.entry.home_address, it.entry.link),
    RemoveOutbound: lambda it: (InstallOutbound, it.home_address, it.link),
    InstallTranslation: lambda it: (InstallTranslation, it.translation.home_address, it.translation.tunnel),
    RemoveTranslation: lambda it: (InstallTranslation, it.home_address, it.tunnel),
    ForwardGroup: lambda it: (ForwardGroup, it.group),
    OfferService: lambda it: (OfferService, it.protocol, it.port),
    WithdrawService: lambda it: (OfferService, it.protocol, it.port),
    WatchPort: lambda it: (WatchPort, it.home_address, it.port),
    UnwatchPort: lambda it: (WatchPort, it.home_address, it.port),
    SetFlow: lambda it: (SetFlow, it.entry.flow),
    ClearFlow: lambda it: (SetFlow, it.flow),
    InstallBinding: lambda it: (it.entry.stage, it.entry.home_address),
    RemoveBinding: lambda it: (it.stage, it.home_address),
}
_OPPOSITES: dict[type, Callable[[Any], Remove]] = {
    LocalEndpoint: lambda it: RemoveLocalEndpoint(it.address),
    InstallFilter: lambda it: RemoveFilter(it.filter.home_address, it.filter.place),
    AcceptTunnel: lambda it: RefuseTunnel(it.acceptance),
    NeighbourEntry: lambda it: RemoveNeighbour(it.link, it.address),
    InstallOutbound: lambda it: RemoveOutbound(it.entry.home_address, it.entry.link),
    InstallTranslation: lambda it: RemoveTranslation(it.translation.home_address, it.translation.tunnel),
    ForwardGroup: lambda it: ForwardGroup(it.group, it.upstream, ()),
    OfferService: lambda it: WithdrawService(it.protocol, it.port),
    WatchPort: lambda it: UnwatchPort(it.home_address, it.port),
    SetFlow: lambda it: ClearFlow(it.entry.flow),
    InstallBinding: lambda it: RemoveBinding(it.entry.home_address, it.entry.stage),
}


_HOMES: dict[type, Callable[[Any], Addr]] = {
    InstallFilter: lambda it: it.filter.home_address,
    RemoveFilter: lambda it: it.home_address,
    AcceptTunnel: lambda it: it.acceptance.home_address,
    RefuseTunnel: lambda it: it.acceptance.home_address,
    InstallOutbound: lambda it: it.entry.home_address,
    RemoveOutbound: lambda it: it.home_address,
    InstallTranslation: lambda it: it.translation.home_address,
    RemoveTranslation: lambda it: it.home_address,
    WatchPort: lambda it: it.home_address,
    UnwatchPort: lambda it: it.home_address,
    SetFlow: lambda it: it.entry.flow.local,
    ClearFlow: lambda it: it.flow.local,
    InstallBinding: lambda it: it.entry.home_address,
    RemoveBinding: lambda it: it.home_address,
}


_TABLE_OF: dict[type, type] = {
    RemoveLocalEndpoint: LocalEndpoint,
    RemoveFilter: InstallFilter,
    RefuseTunnel: AcceptTunnel,
    RemoveNeighbour: NeighbourEntry,
    RemoveOutbound: InstallOutbound,
    RemoveTranslation: InstallTranslation,
    WithdrawService: OfferService,
    UnwatchPort: WatchPort,
    ClearFlow: SetFlow,
}


def difference(before: Iterable[Install], after: Iterable[Install]) -> list[Change]:
    """The changes that turn the entries of `before` into those of `after`, in order; each key is there once."""
    had = {_KEYS[type(entry)](entry): entry for entry in before}
    if not had:
        return _in_order([*after])
    changes: list[Change] = []
    replaced: list[AcceptTunnel] = []
    closed: set[Key] = set()
    for entry in after:
        key = _KEYS[type(entry)](entry)
        old = had.pop(key, None)
        if old != entry:
            changes.append(entry)
            if old is not None and isinstance(entry, AcceptTunnel):
                replaced.append(entry)
            if isinstance(old, InstallBinding) and _closes(old.entry):
                closed.add(key)
    changes += [_OPPOSITES[type(entry)](entry) for entry in had.values()]
    return _in_order(changes, replaced, closed)


@value
class HomeEntries:
    """Entries of one home address at its home agent. All its permissions are for reverse tunnels, one a source."""

    entry: BindingEntry | None = None  # None: packets go natively
    accepted: tuple[TunnelAcceptance, ...] = ()  # reverse tunnels (R10)
    translations: tuple[Translation, ...] = ()  # each of its own tunnel

    def entries(self) -> list[Install]:
        """The actions that install each entry."""
        entries: list[Install] = [*map(AcceptTunnel, self.accepted)]
        entries += map(InstallTranslation, self.translations)
        return entries if self.entry is None else [*entries, InstallBinding(self.entry)]


def home_difference(before: HomeEntries, after: HomeEntries) -> list[Change]:
    """Same as `difference` of both, spelled out because a home agent needs it at every move of a mobile node."""
    changes: list[Change] = []
    had, accepted = before.accepted, after.accepted
    for acceptance in accepted:
        if acceptance not in had:
            changes.append(AcceptTunnel(acceptance))
    for translation in after.translations:
        if translation not in before.translations:
            changes.append(InstallTranslation(translation))
    old, entry = before.entry, after.entry
    if entry is None:
        if old is not None:
            changes.append(RemoveBinding(old.home_address, old.stage))
    elif entry != old:
        changes.append(InstallBinding(entry))
    if before.translations:
        tunnels = [translation.tunnel for translation in after.translations]
        for translation in before.translations:
            if translation.tunnel not in tunnels:
                changes.append(RemoveTranslation(translation.home_address, translation.tunnel))
    if had is not accepted:
        sources = [acceptance.outer_source for acceptance in accepted]
        for acceptance in had:
            if acceptance.outer_source not in sources:
                changes.append(RefuseTunnel(acceptance))
    return changes


def net_effect(actions: Iterable[Action_]) -> list[Action_]:
    """The last change of each entry, in order. An action that changes no entry stays behind those given before it."""
    result: list[Action_] = []
    last: dict[Key, Action_] = {}
    for action in actions:
        if (key := _KEYS.get(type(action))) is not None:
            last[key(action)] = action
        else:
            result += [*_in_order(last.values()), action]
            last.clear()
    return [*result, *_in_order(last.values())]


def key_of(action: object) -> Key | None:
    """The key of the entry that the action changes; None for an action that changes none."""
    found = _KEYS.get(type(action))
    return None if found is None else found(action)


def opposite(entry: Install) -> Remove:
    """The action that removes what `entry` installs."""
    return _OPPOSITES[type(entry)](entry)


def home_address_of(action: object) -> Addr | None:
    """The home address that a forwarding action is about; None for an entry of the whole host."""
    if isinstance(action, ReleaseHeld | DropHeld | ReleasePaged | DropPaged):
        return action.home_address
    found = _HOMES.get(type(action))
    return None if found is None else found(action)


def by_home_address(actions: Iterable[Action_]) -> list[list[Action_]]:
    """The actions in parts that may be performed without each other: one for each home address, in order within it.

    Each entry of the whole host is a part of its own: new ones stand before all other parts, removals behind them.
    """
    first: list[list[Action_]] = []
    last: list[list[Action_]] = []
    parts: dict[Addr, list[Action_]] = {}
    for action in actions:
        home_address = home_address_of(action)
        if home_address is not None:
            parts.setdefault(home_address, []).append(action)
        elif _removes(action):
            last.append([action])
        else:
            first.append([action])
    return [*first, *parts.values(), *last]


def in_batches(actions: Collection[Action_], size: int) -> list[list[Action_]]:
    """The actions in batches of about `size`, to be performed one after the other; in each in the order given.

    Those of one home address are in one batch. Those of the whole host are beside them, as in `by_home_address`.
    """
    if len(actions) <= size:
        return [[*actions]] if actions else []
    number = -(-len(actions) // size)
    batches: list[list[Action_]] = [[] for _ in range(number + 2)]
    for action in actions:
        home_address = home_address_of(action)
        if home_address is not None:
            batches[1 + int(home_address) % number].append(action)
        else:
            batches[-1 if _removes(action) else 0].append(action)
    return [batch for batch in batches if batch]


def _removes(action: object) -> bool:
    return type(action) in _TABLE_OF or (isinstance(action, ForwardGroup) and not action.links)


def _closes(entry: BindingEntry) -> bool:
    """True if no packet gets past the entry."""
    return entry.verdict in _CLOSING and not entry.rules and entry.peer is None


def _in_order(
    changes: Collection[Action_], replaced: Collection[AcceptTunnel] = (), closed: Collection[Key] = ()
) -> list[Action_]:
    """The changes in the order of the law; `replaced` are those permissions among them whose keys exist already."""
    if len(changes) < 2:
        return [*changes]
    inward = [
        action.acceptance
        for action in changes
        if isinstance(action, AcceptTunnel) and _inward(action.acceptance)
    ]
    granted = {_from_where(acceptance) for acceptance in inward}
    swapped = {_from_where(tunnel.acceptance) for tunnel in replaced}
    if granted:
        swapped |= granted & {
            _from_where(action.acceptance) for action in changes if isinstance(action, RefuseTunnel)
        }

    accepted_at = _with_and_without_end(changes, AcceptTunnel) if swapped else _NOWHERE
    refused_at = _with_and_without_end(changes, RefuseTunnel) if swapped else _NOWHERE

    def place(change: Any) -> int:
        kind = type(change)
        if kind is InstallBinding:
            stage = change.entry.stage
            if stage is Stage.LOCAL:
                return _CLOSE_LOCAL
            opens = closed and (stage, change.entry.home_address) in closed and not _closes(change.entry)
            return _OPEN + _ORDER[stage] if opens else _INSTALL + _ORDER[stage]
        if kind is RemoveBinding:
            return _OPEN_LOCAL if change.stage is Stage.LOCAL else _REMOVE + _WIDTH - 1 - _ORDER[change.stage]
        if kind is SetFlow and change.entry.verdict is FlowVerdict.DELIVER:
            return _DELIVER
        if kind is ClearFlow:
            return _DELIVER_NO_MORE
        if kind in _PERMISSIONS and _inward(change.acceptance):
            where = _from_where(change.acceptance)
            if where in accepted_at[True] and where in refused_at[False]:
                return _NARROW_IN if kind is AcceptTunnel else _NARROW_OUT
            if where in accepted_at[False] and where in refused_at[True]:
                return _WIDEN_IN if kind is AcceptTunnel else _WIDEN_OUT
            swaps = where in swapped
            if kind is AcceptTunnel:
                return _SWAP_IN if swaps else _GRANT
            return _SWAP_OUT if swaps else _REVOKE
        if kind is InstallTranslation and change.translation.tunnel is None:
            return _GRANT_LOCAL
        if kind is RemoveTranslation and change.tunnel is None:
            return _REVOKE_LOCAL
        if _removes(change):
            return _REMOVE + _WIDTH - 1 - _ORDER[_TABLE_OF.get(kind, kind)]
        return _INSTALL + _ORDER[kind]

    return sorted(changes, key=place)


_NOWHERE: dict[bool, frozenset[Key]] = {True: frozenset(), False: frozenset()}


def _with_and_without_end(changes: Iterable[Action_], kind: type) -> dict[bool, frozenset[Key]]:
    """Return the sources of inward permissions among changes of one kind: of those for one end point (True), and of others."""
    found = [
        change.acceptance
        for change in changes
        if isinstance(change, AcceptTunnel | RefuseTunnel)
        and type(change) is kind
        and _inward(change.acceptance)
    ]
    return {
        True: frozenset(_from_where(it) for it in found if it.end is not None),
        False: frozenset(_from_where(it) for it in found if it.end is None and it.link is None),
    }


def _inward(acceptance: TunnelAcceptance) -> bool:
    """True if other entries of the same home address judge the packets that come out of the tunnel."""
    return acceptance.side is Side.TO_HOME_ADDRESS


def _from_where(acceptance: TunnelAcceptance) -> Key:
    """The key of an acceptance without its end point: permissions of one source replace each other."""
    return acceptance.outer_source, acceptance.home_address, acceptance.side
