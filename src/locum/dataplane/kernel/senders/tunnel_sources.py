"""Outer sources that some permission names: fragments of tunnel packets from others are dropped before they cost anything.

The programs keep a measure of the rate beside each; a source keeps its own when its permissions change.
"""

from collections import Counter
from collections.abc import Iterable

from locum.dataplane.compact import number_of
from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import maps
from locum.roles.action_values.forwarding import TunnelAcceptance

_FULL = maps.SOURCE.pack(0, 0)  # the first fragment fills it


class TunnelSources:
    """The map of outer sources; `named` is the number of permissions of each."""

    def __init__(self, table: Map) -> None:
        self._table = table
        self._named: Counter[int] = Counter()  # by number, which is quicker to hash than an address

    def add(self, acceptance: TunnelAcceptance) -> None:
        """A permission that was not there is going to be written."""
        source = acceptance.outer_source
        number = number_of(source)
        named = self._named.get(number, 0)
        if not named:
            self._table.put(maps.address(source), _FULL)
        self._named[number] = named + 1

    def remove(self, acceptance: TunnelAcceptance) -> None:
        """A permission that was there is going to be removed."""
        source = acceptance.outer_source
        number = number_of(source)
        named = self._named.get(number, 0)
        if named > 1:
            self._named[number] = named - 1
        else:
            self._named.pop(number, None)
            self._table.delete(maps.address(source))

    def adopt(self, acceptances: Iterable[TunnelAcceptance]) -> None:
        """Take over the map as it is: with the sources of these permissions, and no others."""
        sources = Counter(acceptance.outer_source for acceptance in acceptances)
        self._named = Counter({number_of(source): named for source, named in sources.items()})
        wanted = {maps.address(source) for source in sources}
        there = {key for key, _ in self._table.items()}
        self._table.delete_many(list(there - wanted))
        self._table.put_many([(key, _FULL) for key in wanted - there])
