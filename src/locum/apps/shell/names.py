"""Addresses of hosts that a proxy sends datagrams to: asked for at the stand-in, and remembered for a while."""

import time
from collections.abc import Callable
from typing import Any

from locum.apps.shell.channel import Answered

REMEMBERED = 60.0
"""Seconds."""
MAX_NAMES, MAX_HEARD = 256, 4096
MAX_WAITING = 64
"""Datagrams that wait for one name."""

Then = Callable[[str], None]


class Names:
    """`ask` asks for a host's addresses."""

    def __init__(self, ask: Callable[[str, Answered], None]) -> None:
        self._ask = ask
        self._heard: dict[str, None] = {}  # addresses that need no question
        self._known: dict[str, tuple[float, str]] = {}
        self._waiting: dict[str, list[Then]] = {}

    def heard(self, address: str) -> None:
        """A datagram came from there: an answer may go there."""
        if address not in self._heard:
            if len(self._heard) >= MAX_HEARD:
                del self._heard[next(iter(self._heard))]
            self._heard[address] = None

    def find(self, host: str, then: Then) -> None:
        """Call `then` with the address, at once or later; never if there is none that a proxy may reach."""
        if host in self._heard:
            then(host)
            return
        until, address = self._known.get(host, (0.0, ""))
        if time.monotonic() < until:
            if address:
                then(address)
        elif host in self._waiting:
            if len(self._waiting[host]) < MAX_WAITING:
                self._waiting[host].append(then)
        elif len(self._waiting) < MAX_NAMES:
            self._waiting[host] = [then]
            self._ask(host, lambda answer, _descriptors: self._found(host, answer))

    def _found(self, host: str, answer: list[Any]) -> None:
        reason, *rest = answer
        address = "" if reason or not rest[0] else str(rest[0][0])
        if len(self._known) >= MAX_NAMES:
            del self._known[next(iter(self._known))]
        self._known[host] = (time.monotonic() + REMEMBERED, address)
        for then in self._waiting.pop(host, ()):
            if address:
                then(address)
