"""Deadlines of many things in one place, so that a role with a million bindings finds the next one at once.

It must not know what becomes due.
"""

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# A second. A slot is put in order at once: some milliseconds at 25,000 deadlines a second.
_SLOTS: Final = 4
# Of deadlines that never come.
_LAST_SLOT: Final = 1 << 60
_FEW: Final = 64


class Deadlines(Generic[K]):
    """One point in time per key, in steady seconds; a later `set` replaces an earlier one.

    Only the keys of the next slot of time are in order, in a heap: an entry there takes 100 bytes, one in a later slot 8.
    There is an entry for every key that comes no later than its deadline: a renewal leaves the entries alone, and one
    that comes too early is put in its place once it is the first.
    """

    __slots__ = ("_at", "_heap", "_later", "_listed", "_order", "_reached", "_slots")

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._order = count()
        self._clear()

    def _clear(self) -> None:
        self._heap: list[tuple[float, int, K]] = []  # up to the slot `_reached`
        self._reached = -1
        self._later: dict[int, list[K]] = {}
        self._slots: list[int] = []  # a heap of the keys of `_later`
        self._listed = 0  # entries

    def set(self, key: K, at: float) -> None:
        """`key` becomes due at `at`."""
        earlier = self._at.get(key)
        self._at[key] = at
        if earlier is None or at < earlier:
            self._list(key, at)
            if self._listed > _FEW + 2 * len(self._at):
                self._compact()

    def cancel(self, key: K) -> None:
        """`key` does not become due any more."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        while True:
            while heap := self._heap:
                listed, _, key = heap[0]
                at = self._at.get(key)
                if at == listed:
                    return at
                heappop(heap)
                self._listed -= 1
                if at is not None and at > listed:  # else cancelled, or another entry stands for it
                    self._list(key, at)
            if not self._slots:
                return None
            self._open()

    def due(self, now: float) -> Iterator[K]:
        """Keys whose time has come, earliest first; each is cancelled as it is given."""
        while (earliest := self.next()) is not None and earliest <= now:
            key = heappop(self._heap)[2]
            self._listed -= 1
            del self._at[key]
            yield key

    def _list(self, key: K, at: float) -> None:
        slot = _slot(at)
        self._listed += 1
        if slot < self._reached and len(self._heap) <= _FEW:
            self._go_back(slot)
        if slot <= self._reached:
            heappush(self._heap, (at, next(self._order), key))
        elif (keys := self._later.get(slot)) is not None:
            keys.append(key)
        else:
            self._later[slot] = [key]
            heappush(self._slots, slot)

    def _open(self) -> None:
        """Put the keys of the next slot in order; the heap is empty."""
        self._reached = heappop(self._slots)
        keys = self._later.pop(self._reached)
        self._listed -= len(keys)
        for key in keys:
            at = self._at.get(key)
            if at is None:
                continue
            if _slot(at) > self._reached:
                self._list(key, at)
            else:
                self._heap.append((at, next(self._order), key))
                self._listed += 1
        heapify(self._heap)

    def _go_back(self, slot: int) -> None:
        """Let the heap end at an earlier slot."""
        ordered, self._heap, self._reached = self._heap, [], slot
        self._listed -= len(ordered)
        for at, _, key in ordered:
            self._list(key, at)

    def _compact(self) -> None:
        """List each key once: cancelled and moved entries exceed twice the live ones."""
        self._clear()
        for key, at in self._at.items():
            self._list(key, at)


def _slot(at: float) -> int:
    return int(at * _SLOTS) if at < _LAST_SLOT else _LAST_SLOT * _SLOTS
