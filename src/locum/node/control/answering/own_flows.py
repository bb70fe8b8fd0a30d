"""`locum flow` at a mobile node or a stand-in: rules that it registers at its home agent (R4, R6, R8).

A mobile node's rules ride in its registration. A stand-in's are those added by command: it asks itself, by the way on
which others ask it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from locum.node.config.rule_table import flow_rules, selectors
from locum.node.config.rule_text import rule_fields, rule_text, selector_fields
from locum.node.config.toml_table import ConfigError, Table
from locum.node.control.answering.triggers import ask_stand_in, unambiguous
from locum.node.control.server import RequestFailed
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Selector
from locum.roles.rules import MN, KeptRule, RuleRefused, both_families
from locum.wire.control import Flow
from locum.wire.control.trigger import Operation, Trigger

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.mnps.registration import Standing
    from locum.roles.mnps.role import StandIn
    from locum.roles.mobile_node.role import SleepingNode

Row = dict[str, Any]

_PATIENCE = 8.0  # seconds for the home agent's answer


def mobile_list(node: "NodeView") -> list[Row]:
    """Rules that the home agent has confirmed."""
    role = cast("SleepingNode", node.driver.slots["mobile_node"].role)
    return [_rule_row(rule, str(role.mobile.configuration.home_address)) for rule in role.rules.all()]


async def mobile_add(node: "NodeView", keys: Mapping[str, Any]) -> Row:
    """Returns when the home agent has it. Raises RequestFailed."""
    try:
        (rule,) = flow_rules([Table(Path("rule"), "", keys)], MN)
    except ConfigError as problem:
        raise RequestFailed(_said(problem)) from None
    # its own name means the device, as mn does
    to = tuple(MN if target == node.settings.node.name else target for target in rule.to)
    wanted = replace(rule, to=to) if "id" in keys else replace(rule, to=to, identifier=0)
    return await _changed(node, lambda role, now: role.add_rule(wanted, now=now))


async def mobile_remove(node: "NodeView", identifier: int) -> Row:
    """Returns when the home agent has removed it. Raises RequestFailed."""
    return await _changed(node, lambda role, now: role.remove_rule(identifier, now=now))


async def _changed(node: "NodeView", change: Any) -> Row:
    slot = node.driver.slots["mobile_node"]
    role = cast("SleepingNode", slot.role)
    stepped = asyncio.Event()
    slot.told.add(stepped.set)
    made: list[KeptRule] = []

    def command(_: object, now: float) -> Any:
        rule, actions = change(role, now)
        made.append(rule)
        return actions

    try:
        node.driver.command("mobile_node", command)
        async with asyncio.timeout(_PATIENCE):
            while not role.rules.settled:
                stepped.clear()
                await stepped.wait()
    except RuleRefused as problem:
        raise RequestFailed(str(problem)) from None
    except TimeoutError:
        role.rules.give_up()
        raise RequestFailed(
            "the home agent does not answer; whether it made the change is not known"
        ) from None
    finally:
        slot.told.discard(stepped.set)
    if (code := role.rules.refused) is not None:
        name = getattr(code, "name", "unknown").lower().replace("_", " ")
        raise RequestFailed(f"the home agent refused it with code {int(code)} ({name}); nothing has changed")
    return _rule_row(made[0], str(role.mobile.configuration.home_address))


def stand_in_list(node: "NodeView") -> list[Row]:
    """Rules in the stand-in's registrations, of every device."""
    rows: list[Row] = []
    for standing in _standings(node):
        home_address = str(standing.device.home_address)
        if standing.takes is not None and not standing.part.parts:
            rows.append(
                {"home_address": home_address, "id": None, "owner": "registration", "text": "everything"}
            )
        rows += [_part_row(home_address, *part) for part in standing.part.parts.items()]
    return rows


async def stand_in_add(node: "NodeView", keys: Mapping[str, Any], home_address: Addr | None) -> Row:
    """Take the selector's packets; returns when the home agent sends them here. Raises RequestFailed."""
    given = {key: value for key, value in keys.items() if key not in ("action", "to", "share")}
    if keys.get("action", "forward") != "forward" or given.keys() & {"id", "priority"}:
        raise RequestFailed("a stand-in's rules lead to itself; identifier and priority are given to them")
    standing = _standing(node, home_address)
    table = Table(Path("rule"), "", given)
    device = standing.device
    try:
        found = unambiguous(selectors(table), device.home_address, device.home_address_v6)
        table.close()
    except ConfigError as problem:
        raise RequestFailed(_said(problem)) from None
    await _ask(node, standing, Operation.TAKE, *found)
    own = str(device.home_address)
    rows = [_part_row(own, *part) for part in standing.part.parts.items() if part[1] in found]
    first, *others = rows or [{"home_address": own, "id": None, "text": "everything"}]
    return {**first, "others": others} if others else first


async def stand_in_remove(node: "NodeView", identifier: int, home_address: Addr | None) -> Row:
    """Release the packets of that rule. Raises RequestFailed."""
    standing = _standing(node, home_address)
    part = standing.part.parts.get(identifier)
    if part is None:
        raise RequestFailed(f"there is no rule {identifier}")
    if isinstance(part, Flow):
        raise RequestFailed(f"rule {identifier} is of a live session; its device takes that back")
    row = _part_row(str(standing.device.home_address), identifier, part)
    await _ask(node, standing, Operation.RELEASE, part)
    return row


async def _ask(node: "NodeView", standing: "Standing", operation: Operation, *selectors: Selector) -> None:
    own = node.settings.mnps
    assert own is not None
    await ask_stand_in(
        node, own.configuration.address, Trigger(operation, (standing.device.home_address,), selectors)
    )


def _standings(node: "NodeView") -> "list[Standing]":
    registration = cast("StandIn", node.driver.slots["mnps"].role).registration
    return [] if registration is None else list(registration.all())


def _standing(node: "NodeView", home_address: Addr | None) -> "Standing":
    known = _standings(node)
    found = [standing for standing in known if home_address in (None, standing.device.home_address)]
    if not found:
        raise RequestFailed(
            'this stand-in does not register for it; see mode = "register" and [[mnps.mobile]]'
        )
    if len(found) > 1:
        raise RequestFailed("this stand-in registers for several devices; choose one with --home-address")
    return found[0]


def _part_row(home_address: str, identifier: int, part: Flow | Selector) -> Row:
    from locum.roles.flow_selectors import flow_selector

    single = isinstance(part, Flow)
    fields = selector_fields((flow_selector(part),) if isinstance(part, Flow) else both_families(part))
    return {
        "home_address": home_address,
        "id": identifier,
        "owner": "session" if single else "trigger",
        "selector": fields,
        "text": " ".join(f"{key}={value}" for key, value in fields.items()) or "everything",
    }


def _rule_row(rule: KeptRule, home_address: str) -> Row:
    return {
        "home_address": home_address,
        **rule_fields(rule),
        "selector": selector_fields(rule.selectors),
        "text": rule_text(rule),
    }


def _said(problem: ConfigError) -> str:
    return f"{problem.key}: {problem.problem}" if problem.key else problem.problem
