"""The last messages of an access node before its daemon ends."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from locum.node.driver import Driver
from locum.node.performer import Sequential

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.roles.foreign_agent.role import ForeignAgent

_LONGEST_FAREWELL = 1.0  # seconds that the end of a daemon waits for the home agents' answers


async def farewell(driver: Driver, now: float) -> None:
    """Tell the visitors' home agents that the access node ends, and wait a moment for their answers."""
    slot = driver.slots["foreign_agent"]
    role = cast("ForeignAgent", slot.role)
    actions = role.farewell(now=now)
    if not actions:
        return
    slot.performer.perform(actions)
    answered = asyncio.Event()

    def look() -> None:
        if not role.leaving:
            answered.set()

    slot.told.add(look)
    try:
        look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_FAREWELL):
                await answered.wait()
    finally:
        slot.told.discard(look)
    if isinstance(slot.performer, Sequential):
        await slot.performer.drained()
