"""Requests about live sessions: `locum session list | sleep | wake`."""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.server import RequestFailed
from locum.node.control.wish_rows import wish_of
from locum.node.events import flow_of_text, flow_text
from locum.node.performer import Sequential
from locum.roles.mobile_node.selection import Selection

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.sleep import SleepControl
    from locum.node.control.view import NodeView
    from locum.roles.mnps.handover import HeldFlow, TakenOver
    from locum.roles.mnps.role import StandIn

Row = dict[str, Any]

_NAMED = re.compile(r"((?:[0-9a-fA-F]{2})+)(?:/([0-9]{1,9}))?")  # HANDOVER[/SESSION]


def sleeper(node: "NodeView") -> "SleepControl":
    """The sleep of this host's mobile node. Raises RequestFailed."""
    slot = node.driver.slots.get("mobile_node")
    if slot is None:
        raise RequestFailed("this node is no mobile node; ask the one whose configuration has [mobile_node]")
    from locum.node.control.sleep import SleepControl

    return SleepControl(node, slot)


async def sleep(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Returns when the stand-in has everything. Raises RequestFailed."""
    until = None if arguments.get("until") is None else wish_of(arguments["until"])
    return await sleeper(node).sleep(arguments.get("for"), _name(arguments.get("to")), until)


async def would_sleep(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Result of a sleep for each session, as a dry run. Raises RequestFailed."""
    return await sleeper(node).would_sleep(_name(arguments.get("to")))


async def move(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Returns when the device is at another access node. Raises RequestFailed."""
    to = arguments.get("to")
    if not isinstance(to, str) or not to:
        raise RequestFailed("to: a link, or the address of an access node")
    return await sleeper(node).move(to)


async def wake(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Returns when everything is back in the programs; with `abandon`, when it is given up. Raises RequestFailed."""
    abandon = arguments.get("abandon", False)
    if not isinstance(abandon, bool):
        raise RequestFailed("abandon: true or false")
    return await (sleeper(node).abandon() if abandon else sleeper(node).wake())


async def give(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Returns when the stand-in has the selected sessions. Raises RequestFailed."""
    return await sleeper(node).give(_selection(arguments), _name(arguments.get("to")))


async def take(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Take the selected sessions back; returns when they are back. Raises RequestFailed."""
    return await sleeper(node).take(_selection(arguments))


def _name(value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise RequestFailed("to: the name or address of a stand-in")
    return value


def _selection(arguments: Mapping[str, Any]) -> Selection:
    """The selected sessions. Raises RequestFailed."""
    port, pid = (_number(arguments, key) for key in ("port", "pid"))
    peer, flow = arguments.get("peer"), arguments.get("flow")
    try:
        return Selection(
            port=port,
            peer=None if peer is None else ip_address(peer),
            pid=pid,
            flow=None if flow is None else flow_of_text(flow),
        )
    except ValueError as problem:
        raise RequestFailed(str(problem)) from None


def _number(arguments: Mapping[str, Any], key: str) -> int | None:
    value = arguments.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise RequestFailed(f"{key}: a whole number above 0")
    return value


def sessions(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Sessions that are away or wait for a program (mobile node), or are held (stand-in)."""
    rows: list[Row] = []
    if "mobile_node" in node.driver.slots:
        rows += sleeper(node).away()
    if node.replaying is not None:
        rows += node.replaying.waiting.rows()
    if (slot := node.driver.slots.get("mnps")) is not None:
        rows += _held(node, cast("StandIn", slot.role))
    return rows


async def drop(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """End sessions that are held here; returns when their peers are reset. Raises RequestFailed."""
    slot = node.driver.slots.get("mnps")
    if slot is None:
        raise RequestFailed(
            "this node is no stand-in; a device abandons its sessions with: locum wake --abandon"
        )
    role = cast("StandIn", slot.role)
    wanted = _dropping(arguments)
    rows: list[Row] = []
    chosen: list[tuple[bytes, int]] = []
    for taken in role.handovers():
        for session in taken.held:
            if wanted(taken, session):
                chosen.append((taken.identifier, session.session))
                rows.append(
                    {
                        "handover": taken.identifier.hex(),
                        "session": session.session,
                        "flow": flow_text(session.flow),
                    }
                )
    if not chosen:
        raise RequestFailed("no such session is held here; see: locum session list")
    node.driver.command("mnps", lambda _role, now: role.drop(chosen, now=now))
    if isinstance(slot.performer, Sequential):
        await slot.performer.drained()
    return rows


def _dropping(arguments: Mapping[str, Any]) -> "Callable[[TakenOver, HeldFlow], bool]":
    """The selected sessions. Raises RequestFailed."""
    given = {key: arguments[key] for key in ("session", "flow", "device") if arguments.get(key) is not None}
    if len(given) != 1:
        raise RequestFailed("name one of session (HANDOVER/NUMBER), flow and device")
    ((key, value),) = given.items()
    try:
        if key == "flow":
            flow = flow_of_text(value)
            return lambda taken, held: held.flow == flow
        if key == "device":
            address = ip_address(value)
            return lambda taken, held: address in taken.home_addresses
    except ValueError as problem:
        raise RequestFailed(f"{key}: {problem}") from None
    named = _NAMED.fullmatch(str(value))
    if named is None:
        raise RequestFailed(
            f"{value!r} names no session: HANDOVER or HANDOVER/SESSION, as in locum session list"
        )
    identifier, session = bytes.fromhex(named[1]), None if named[2] is None else int(named[2])
    return lambda taken, held: taken.identifier == identifier and session in (None, held.session)


def _held(node: "NodeView", role: "StandIn") -> list[Row]:
    stand_in = node.stand_in
    live = (
        {(session["handover"], session["session"]): session for session in stand_in.sessions()}
        if stand_in
        else {}
    )
    rows = []
    for taken in role.handovers():
        for session in taken.sessions:
            key = (taken.identifier.hex(), session.session)
            row: Row = {
                "kind": session.kind,
                "label": session.label,
                "handover": key[0],
                "session": session.session,
                "flow": flow_text(session.flow),
                "state": type(taken.state).__name__.lower(),
                "status": session.status.name.lower(),
                "reason": session.reason or None,
            }
            if key in live:
                row |= {
                    "total": live[key]["received"],
                    "spool_disk": live[key]["spilled"],
                    "peer_closed": live[key]["peer_closed"],
                    "error": live[key]["error"],
                }
            rows.append(row)
    return rows
