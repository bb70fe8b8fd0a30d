"""Pinned maps of another size or layout than the programs need: new maps take their places without losing a packet.

The earlier programs go on with the earlier maps. The new maps are filled first: with the entries of the earlier ones, or, if
these have another layout, by whoever knows the state. Then the programs are exchanged on their links, and only then the
new maps take the names of the earlier ones. A daemon that dies in between leaves maps that the next one replaces.
"""

import os
from pathlib import Path

from locum.dataplane.kernel.libbpf import HASH, Map, pin
from locum.dataplane.kernel.loading import Object

LRU_HASH, PERCPU_ARRAY = 9, 6  # types of maps
_COPIED = (HASH, LRU_HASH)


class Replacement:
    """The earlier maps of an object, and the way of its new ones to their places in `pins`."""

    def __init__(self, loaded: Object, pins: Path) -> None:
        """Fill the new maps of unchanged layout."""
        self._loaded, self._pins = loaded, pins
        self._earlier = loaded.superseded
        # The new tables are empty: somebody has to fill them before the exchange.
        self.unfilled = loaded.relaid
        for name, earlier in self._earlier.items():
            if name not in loaded.incomparable:
                _copy(earlier, loaded.maps[name])

    def earlier(self, name: str) -> Map | None:
        """The map that is to be replaced, or None."""
        return self._earlier.get(name)

    def finish(self) -> None:
        """After the exchange of the programs: the new maps take the places of the earlier ones."""
        for name, earlier in self._earlier.items():
            beside = self._pins / f"{name}{Object.BESIDE}"
            pin(self._loaded.maps[name].fd, beside)
            beside.rename(self._pins / name)
            os.close(earlier.fd)
        self._earlier.clear()
        self.unfilled = False


def _copy(earlier: Map, new: Map) -> None:
    if new.type in _COPIED:
        new.put_many(earlier.items())
    elif new.type == PERCPU_ARRAY:
        for index in range(min(earlier.max_entries, new.max_entries)):
            key = index.to_bytes(4, "little")
            new.put(key, earlier.get_per_cpu(key))
