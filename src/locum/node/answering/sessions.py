"""Requests about live sessions: `locum session list | sleep | wake`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from locum.node.control_socket import RequestFailed
from locum.node.events import flow_text

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.node import Node
    from locum.node.sleep_control import SleepControl
    from locum.roles.mnps import StandIn

Row = dict[str, Any]


def sleeper(node: "Node") -> "SleepControl":
    """The sleep of this host's mobile node. Raises RequestFailed."""
    slot = node.slots.get("mobile_node")
    if slot is None:
        raise RequestFailed("this node is no mobile node; ask the one whose configuration has [mobile_node]")
    from locum.node.sleep_control import SleepControl

    return SleepControl(node, slot)


async def sleep(node: "Node", arguments: Mapping[str, Any]) -> Row:
    """Returns when the stand-in has everything. Raises RequestFailed."""
    return await sleeper(node).sleep(arguments.get("for"))


async def wake(node: "Node", arguments: Mapping[str, Any]) -> Row:
    """Returns when everything is back in the programs. Raises RequestFailed."""
    return await sleeper(node).wake()


def sessions(node: "Node", arguments: Mapping[str, Any]) -> list[Row]:
    """Sessions that are away (mobile node) or held (stand-in)."""
    rows: list[Row] = []
    if "mobile_node" in node.slots:
        rows += sleeper(node).away()
    if (slot := node.slots.get("mnps")) is not None:
        rows += _held(node, cast("StandIn", slot.role))
    return rows


def _held(node: "Node", role: "StandIn") -> list[Row]:
    stand_in = node.stand_in
    live = {(each["handover"], each["session"]): each for each in stand_in.sessions()} if stand_in else {}
    rows = []
    for taken in role.handovers():
        for session in taken.sessions:
            key = (taken.identifier.hex(), session.session)
            row: Row = {
                "kind": "held",
                "handover": key[0],
                "session": session.session,
                "flow": flow_text(session.flow),
                "state": type(taken.state).__name__.lower(),
                "status": session.status.name.lower(),
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
