"""Forwarding state in the kernel's maps: writes entries, keeps what it wrote, reads it back after a restart.

It knows map layouts and order of writes, but no interface, queue or pin: `links` gives interfaces' indices.
"""

from collections import Counter as Tally
from collections.abc import Callable, Sequence

from locum.dataplane import groups, maps, services, translation
from locum.dataplane.libbpf import Map
from locum.dataplane.state import ForwardingState, acceptance_key
from locum.roles.actions import Addr, BindingEntry, FlowVerdict, OutboundEntry, TunnelAcceptance
from locum.wire.control import Flow

ZERO = maps.COUNTER.pack(0, 0)


class Tables:
    """The maps and the state that is in them. `index_of` gives the index of a link, or None while it is gone."""

    def __init__(self, found: dict[str, Map], index_of: Callable[[str], int | None]) -> None:
        self._maps = found
        self._index_of = index_of
        self.state = ForwardingState()
        self._own: set[Addr] = set()
        self._flow_count: Tally[Addr] = Tally()
        self._outbound_keys: dict[tuple[Addr, str | None], bytes] = {}

    def read(self, names: dict[int, str]) -> ForwardingState:
        """What the kernel has. `names` are the interfaces by index."""
        state = ForwardingState()
        for key, value in self._maps["endpoints"].items():
            if maps.WORD.unpack(value)[0] & maps.ENDPOINT:
                state.endpoints.add(maps.address_of(key))
        more = dict(self._maps["binding_more"].items())
        for key, value in self._maps["bindings"].items():
            entry = maps.binding_of(key, value, more.get(key))
            if entry is not None:
                state.bindings[entry.home_address] = entry
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
        return state

    def adopt(self, names: dict[int, str]) -> None:
        """Take over what an earlier daemon left."""
        self.state = self.read(names)
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

    def set_own(self, addresses: set[Addr]) -> None:
        """Addresses of the attached interfaces."""
        changed = self._own ^ addresses
        self._own = set(addresses)
        for address in changed:
            self._write_address(address)

    def add_endpoint(self, address: Addr) -> None:
        self.state.endpoints.add(address)
        self._write_address(address)

    def remove_endpoint(self, address: Addr) -> None:
        self.state.endpoints.discard(address)
        self._write_address(address)

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
        """Add or replace; the rarer half and the counter are there before the entry that needs them."""
        more, counters, values = [], [], {}
        written: dict[int, bytes] = {}  # tunnels by identity: many bindings lead to few agents
        for entry in entries:
            if len(entry.tunnels) > maps.MAX_TUNNELS:
                raise ValueError(f"{entry.home_address}: more than {maps.MAX_TUNNELS} tunnels")
            key = maps.address(entry.home_address)
            extra = maps.binding_more(entry)
            if extra is not None:
                more.append((key, extra))
            known = len(self.state.bindings)
            self.state.bindings[entry.home_address] = entry
            if len(self.state.bindings) != known:
                counters.append((key, ZERO))
            packed = None
            if entry.tunnels:
                packed = written.get(id(entry.tunnels[0]))
                if packed is None:
                    packed = written[id(entry.tunnels[0])] = maps.tunnel(entry.tunnels[0])
            flows = bool(self._flow_count) and entry.home_address in self._flow_count
            values[key] = maps.binding(entry, flows=flows, first=packed)
        self._maps["binding_more"].put_many(more)
        self._maps["binding_count"].put_many(counters)
        self._maps["bindings"].put_many(list(values.items()))

    def remove_binding(self, home_address: Addr) -> None:
        if self.state.bindings.pop(home_address, None) is None:
            return
        key = maps.address(home_address)
        if self._flow_count[home_address]:
            self._maps["bindings"].put(key, maps.binding(None, flows=True))
        else:
            self._maps["bindings"].delete(key)
        self._maps["binding_more"].delete(key)
        self._maps["binding_count"].delete(key)

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
                values[key] = maps.acceptance(acceptance, index)
        self._maps["acceptance_count"].put_many(counters)
        self._maps["acceptances"].put_many(list(values.items()))

    def refuse(self, acceptances: Sequence[TunnelAcceptance]) -> None:
        """Take away; one that is not there is no error."""
        for acceptance in acceptances:
            self.state.acceptances.pop(acceptance_key(acceptance), None)
        keys = [maps.acceptance_key(acceptance) for acceptance in acceptances]
        self._maps["acceptances"].delete_many(keys)
        self._maps["acceptance_count"].delete_many(keys)

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
        self._maps["outbound"].put(key, maps.tunnel(entry.tunnel))
        self._outbound_keys[entry.home_address, entry.link] = key
        if old is not None and old != key:
            self._forget_outbound(old)

    def remove_outbound(self, home_address: Addr) -> list[OutboundEntry]:
        """Returns the entries that were there."""
        removed = list(self.state.outbound.pop(home_address, {}).values())
        for entry in removed:
            key = self._outbound_keys.pop((home_address, entry.link), None)
            if key is not None:
                self._forget_outbound(key)
        return removed

    def _forget_outbound(self, key: bytes) -> None:
        self._maps["outbound"].delete(key)
        self._maps["outbound_count"].delete(key)

    def link_changed(self, link: str) -> None:
        """The link has another index than before: entries that name it are written again."""
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
            self._write_flows_flag(flow.local)

    def clear_flow(self, flow: Flow) -> None:
        if self.state.flows.pop(flow, None) is None:
            return
        self._flow_count[flow.local] -= 1
        if not self._flow_count[flow.local]:
            del self._flow_count[flow.local]
            self._write_flows_flag(flow.local)
        self._maps["flows"].delete(maps.flow_key(flow))

    def _write_flows_flag(self, home_address: Addr) -> None:
        entry = self.state.bindings.get(home_address)
        flows = bool(self._flow_count[home_address])
        key = maps.address(home_address)
        if entry is None and not flows:
            self._maps["bindings"].delete(key)
        else:
            self._maps["bindings"].put(key, maps.binding(entry, flows=flows))

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
