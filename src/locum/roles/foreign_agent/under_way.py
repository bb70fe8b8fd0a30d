"""Requests that a foreign agent has relayed and that are not answered (RFC 5944 section 3.7.2.2).

They are counted by mobile node and by sender as they come and go: what a request costs must not grow with a flood of
others. It must not know limits, nor what becomes of a request.
"""

from collections import Counter
from collections.abc import Collection, Iterator, MutableMapping
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

Who = IPv4Address | str  # home address, or NAI of a mobile node without one (RFC 2794 section 3)
Sender = tuple[str, bytes | None]  # the link, and the link-layer address there
PendingKey = tuple[Who, int]  # and the part of the identification that an answer repeats


class Waiting(Protocol):
    """A request, as far as it is counted."""

    @property
    def sender(self) -> Sender:
        """The link and the link-layer address that it came from."""
        ...

    @property
    def brings_visitor(self) -> bool:
        """True if an acceptance makes the mobile node a visitor."""
        ...


Request = TypeVar("Request", bound=Waiting)


class UnderWay(MutableMapping[PendingKey, Request]):
    """The requests, in the order in which they came."""

    def __init__(self) -> None:
        self._all: dict[PendingKey, Request] = {}
        self._of: dict[Who, dict[PendingKey, None]] = {}
        self._senders: Counter[Sender] = Counter()
        self._coming: Counter[Who] = Counter()

    def __getitem__(self, key: PendingKey) -> Request:
        return self._all[key]

    def __iter__(self) -> Iterator[PendingKey]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __setitem__(self, key: PendingKey, pending: Request) -> None:
        earlier = self._all.get(key)
        if earlier is not None:
            self._count(key, earlier, -1)
        self._all[key] = pending
        self._of.setdefault(key[0], {})[key] = None
        self._count(key, pending, 1)

    def __delitem__(self, key: PendingKey) -> None:
        self._count(key, self._all.pop(key), -1)
        own = self._of[key[0]]
        del own[key]
        if not own:
            del self._of[key[0]]

    def _count(self, key: PendingKey, pending: Request, number: int) -> None:
        _add(self._senders, pending.sender, number)
        if pending.brings_visitor:
            _add(self._coming, key[0], number)

    def of(self, who: Who) -> list[PendingKey]:
        """Those of one mobile node, the oldest first."""
        return list(self._of.get(who, ()))

    def of_sender(self, sender: Sender) -> int:
        """The number of those that one host has sent."""
        return self._senders[sender]

    def coming(self, but: Who, known: Collection[Who] = ()) -> int:
        """How many mobile nodes may become visitors, without `but` and without those that are `known`."""
        few, many = sorted((known, self._coming), key=len)
        there = sum(1 for who in few if who != but and who in many)
        return len(self._coming) - (but in self._coming) - there


Counted = TypeVar("Counted")


def _add(counts: Counter[Counted], key: Counted, number: int) -> None:
    counts[key] += number
    if not counts[key]:
        del counts[key]
