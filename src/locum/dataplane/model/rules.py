"""Flow rules and filters in the model: the matching rule, its counters, and following fragments.

Part of the model, as bpf/rules.h is of the programs: it knows neither bindings' verdicts nor what becomes of a packet.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Reason
from locum.dataplane.layout.rules import PLACES, Place, filter_key, rule_key
from locum.dataplane.model.frames import Work
from locum.dataplane.model.matching import (
    FRAGMENT_AGE,
    FirstFragment,
    Subject,
    choose,
    first_match,
    flow_hash,
    follow,
    fragment_key,
    subject_of,
)
from locum.dataplane.model.parse import Packet
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, FilterPlace, FilterRule, Rule, Tunnel
from locum.roles.action_values.forwarding import BindingEntry


@dataclass(slots=True)
class RuleModel:
    """The filters of one state, with state of earlier packets; `reasons` are the model's own."""

    filters: Iterable[Filter]
    reasons: Counter[Reason]
    now: Callable[[], float]
    counts: Counter[bytes] = field(default_factory=Counter)
    _filters: dict[bytes, Filter] = field(default_factory=dict)
    _fragments: dict[bytes, FirstFragment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._filters = {filter_key(f.home_address, f.place): f for f in self.filters}

    def subject(self, work: Work) -> Subject:
        """The packet as selectors see it; a later fragment as its packet's first, if that is known."""
        packet = work.packet
        subject = subject_of(work.frame, packet)
        if not packet.fragment:
            return subject
        key, now = fragment_key(packet), self.now()
        if not packet.later_fragment:
            known = (subject.protocol, subject.source_port, subject.destination_port, subject.spi)
            self._fragments[key] = FirstFragment(now, *known, subject.known)
            return subject
        first = self._fragments.get(key)
        if first is None or now - first.time > FRAGMENT_AGE:
            self.reasons[Reason.FRAGMENT_UNKNOWN] += 1
        else:
            self.reasons[Reason.FRAGMENT_FOLLOWS] += 1
            follow(subject, first)
        return subject

    def flow_rule(self, work: Work, entry: BindingEntry) -> tuple[Rule, Tunnel | None] | None:
        """The rule that takes the packet and, unless it drops it, the flow's tunnel."""
        subject = self.subject(work)
        rule = first_match(entry.rules, subject)
        if rule is None:
            return None
        weights = [candidate.weight for candidate in rule.candidates]
        place = choose(weights, flow_hash(subject)) if len(weights) > 1 else 0
        return rule, rule.candidates[place].tunnel if rule.candidates else None

    def shared(self, work: Work, entry: BindingEntry) -> Tunnel:
        """The tunnel that the flow has among those that share by weight."""
        return entry.tunnels[choose(entry.weights, flow_hash(self.subject(work)))]

    def filtered(
        self, work: Work, home: bytes, place: FilterPlace
    ) -> tuple[Filter, FilterRule | None] | None:
        """The filter of this home address at this place, if there is one, and its rule that decides; it is counted."""
        found = self._filters.get(filter_key(maps.address_of(home), place))
        if found is None:
            return None
        rule = first_match(found.rules, self.subject(work))
        self.count(found.home_address, PLACES[place], work.packet, 0 if rule is None else rule.identifier)
        return found, rule

    def count(self, home_address: Addr, place: Place, packet: Packet, identifier: int = 0) -> None:
        key = rule_key(home_address, place, identifier)
        self.counts[key] += 1
        self.counts[b"bytes" + key] += packet.length
