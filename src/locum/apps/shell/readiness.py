"""The sockets of a proxy's process that the kernel watches, and what is called when one can go on."""

import select
from collections.abc import Callable

Ready = Callable[[int], None]
"""Gets the events."""


class Readiness:
    """Over one epoll object, of which the program's loop gets the events."""

    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self._ready: dict[int, Ready] = {}

    def watch(self, descriptor: int, mask: int, ready: Ready) -> None:
        """Call `ready` at these events, and at errors."""
        self._poll.register(descriptor, mask)
        self._ready[descriptor] = ready

    def change(self, descriptor: int, mask: int) -> None:
        """Wait for these events from now on."""
        self._poll.modify(descriptor, mask)

    def forget(self, descriptor: int) -> None:
        """Before it is closed."""
        if self._ready.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def event(self, descriptor: int, mask: int) -> None:
        """The kernel says that this socket can go on."""
        ready = self._ready.get(descriptor)
        if ready is not None:
            ready(mask)
