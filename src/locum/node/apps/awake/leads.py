"""Packets that connections and ports of proxies need while their device may be awake: asked for, waited for, given back.

A connection that has ended keeps its packets for a moment: the last ones of its peer would reach the device, which knows
nothing of it. This module must not know rules.
"""

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from locum.node.apps.silence import flows
from locum.node.performer import Handler
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import PacketsLed, PacketsWanted, Part
from locum.roles.actions import Event
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

PORTS = range(61000, 65536)
"""Ports of connections: the device, whose kernel takes others by itself (Linux: up to 60999), has none of them."""
TRIES = 64
"""Ports that are tried."""
LOOK = 2.0
"""Seconds between two looks for connections that have ended."""
LINGER = 6.0
"""Seconds after its end in which the packets of a connection still come here."""
PATIENCE = 15.0
"""Seconds for the home agent's rules."""


@dataclass(slots=True)
class _Lead:
    number: int  # of the outlet
    seen_at: float  # of the loop
    led: bool = False


def port_part(home: Addr, protocol: int, port: int) -> Part:
    """Packets to this port, of everybody."""
    if home.version == 4:
        return Ipv4Selector(
            destination=(home, home), destination_port=(port, port), protocol=(protocol, protocol)
        )
    return Ipv6Selector(
        destination=(home, home), destination_port=(port, port), next_header=(protocol, protocol)
    )


def bind(sock: socket.socket, home: Addr) -> None:
    """Give a socket a port that the device does not use. Raises OSError."""
    for port in random.sample(PORTS, TRIES):
        with contextlib.suppress(OSError):
            sock.bind((str(home), port))
            return
    raise OSError(errno.EADDRINUSE, "no port of the home address is free for connections of proxies")


class Leads:
    """`feed` calls the role."""

    def __init__(self, feed: Callable[[Event], None] = lambda _event: None) -> None:
        self._feed = feed
        self._parts: dict[bytes, dict[Part, _Lead]] = {}
        self._waiting: list[tuple[bytes, Part, asyncio.Future[str]]] = []
        self._look: asyncio.TimerHandle | None = None

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {PacketsLed: self._led}

    def lead(self, handover: bytes, number: int, part: Part) -> Awaitable[None]:
        """Wait until these packets come here, for the outlet of this number. Raises OSError."""
        return self._lead(handover, number, part)

    async def _lead(self, handover: bytes, number: int, part: Part) -> None:
        loop = asyncio.get_running_loop()
        parts = self._parts.setdefault(handover, {})
        known = parts.get(part)
        if known is not None:
            known.number, known.seen_at = number, loop.time()
            if known.led:
                return
        else:
            parts[part] = _Lead(number, loop.time())
        waits: asyncio.Future[str] = loop.create_future()
        entry = (handover, part, waits)
        self._waiting.append(entry)
        self._ask(handover)
        try:
            async with asyncio.timeout(PATIENCE):
                reason = await waits
        except TimeoutError:
            reason = "the stand-in has not registered for it in time"
        except asyncio.CancelledError:  # the process has ended
            self._asked_by_nobody(handover, part, waits)
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        if reason:
            self.drop(handover, part)
            raise OSError(errno.ENETUNREACH, reason)
        if (lead := self._parts.get(handover, {}).get(part)) is not None:
            lead.led, lead.seen_at = True, loop.time()
        if self._look is None:
            self._look = loop.call_later(LOOK, self._look_again)

    def _asked_by_nobody(self, handover: bytes, part: Part, gone: asyncio.Future[str]) -> None:
        """One who waited is gone: a connection that nobody else waits for is never opened."""
        others = any(entry[:2] == (handover, part) and entry[2] is not gone for entry in self._waiting)
        lead = self._parts.get(handover, {}).get(part)
        if isinstance(part, Flow) and not others and lead is not None and not lead.led:
            self.drop(handover, part)

    def drop(self, handover: bytes, part: Part) -> None:
        """These packets are of no use any more."""
        if self._parts.get(handover, {}).pop(part, None) is not None:
            self._ask(handover)

    def forget(self, handover: bytes) -> None:
        """The proxies of the handover have ended; the role knows."""
        self._parts.pop(handover, None)
        for other, _, waits in self._waiting:
            if other == handover and not waits.done():
                waits.set_result("the device has taken over")

    def close(self) -> None:
        """The daemon ends."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        for handover in tuple(self._parts):
            self.forget(handover)

    def _ask(self, handover: bytes) -> None:
        self._feed(PacketsWanted(handover, tuple(self._parts.get(handover, {}))))

    def _led(self, action: PacketsLed) -> None:
        for handover, part, waits in self._waiting:
            if handover == action.handover and part in action.parts and not waits.done():
                waits.set_result(action.reason)

    def _look_again(self) -> None:
        """Give back packets of connections that have ended."""
        loop = asyncio.get_running_loop()
        self._look = None
        now = loop.time()
        for handover, parts in tuple(self._parts.items()):
            there: dict[int, frozenset[Flow]] = {}
            for part, lead in parts.items():
                if isinstance(part, Flow):
                    if lead.number not in there:
                        there[lead.number] = flows(lead.number)
                    if part in there[lead.number]:
                        lead.seen_at = now
            late = [
                part
                for part, lead in parts.items()
                if isinstance(part, Flow) and lead.led and now - lead.seen_at > LINGER
            ]
            if late:
                for part in late:
                    del parts[part]
                self._ask(handover)
        if any(self._parts.values()):
            self._look = loop.call_later(LOOK, self._look_again)
