"""Answers to commands that change something: they are given when the change is on the disk, so that no crash takes it back."""

from typing import TYPE_CHECKING

from locum.node.control.server import RequestFailed
from locum.node.tables import StoreError

if TYPE_CHECKING:
    from locum.node.control.view import NodeView


async def stored(node: "NodeView", role: str) -> None:
    """Wait until all that this role has decided so far is written. Raises RequestFailed."""
    try:
        await node.driver.slots[role].performer.saved()
    except StoreError as problem:
        raise RequestFailed(f"it is done, but lost when this daemon ends: {problem}") from None
