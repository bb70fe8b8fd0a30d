"""Requests of `locum accept`: a connection that a proxy handed over, for the program that waits under its label (A11)."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from locum.node.control.server import Passed, RequestFailed
from locum.node.events import flow_text
from locum.wire.control import MAX_LABEL, is_label

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.node.sessions.waiting import WaitingConnections


def _waiting(node: "NodeView") -> "WaitingConnections":
    if node.replaying is None:
        raise RequestFailed("connections come to a mobile node with a stand-in; this node is none")
    return node.replaying.waiting


async def accept(node: "NodeView", arguments: Mapping[str, Any]) -> Passed:
    """One connection: of a label, or without one the oldest of all. Raises RequestFailed."""
    from locum.node.sessions.waiting import NoSuchConnection

    waiting, label = _waiting(node), arguments.get("label")
    if not (label is None or (isinstance(label, str) and is_label(label))):
        raise RequestFailed(f"a label has 1 to {MAX_LABEL} printable characters")
    others = Counter(row["label"] for row in waiting.rows())
    try:
        found = await waiting.claim(label, wait=bool(arguments.get("wait")))
    except NoSuchConnection as problem:
        raise RequestFailed(str(problem)) from None
    return Passed(
        {
            "label": found.label,
            "flow": flow_text(found.restored.flow),
            "others": sorted((others - Counter([found.label])).elements()),
        },
        found.restored.socket,
        partial(waiting.given, found),
        partial(waiting.give_back, found),
    )
