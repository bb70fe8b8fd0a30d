"""Requests about contexts (C4): `locum context list`, at an access node."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.server import RequestFailed

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.foreign_agent.role import ForeignAgent


def context_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The contexts kept here, and packets in flight for each. Raises RequestFailed."""
    slot = node.driver.slots.get("foreign_agent")
    if slot is None:
        raise RequestFailed(
            "this node is no access node; ask the one whose configuration has [foreign_agent]"
        )
    return [dict(row) for row in cast("ForeignAgent", slot.role).context_rows(now=node.clock.now())]
