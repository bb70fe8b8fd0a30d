"""[[foreign_agent.filter]] and [[mnps.emission]] -> filters of the data plane (features R20, P16)."""

from collections.abc import Iterable
from ipaddress import IPv4Address

from locum.node.config.rule_table import filter_rules
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.action_values.flows import (
    MAX_RULES,
    PLAIN_VERDICTS,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
)
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

_VISITOR_PLACES = (FilterPlace.TO_VISITOR.value, FilterPlace.FROM_VISITOR.value)


def visitor_filters(tables: Iterable[Table]) -> tuple[Filter, ...]:
    """[[foreign_agent.filter]]: filters for visitors, in both directions. Raises ConfigError."""
    return _filters((table, FilterPlace(table.choice("place", _VISITOR_PLACES))) for table in tables)


def emission_filters(tables: Iterable[Table]) -> tuple[Filter, ...]:
    """[[mnps.emission]]: filters for packets that programs of the stand-in send. Raises ConfigError."""
    return _filters((table, FilterPlace.EMISSION) for table in tables)


def _filters(places: Iterable[tuple[Table, FilterPlace]]) -> tuple[Filter, ...]:
    found: list[Filter] = []
    for table, place in places:
        entry = _filter(table, place)
        if any((other.home_address, other.place) == (entry.home_address, place) for other in found):
            raise table.error("home_address", f"{entry.home_address} has two filters {place.value!r}")
        found.append(entry)
    return tuple(found)


def _filter(table: Table, place: FilterPlace) -> Filter:
    home_address = table.address("home_address")
    kind = Ipv4Selector if isinstance(home_address, IPv4Address) else Ipv6Selector
    rules: list[FilterRule] = []
    for item in table.tables("rules"):
        of_family = [rule for rule in filter_rules(item) if isinstance(rule.selector, kind)]
        if not of_family:
            raise ConfigError(
                item.file, item.name, None, f"takes no packet of {home_address}: the other family"
            )
        rules += of_family
    made = Filter(
        home_address,
        place,
        tuple(rules),
        FilterVerdict(table.choice("otherwise", tuple(verdict.value for verdict in PLAIN_VERDICTS), "allow")),
    )
    table.close()
    if len({rule.identifier for rule in rules}) != len(rules):
        raise table.error("rules", "two rules have one id")
    if len(rules) > MAX_RULES:
        raise table.error("rules", f"has more than {MAX_RULES} rules")
    return made
