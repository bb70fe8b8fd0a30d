"""A bound on how often something is done for each of many keys; one key's use leaves the others' alone. No clock."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
MOST_KEYS = 4096


@dataclass(slots=True)
class Ration(Generic[Key]):
    """`rate` uses a second of each key, and `burst` at once."""

    rate: float
    burst: float
    _left: dict[Key, tuple[float, float]] = field(
        default_factory=dict
    )  # and the time in seconds, oldest first

    def take(self, key: Key, now: float) -> bool:
        """True if there is a use left for the key at `now` (seconds), which it takes.

        Beyond MOST_KEYS the key that was used longest ago is forgotten.
        """
        left, before = self._left.pop(key, (self.burst, now))
        left = min(self.burst, left + max(0.0, now - before) * self.rate)
        taken = left >= 1.0
        self._left[key] = (left - taken, now)
        if len(self._left) > MOST_KEYS:
            del self._left[next(iter(self._left))]
        return taken
