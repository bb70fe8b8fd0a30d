"""Forwarding state in the kernel's maps: writes entries, caches them, reads them back after a restart.

It knows map layouts and order of writes, but no interface, queue or pin: `links` gives interfaces' indices.
"""

from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from locum.dataplane.kernel import groups, services, translation
from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.kernel.rule_tables import ZERO, RuleTables
from locum.dataplane.layout import maps
from locum.dataplane.state import ForwardingState, acceptance_key, tunnels_of
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

    `use` is called with whether a place has filters.
    """

    def __init__(
        self,
        found: dict[str, Map],
        index_of: Callable[[str], int | None],
        use: Callable[[FilterPlace, bool], None],
    ) -> None:
        self._maps = found
        self._index_of = index_of
        self.rules = RuleTables(found, use)
        self.state = ForwardingState()
        self._own: set[Addr] = set()
        self._access: frozenset[str] = frozenset()
        self._access_indices: dict[str, int] = {}
        self._flow_count: Tally[Addr] = Tally()
        self._outbound_keys: dict[tuple[Addr, str | None], bytes] = {}

    def read(self, names: dict[int, str]) -> ForwardingState:
        """Read the kernel's maps. `names` are the interfaces by index."""
        state = ForwardingState()
        for key, value in self._maps["endpoints"].items():
            if maps.WORD.unpack(value)[0] & maps.ENDPOINT:
                state.endpoints.add(maps.address_of(key))
        self._read_bindings(state)
        for key, value in self._maps["acceptances"].items():
            acceptance = maps.acceptance_of(key, value, names)
            state.acceptances[acceptance_key(acceptance)] = acceptance
        for key, value in self._maps["outbound"].items():
            home, ifindex, _ = maps.OUTBOUND_KEY.unpack(key)
            link = names.get(ifindex, f"#{ifindex}") if ifindex else None
            entry_out = OutboundEntry(maps.address_of(home), link, maps.tunnel_of(value))
            state.outbound.setdefault(entry_out.home_address, {})[link] = entry_out
        for key, value in self._maps["flows"].items():
            state.flows[maps.flow_of(key)] = maps.FLOW_VERDICTS[maps.FLOW.unpack(value)[0]]
        state.translations = translation.read(self._maps)
        state.groups = groups.read(self._maps, names)
        state.services = services.read(self._maps)
        state.watched = services.read_watched(self._maps)
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
        """Take over the entries of an earlier daemon."""
        self.state = self.read(names)
        self.rules.adopt({home: entry.rules for home, entry in self.state.bindings.items() if entry.rules})
        self._flow_count = Tally(flow.local for flow in self.state.flows)
        indices = {name: index for index, name in names.items()}
        for entry in self.state.outbound_entries():
            index = (
                int(entry.link[1:])
                if entry.link and entry.link[0] == "#"
                else indices.get(entry.link or "", 0)
            )
            key = maps.outbound_key(entry.home_address, index)
            self._outbound_keys[entry.home_address, entry.link] = key

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

        def leads_there(tunnels: Iterable[Tunnel]) -> bool:
            return any(tunnel.destination == address for tunnel in tunnels)

        self.install_bindings([e for e in self.state.bindings.values() if leads_there(tunnels_of(e))])
        for entry in self.state.visited.values():
            if leads_there(entry.tunnels):
                self.install_visited(entry)
        for outbound in self.state.outbound_entries():
            if leads_there((outbound.tunnel,)):
                self.install_outbound(outbound)

    def _write_address(self, address: Addr) -> None:
        flags = (maps.ENDPOINT if address in self.state.endpoints else 0) | (
            maps.OWN if address in self._own else 0
        )
        if flags:
            self._maps["endpoints"].put(maps.address(address), maps.WORD.pack(flags))
        else:
            self._maps["endpoints"].delete(maps.address(address))

    # Bindings

    def install_bindings(self, entries: Sequence[BindingEntry]) -> None:
        """Add or replace those of Stage.HOME; rules, the rarer half and the counter are there before the entry.

        Raises ValueError for more tunnels, candidates or rules than there is room for.
        """
        more, counters, values = [], [], {}
        # By identity, for many bindings lead to few agents: tunnels, and values that say nothing else.
        written: dict[int, bytes] = {}
        plain: dict[tuple[int, int], bytes] = {}
        for entry in entries:
            if len(entry.tunnels) > maps.MAX_TUNNELS:
                raise ValueError(f"{entry.home_address}: more than {maps.MAX_TUNNELS} tunnels")
            if entry.weights and len(entry.weights) != len(entry.tunnels):
                raise ValueError(f"{entry.home_address}: not one weight for each tunnel")
            key = maps.address(entry.home_address)
            if entry.rules:
                self.rules.install(entry.home_address, entry.rules, self.state.endpoints)
            extra = maps.binding_more(entry, self.state.endpoints)
            if extra is not None:
                more.append((key, extra))
            known = len(self.state.bindings)
            self.state.bindings[entry.home_address] = entry
            if len(self.state.bindings) != known:
                counters.append((key, ZERO))
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
        self._maps["binding_count"].put_many(counters)
        self._maps["bindings"].put_many(list(values.items()))
        for entry in entries:
            if not entry.rules:
                self.rules.remove(entry.home_address)

    def install_visited(self, entry: BindingEntry) -> None:
        """Add or replace one of Stage.VISITED. Raises ValueError for more than one tunnel, rules, a peer or weights."""
        if len(entry.tunnels) > 1 or entry.rules or entry.peer or entry.weights:
            raise ValueError(f"{entry.home_address}: an access node has one tunnel and no more for it")
        first = maps.tunnel(entry.tunnels[0], self.state.endpoints) if entry.tunnels else None
        self.state.visited[entry.home_address] = entry
        self.rules.visited_counter(entry.home_address, there=True)
        self._maps["visited"].put(maps.address(entry.home_address), maps.binding(entry, first=first))
        self._write_beside(entry.home_address)

    def install_local_end(self, entry: BindingEntry) -> None:
        """Add or replace one of Stage.LOCAL. Raises ValueError for a verdict that leads elsewhere."""
        if entry.verdict is Verdict.ENCAPSULATE or entry.tunnels or entry.rules or entry.peer:
            raise ValueError(f"{entry.home_address}: nothing goes on from a local end")
        self.state.local_ends[entry.home_address] = entry
        self._write_beside(entry.home_address)

    def remove_binding(self, home_address: Addr, stage: Stage) -> None:
        if self.state.stage(stage).pop(home_address, None) is None:
            return
        self._write_beside(home_address)
        key = maps.address(home_address)
        if stage is Stage.HOME:
            self._maps["binding_more"].delete(key)
            self._maps["binding_count"].delete(key)
            self.rules.remove(home_address)
        elif stage is Stage.VISITED:
            self._maps["visited"].delete(key)
            self.rules.visited_counter(home_address, there=False)

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
        self.rules.install_filter(value)
        self.state.filters[value.home_address, value.place] = value

    def remove_filter(self, home_address: Addr, place: FilterPlace) -> None:
        if self.state.filters.pop((home_address, place), None) is not None:
            last = all(key[1] is not place for key in self.state.filters)
            self.rules.remove_filter(home_address, place, last=last)

    # Acceptances

    def accept(self, acceptances: Sequence[TunnelAcceptance]) -> None:
        """Add or replace. One whose link is gone is written when the link comes back."""
        counters, values = [], {}
        for acceptance in acceptances:
            key, known = maps.acceptance_key(acceptance), len(self.state.acceptances)
            self.state.acceptances[acceptance_key(acceptance)] = acceptance
            if len(self.state.acceptances) != known:
                counters.append((key, ZERO))
            index = 0 if acceptance.link is None else self._index_of(acceptance.link)
            if index is not None:
                here = acceptance.next_hop is not None and acceptance.next_hop in self._own
                values[key] = maps.acceptance(acceptance, index, here=here, ends=self._ends(acceptance))
        self._maps["acceptance_count"].put_many(counters)
        self._maps["acceptances"].put_many(list(values.items()))
        self._ends_changed(acceptances)

    def refuse(self, acceptances: Sequence[TunnelAcceptance]) -> None:
        """Remove a tunnel permission; a missing one is no error."""
        for acceptance in acceptances:
            self.state.acceptances.pop(acceptance_key(acceptance), None)
        keys = [maps.acceptance_key(acceptance) for acceptance in acceptances]
        self._maps["acceptances"].delete_many(keys)
        self._maps["acceptance_count"].delete_many(keys)
        self._ends_changed(acceptances)

    def _ends(self, acceptance: TunnelAcceptance) -> bool:
        return acceptance.end is None and (*acceptance_key(acceptance)[:3], True) in self.state.acceptances

    def _ends_changed(self, acceptances: Sequence[TunnelAcceptance]) -> None:
        """Rewrite the catch-all permission after a more specific one has come or gone."""
        beside = [
            (*acceptance_key(acceptance)[:3], False)
            for acceptance in acceptances
            if acceptance.end is not None
        ]
        if beside:
            self.accept([self.state.acceptances[key] for key in beside if key in self.state.acceptances])

    # Outbound entries

    def install_outbound(self, entry: OutboundEntry) -> None:
        index = 0 if entry.link is None else self._index_of(entry.link)
        self.state.outbound.setdefault(entry.home_address, {})[entry.link] = entry
        old = self._outbound_keys.get((entry.home_address, entry.link))
        if index is None:
            return
        key = maps.outbound_key(entry.home_address, index)
        if key != old:
            self._maps["outbound_count"].put(key, ZERO)
        self._maps["outbound"].put(key, maps.tunnel(entry.tunnel, self.state.endpoints))
        self._outbound_keys[entry.home_address, entry.link] = key
        if old is not None and old != key:
            self._forget_outbound(old)

    def remove_outbound(self, home_address: Addr, link: str | None) -> None:
        """No error if it is not there."""
        self.state.perform(RemoveOutbound(home_address, link))
        key = self._outbound_keys.pop((home_address, link), None)
        if key is not None:
            self._forget_outbound(key)

    def _forget_outbound(self, key: bytes) -> None:
        self._maps["outbound"].delete(key)
        self._maps["outbound_count"].delete(key)

    def serve_visitors(self, links: Collection[str]) -> None:
        """Set the links on which packets are never taken for a home agent's."""
        self._access = frozenset(links)
        self._access_indices.clear()
        for key, _ in self._maps["access_links"].items():
            self._maps["access_links"].delete(key)
        for link in self._access:
            self._write_access(link)

    def serves(self, index: int) -> bool:
        """True if visitors are served on the link of that index.

        As it was written to the map: it is looked up for every tunnelled packet, and to ask the
        kernel each time let a few hundred a second stop the node.
        """
        return index in self._access_indices.values()

    def _write_access(self, link: str) -> None:
        index = self._index_of(link)
        if index is None:
            self._access_indices.pop(link, None)
            return
        self._access_indices[link] = index
        self._maps["access_links"].put(maps.WORD.pack(index), maps.WORD.pack(1))

    def link_changed(self, link: str) -> None:
        """The link has another index than before: entries that name it are written again."""
        if link in self._access:
            self._write_access(link)
        self.accept([a for a in self.state.acceptances.values() if a.link == link])
        for entry in self.state.outbound_entries():
            if entry.link == link:
                self.install_outbound(entry)

    # Flows

    def set_flow(self, flow: Flow, verdict: FlowVerdict) -> None:
        """The flow's entry is there before the binding that makes the program look at it."""
        self._maps["flows"].put(maps.flow_key(flow), maps.flow_verdict(verdict))
        if flow not in self.state.flows:
            self._flow_count[flow.local] += 1
        self.state.flows[flow] = verdict
        if self._flow_count[flow.local] == 1:
            self._write_beside(flow.local)

    def clear_flow(self, flow: Flow) -> None:
        if self.state.flows.pop(flow, None) is None:
            return
        self._flow_count[flow.local] -= 1
        if not self._flow_count[flow.local]:
            del self._flow_count[flow.local]
            self._write_beside(flow.local)
        self._maps["flows"].delete(maps.flow_key(flow))

    # Counters

    def binding_counter(self, home_address: Addr) -> maps.Counter:
        return maps.counter_of(self._maps["binding_count"].get(maps.address(home_address)))

    def acceptance_counter(self, acceptance: TunnelAcceptance) -> maps.Counter:
        return maps.counter_of(self._maps["acceptance_count"].get(maps.acceptance_key(acceptance)))

    def outbound_counter(self, entry: OutboundEntry) -> maps.Counter:
        key = self._outbound_keys.get((entry.home_address, entry.link))
        return maps.Counter() if key is None else maps.counter_of(self._maps["outbound_count"].get(key))

    def reason_counts(self) -> dict[str, int]:
        """Packets by reason since the maps were made; every reason is there."""
        return {
            reason.label: self._maps["reasons"].sum_per_cpu(maps.WORD.pack(reason))
            for reason in maps.Reason
            if reason is not maps.Reason.NONE
        }
