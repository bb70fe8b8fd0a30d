"""Flow rules and filters in the kernel's maps: written whole, so that a packet meets the old ones or the new ones; counters.

A counter lives as long as its rule's identifier is among the rules, whatever rules around it change. A flow
rule's final count is reported once, when no packet can match it any more.
"""

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from locum.dataplane.kernel.entries import Entries
from locum.dataplane.layout import maps
from locum.dataplane.layout import rules as rule_layout
from locum.dataplane.layout.rules import Place
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, FilterPlace, Rule

ZERO = maps.COUNTER.pack(0, 0)


@dataclass(frozen=True, slots=True)
class EndedRule:
    """A flow rule that has left the kernel, as it was at last, and all that it counted there."""

    home_address: Addr
    rule: Rule
    counter: maps.Counter


class RuleTables:
    """The tables of rules, filters and their counters. `use` is called with whether a place has filters.

    `tell_ended` is called for every flow rule that has left.
    """

    def __init__(self, found: Mapping[str, Entries], use: Callable[[FilterPlace, bool], None]) -> None:
        self._maps = found
        self._use = use
        self.tell_ended: Callable[[EndedRule], None] | None = None
        self._flow_rules: dict[Addr, tuple[Rule, ...]] = {}  # as they were written last
        self._packed: dict[Addr, dict[int, rule_layout.Packed]] = {}  # the rules that stand, by id
        self._counted: dict[tuple[Addr, Place], frozenset[int]] = {}

    def read(self) -> tuple[dict[Addr, tuple[Rule, ...]], dict[tuple[Addr, FilterPlace], Filter]]:
        """Rules by home address, and filters."""
        rules: dict[Addr, tuple[Rule, ...]] = {}
        filters: dict[tuple[Addr, FilterPlace], Filter] = {}
        for key, value in self._maps["rules"].items():
            rules[maps.address_of(key)] = rule_layout.rules_of(value)
        for key, value in self._maps["filters"].items():
            found = rule_layout.filter_of(key, value)
            filters[found.home_address, found.place] = found
        return rules, filters

    def adopt(self, rules: Mapping[Addr, tuple[Rule, ...]]) -> None:
        """Take over the tables of an earlier daemon; `rules` are its flow rules."""
        self._flow_rules = dict(rules)
        self._packed.clear()
        self._counted.clear()
        for key, _ in self._maps["rule_count"].items():
            home, number, identifier, _ = rule_layout.RULE_KEY.unpack(key)
            at = maps.address_of(home), Place(number)
            self._counted[at] = self._counted.get(at, frozenset()) | {identifier}

    # Flow rules

    def install(self, home_address: Addr, rules: tuple[Rule, ...], endpoints: Collection[Addr]) -> None:
        """Install before the binding that has them. ValueError, with unchanged maps, if they do not fit."""
        at = home_address, Place.FLOW_RULES
        value, self._packed[home_address] = rule_layout.rules(
            rules, endpoints, self._packed.get(home_address)
        )
        identifiers = frozenset((0, *[rule.identifier for rule in rules]))
        if self._counted.get(at) == identifiers:  # the common change: of a rule that goes on counting
            self._maps["rules"].put(maps.address(home_address), value)
            self._flow_rules[home_address] = rules
            return
        self._count(at, identifiers)
        self._maps["rules"].put(maps.address(home_address), value)
        self._tell(at, identifiers)
        self._flow_rules[home_address] = rules
        self._settle(at, identifiers)

    def remove(self, home_address: Addr) -> None:
        """After the binding that had them."""
        if not self._packed and not self._counted:
            return  # no home address has any
        if (
            self._packed.pop(home_address, None) is None
            and (home_address, Place.FLOW_RULES) not in self._counted
        ):
            return
        self._delete("rules", (home_address, Place.FLOW_RULES), maps.address(home_address))
        self._flow_rules.pop(home_address, None)

    # Filters

    def install_filter(self, value: Filter) -> None:
        """Raises ValueError for more rules than fit, and changes nothing then."""
        at = value.home_address, rule_layout.PLACES[value.place]
        packed = rule_layout.filter_value(value)
        identifiers = {0, *(rule.identifier for rule in value.rules)}
        self._count(at, identifiers)
        key = rule_layout.filter_key(value.home_address, value.place)
        self._maps["filters"].put(key, packed)
        self._settle(at, identifiers)
        self._use(value.place, True)

    def remove_filter(self, home_address: Addr, place: FilterPlace, *, last: bool) -> None:
        """Remove a filter; `last`: there is no other filter at this place."""
        if last:
            self._use(place, False)
        key = rule_layout.filter_key(home_address, place)
        self._delete("filters", (home_address, rule_layout.PLACES[place]), key)

    # Counters

    def counters(self, home_address: Addr, place: Place) -> dict[int, maps.Counter]:
        """Counters by the rules' identifiers; 0 counts packets that matched no rule."""
        return {
            identifier: maps.counter_of(
                self._maps["rule_count"].counter(rule_layout.rule_key(home_address, place, identifier))
            )
            for identifier in sorted(self._counted.get((home_address, place), ()))
        }

    def visited_counter(self, home_address: Addr, *, there: bool) -> None:
        """Start or stop counting packets to another access node."""
        at = home_address, Place.VISITED
        if there:
            self._count(at, {0})
        self._settle(at, {0} if there else set())

    # What both kinds do

    def _delete(self, kind: str, at: tuple[Addr, Place], key: bytes) -> None:
        self._maps[kind].delete(key)
        if at[1] is Place.FLOW_RULES:
            self._tell(at, set())
        self._settle(at, set())

    def _count(self, at: tuple[Addr, Place], identifiers: AbstractSet[int]) -> None:
        """A counter for each that is new."""
        counted = self._counted.get(at, frozenset())
        # Before they are written: what fails can then be taken away.
        self._counted[at] = counted | identifiers
        for identifier in identifiers - counted:
            self._maps["rule_count"].put(rule_layout.rule_key(*at, identifier), ZERO)

    def _tell(self, at: tuple[Addr, Place], identifiers: Collection[int]) -> None:
        """Report the counters of a home address's removed rules; they are still in the map."""
        if self.tell_ended is None or not self._counted.get(at, frozenset()).difference(identifiers):
            return
        home_address = at[0]
        for rule in self._flow_rules.get(home_address, ()):
            if rule.identifier not in identifiers:
                value = self._maps["rule_count"].counter(rule_layout.rule_key(*at, rule.identifier))
                self.tell_ended(EndedRule(home_address, rule, maps.counter_of(value)))

    def _settle(self, at: tuple[Addr, Place], identifiers: AbstractSet[int]) -> None:
        """No counter for any other."""
        gone = self._counted.get(at, frozenset()) - identifiers
        self._maps["rule_count"].delete_many([rule_layout.rule_key(*at, number) for number in gone])
        if identifiers:
            self._counted[at] = frozenset(identifiers)
        else:
            self._counted.pop(at, None)
