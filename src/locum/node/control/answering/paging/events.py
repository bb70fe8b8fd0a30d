"""Requests about events: `locum event list`, `tables`, `show` and `clear`, at a stand-in and at a device (P3)."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.answering.stored import stored
from locum.node.control.server import RequestFailed
from locum.roles.app_results import plain
from locum.wire.control.paging.entry import ActionKind, Condition, Entry, Operator, Pattern

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.mnps.paging.device_table import DeviceTable
    from locum.roles.mnps.role import StandIn
    from locum.roles.mobile_node.role import SleepingNode
    from locum.roles.paging.stored_events import StoredEvent

Row = dict[str, Any]
_SIGNS = {
    Operator.EQUAL: "=",
    Operator.NOT_EQUAL: "!=",
    Operator.LESS: "<",
    Operator.GREATER: ">",
    Operator.AT_MOST: "<=",
    Operator.AT_LEAST: ">=",
    Operator.CONTAINS: "contains",
    Operator.GLOB: "glob",
}


def event_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Events that were stored: at a device those that it has received, at a stand-in those that wait. Raises RequestFailed."""
    rows = []
    if (device := node.driver.slots.get("mobile_node")) is not None:
        role = cast("SleepingNode", device.role)
        home = str(role.mobile.configuration.home_address)
        for received in role.events.all():
            rows.append(_event(home, received.stored) | {"stand_in": str(received.stand_in)})
    for table in _tables(node) if "mnps" in node.driver.slots else ():
        rows += [_event(str(table.key), stored) | {"stand_in": None} for stored in table.stored.all()]
    if device is None and "mnps" not in node.driver.slots:
        raise RequestFailed("this node has no events; ask a device or a stand-in")
    return rows


def event_tables(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """The entries of every device's table. Raises RequestFailed."""
    return [_entry(node, table, entry) for table in _tables(node) for entry in table.table.entries]


def event_show(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """The table of one device with everything that waits for it. Raises RequestFailed."""
    asked = str(arguments.get("home_address", ""))
    try:
        table = _stand_in(node).event_tables.of((ip_address(asked),))
    except ValueError:
        raise RequestFailed(f"{asked!r} is no address") from None
    if table is None or table.empty:
        raise RequestFailed(f"{asked} has no event table here; `locum event tables` has all")
    tables = _stand_in(node).event_tables
    page, said = tables.pages.get(table.key), tables.rules.status(table.key)
    return {
        "home_addresses": [str(home) for home in table.home_addresses],
        "asleep": tables.asleep(table.home_addresses),
        "entries": [_entry(node, table, entry) for entry in table.table.entries],
        "information": plain(dict(table.table.information)),
        "rules": [rule.identifier for rule in table.table.rules],
        "rules_at_home_agent": "asked" if said is None else said.status.name.lower(),
        "stored": [_event(str(table.key), stored) for stored in table.stored.all()],
        "page": None
        if page is None
        else {
            "page": page.identifier.hex(),
            "app": page.event.app,
            "event": page.event.kind,
            "events": page.events,
            "attempts": page.attempts,
            "since": node.clock.for_people(page.since),
            "last": page.last or None,
        },
    }


async def event_clear(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Forget the events that this device has received. Raises RequestFailed."""
    if node.driver.slots.get("mobile_node") is None:
        raise RequestFailed("this node is no device; a stand-in keeps events until their device has them")
    number = len(cast("SleepingNode", node.driver.slots["mobile_node"].role).events.all())
    node.driver.command("mobile_node", lambda role, _now: cast("SleepingNode", role).events.clear())
    await stored(node, "mobile_node")
    return {"events": number}


def _stand_in(node: "NodeView") -> "StandIn":
    slot = node.driver.slots.get("mnps")
    if slot is None:
        raise RequestFailed("this node keeps no event tables; ask a stand-in")
    return cast("StandIn", slot.role)


def _tables(node: "NodeView") -> "list[DeviceTable]":
    return _stand_in(node).event_tables.all()


def _event(home_address: str, stored: "StoredEvent") -> Row:
    return {
        "home_address": home_address,
        "happened_at": stored.at / 1000,
        "entry": stored.entry,
        "app": stored.event.app,
        "event": stored.event.kind,
        "events": stored.count,
        "detail": plain(dict(stored.event.detail)),
    }


def _entry(node: "NodeView", table: "DeviceTable", entry: Entry) -> Row:
    progress, limits = table.table.progress(entry.identifier), entry.limits
    held_back = None
    if limits.interval or limits.quiet:
        hours = [f"{_clock(first)}-{_clock(last)}" for first, last in limits.quiet]
        held_back = ", ".join([*([f"{limits.interval} s"] if limits.interval else []), *hours])
    return {
        "home_address": str(table.key),
        "entry": entry.identifier,
        "name": entry.name or None,
        "when": " and ".join(map(_pattern, entry.patterns))
        if entry.within is not None
        else " or ".join(map(_pattern, entry.patterns)),
        "within": entry.within,
        "actions": [_action(action.kind) for action in entry.actions],
        "limits": held_back,
        "paged_at": None if progress.paged_at is None else node.clock.for_people(progress.paged_at),
        "waits": len(progress.waiting),
    }


def _pattern(pattern: Pattern) -> str:
    conditions = "".join(f" {_condition(condition)}" for condition in pattern.conditions)
    return f"{pattern.app}/{pattern.kind}{conditions}"


def _condition(condition: Condition) -> str:
    value = f"left.{condition.value}" if condition.left else repr(condition.value)
    return f"[{condition.field} {_SIGNS[condition.operator]} {value}]"


def _action(kind: ActionKind) -> str:
    return kind.name.lower().replace("_", "-")


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
