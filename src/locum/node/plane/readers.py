"""Reads packets from a node's data plane: held packets, new connections, and fragmented tunnel packets."""

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING

from locum.node.plane.path_mtus import PathMtus
from locum.roles.action_values.paging import PageAsked, PageTriggered

if TYPE_CHECKING:
    from locum.dataplane.kernel.reassembly import Reassembly
    from locum.dataplane.kernel.senders.error_sockets import ErrorSockets
    from locum.dataplane.plane import DataPlane
    from locum.node.events import EventStream

_TIDY, _TIDY_ON = 1.0, 0.01  # seconds between two looks for removed entries, and between two portions of them


class PlaneReaders:
    """The readers of a data plane in the running event loop; `opening` is called with each SYN to a watched port."""

    def __init__(self, plane: "DataPlane", events: "EventStream", opening: Callable[[bytes], None]) -> None:
        self._plane, self._opening = plane, opening
        self._readers: dict[int, Callable[[], object]] = {plane.fileno(): self._held_readable}
        self._errors: ErrorSockets | None = None
        self._page: Callable[[str, PageTriggered | PageAsked], None] | None = None
        self._soon: asyncio.Handle | None = None  # the next turn for held packets
        self._expiry: asyncio.TimerHandle | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self.path_mtus = PathMtus(plane, events)

    def reassembled(self, *, probes: bool = True) -> "Reassembly":
        """Also read tunnel packets that came in fragments, and errors about tunnel packets of ours; probe paths if `probes`.

        The caller closes the result after `close`.
        """
        from locum.dataplane.kernel.reassembly import Reassembly
        from locum.dataplane.kernel.senders.error_sockets import ErrorSockets

        if probes:
            self.path_mtus.probe()
        self._errors = ErrorSockets(self._plane.tell_of_error)
        self._readers |= {fileno: partial(self._errors.read, fileno) for fileno in self._errors.filenos()}
        whole = Reassembly(self._plane.take_reassembled, self._plane.too_big)
        self._readers |= {fileno: partial(whole.read, fileno) for fileno in whole.filenos()}
        return whole

    def open(self) -> None:
        """Begin to read."""
        for fileno, read in self._readers.items():
            asyncio.get_running_loop().add_reader(fileno, read)
        self._plane.held.tell_pending = self._held_soon
        self._tidy()

    def tell_pages(self, page: Callable[[str, PageTriggered | PageAsked], None]) -> None:
        """Call `page` from now on with a role and each packet that asks it for a page, and with those that wait for it.

        Some wait since before an earlier daemon ended: each of them is told once.
        """
        self._page = page
        self._held_soon()

    def close(self) -> None:
        """Read nothing from the data plane any more, and write nothing to it."""
        for fileno in self._readers:
            asyncio.get_running_loop().remove_reader(fileno)
        self._plane.held.tell_pending = lambda: None
        self.path_mtus.close()
        for handle in (self._soon, self._expiry, self._tidying):
            if handle is not None:
                handle.cancel()
        if self._errors is not None:
            self._errors.close()

    def _held_readable(self) -> None:
        if self._soon is None:  # else this round of the event loop has its turn already
            self._held()

    def _held(self) -> None:
        """One turn for held packets: they wait in the data plane's queue until a role releases them."""
        held = self._plane.held
        held.serve()
        for packet in held.read_openings():
            self._opening(packet)
        if self._page is not None:
            for event in held.read_pages():
                self._page("home_agent", event)
            for asked in held.read_asked():
                self._page("foreign_agent", asked)
        if held.is_due:
            self._held_soon()
        if self._expiry is None and (expires := held.expires) is not None:
            seconds = max(expires - monotonic_ns(), 0) / 1e9
            self._expiry = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _held_soon(self) -> None:
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._held_now)

    def _held_now(self) -> None:
        self._soon = None
        self._held()

    def _expire(self) -> None:
        self._expiry = None
        self._held()

    def _tidy(self) -> None:
        """Delete what was removed a while ago, a portion in each turn."""
        wait = _TIDY
        try:
            wait = _TIDY_ON if self._plane.tidy() == 0 else _TIDY
        finally:
            self._tidying = asyncio.get_running_loop().call_later(wait, self._tidy)
