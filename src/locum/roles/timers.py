"""Deadlines of many things in one place, so that a role with a million bindings finds the next one at once.

It must not know what becomes due.
"""

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """One point in time per key, in steady seconds; a later `set` replaces an earlier one.

    The heap has an entry for every key that comes no later than its deadline: a renewal leaves the heap alone, and an
    entry that comes too early is put in its place once it is the first.
    """

    __slots__ = ("_at", "_heap", "_order")

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = count()

    def set(self, key: K, at: float) -> None:
        """`key` becomes due at `at`."""
        earlier = self._at.get(key)
        self._at[key] = at
        if earlier is None or at < earlier:
            heappush(self._heap, (at, next(self._order), key))
            self._compact()

    def cancel(self, key: K) -> None:
        """`key` does not become due any more."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap:
            listed, order, key = heap[0]
            at = self._at.get(key)
            if at == listed:
                return at
            if at is None or at < listed:  # cancelled, or another entry stands for it
                heappop(heap)
            else:
                heapreplace(heap, (at, order, key))
        return None

    def due(self, now: float) -> Iterator[K]:
        """Keys whose time has come, earliest first; each is cancelled as it is given."""
        while (earliest := self.next()) is not None and earliest <= now:
            key = heappop(self._heap)[2]
            del self._at[key]
            yield key

    def _compact(self) -> None:
        """Rebuild the heap when cancelled and moved entries exceed twice the live ones."""
        if len(self._heap) > 64 + 2 * len(self._at):
            self._heap = sorted((at, next(self._order), key) for key, at in self._at.items())
