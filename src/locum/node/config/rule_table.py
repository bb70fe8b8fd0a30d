"""The text form of rules: the keys of a selector, flow rules and filter rules (features R5 to R8, R20, P16).

One form for the configuration and for profiles of a policy server, whose attributes hold the inside of a TOML table:
`id = 1, action = "drop", protocol = "udp", destination_port = "5000-5999"`. How rules are matched is not known here.
"""

import tomllib
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from locum.node.config.settings import Address
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.action_values.flows import (
    PLAIN_VERDICTS,
    FilterRule,
    FilterVerdict,
    RuleVerdict,
    Selector,
)
from locum.roles.rules import (
    CONFIGURATION,
    FIRST_ASSIGNED,
    LAST_PRIORITY,
    LAST_RULE,
    STAND_IN,
    KeptRule,
    RuleRefused,
    Target,
    added,
    free_identifier,
)
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, Range

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132}
_ICMP, _ICMPV6 = 1, 58
_WITH_PORTS = frozenset((6, 17, 33, 132, 136))  # TCP, UDP, DCCP, SCTP, UDP-Lite
_PORT, _DSCP, _SPI, _FLOW_LABEL = 0xFFFF, 0x3F, 0xFFFFFFFF, 0xFFFFF  # the largest of each
_LAST_IDENTIFIER = 0xFFFF

AddressRange = tuple[Address, Address]


def selectors(table: Table) -> tuple[Selector, ...]:
    """The selector keys of `table`, for each family that they allow: IPv4, IPv6 or both, in this order.

    Keys: source, destination (address, prefix or "first-last"), source_port, destination_port (number or "first-last"),
    protocol (number, or a name such as "tcp"), dscp, spi, flow_label, family (4 or 6). The family follows from
    addresses, ICMP and the flow label where there are such. Raises ConfigError.
    """
    source = table.converted("source", _addresses, "an address, a prefix or a range of addresses", None)
    destination = table.converted(
        "destination", _addresses, "an address, a prefix or a range of addresses", None
    )
    protocol = table.converted("protocol", _protocol, "a protocol's number or one of " + _names(), None)
    numbers: list[Range | None] = [
        table.converted(key, _range(most), f'a number up to {most}, or a range such as "1-9"', None)
        for key, most in (
            ("source_port", _PORT),
            ("destination_port", _PORT),
            ("dscp", _DSCP),
            ("spi", _SPI),
            ("flow_label", _FLOW_LABEL),
        )
    ]
    source_port, destination_port, dscp, spi, flow_label = numbers
    if (source_port or destination_port) and protocol is not None and protocol[0] not in _WITH_PORTS:
        raise table.error("protocol", f"{protocol[0]} has no ports")
    found: list[Selector] = []
    for version in _families(table, (source, destination), protocol, flow_label is not None):
        upper = protocol
        if version == 4:
            found.append(
                Ipv4Selector(_v4(source), _v4(destination), spi, source_port, destination_port, dscp, upper)
            )
            continue
        if protocol == (_ICMP, _ICMP):
            upper = (_ICMPV6, _ICMPV6)
        found.append(
            Ipv6Selector(
                _v6(source), _v6(destination), spi, flow_label, source_port, destination_port, dscp, upper
            )
        )
    return tuple(found)


def flow_rules(tables: Iterable[Table], owner: str = CONFIGURATION) -> tuple[KeptRule, ...]:
    """Flow rules of one home address, in the order in which they are matched. Raises ConfigError.

    Keys besides those of the selector: id (otherwise one is given), priority, action "forward", "drop", "page" or "agent",
    to (binding identifiers, "mn", "mnps", "default" or names of stand-ins; of an agent "mnps" unless named), share.
    """
    found: tuple[KeptRule, ...] = ()
    for table in tables:
        identifier = table.integer("id", None, least=1, most=LAST_RULE)
        action = table.choice("action", tuple(verdict.value for verdict in RuleVerdict), "forward")
        verdict = RuleVerdict(action)
        anyone: tuple[Target, ...] = (STAND_IN,) if verdict is RuleVerdict.AGENT else ()
        rule = KeptRule(
            identifier=free_identifier(found, FIRST_ASSIGNED) if identifier is None else identifier,
            priority=table.integer("priority", least=0, most=LAST_PRIORITY),
            verdict=verdict,
            selectors=selectors(table),
            to=table.converted("to", _targets, 'a list such as ["mnps", 7]', anyone),
            share=table.boolean("share", False),
            owner=owner,
        )
        table.close()
        try:
            found = added(found, rule)
        except RuleRefused as problem:
            raise table.error(None, str(problem)) from None
    return found


