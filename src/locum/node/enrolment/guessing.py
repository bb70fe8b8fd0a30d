"""Limits of wrong proofs, by source and in all, for a server whose invitations are guessed by the thousand.

Only wrong proofs count. A device with the right code meets a limit only if others behind its own address guess, or while
the server is guessed at from everywhere.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

PER_SOURCE = 10.0  # wrong proofs at once; a person who mistypes has the check characters too
SOURCE_REFILL = 1 / 30  # proofs a second
IN_ALL = 400.0
ALL_REFILL = 40.0
MOST_SOURCES = 4096

Source = IPv4Address | IPv6Address


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float

    def fill(self, most: float, refill: float, now: float) -> None:
        self.left = min(most, self.left + max(0.0, now - self.at) * refill)
        self.at = now


class GuessLimit:
    """Wrong proofs of late. An IPv6 source is its /64: one host has that many addresses."""

    def __init__(self) -> None:
        self._sources: OrderedDict[int, _Bucket] = OrderedDict()
        self._all = _Bucket(IN_ALL, 0.0)

    def admits(self, source: Source, now: float) -> bool:
        """False: too many wrong proofs came from there, or from everywhere; refuse before any computing."""
        self._all.fill(IN_ALL, ALL_REFILL, now)
        bucket = self._sources.get(_key(source))
        if bucket is None:
            return self._all.left >= 1
        bucket.fill(PER_SOURCE, SOURCE_REFILL, now)
        return bucket.left >= 1 and self._all.left >= 1

    def wrong(self, source: Source, now: float) -> None:
        """Count a wrong proof of `source`. The source that was wrong longest ago is forgotten where there are too many."""
        self._all.fill(IN_ALL, ALL_REFILL, now)
        self._all.left = max(0.0, self._all.left - 1)
        key = _key(source)
        bucket = self._sources.setdefault(key, _Bucket(PER_SOURCE, now))
        bucket.fill(PER_SOURCE, SOURCE_REFILL, now)
        bucket.left = max(0.0, bucket.left - 1)
        self._sources.move_to_end(key)
        if len(self._sources) > MOST_SOURCES:
            self._sources.popitem(last=False)


def _key(source: Source) -> int:
    if isinstance(source, IPv6Address):
        mapped = source.ipv4_mapped
        return int(mapped) if mapped is not None else (int(source) >> 64) + (1 << 64)
    return int(source)
