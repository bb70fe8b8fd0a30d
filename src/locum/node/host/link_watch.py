"""Reports links of this host that come, go, vanish and change addresses (rtnetlink). Decides nothing."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, ip_address
from typing import Any, Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK

from locum.node.config.settings import Address

_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000


@dataclass(slots=True)
class Link:
    """State of one network interface."""

    name: str
    index: int
    up: bool  # administratively up and with carrier
    link_layer: bytes
    addresses: dict[Address, int] = field(
        default_factory=dict
    )  # and prefix lengths, in the order they were seen


class LinkKind(Enum):
    """Kind of change of a link; the value is the kind of its event."""

    UP = "link-up"
    DOWN = "link-down"
    VANISHED = "link-vanished"


@dataclass(frozen=True, slots=True)
class LinkState:
    """State of a link for roles: addresses only while they are usable."""

    kind: LinkKind
    addresses: tuple[Address, ...] = ()

    @classmethod
    def of(cls, link: Link | None) -> Self:
        """State of the link now; None is a missing link."""
        if link is None:
            return cls(LinkKind.VANISHED)
        return cls(LinkKind.UP, tuple(link.addresses)) if link.up else cls(LinkKind.DOWN)


class LinkWatch:
    """A mirror of the host's links, kept by the kernel's notifications.

    `changed(name, link)` is called when a link comes or goes (`up` changes), gets or loses an address, and with None
    when it vanishes.
    """

    def __init__(self, changed: Callable[[str, Link | None], None]) -> None:
        self._changed = changed
        self._kernel = AsyncIPRoute()
        self._links: dict[int, Link] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Subscribe first and list then, so that nothing is missed."""
        await self._kernel.setup_endpoint()
        await self._kernel.bind(groups=RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
        async with AsyncIPRoute() as reader:
            async for message in await reader.get_links():
                self._link(message, tell=False)
            async for message in await reader.get_addr():
                self._address(message, tell=False)
        self._task = asyncio.create_task(self._follow(), name="link watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._kernel.close()

    def find(self, name: str) -> Link | None:
        """The link of that name, or None."""
        return next((link for link in self._links.values() if link.name == name), None)

    def ipv4_interface(self, name: str) -> IPv4Interface | None:
        """The first IPv4 address of the link of that name, with its network, or None."""
        known = self.find(name)
        addresses = known.addresses if known is not None else {}
        own = ((address, length) for address, length in addresses.items() if isinstance(address, IPv4Address))
        return next((IPv4Interface(pair) for pair in own), None)

    def name(self, index: int) -> str:
        """The name of the link with that index, or its number."""
        link = self._links.get(index)
        return link.name if link else str(index)

    def is_local(self, address: Address) -> bool:
        """True if `address` belongs to this host."""
        return any(address in link.addresses for link in self._links.values())

    async def _follow(self) -> None:
        while True:
            async for message in self._kernel.get():
                event = message.get("event")
                if event in ("RTM_NEWLINK", "RTM_DELLINK"):
                    self._link(message, tell=True)
                elif event in ("RTM_NEWADDR", "RTM_DELADDR"):
                    self._address(message, tell=True)

    def _link(self, message: Any, *, tell: bool) -> None:
        index = message["index"]
        if message.get("family") == socket.AF_BRIDGE:  # a bridge speaks of its port, not of the link
            return
        known = self._links.get(index)
        if message.get("event") == "RTM_DELLINK":
            if known is not None:
                del self._links[index]
                if tell:
                    self._changed(known.name, None)
            return
        name, flags = message.get_attr("IFLA_IFNAME"), message["flags"]
        up = bool(flags & _IFF_UP and flags & _IFF_LOWER_UP)
        text = message.get_attr("IFLA_ADDRESS")
        link_layer = bytes.fromhex(text.replace(":", "")) if text else b""
        if known is None:
            self._links[index] = known = Link(name, index, up, link_layer)
        elif known.name != name:
            before, known.name = known.name, name
            if tell:
                self._changed(before, None)
        elif known.up == up and known.link_layer == link_layer:
            return
        known.up, known.link_layer = up, link_layer
        if tell:
            self._changed(name, known)

    def _address(self, message: Any, *, tell: bool) -> None:
        link = self._links.get(message["index"])
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if link is None or text is None:
            return
        address = ip_address(text)
        if address.is_multicast:  # a group that this host joined is no address of its own
            return
        if message.get("event") == "RTM_DELADDR":
            if address not in link.addresses:
                return
            del link.addresses[address]
        elif address in link.addresses:
            return
        else:
            link.addresses[address] = message["prefixlen"]
        if tell:
            self._changed(link.name, link)
