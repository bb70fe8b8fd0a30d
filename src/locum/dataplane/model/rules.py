"""Flow rules and filters in the model: the matching rule, its counters, and following fragments.

Part of the model, as bpf/rules.h is of the programs: it knows neither bindings' verdicts nor what becomes of a packet.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Reason
from locum.dataplane.layout.rules import PLACES, Place, filter_key, rule_key
from locum.dataplane.model.following import Following
from locum.dataplane.model.frames import Work
from locum.dataplane.model.matching import Subject, Unsure, choose, first_match, flow_hash, subject_of
from locum.dataplane.model.parse import Packet
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, FilterPlace, FilterRule, Rule, Tunnel
from locum.roles.action_values.forwarding import BindingEntry

_RULE = TypeVar("_RULE", Rule, FilterRule)


@dataclass(slots=True)
class RuleModel:
    """The filters of one state; `following` knows earlier packets. A packet that may not go on is marked `refused`."""

    filters: Iterable[Filter]
    following: Following
    counts: Counter[bytes] = field(default_factory=Counter)
    _filters: dict[bytes, Filter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._filters = {filter_key(f.home_address, f.place): f for f in self.filters}

    def _subject(self, work: Work, home: bytes, *, of_source: bool = False) -> Subject | None:
        """The packet as selectors see it; None: it may not go on."""
        found = self.following.find_transport(work, home, of_source=of_source)
        return subject_of(work) if found else None

    def flow_rule(self, work: Work, entry: BindingEntry) -> tuple[Rule, Tunnel | None] | None:
        """The rule that takes the packet and, unless it drops it, the flow's tunnel. Look at `work.refused` first."""
        subject = self._subject(work, work.packet.destination)
        rule = None if subject is None else self._first_match(work, entry.rules, subject)
        if subject is None or rule is None:
            return None
        weights = [candidate.weight for candidate in rule.candidates]
        if len(weights) > 1 and self.following.lacks_first(work):
            return None
        place = choose(weights, flow_hash(subject)) if len(weights) > 1 else 0
        return rule, rule.candidates[place].tunnel if rule.candidates else None

    def shared(self, work: Work, entry: BindingEntry) -> Tunnel:
        """The tunnel that the flow has among those that share by weight. Look at `work.refused` first."""
        subject = self._subject(work, work.packet.destination)
        if subject is None or self.following.lacks_first(work):
            return entry.tunnels[0]
        return entry.tunnels[choose(entry.weights, flow_hash(subject))]

    def filtered(
        self, work: Work, home: bytes, place: FilterPlace
    ) -> tuple[Filter, FilterRule | None] | Reason | None:
        """The filter of this home address at this place, if there is one, and its rule that decides; it is counted.

        If selectors cannot read the packet, the reason to drop it. Look at `work.refused` first.
        """
        found = self._filters.get(filter_key(maps.address_of(home), place))
        if found is None:
            return None
        if work.packet.unread:
            return Reason.UNREAD_HEADERS
        if work.packet.detours:
            return Reason.ROUTING_HEADER
        subject = self._subject(work, home, of_source=place is not FilterPlace.TO_VISITOR)
        rule = None if subject is None else self._first_match(work, found.rules, subject)
        if work.refused is not None:
            return found, rule
        self.count(found.home_address, PLACES[place], work.packet, 0 if rule is None else rule.identifier)
        return found, rule

    @staticmethod
    def _first_match(work: Work, rules: Iterable[_RULE], subject: Subject) -> _RULE | None:
        """The first rule that takes the packet; the packet is refused where ports that are not known decide."""
        try:
            return first_match(rules, subject)
        except Unsure:
            work.refused = Reason.UNREAD_HEADERS if subject.unread else Reason.FRAGMENT_UNKNOWN
            return None

    def count(self, home_address: Addr, place: Place, packet: Packet, identifier: int = 0) -> None:
        key = rule_key(home_address, place, identifier)
        self.counts[key] += 1
        self.counts[b"bytes" + key] += packet.length
