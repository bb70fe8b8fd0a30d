"""Requests about flow rules: `locum flow list | add | remove` (features R5 to R8), at the home agent; elsewhere `own_flows`.

A rule comes as the keys of its table in the configuration (see `rule_table.py`), and goes out with the same keys.
"""

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from locum.node.config.rule_table import flow_rules
from locum.node.config.rule_text import rule_fields, rule_text, selector_fields
from locum.node.config.toml_table import ConfigError, Table
from locum.node.control.answering import own_flows
from locum.node.control.answering.stored import stored
from locum.node.control.server import RequestFailed
from locum.roles.action_values.addresses import Addr
from locum.roles.rules import ADMIN, RuleRefused

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.home_agent.registry import RuleLine
    from locum.roles.home_agent.role import HomeAgent

Row = dict[str, Any]


def flow_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """The rules of `home_address`, or of all, in the order in which they are matched. Raises RequestFailed."""
    if "home_agent" not in node.driver.slots:
        rows = own_flows.mobile_list(node) if "mobile_node" in node.driver.slots else []
        return rows + (own_flows.stand_in_list(node) if "mnps" in node.driver.slots else [])
    wanted = arguments.get("home_address")
    home_address = None if wanted is None else _home_address(node, arguments)
    return rule_rows(node, _home_agent(node).list_rules(home_address))


async def flow_add(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Add the rule whose keys are in `rule` to `home_address`; the row that it became. Raises RequestFailed."""
    keys = arguments.get("rule")
    if not isinstance(keys, Mapping):
        raise RequestFailed("rule: the keys of a rule's table are missing")
    if "home_agent" not in node.driver.slots:
        if "mobile_node" in node.driver.slots:
            return await own_flows.mobile_add(node, keys)
        if "mnps" in node.driver.slots:
            return await own_flows.stand_in_add(node, keys, _some_home_address(arguments))
    home_address = _home_address(node, arguments)
    try:
        (rule,) = flow_rules([Table(Path("rule"), "", keys)], ADMIN)
    except ConfigError as problem:
        place = f"{problem.key}: " if problem.key else ""
        raise RequestFailed(f"{place}{problem.problem}") from None
    role = _home_agent(node)
    try:
        if "id" not in keys:
            rule = role.numbered(home_address, rule)
        node.driver.command(
            "home_agent", lambda home, now: cast("HomeAgent", home).add_rule(home_address, rule, now=now)
        )
    except RuleRefused as problem:
        raise RequestFailed(str(problem)) from None
    await stored(node, "home_agent")
    made = [line for line in role.list_rules(home_address) if line.rule.identifier == rule.identifier]
    return rule_rows(node, made)[0]


async def flow_remove(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Take the rule with the identifier `id` away from `home_address`; the row that it was. Raises RequestFailed."""
    identifier = arguments.get("id")
    if not isinstance(identifier, int):
        raise RequestFailed("id: the identifier of a rule is missing; `locum flow list` shows them")
    if "home_agent" not in node.driver.slots:
        if "mobile_node" in node.driver.slots:
            return await own_flows.mobile_remove(node, identifier)
        if "mnps" in node.driver.slots:
            return await own_flows.stand_in_remove(node, identifier, _some_home_address(arguments))
    home_address = _home_address(node, arguments)
    role = _home_agent(node)
    was = [line for line in role.list_rules(home_address) if line.rule.identifier == identifier]
    rows = rule_rows(node, was)
    try:
        node.driver.command(
            "home_agent",
            lambda home, now: cast("HomeAgent", home).remove_rule(home_address, identifier, now=now),
        )
    except RuleRefused as problem:
        raise RequestFailed(str(problem)) from None
    await stored(node, "home_agent")
    return rows[0]


def rule_rows(
    node: "NodeView",
    lines: "tuple[RuleLine, ...] | list[RuleLine]",
    addresses: Mapping[Addr, Addr | None] | None = None,
) -> list[Row]:
    """Rules as rows, with counts of packets to any home address of the device.

    `addresses` are the IPv4 and IPv6 home addresses of the devices; None: they are looked up.
    """
    if addresses is None:
        addresses = {
            entry.home_address: entry.home_address_v6
            for entry in _home_agent(node).visitor_list(now=node.clock.now())
        }
    return [_row(node, line, addresses.get(line.home_address)) for line in lines]


def _row(node: "NodeView", line: "RuleLine", home_address_v6: Addr | None) -> Row:
    took = [
        counters[line.rule.identifier]
        for home_address in (line.home_address, home_address_v6)
        if home_address is not None
        and line.rule.identifier in (counters := node.plane.rule_counters(home_address))
    ]
    return {
        "home_address": str(line.home_address),
        "home_address_v6": None if home_address_v6 is None else str(home_address_v6),
        **rule_fields(line.rule),
        "item": line.item,
        "selector": selector_fields(line.rule.selectors),
        "text": rule_text(line.rule),
        "live": list(line.live),
        "packets": sum(counter.packets for counter in took),
        "bytes": sum(counter.bytes for counter in took),
    }


def _home_agent(node: "NodeView") -> "HomeAgent":
    slot = node.driver.slots.get("home_agent")
    if slot is None:
        raise RequestFailed("this node has no flow rules; ask the home agent, the mobile node or a stand-in")
    return cast("HomeAgent", slot.role)


def _some_home_address(arguments: Mapping[str, Any]) -> IPv4Address | None:
    """The one that is named, if one is. Raises RequestFailed."""
    value = arguments.get("home_address")
    try:
        return None if value is None else IPv4Address(value)
    except AddressValueError:
        raise RequestFailed(f"home_address: {value!r} is not an IPv4 address") from None


def _home_address(node: "NodeView", arguments: Mapping[str, Any]) -> IPv4Address:
    """The one that is named, or the only one that is served. Raises RequestFailed."""
    value = arguments.get("home_address")
    if value is None:
        served = _home_agent(node).visitor_list(now=node.clock.now())
        if len(served) != 1:
            raise RequestFailed(f"{len(served)} home addresses are served; choose one with --home-address")
        return served[0].home_address
    try:
        return IPv4Address(value)
    except AddressValueError:
        raise RequestFailed(f"home_address: {value!r} is not an IPv4 address") from None
