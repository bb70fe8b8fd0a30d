"""Connections that proxies hand over, until the role decides about them: each is offered, and waits (A11).

One with much unacknowledged is offered when its peer has taken enough of it. What becomes of those that are taken is
decided elsewhere.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from locum.node import words
from locum.node.apps.outlet import Handed, Outlet
from locum.roles.action_values.handed import ConnectionOffered
from locum.roles.actions import Event
from locum.sessions.handed.taking import flow_of, is_large
from locum.sessions.tcp import stand_in
from locum.sessions.tcp.errors import SessionError

log = logging.getLogger("locum.handing")
PATIENCE = 60.0
"""Seconds in which the peer of a connection may take its bytes before the connection is offered."""
_LOOK = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Offer:
    """A connection, and the bytes that the proxy has read of it and gives back."""

    socket: socket.socket
    label: str
    unread: bytes


class Offers:
    """`feed` calls the role."""

    def __init__(self, feed: Callable[[Event], None]) -> None:
        self._feed = feed
        self._offers: dict[tuple[bytes, int], Offer] = {}
        self._last = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def taker(self, outlet: Outlet) -> Handed:
        """For the connections of this proxy."""

        def handed(sock: socket.socket, label: str, unread: bytes) -> None:
            self._last += 1
            key = outlet.handover, self._last
            self._offers[key] = Offer(sock, label, unread)
            self._tell(key, time.monotonic() + PATIENCE)

        return handed

    def _tell(self, key: tuple[bytes, int], until: float) -> None:
        self._timers.pop(key[1], None)
        offer = self._offers[key]
        try:
            if is_large(offer.socket) and time.monotonic() < until:
                loop = asyncio.get_running_loop()
                self._timers[key[1]] = loop.call_later(_LOOK, self._tell, key, until)
                return
            flow = flow_of(offer.socket)
        except OSError as problem:  # it has ended
            log.info("a connection for %s cannot be handed over: %s", offer.label, words.reason(problem))
            self.refuse(*key)
            return
        self._feed(ConnectionOffered(*key, flow, offer.label))

    def take(self, handover: bytes, number: int) -> Offer:
        """One that the role wants. Raises SessionError: it is not there any more."""
        try:
            return self._offers.pop((handover, number))
        except KeyError:
            raise SessionError("the proxy's connection is not there any more") from None

    def refuse(self, handover: bytes, number: int) -> None:
        """Reset it."""
        offer = self._offers.pop((handover, number), None)
        if offer is not None:
            with contextlib.suppress(OSError):
                stand_in.reset(offer.socket)

    def close(self) -> None:
        """The daemon ends: nobody keeps a connection that is no session."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for key in tuple(self._offers):
            self.refuse(*key)
