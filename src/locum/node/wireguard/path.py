"""The way of outer packets to a host, as the kernel's routes have it now, and the kernel's word that something changed.

A lookup has the mark of outer packets, so that rules that lead others into the tunnel do not count.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

from locum.node.config.wireguard.values import Address
from locum.node.wireguard.interface import mtu_of

OVERHEAD = {4: 60, 6: 80}  # bytes: IP, UDP, and the header and tag of WireGuard's data messages
# Bytes; IPv6 needs it inside (RFC 8200 section 5): smaller paths carry outer packets in fragments.
LEAST = 1280
_GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
_QUIET = 0.005  # seconds: a change comes with several messages
_RETRY = 1.0  # seconds, after a failed socket


@dataclass(frozen=True, slots=True)
class Path:
    """One way: `link`, our address there, the gateway if there is one, and the MTU of the path in bytes."""

    to: Address
    link: str
    source: str
    gateway: str
    mtu: int

    @property
    def inner_mtu(self) -> int:
        """Bytes that fit a packet inside."""
        return max(LEAST, self.mtu - OVERHEAD[self.to.version])


class Paths:
    """Lookups, and a watch. `changed` is called soon after a link, an address or a route has changed."""

    def __init__(self, mark: int, own: str, changed: Callable[[], None]) -> None:
        """`own`: name of the tunnel's interface, whose routes are no way."""
        self._mark, self._own, self._changed = mark, own, changed
        self._kernel = AsyncIPRoute()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises OSError."""
        await self._kernel.setup_endpoint()
        watch = await self._subscribed()
        self._task = asyncio.create_task(self._follow(watch), name="wireguard paths")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._kernel.close()

    async def find(self, to: Address) -> Path | None:
        """The way to an address; None: there is none."""
        family = socket.AF_INET6 if to.version == 6 else socket.AF_INET
        try:
            found = list(await self._kernel.route("get", dst=str(to), mark=self._mark, family=family))
        except NetlinkError:
            return None
        if not found or found[0]["type"] not in (1, 2):  # RTN_UNICAST, RTN_LOCAL
            return None
        (route,) = found[:1]
        link = socket.if_indextoname(route.get_attr("RTA_OIF"))
        if link == self._own:
            return None
        metrics = route.get_attr("RTA_METRICS")
        learnt = metrics.get_attr("RTAX_MTU") if metrics is not None else None
        mtu = min(mtu_of(link), int(learnt)) if learnt else mtu_of(link)
        gateway = route.get_attr("RTA_GATEWAY") or ""
        return Path(to, link, str(route.get_attr("RTA_PREFSRC") or ""), str(gateway), mtu)

    async def _subscribed(self) -> AsyncIPRoute:
        watch = AsyncIPRoute()
        await watch.setup_endpoint()
        await watch.bind(groups=_GROUPS)
        return watch

    async def _follow(self, watch: AsyncIPRoute) -> None:
        loop = asyncio.get_running_loop()
        told: asyncio.TimerHandle | None = None
        try:
            while True:
                try:
                    async for _message in watch.get():
                        if told is None or told.when() <= loop.time():
                            told = loop.call_later(_QUIET, self._changed)
                except (OSError, NetlinkError):  # too many messages at once: read anew
                    watch.close()
                    await asyncio.sleep(_RETRY)
                    watch = await self._subscribed()
                    self._changed()
        finally:
            watch.close()
            if told is not None:
                told.cancel()
