"""Wishes to be woken: read from requests, and as JSON for the control socket. The command line prints them."""

from typing import TYPE_CHECKING, Any, cast

from locum.node.clock import utc_offset
from locum.node.config.toml_table import ConfigError
from locum.node.control.server import RequestFailed
from locum.node.control.wish_forms import ORDERS, wish
from locum.roles.mobile_node.paging.own_paging import Standing
from locum.roles.mobile_node.paging.wishes import Wish

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.mobile_node.role import SleepingNode

Row = dict[str, Any]


def wish_of(keys: Any) -> Wish:
    """The wish that a command line means. Raises RequestFailed."""
    if not isinstance(keys, dict):
        raise RequestFailed("wish: a form with its options")
    try:
        return wish(keys)
    except ConfigError as problem:
        where = {"form": "", "value": ""}.get(str(problem.key), f"--{problem.key}: ".replace("_", "-"))
        raise RequestFailed(f"{where}{problem.problem}") from None


def at_offset(role: "SleepingNode") -> None:
    """Quiet hours are those of this host's clock, unless the configuration says otherwise."""
    paging = role.paging
    if paging.configuration.offset is None:
        paging.offset = utc_offset()


def wish_row(role: "SleepingNode", standing: Standing) -> Row:
    """One wish: the node that watches for it, and whether it does."""
    wished, paging = standing.wish, role.paging
    missing = wished.entry is not None and not paging.entries_of(wished)
    hint = f"; order one: {ORDERS[wished.proxy]}" if missing and wished.proxy in ORDERS else ""
    return {
        "wish": wished.number,
        "text": wished.text,
        "for": "this sleep" if wished.once else "every sleep",
        "watched_by": "home agent" if wished.entry is None else "stand-in",
        "state": "in force" if standing.in_force else "not in force",
        "reason": f"{standing.reason}{hint}" if standing.reason else None,
    }


def sleeping_node(node: "NodeView") -> "SleepingNode":
    """The mobile node of this host. Raises RequestFailed."""
    slot = node.driver.slots.get("mobile_node")
    if slot is None:
        raise RequestFailed("this node is no mobile node; ask the one whose configuration has [mobile_node]")
    return cast("SleepingNode", slot.role)
