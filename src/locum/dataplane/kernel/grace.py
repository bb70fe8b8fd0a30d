"""Elements of tables that nothing leads to any more, until no program can see them.

They are deleted in portions, so that no change and no turn of the event loop pays for many that were removed before.
"""

import time
from collections.abc import Sequence
from itertools import islice

from locum.dataplane.kernel.libbpf import Map, wait_for_programs

GRACE = 1.0
"""Seconds after which no program runs any more that was running before: programs run for microseconds, and nothing
interrupts them but interrupts."""
PORTION = 256
"""Elements that are deleted in one call: about a millisecond."""
MADE_ROOM = 8 * PORTION
"""Elements that are deleted at least where somebody waits for programs: the wait takes as long as these."""


class Grace:
    """The elements that wait, of each table in the order of their time."""

    def __init__(self) -> None:
        self._waiting: dict[Map, dict[bytes, float]] = {}
        self._first = 0.0  # none of them waits since earlier

    def later(self, table: Map, key: bytes) -> None:
        """Delete the key after the grace period from now."""
        now = time.monotonic()
        if not self._waiting:
            self._first = now
        keys = self._waiting.get(table)
        if keys is None:
            keys = self._waiting[table] = {}
        else:
            keys.pop(key, None)  # it was there again, and is nothing only since now
        keys[key] = now

    def later_many(self, table: Map, keys: Sequence[bytes]) -> None:
        """The same for many keys."""
        for key in keys[:1]:
            self.later(table, key)  # the first one makes the room of the table
        if len(keys) > 1:
            waiting, now = self._waiting[table], time.monotonic()
            for key in keys[1:]:
                waiting.pop(key, None)
                waiting[key] = now

    def keep(self, table: Map, key: bytes) -> None:
        """The key leads to something again: do not delete it."""
        keys = self._waiting.get(table)
        if keys is not None and keys.pop(key, None) is not None and not keys:
            del self._waiting[table]

    def settle(self) -> float | None:
        """Delete a portion of what has waited long enough; seconds until there is more, None: nothing waits."""
        if not self._waiting:
            return None
        due, room = time.monotonic() - GRACE, PORTION
        if self._first > due:
            return self._first - due
        for table, keys in list(self._waiting.items()):
            room -= self._delete(table, keys, room, due)
            if not room:
                return 0.0
        if not self._waiting:
            return None
        self._first = min(next(iter(keys.values())) for keys in self._waiting.values())
        return max(0.0, self._first - due)

    def make_room(self, table: Map, number: int) -> bool:
        """Delete so many elements of this table or more, after waiting for the programs; False: none waits."""
        keys = self._waiting.get(table)
        if not keys:
            return False
        wait_for_programs()
        self._delete(table, keys, max(number, MADE_ROOM), time.monotonic())
        return True

    def settle_all(self) -> None:
        """Delete everything that waits, after waiting for the programs."""
        if self._waiting:
            wait_for_programs()
        for table, keys in list(self._waiting.items()):
            self._delete(table, keys, len(keys), time.monotonic())

    def _delete(self, table: Map, keys: dict[bytes, float], most: int, until: float) -> int:
        """Delete what has waited since `until` or longer; returns the number of keys."""
        some = []
        for key, since in islice(keys.items(), most):
            if since > until:
                break
            some.append(key)
        for key in some:
            del keys[key]
        if not keys:
            del self._waiting[table]
        table.delete_many(some)
        return len(some)


def word_of(entry: bytes | None) -> int:
    """The word at the beginning of an entry; 0 without one."""
    return 0 if entry is None else int.from_bytes(entry[:8], "little")
