"""The tables by which the model decides, with the keys of the kernel's maps, and the counters of its decisions.

The module knows neither the order in which tables are asked nor the results.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Reason
from locum.dataplane.model.environment import Environment
from locum.dataplane.model.following import Following
from locum.dataplane.model.frames import Work
from locum.dataplane.model.parse import (
    Packet,
    is_routed,
    neighbour_discovery,
    stays_on_link,
)
from locum.dataplane.model.rules import RuleModel
from locum.dataplane.model.translation import Translator
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Filter,
    FilterPlace,
    FilterRule,
    Rule,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    BindingEntry,
    FlowVerdict,
    OutboundEntry,
    Side,
    TunnelAcceptance,
)

# Steps of a decision, in order: for explanations, which need more than the result.
Met: TypeAlias = (
    BindingEntry | Rule | Tunnel | TunnelAcceptance | OutboundEntry | FlowVerdict
    | tuple[Filter, FilterRule | None] | Translation
)  # fmt: skip

FILTERED = {
    FilterPlace.TO_VISITOR: Reason.FILTERED_TO_VISITOR,
    FilterPlace.FROM_VISITOR: Reason.FILTERED_FROM_VISITOR,
    FilterPlace.EMISSION: Reason.FILTERED_EMISSION,
}


@dataclass(slots=True)
class Tables:
    """The entries of one forwarding state by the keys of packets, and counters. `met` is about the last packet."""

    state: ForwardingState
    environment: Environment
    reasons: Counter[Reason] = field(default_factory=Counter)
    binding_count: Counter[bytes] = field(default_factory=Counter)
    acceptance_count: Counter[bytes] = field(default_factory=Counter)
    outbound_count: Counter[bytes] = field(default_factory=Counter)
    met: list[Met] = field(default_factory=list)
    asks: list[tuple[Addr, int]] = field(default_factory=list)  # home address and rule that asked for a page
    translator: Translator = field(init=False)
    following: Following = field(init=False)
    rules: RuleModel = field(init=False)
    flow_homes: set[bytes] = field(default_factory=set)
    flows: dict[bytes, FlowVerdict] = field(default_factory=dict)
    endpoints: set[bytes] = field(default_factory=set)
    bindings: dict[bytes, BindingEntry] = field(default_factory=dict)
    visited: dict[bytes, BindingEntry] = field(default_factory=dict)
    local_ends: dict[bytes, BindingEntry] = field(default_factory=dict)
    acceptances: dict[bytes, TunnelAcceptance] = field(default_factory=dict)
    outbound: dict[bytes, OutboundEntry] = field(default_factory=dict)
    sources: set[bytes] = field(default_factory=set)  # outer ones that some acceptance names
    senders: dict[bytes, dict[int, set[bytes | None]]] = field(default_factory=dict)  # of visitors, by link

    def __post_init__(self) -> None:
        state, links = self.state, self.environment.links
        self.translator = Translator(state.translations)
        self.endpoints = {maps.address(a) for a in state.endpoints}
        self.flows = {maps.flow_key(f): v for f, v in state.flows.items()}
        self.flow_homes = {maps.address(f.local) for f in state.flows}
        self.bindings = {maps.address(h): e for h, e in state.bindings.items()}
        self.visited = {maps.address(h): e for h, e in state.visited.items()}
        self.local_ends = {maps.address(h): e for h, e in state.local_ends.items()}
        self.acceptances = {maps.acceptance_key(a): a for a in state.acceptances.values()}
        self.following = Following(self.reasons, self.environment.now)
        self.rules = RuleModel(state.filters.values(), self.following)
        self.sources = {maps.address(a.outer_source) for a in state.acceptances.values()}
        for acceptance in state.acceptances.values():
            if acceptance.link is not None and acceptance.side is Side.TO_HOME_ADDRESS:
                on_links = self.senders.setdefault(maps.address(acceptance.home_address), {})
                on_links.setdefault(links[acceptance.link], set()).add(acceptance.hardware)
        self.outbound = {
            maps.outbound_key(e.home_address, 0 if e.link is None else links[e.link]): e
            for e in state.outbound_entries()
        }

    def has_entry(self, address: bytes) -> bool:
        """True if the kernel's map of bindings has an entry of this home address, whatever the stage."""
        stages = (self.bindings, self.local_ends, self.visited)
        return address in self.flow_homes or any(address in entries for entries in stages)

    def own(self, address: bytes) -> bool:
        """True if the address belongs to this host, as an end point of tunnels or otherwise."""
        return address in self.endpoints or address in self.environment.own

    def spoofed(self, work: Work) -> bool:
        """True if a packet came by a link from an address that is not its sender's (RFC 2827).

        On any link an address of this host, on an access link all but those of its hosts.
        """
        environment, packet = self.environment, work.packet
        if work.ifindex == environment.tap or not is_routed(packet.destination):
            return False
        own = self.own(packet.destination)
        if own and (stays_on_link(packet.source) or neighbour_discovery(packet)):
            return False
        if self.own(packet.source):
            return True
        if not environment.checked or work.ifindex not in environment.access:
            return False
        known = self.senders.get(packet.source)
        if known is not None and work.ifindex in known:
            allowed = known[work.ifindex]
            right = len(allowed) != 1 or allowed <= {None, bytes(work.frame[6:12])}
            return environment.by_hardware and not right
        if own and packet.registration:
            return False
        return known is not None or not environment.networks(work.ifindex, packet.source)

    def signalling(self, packet: Packet) -> bool:
        """True for a registration of a home address with its own home agent."""
        sides = (maps.SIDES.index(Side.TO_HOME_ADDRESS), maps.TO_END)
        keys = (maps.packed_acceptance_key(packet.destination, packet.source, side, None) for side in sides)
        return packet.registration and any(key in self.acceptances for key in keys)

    def refused(self, work: Work, home: bytes, place: FilterPlace) -> Reason | None:
        """Why the filter of this home address at this place drops the packet; None: it does not, or is missing."""
        decided = self.rules.filtered(work, home, place)
        if decided is None or work.refused is not None:
            return work.refused
        if isinstance(decided, Reason):
            return decided
        self.met.append(decided)
        found, rule = decided
        verdict = found.otherwise if rule is None else rule.verdict
        released = work.from_tap or work.mark & maps.MARK_MASK == maps.MARK_RELEASED
        if rule is not None and verdict.pages and not released:
            self.asks.append((found.home_address, rule.identifier))
        return FILTERED[place] if verdict.drops else None

    def translate(self, work: Work, tunnel: Addr | None) -> Reason | bool:
        """Translate towards the stand-in (R12): done or not, or why the packet is dropped."""
        done = self.translator.towards(work.frame, work.packet, tunnel)
        if done is True:
            key = (maps.address_of(work.packet.destination), tunnel)
            self.met.append(self.state.translations[key])
        return done

    def from_interface(self, work: Work) -> None:
        """Give a flow that a translation sent to this source its home address back (R12)."""
        packet = work.packet
        if work.signalling or self.own(packet.destination):
            return
        found = self.translator.back(work.frame, packet, in_tunnel=False)
        if found is not None:
            self.translator.translate_back(work.frame, packet, found)
        else:
            work.as_itself = self.translator.is_own_name(packet.source)

    @staticmethod
    def count(counter: Counter[bytes], key: bytes, packet: Packet) -> None:
        """Count a packet and its bytes."""
        counter[key] += 1
        counter[b"bytes" + key] += packet.length
