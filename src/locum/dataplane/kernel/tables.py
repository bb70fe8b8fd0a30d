"""Forwarding state in the kernel's maps: writes entries, caches them, reads them back after a restart.

It knows map layouts and order of writes, but no interface, queue or pin: `links` gives interfaces' indices.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from locum.dataplane.compact import compact_state, share
from locum.dataplane.kernel import groups, services, translation
from locum.dataplane.kernel.entries import Entries, take_over
from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.kernel.rule_tables import RuleTables
from locum.dataplane.kernel.senders.access_links import AccessLinks
from locum.dataplane.kernel.senders.tunnel_sources import TunnelSources
from locum.dataplane.layout import maps
from locum.dataplane.state import ForwardingState, Noted, acceptance_key, tunnels_of
from locum.dataplane.tunnel_ends import TunnelEnds
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, FilterPlace, Tunnel
from locum.roles.action_values.forwarding import (
    BindingEntry,
    FlowVerdict,
    OutboundEntry,
    RemoveOutbound,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.control import Flow


class Tables:
    """The maps and the state that is in them. `index_of` gives the index of a link, or None while it is gone.

    `use` is called with whether a place has filters, `check` with whether sources on access links are checked. An entry
    is in `state` before it is written: where a write fails, removing the entry, or installing another in its place,
    leaves nothing of it in the maps.
    """

    def __init__(
        self,
        found: dict[str, Entries],
        others: dict[str, Map],
        index_of: Callable[[str], int | None],
        use: Callable[[FilterPlace, bool], None],
        check: Callable[[bool], None] = lambda _used: None,
    ) -> None:
        self._maps = found
        self._others = others
        self._index_of = index_of
        self.rules = RuleTables(found, use)
        self.state = compact_state()
        self.noted: list[Noted] | None = None  # where bindings and permissions that change are noted before
        self.access = AccessLinks(found, others["link_networks"], index_of, check)
        self._sources = TunnelSources(others["tunnel_sources"])
        self.ends = TunnelEnds()
        self._own: set[Addr] = set()
        value = others["own_addresses"].get(bytes(4))
        self._own_bits: int = maps.OWN_ADDRESSES.unpack(value)[0] if value else 0
        self._for_ends = 0  # permissions for one of our end points alone
        self._flow_count: Tally[Addr] = Tally()
        self._outbound_keys: dict[tuple[Addr, str | None], bytes] = {}
        self._more: set[bytes] = set()  # keys in "binding_more"

    def read(self, names: dict[int, str]) -> ForwardingState:
        """Read the kernel's maps. `names` are the interfaces by index."""
        state = compact_state()
        for key, value in self._maps["endpoints"].items():
            if maps.WORD.unpack(value)[0] & maps.ENDPOINT:
                state.endpoints.add(maps.address_of(key))
        self._read_bindings(state)
        for key, value in self._maps["acceptances"].items():
            acceptance = maps.acceptance_of(key, value, names, self.access.hardware)
            state.acceptances[acceptance_key(acceptance)] = acceptance
        for key, value in self._maps["outbound"].items():
            home, ifindex, _ = maps.OUTBOUND_KEY.unpack(key)
            link = names.get(ifindex, f"#{ifindex}") if ifindex else None
            entry_out = OutboundEntry(maps.address_of(home), link, maps.tunnel_of(value))
            state.outbound.setdefault(entry_out.home_address, {})[link] = entry_out
        for key, value in self._maps["flows"].items():
            state.flows[maps.flow_of(key)] = maps.FLOW_VERDICTS[maps.WORD.unpack(value)[0]]
        state.translations = translation.read(self._maps)
        state.groups = groups.read(self._maps, names)
        state.services = services.read(self._others)
        state.watched = services.read_watched(self._others)
        return state

    def _read_bindings(self, state: ForwardingState) -> None:
        rules, state.filters = self.rules.read()
        more = dict(self._maps["binding_more"].items())
        for key, value in self._maps["bindings"].items():
            entry = maps.binding_of(key, value, more.get(key), rules.get(maps.address_of(key), ()))
            if entry is not None:
                state.bindings[entry.home_address] = entry
            end = maps.local_end_of(key, value)
            if end is not None:
                state.local_ends[end.home_address] = end
        for key, value in self._maps["visited"].items():
            entry = maps.binding_of(key, value, None)
            if entry is not None:
                state.visited[entry.home_address] = replace(entry, at=Stage.VISITED)

    def adopt(self, names: dict[int, str]) -> None:
        """Take over the entries that are in the maps, and forget the others but those that wait for their link.

        Own addresses that are gone since go with the next `set_own`.
        """
        take_over(self._maps)
        before, self.state = self.state, self.read(names)
        self.state.keep_waiting(before, lambda link: self._index_of(link) is not None)
        self._own = {
            maps.address_of(key)
            for key, value in self._maps["endpoints"].items()
            if maps.WORD.unpack(value)[0] & maps.OWN
        }
        for key, _ in self._others["first_fragments"].items():
            self._forget_fragments(maps.address_of(key))
        self._set_own_bits(maps.own_bits(self.state.endpoints | self._own))
        self.access.adopt(self.state.acceptances.values())
        self._sources.adopt(self.state.acceptances.values())
        self._for_ends = sum(key[3] for key in self.state.acceptances)
        self.ends.fill(self.state.tunnels())
        self.rules.adopt({home: entry.rules for home, entry in self.state.bindings.items() if entry.rules})
        self._flow_count = Tally(flow.local for flow in self.state.flows)
        self._more = {key for key, _ in self._maps["binding_more"].items()}
        indices = {name: index for index, name in names.items()}
        self._outbound_keys.clear()
        for entry in self.state.outbound_entries():
            link = entry.link
            index = 0 if link is None else int(link[1:]) if link[0] == "#" else indices.get(link)
            if index is not None:
                self._outbound_keys[entry.home_address, link] = maps.outbound_key(entry.home_address, index)

    def share(self, wanted: ForwardingState) -> None:
        """Keep the keys and values of `wanted` for those that are equal: their owner has them in memory as well."""
        share(self.state, wanted)

    # End points and own addresses

    @property
    def own(self) -> frozenset[Addr]:
        """Addresses of the attached interfaces."""
        return frozenset(self._own)

    def set_own(self, addresses: set[Addr]) -> None:
        """Addresses of the attached interfaces."""
        changed = self._own ^ addresses
        self._own = set(addresses)
        for address in changed:
            self._write_address(address)
        if changed:
            self.accept([a for a in self.state.acceptances.values() if a.next_hop in changed])

    def add_endpoint(self, address: Addr) -> None:
        if address not in self.state.endpoints:
            self.state.endpoints.add(address)
            self._write_address(address)
            self._end_moved(address)

    def remove_endpoint(self, address: Addr) -> None:
        if address in self.state.endpoints:
            self.state.endpoints.discard(address)
            self._write_address(address)
            self._end_moved(address)

    def _end_moved(self, address: Addr) -> None:
        """Rewrite entries that lead into tunnels to this address after these begin or end here (R17)."""
        bindings, visited, outbound = self.state.leading_to(address)
        self.install_bindings(bindings)
        for entry in visited:
            self.install_visited(entry)
        for entry_out in outbound:
            self.install_outbound(entry_out)

    def _write_address(self, address: Addr) -> None:
        flags = maps.ENDPOINT * (address in self.state.endpoints) | maps.OWN * (address in self._own)
        if flags:
            self._set_own_bits(self._own_bits | maps.own_bits([address]))
            self._maps["endpoints"].put(maps.address(address), maps.WORD.pack(flags))
        else:
            self._maps["endpoints"].delete(maps.address(address))
            self._set_own_bits(maps.own_bits(self.state.endpoints | self._own))

    def _set_own_bits(self, bits: int) -> None:
        """Programs look up only addresses whose bit is set: before an entry is written, and until it is deleted."""
        if bits != self._own_bits:
            self._others["own_addresses"].put(bytes(4), maps.OWN_ADDRESSES.pack(bits))
            self._own_bits = bits

    # Bindings

    def install_bindings(self, entries: Sequence[BindingEntry]) -> None:
        """Add or replace those of Stage.HOME; rules and the rarer half are there before the entry.

        Raises ValueError for more tunnels, candidates or rules than there is room for.
        """
        moved: list[tuple[Sequence[Tunnel], Sequence[Tunnel]]] = []
        try:
            self._install_home(entries, moved)
        finally:
            self.ends.replace_many(moved)

    def _install_home(
        self, entries: Sequence[BindingEntry], moved: list[tuple[Sequence[Tunnel], Sequence[Tunnel]]]
    ) -> None:
        """The same; `moved` gets the tunnels of each binding as it was and as it is."""
        more, values, plainer = [], {}, []
        # By identity, for many bindings lead to few agents: tunnels, and values that say nothing else.
        written: dict[int, bytes] = {}
        plain: dict[tuple[int, int], bytes] = {}
        for entry in entries:
            if len(entry.tunnels) > maps.MAX_TUNNELS:
                raise ValueError(f"{entry.home_address}: more than {maps.MAX_TUNNELS} tunnels")
            if entry.weights and len(entry.weights) != len(entry.tunnels):
                raise ValueError(f"{entry.home_address}: not one weight for each tunnel")
            key = maps.address(entry.home_address)
            old = self.state.bindings.get(entry.home_address)
            if self.noted is not None:
                self.noted.append((old, entry))
            before, after = tunnels_of(old) if old else (), tunnels_of(entry)
            if len(after) == 1 or before != after:  # one is quicker to count than to compare
                moved.append((before, after))
            self.state.bindings[entry.home_address] = entry
            if old is not None and (old.rules or old.weights) and not (entry.rules or entry.weights):
                plainer.append(entry.home_address)
            if entry.rules:
                self.rules.install(entry.home_address, entry.rules, self.state.endpoints)
            extra = maps.binding_more(entry, self.state.endpoints)
            if extra is not None:
                more.append((key, extra))
                self._more.add(key)
            beside = self._beside(entry.home_address)
            simple = extra is None and not entry.rules and beside is maps.NOTHING_BESIDE
            at = (id(entry.tunnels[0]) if entry.tunnels else 0, id(entry.verdict))
            value = plain.get(at) if simple else None
            if value is None:
                packed = None
                if entry.tunnels:
                    packed = written.get(at[0])
                    if packed is None:
                        packed = written[at[0]] = maps.tunnel(entry.tunnels[0], self.state.endpoints)
                value = maps.binding(entry, beside, packed)
                if simple:
                    plain[at] = value
            values[key] = value
        self._maps["binding_more"].put_many(more)
        self._maps["bindings"].put_many(list(values.items()))
        for entry in entries:
            if not entry.rules:
                self.rules.remove(entry.home_address)
        for home_address in plainer:
            self._forget_fragments(home_address)

    def install_visited(self, entry: BindingEntry) -> None:
        """Add or replace one of Stage.VISITED. Raises ValueError for more than one tunnel, rules, a peer or weights."""
        if len(entry.tunnels) > 1 or entry.rules or entry.peer or entry.weights:
            raise ValueError(f"{entry.home_address}: an access node has one tunnel and no more for it")
        first = maps.tunnel(entry.tunnels[0], self.state.endpoints) if entry.tunnels else None
        old = self.state.visited.get(entry.home_address)
        if self.noted is not None:
            self.noted.append((old, entry))
        self._ends_of(old, entry)
        self.state.visited[entry.home_address] = entry
        self.rules.visited_counter(entry.home_address, there=True)
        self._maps["visited"].put(maps.address(entry.home_address), maps.binding(entry, first=first))
        self._write_beside(entry.home_address)

    def install_local_end(self, entry: BindingEntry) -> None:
        """Add or replace one of Stage.LOCAL. Raises ValueError for a verdict that leads elsewhere."""
        if entry.verdict is Verdict.ENCAPSULATE or entry.tunnels or entry.rules or entry.peer:
            raise ValueError(f"{entry.home_address}: nothing goes on from a local end")
        if self.noted is not None:
            self.noted.append((self.state.local_ends.get(entry.home_address), entry))
        self.state.local_ends[entry.home_address] = entry
        self._write_beside(entry.home_address)

    def remove_bindings(self, home_addresses: Iterable[Addr], stage: Stage) -> None:
        """Missing ones are no error."""
        entries, gone, following = self.state.stage(stage), [], []
        for home_address in home_addresses:
            old = entries.pop(home_address, None)
            if old is None:
                continue
            self._ends_of(old, None)
            gone.append(home_address)
            if old.rules or old.weights or stage is Stage.LOCAL:
                following.append(home_address)
        if stage is Stage.HOME:
            self._remove_home(gone)
        else:
            self._remove_beside(gone, stage)
        for home_address in following:
            self._forget_fragments(home_address)

    def _remove_beside(self, home_addresses: Sequence[Addr], stage: Stage) -> None:
        """Of another stage."""
        for home_address in home_addresses:
            self._write_beside(home_address)
            if stage is Stage.VISITED:
                self._maps["visited"].delete(maps.address(home_address))
                self.rules.visited_counter(home_address, there=False)

    def _remove_home(self, home_addresses: Sequence[Addr]) -> None:
        """Of Stage.HOME; nearly all have nothing beside the entry, and go together."""
        bindings, alone = self._maps["bindings"], []
        for home_address in home_addresses:
            key = maps.address(home_address)
            if self._beside(home_address).flags:
                self._write_beside(home_address)
                bindings.reset(key)
            else:
                alone.append(key)
        bindings.delete_many(alone)
        for home_address in home_addresses:
            if self._more and (key := maps.address(home_address)) in self._more:
                self._maps["binding_more"].delete(key)
                self._more.discard(key)
            self.rules.remove(home_address)

    def _ends_of(self, old: BindingEntry | None, new: BindingEntry | None) -> None:
        """An entry takes the place of another, or there is none."""
        before, after = tunnels_of(old) if old else (), tunnels_of(new) if new else ()
        if before != after:
            self.ends.replace(before, after)

    def _beside(self, home_address: Addr) -> maps.Beside:
        state = self.state
        if not (self._flow_count or state.local_ends or state.visited):
            return maps.NOTHING_BESIDE
        end = state.local_ends.get(home_address)
        flows = bool(self._flow_count[home_address])
        return maps.Beside(flows, None if end is None else end.verdict, home_address in state.visited)

    def _write_beside(self, home_address: Addr) -> None:
        """Rewrite the entries beside the home agent's entry after they changed or that entry was removed."""
        entry, beside = self.state.bindings.get(home_address), self._beside(home_address)
        key = maps.address(home_address)
        if entry is None and not beside.flags:
            self._maps["bindings"].delete(key)
            return
        first = maps.tunnel(entry.tunnels[0], self.state.endpoints) if entry and entry.tunnels else None
        self._maps["bindings"].put(key, maps.binding(entry, beside, first))

    # Filters

    def install_filter(self, value: Filter) -> None:
        """Add or replace. Raises ValueError for more rules than there is room for."""
        self.state.filters[value.home_address, value.place] = value
        self.rules.install_filter(value)

    def remove_filter(self, home_address: Addr, place: FilterPlace) -> None:
        if self.state.filters.pop((home_address, place), None) is not None:
            last = all(key[1] is not place for key in self.state.filters)
            self.rules.remove_filter(home_address, place, last=last)
            self._forget_fragments(home_address)

    # Acceptances

    def accept(self, acceptances: Sequence[TunnelAcceptance]) -> None:
        """Add or replace. One whose link is gone is written when the link comes back."""
        values = {}
        for acceptance in acceptances:
            key, place = maps.acceptance_key(acceptance), acceptance_key(acceptance)
            old = self.state.acceptances.get(place)
            if self.noted is not None:
                self.noted.append((old, acceptance))
            if old is not None and old.link != acceptance.link:
                self.access.refused(old)
            self.state.acceptances[place] = acceptance
            if old is None:
                self._sources.add(acceptance)
                self._for_ends += acceptance.end is not None
            if acceptance.link is not None:
                self.access.accepted(acceptance)
            index = 0 if acceptance.link is None else self._index_of(acceptance.link)
            if index is not None or acceptance.by_route:
                here = acceptance.next_hop is not None and acceptance.next_hop in self._own
                values[key] = maps.acceptance(acceptance, index or 0, here=here, ends=self._ends(acceptance))
        self._maps["acceptances"].put_many(list(values.items()))
        self._ends_changed(acceptances)

    def refuse(self, acceptances: Sequence[TunnelAcceptance]) -> None:
        """Remove a tunnel permission; a missing one is no error."""
        for acceptance in acceptances:
            old = self.state.acceptances.pop(acceptance_key(acceptance), None)
            if old is not None:
                if self.noted is not None:
                    self.noted.append((old, old))
                self._for_ends -= old.end is not None
                if old.link is not None:
                    self.access.refused(old)
                self._sources.remove(old)
        self._maps["acceptances"].delete_many([maps.acceptance_key(acceptance) for acceptance in acceptances])
        self._ends_changed(acceptances)

    def _ends(self, acceptance: TunnelAcceptance) -> bool:
        if not self._for_ends or acceptance.end is not None:
            return False
        source, home, side, _, gre_key = acceptance_key(acceptance)
        return (source, home, side, True, gre_key) in self.state.acceptances

    def _ends_changed(self, acceptances: Sequence[TunnelAcceptance]) -> None:
        """Rewrite the catch-all permission after a more specific one has come or gone."""
        beside = [
            (acceptance.outer_source, acceptance.home_address, acceptance.side, False, acceptance.gre_key)
            for acceptance in acceptances
            if acceptance.end is not None
        ]
        if beside:
            self.accept([self.state.acceptances[key] for key in beside if key in self.state.acceptances])

    # Outbound entries

    def install_outbound(self, entry: OutboundEntry) -> None:
        index = 0 if entry.link is None else self._index_of(entry.link)
        held = self.state.outbound.setdefault(entry.home_address, {})
        before = held.get(entry.link)
        held[entry.link] = entry
        self.ends.replace((before.tunnel,) if before else (), (entry.tunnel,))
        old = self._outbound_keys.get((entry.home_address, entry.link))
        if index is None:
            return
        key = maps.outbound_key(entry.home_address, index)
        self._outbound_keys[entry.home_address, entry.link] = key
        self._maps["outbound"].put(key, maps.tunnel(entry.tunnel, self.state.endpoints))
        if old is not None and old != key:
            self._maps["outbound"].delete(old)

    def remove_outbound(self, home_address: Addr, link: str | None) -> None:
        """No error if it is not there."""
        before = self.state.outbound.get(home_address, {}).get(link)
        self.ends.replace((before.tunnel,) if before else (), ())
        self.state.perform(RemoveOutbound(home_address, link))
        key = self._outbound_keys.pop((home_address, link), None)
        if key is not None:
            self._maps["outbound"].delete(key)

    def link_changed(self, link: str) -> None:
        """The link has another index than before: entries that name it are written again."""
        self.access.link_changed(link)
        self.accept([a for a in self.state.acceptances.values() if a.link == link])
        for entry in self.state.outbound_entries():
            if entry.link == link:
                self.install_outbound(entry)

    # Flows

    def set_flow(self, flow: Flow, verdict: FlowVerdict) -> None:
        """The flow's entry is there before the binding that makes the program look at it."""
        if flow not in self.state.flows:
            self._flow_count[flow.local] += 1
        self.state.flows[flow] = verdict
        self._maps["flows"].put(maps.flow_key(flow), maps.flow_verdict(verdict))
        if self._flow_count[flow.local] == 1:
            self._write_beside(flow.local)

    def clear_flow(self, flow: Flow) -> None:
        if self.state.flows.pop(flow, None) is None:
            return
        self._flow_count[flow.local] -= 1
        if not self._flow_count[flow.local]:
            del self._flow_count[flow.local]
            self._write_beside(flow.local)
            self._forget_fragments(flow.local)
        self._maps["flows"].delete(maps.flow_key(flow))

    def _forget_fragments(self, home_address: Addr) -> None:
        """Give the places for first fragments back of an address where ports decide about no packet any more."""
        entry = self.state.bindings.get(home_address)
        if (
            (entry is not None and (entry.rules or entry.weights))
            or home_address in self.state.local_ends
            or self._flow_count[home_address]
            or any((home_address, place) in self.state.filters for place in FilterPlace)
        ):
            return
        self._others["first_fragments"].delete(maps.address(home_address))

    # Counters

    def binding_counter(self, home_address: Addr) -> maps.Counter:
        return maps.counter_of(self._maps["bindings"].counter(maps.address(home_address)))

    def acceptance_counter(self, acceptance: TunnelAcceptance) -> maps.Counter:
        return maps.counter_of(self._maps["acceptances"].counter(maps.acceptance_key(acceptance)))

    def outbound_counter(self, entry: OutboundEntry) -> maps.Counter:
        key = self._outbound_keys.get((entry.home_address, entry.link))
        return maps.Counter() if key is None else maps.counter_of(self._maps["outbound"].counter(key))

    def reason_counts(self) -> dict[str, int]:
        """Packets by reason since the maps were made; every reason is there."""
        return {
            reason.label: self._others["reasons"].sum_per_cpu(maps.WORD.pack(reason))
            for reason in maps.Reason
            if reason is not maps.Reason.NONE
        }
