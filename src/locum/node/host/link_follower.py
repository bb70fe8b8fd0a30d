"""What a node does when one of its interfaces comes, goes, vanishes or changes its addresses.

One change after the other, and roles hear of each once. Of a link that comes or vanishes they hear when sockets and data
plane have followed; of one that goes down at once: until a role has said where its packets are to wait, each is lost.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from locum.node.host.link_watch import Link, LinkKind, LinkState
from locum.roles import actions as do
from locum.roles.actions import Event

if TYPE_CHECKING:
    from locum.node.node import Node

log = logging.getLogger("locum.links")


class LinkFollower:
    """The links of one node, from its start on."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._order = asyncio.Lock()
        self._told: dict[str, LinkState] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self, name: str, link: Link | None) -> None:
        """What the link watch says; None is a link that has vanished. Before the roles are there it is not followed."""
        if name in self._node.settings.node.interfaces and self._node.slots:
            task = asyncio.get_running_loop().create_task(self._follow(name, LinkState.of(link)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def tell(self, name: str, link: LinkState) -> None:
        """Events are told once for each change, whatever else the kernel says of the link meanwhile."""
        before = self._told.get(name)
        if link == before:
            return
        self._told[name] = link
        self._warn(name, None if before is None else before.kind, link.kind)
        up = link.kind is LinkKind.UP
        if before is not None and link.kind is not before.kind:
            self._node.events.emit(link.kind.value, detail={"link": name})
            if not up:
                self._node.exchanges.link_lost(name)
        event: Event = do.LinkUp(name, link.addresses) if up else do.LinkDown(name)
        for role in self._node.slots:
            self._node.feed(role, event)

    def _warn(self, name: str, before: LinkKind | None, now: LinkKind) -> None:
        """What an operator wants to read in the journal: interfaces that are not there, not radios that come and go."""
        if now is LinkKind.VANISHED:
            gone = f"there is no interface {name} yet" if before is None else f"interface {name} is gone"
            log.warning("%s: %s; waiting for it", self._node.settings.file, gone)
        elif before is LinkKind.VANISHED:
            log.warning("%s: interface %s is there now", self._node.settings.file, name)

    async def _follow(self, name: str, link: LinkState) -> None:
        async with self._order:
            if link.kind is LinkKind.DOWN:
                self.tell(name, link)
            await self._prepare(name, link)
            self.tell(name, link)

    async def _prepare(self, name: str, link: LinkState) -> None:
        node = self._node
        node.registrations.links_changed()
        try:
            if link.kind is LinkKind.VANISHED:
                self._close(name)
            else:
                self._open(name)
                if link.kind is LinkKind.UP:
                    await node.network.link_up(name)
        except Exception as problem:
            node.events.emit("link-failed", detail={"link": name, "reason": str(problem)})
            log.warning("%s: %s", name, problem)

    def _open(self, name: str) -> None:
        node = self._node
        if name not in node.plane.interfaces:
            node.plane.attach(name)
        else:
            node.plane.refresh()
        if node.memberships is not None:
            node.memberships.open_link(name)
        opened = node.registrations.open_link(name)
        if opened is not None:
            asyncio.get_running_loop().add_reader(opened.fileno(), opened.read)

    def _close(self, name: str) -> None:
        node = self._node
        closed = node.registrations.close_link(name)
        if closed is not None:
            asyncio.get_running_loop().remove_reader(closed.fileno())
            closed.close()
        node.plane.detach(name)
        if node.memberships is not None:
            node.memberships.close_link(name)
