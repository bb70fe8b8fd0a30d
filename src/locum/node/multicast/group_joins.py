"""Joins multicast groups on the link towards the network, as the access node's role has them forwarded (C4).

The data plane copies what arrives; here is only the host's membership, which outlives a daemon that is killed.
"""

import asyncio
import logging
from collections.abc import Iterable

from locum.node.events import EventStream
from locum.node.host.network import HostNetwork
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import ForwardGroup
from locum.roles.actions import Action

log = logging.getLogger("locum.groups")


class GroupJoins:
    """One change after the other, in the order they were asked for."""

    def __init__(self, network: HostNetwork, events: EventStream) -> None:
        self._network, self._events = network, events
        self._joined: dict[Addr, str] = {}
        self._order = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def applied(self, actions: Iterable[Action]) -> None:
        """Actions that the data plane has just been given."""
        for action in actions:
            if isinstance(action, ForwardGroup):
                task = asyncio.get_running_loop().create_task(self._follow(action))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until everything asked for so far is done."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _follow(self, action: ForwardGroup) -> None:
        async with self._order:
            group, before = action.group, self._joined.get(action.group)
            after = action.upstream if action.links else None
            try:
                if before is not None and before != after:
                    del self._joined[group]
                    await self._network.leave_group(before, group)
                if after is not None and before != after:
                    self._joined[group] = after
                    await self._network.join_group(after, group)
            except OSError as problem:
                self._events.emit("group-failed", detail={"group": str(group), "reason": str(problem)})
                log.warning("group %s: %s", group, problem)