def filter_rules(table: Table, *, pages: bool = False) -> tuple[FilterRule, ...]:
    """A filter rule, once for each family: the selector keys, id, and action "allow" or "drop". Raises ConfigError.

    With `pages` (the paging classifier) the action may be "page" or "page-and-drop" as well.
    """
    identifier = table.integer("id", least=1, most=_LAST_IDENTIFIER)
    verdicts = tuple(FilterVerdict) if pages else PLAIN_VERDICTS
    verdict = FilterVerdict(table.choice("action", tuple(verdict.value for verdict in verdicts)))
    found = tuple(FilterRule(identifier, selector, verdict) for selector in selectors(table))
    table.close()
    return found


def inline_table(place: str, text: str) -> Table:
    """The table that `text` is the inside of; `place` names it in errors. Raises ConfigError."""
    try:
        content = tomllib.loads(f"rule = {{ {text} }}")
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(place, "", None, f"{text!r} is not the inside of a TOML table: {problem}") from None
    if set(content) != {"rule"} or not isinstance(content["rule"], dict):
        raise ConfigError(place, "", None, f"{text!r} is not the inside of one TOML table")
    return Table(Path(place), "", content["rule"])


def _families(
    table: Table, ranges: tuple[AddressRange | None, ...], protocol: Range | None, labelled: bool
) -> tuple[int, ...]:
    """Families that the keys allow. Raises ConfigError if they contradict each other."""
    family = table.integer("family", None, least=4, most=6)
    if family == 5:
        raise table.error("family", "5 is neither 4 nor 6")
    meant: set[int] = {bounds[0].version for bounds in ranges if bounds is not None}
    if family is not None:
        meant.add(family)
    if labelled or protocol == (_ICMPV6, _ICMPV6):
        meant.add(6)
    if len(meant) > 1:
        raise table.error("family", "IPv4 and IPv6 are mixed in one rule; write two rules")
    return tuple(meant) or (4, 6)


def _addresses(value: Any) -> AddressRange:
    if not isinstance(value, str):
        raise TypeError
    if "-" in value:
        first, last = (ip_address(word.strip()) for word in value.split("-", 1))
        if first.version != last.version or int(first) > int(last):
            raise ValueError
        return first, last
    network = ip_network(value)
    return network.network_address, network.broadcast_address


def _range(most: int) -> Callable[[Any], Range]:
    def convert(value: Any) -> Range:
        if isinstance(value, int) and not isinstance(value, bool):
            first = last = value
        elif isinstance(value, str) and "-" in value:
            first, last = (int(word, 0) for word in value.split("-", 1))
        else:
            raise TypeError
        if not 0 <= first <= last <= most:
            raise ValueError
        return first, last

    return convert


def _targets(value: Any) -> tuple[Target, ...]:
    if not isinstance(value, list):
        raise TypeError
    for target in value:
        if not isinstance(target, int | str) or isinstance(target, bool):
            raise TypeError
    return tuple(value)


def _protocol(value: Any) -> Range:
    number = PROTOCOLS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError
    if not 0 <= number <= 0xFF:
        raise ValueError
    return number, number


def _names() -> str:
    return ", ".join(f'"{protocol}"' for protocol in PROTOCOLS)


def _v4(found: AddressRange | None) -> tuple[IPv4Address, IPv4Address] | None:
    return None if found is None else (IPv4Address(int(found[0])), IPv4Address(int(found[1])))


def _v6(found: AddressRange | None) -> tuple[IPv6Address, IPv6Address] | None:
    return None if found is None else (IPv6Address(int(found[0])), IPv6Address(int(found[1])))
