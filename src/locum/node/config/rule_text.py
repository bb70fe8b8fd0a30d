"""Rules in their written form: the keys of a rule's table, from the rule (reverse of `rule_table.py`)."""

from ipaddress import summarize_address_range
from typing import Any

from locum.roles.action_values.flows import OTHERWISE_RULE, FilterRule, FilterVerdict, RuleVerdict, Selector
from locum.roles.profile import Policing
from locum.roles.rules import KeptRule, rests
from locum.wire.traffic_selector import Ipv4Selector, Range

Fields = dict[str, Any]

_ICMPV6 = 58
_BECOMES = {
    FilterVerdict.ALLOW: "is allowed",
    FilterVerdict.DROP: "is dropped",
    FilterVerdict.PAGE: "pages the device, and is allowed",
    FilterVerdict.PAGE_AND_DROP: "pages the device, and is dropped",
}
_REST = {
    RuleVerdict.DROP: "is dropped",
    RuleVerdict.HOLD: "waits",
    RuleVerdict.FORWARD: "to its last place",
    RuleVerdict.AGENT: "to {}",
}
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 51: "ah", _ICMPV6: "icmpv6", 132: "sctp"}


def rule_fields(rule: KeptRule) -> Fields:
    """The keys of the rule's table, and its owner."""
    fields: Fields = {
        "id": rule.identifier,
        "priority": rule.priority,
        "action": rule.verdict.value,
        "to": list(rule.to),
        "share": rule.share,
        "owner": rule.owner,
    }
    return fields | selector_fields(rule.selectors)


def selector_fields(selectors: tuple[Selector, ...]) -> Fields:
    """The selector keys of one rule; `selectors` are its one or two forms, one a family."""
    selector = selectors[0]
    fields: Fields = {}
    for key, found in (("source", selector.source), ("destination", selector.destination)):
        if found is not None:
            fields[key] = _addresses(*found)
    if isinstance(selector, Ipv4Selector):
        protocol, label = selector.protocol, None
    else:
        protocol, label = selector.next_header, selector.flow_label
    if protocol is not None:
        number = _range(protocol)
        fields["protocol"] = _NAMES.get(number, number) if isinstance(number, int) else number
    for key, part in (
        ("source_port", selector.source_port),
        ("destination_port", selector.destination_port),
        ("dscp", selector.dscp),
        ("spi", selector.spi),
        ("flow_label", label),
    ):
        if part is not None:
            fields[key] = _range(part)
    told = selector.source or selector.destination or label or protocol == (_ICMPV6, _ICMPV6)
    if len(selectors) == 1 and not told:  # nothing else says of which family it is
        fields["family"] = 4 if isinstance(selector, Ipv4Selector) else 6
    return fields


def rule_text(rule: KeptRule) -> str:
    """One line: the rule's selector and its target."""
    what = _what(rule.selectors)
    if rule.identifier == OTHERWISE_RULE:
        to = " else ".join(str(target) for target in rule.to)
        return f"everything else {_REST[rule.verdict].format(to)} while the device sleeps"
    asleep = " while the device sleeps" if rests(rule) else ""
    if rule.verdict is RuleVerdict.HOLD:
        return f"{what} waits until the device is awake"
    if rule.verdict is RuleVerdict.PAGE:
        return f"{what} pages the device while it sleeps"
    if not rule.to:
        return f"{what} is dropped{asleep}"
    targets = (" + " if rule.share else ", else ").join(str(target) for target in rule.to)
    return f"{what} to {targets}{asleep}"


def policing_texts(policing: Policing) -> list[str]:
    """A line for each rule of a filter, both forms in one, and one for the rest unless that is allowed."""
    forms: dict[int, list[FilterRule]] = {}
    for rule in policing.rules:
        forms.setdefault(rule.identifier, []).append(rule)
    lines = [
        f"{identifier}: {_what(tuple(rule.selector for rule in rules))} {_BECOMES[rules[0].verdict]}"
        for identifier, rules in forms.items()
    ]
    if policing.otherwise.drops:
        lines.append(f"the rest {_BECOMES[policing.otherwise]}")
    return lines


def _what(selectors: tuple[Selector, ...]) -> str:
    return " ".join(f"{key}={value}" for key, value in selector_fields(selectors).items()) or "everything"


def _addresses(first: Any, last: Any) -> str:
    networks = list(summarize_address_range(first, last))
    if len(networks) > 1:
        return f"{first}-{last}"
    return str(first) if first == last else str(networks[0])


def _range(found: Range) -> int | str:
    first, last = found
    return first if first == last else f"{first}-{last}"
