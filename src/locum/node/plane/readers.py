"""Reads packets from a node's data plane: held packets, new connections, and fragmented tunnel packets."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from locum.node.config.settings import Address

if TYPE_CHECKING:
    from locum.dataplane.kernel.reassembly import Reassembly
    from locum.dataplane.plane import DataPlane


class PlaneReaders:
    """The readers of a data plane in the running event loop; `opening` is called with each SYN to a watched port."""

    def __init__(self, plane: "DataPlane", opening: Callable[[bytes], None]) -> None:
        self._plane, self._opening = plane, opening
        self._readers: dict[int, Callable[[], object]] = {plane.fileno(): self._held}
        self._widening: asyncio.TimerHandle | None = None

    def reassembled(self) -> "Reassembly":
        """Also read tunnel packets that came in fragments; the caller closes the result after `close`."""
        from locum.dataplane.kernel.reassembly import Reassembly

        whole = Reassembly(self._plane.take_reassembled, self._path_narrowed)
        self._readers |= {fileno: partial(whole.read, fileno) for fileno in whole.filenos()}
        return whole

    def open(self) -> None:
        """Begin to read."""
        for fileno, read in self._readers.items():
            asyncio.get_running_loop().add_reader(fileno, read)

    def close(self) -> None:
        """Read nothing from the data plane any more, and write nothing to it."""
        for fileno in self._readers:
            asyncio.get_running_loop().remove_reader(fileno)
        if self._widening is not None:
            self._widening.cancel()

    def _held(self) -> None:
        self._plane.read_held()  # they wait in the data plane's queue until a role releases them
        for packet in self._plane.read_openings():
            self._opening(packet)

    def _path_narrowed(self, destination: Address, mtu: int) -> None:
        from locum.dataplane.kernel.network import PATH_MTU_AGE

        self._plane.path_mtu(destination, mtu)
        if self._widening is not None:
            self._widening.cancel()
        self._widening = asyncio.get_running_loop().call_later(PATH_MTU_AGE + 1, self._plane.refresh)
