"""Deadlines of many things in one place, so that a role with a million bindings finds the next one at once.

It must not know what becomes due.
"""

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """One point in time per key, in wall-clock seconds; a later `set` replaces an earlier one."""

    __slots__ = ("_at", "_heap", "_order")

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = count()

    def set(self, key: K, at: float) -> None:
        """`key` becomes due at `at`."""
        if self._at.get(key) != at:
            self._at[key] = at
            heappush(self._heap, (at, next(self._order), key))
            self._compact()

    def cancel(self, key: K) -> None:
        """`key` does not become due any more."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[K]:
        """Keys whose time has come, earliest first; each is cancelled as it is given."""
        while (earliest := self.next()) is not None and earliest <= now:
            key = heappop(self._heap)[2]
            del self._at[key]
            yield key

    def _compact(self) -> None:
        """Renewals leave outdated entries behind; beyond twice the live ones the heap is made anew."""
        if len(self._heap) > 64 + 2 * len(self._at):
            self._heap = sorted((at, next(self._order), key) for key, at in self._at.items())
