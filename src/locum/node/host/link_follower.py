"""Reaction of a node to an interface that comes, goes, vanishes or changes its addresses.

One change after the other, and roles are told of each once. They are told of a link that comes or vanishes when sockets and data
plane have followed; of one that goes down at once: until a role has its packets held, each is lost.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from locum.node.config.settings import Settings
from locum.node.driver import Driver
from locum.node.events import EventStream
from locum.node.host.link_watch import Link, LinkKind, LinkState
from locum.node.host.network import HostNetwork
from locum.roles import actions as do
from locum.roles.actions import Event

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane

log = logging.getLogger("locum.links")


class LinkSocket(Protocol):
    """A socket of one link."""

    def fileno(self) -> int: ...
    def read(self) -> None: ...
    def close(self) -> None: ...


class RegistrationLinks(Protocol):
    """The sockets of registrations and agent discovery, by link."""

    def links_changed(self) -> None: ...
    def open_link(self, link: str) -> LinkSocket | None: ...
    def close_link(self, link: str) -> LinkSocket | None: ...


class MembershipLinks(Protocol):
    """The sockets of group memberships, by link."""

    def open_link(self, link: str) -> None: ...
    def close_link(self, link: str) -> None: ...


class LinkFollower:
    """The links of one node, from its start on."""

    def __init__(
        self,
        settings: Settings,
        driver: Driver,
        events: EventStream,
        link_lost: Callable[[str], None],
        registrations: RegistrationLinks,
        network: HostNetwork,
        plane: "DataPlane",
        memberships: MembershipLinks | None,
    ) -> None:
        self._settings, self._driver, self._events, self._link_lost = settings, driver, events, link_lost
        self._registrations, self._network = registrations, network
        self._plane, self._memberships = plane, memberships
        self._order = asyncio.Lock()
        self._told: dict[str, LinkState] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self, name: str, link: Link | None) -> None:
        """Handle a report of the link watch; None is a link that has vanished."""
        if name in self._settings.node.interfaces:
            task = asyncio.get_running_loop().create_task(self._follow(name, LinkState.of(link)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def tell(self, name: str, link: LinkState) -> None:
        """Emit one event for each change, whatever the kernel reports of the link meanwhile."""
        before = self._told.get(name)
        if link == before:
            return
        self._told[name] = link
        self._warn(name, None if before is None else before.kind, link.kind)
        up = link.kind is LinkKind.UP
        if before is not None and link.kind is not before.kind:
            self._events.emit(link.kind.value, detail={"link": name})
            if not up:
                self._link_lost(name)
        event: Event = do.LinkUp(name, link.addresses) if up else do.LinkDown(name)
        for role in self._driver.slots:
            self._driver.feed(role, event)

    def _warn(self, name: str, before: LinkKind | None, now: LinkKind) -> None:
        """Log missing interfaces for the operator, but not radios that come and go."""
        if now is LinkKind.VANISHED:
            gone = f"there is no interface {name} yet" if before is None else f"interface {name} is gone"
            log.warning("%s: %s; waiting for it", self._settings.file, gone)
        elif before is LinkKind.VANISHED:
            log.warning("%s: interface %s is there now", self._settings.file, name)

    async def _follow(self, name: str, link: LinkState) -> None:
        async with self._order:
            if link.kind is LinkKind.DOWN:
                self.tell(name, link)
            await self._prepare(name, link)
            self.tell(name, link)

    async def _prepare(self, name: str, link: LinkState) -> None:
        self._registrations.links_changed()
        try:
            if link.kind is LinkKind.VANISHED:
                self._close(name)
            else:
                self._open(name)
                if link.kind is LinkKind.UP:
                    await self._network.link_up(name)
        except Exception as problem:
            self._events.emit("link-failed", detail={"link": name, "reason": str(problem)})
            log.warning("%s: %s", name, problem)

    def _open(self, name: str) -> None:
        if name not in self._plane.interfaces:
            self._plane.attach(name)
        else:
            self._plane.refresh()
        if self._memberships is not None:
            self._memberships.open_link(name)
        opened = self._registrations.open_link(name)
        if opened is not None:
            asyncio.get_running_loop().add_reader(opened.fileno(), opened.read)

    def _close(self, name: str) -> None:
        closed = self._registrations.close_link(name)
        if closed is not None:
            asyncio.get_running_loop().remove_reader(closed.fileno())
            closed.close()
        self._plane.detach(name)
        if self._memberships is not None:
            self._memberships.close_link(name)
