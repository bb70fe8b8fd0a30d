"""Queries of a role to a location server (1135, P6): where a device can be paged now.

Home agents and stand-ins use it alike. Answers are kept for a short time. It must not know why a location is wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Ask, Count, Emit, Event, NoAnswer
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.paging.location import (
    QUERY_PATH,
    Location1212,
    LocationQuery,
    decode_query_answer,
    encode_query,
)
from locum.wire.control.paging.status import PagingStatus
from locum.wire.errors import WireError

FIRST_REQUEST = 1 << 57
LAST_REQUEST = (1 << 58) - 1
"""Numbers of these requests. The part comes before others that take every number above one of theirs."""
ANSWER_TIMEOUT = 3.0
"""Seconds."""
RETRY_FIRST = 0.5
MAX_ATTEMPTS = 3
"""Attempts of one query, the first repetition after so many seconds, each further one after twice as many."""
FRESH = 30.0
"""Seconds for which a location is used without asking again; fewer if it ends before."""
UNKNOWN_FRESH = 2.0
"""Seconds for which a device that the server does not know is not asked for again."""
MOST_KEPT = 4096
"""Answers that are kept; beyond, the one that was used least lately is forgotten."""
MOST_ASKED = 1024
"""Queries at once; beyond, a location is not found."""

_PASSING = (PagingStatus.BUSY, PagingStatus.LIMIT)  # worth asking again

Found = Callable[[Addr, Location1212 | None, float], list[Action]]
"""Called once for each query that has ended: the home address, its location (None: not found), and the time."""


@dataclass(slots=True)
class _Query:
    number: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    location: Location1212 | None  # None: the server does not know the device
    until: float  # steady seconds


class LocationQueries(Part):
    """Queries to one server; without one, no location is known."""

    def __init__(self, server: Addr | None, found: Found) -> None:
        self.server = server
        self._found = found
        self._queries: dict[Addr, _Query] = {}
        self._asked: dict[int, Addr] = {}
        self._due: Deadlines[Addr] = Deadlines()
        self._kept: dict[Addr, _Kept] = {}
        self._numbers = count(FIRST_REQUEST)

    def ask(self, home_address: Addr, *, now: float) -> list[Action]:
        """Look for the device; `found` is called now if the answer is known, otherwise when the query has ended."""
        if self.server is None:
            return self._found(home_address, None, now)
        if home_address in self._queries:
            return []
        kept = self._kept.pop(home_address, None)
        if kept is not None and kept.until > now:
            self._kept[home_address] = kept
            return self._found(home_address, kept.location, now)
        if len(self._queries) >= MOST_ASKED:
            return [Count("location-asking-limit"), *self._found(home_address, None, now)]
        query = self._queries[home_address] = _Query(0)
        return self._ask(home_address, query)

    def forget(self, home_address: Addr) -> None:
        """The device was not where the last answer said: the next `ask` is a query."""
        self._kept.pop(home_address, None)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The answer to a query; None for anything else."""
        if not isinstance(event, Answered | NoAnswer) or not FIRST_REQUEST <= event.request <= LAST_REQUEST:
            return None
        home_address = self._asked.pop(event.request, None)
        if home_address is None:
            return [Count("location-asking-late")]
        if isinstance(event, NoAnswer):
            return [Count("location-asking-unanswered"), *self._again(home_address, now)]
        try:
            answer = decode_query_answer(event.body)
        except WireError as error:
            return [Count(f"location-asking-{error.reason}"), *self._again(home_address, now)]
        if answer.status in _PASSING:
            return [Count("location-asking-busy"), *self._again(home_address, now)]
        if answer.status is PagingStatus.UNKNOWN:
            return [Count("location-asking-unknown"), *self._end(home_address, None, UNKNOWN_FRESH, now)]
        if answer.status is not PagingStatus.OK:
            reason = answer.status.name.lower().replace("_", "-")
            return [Count(f"location-asking-{reason}"), *self._failed(home_address, reason, now)]
        location = next((it for it in answer.found if home_address in it.home_addresses), None)
        if location is None:
            return [Count("location-asking-mismatch"), *self._failed(home_address, "mismatch", now)]
        return self._end(home_address, location, min(FRESH, location.lifetime), now)

    def timeout(self, *, now: float) -> list[Action]:
        """Queries that were not answered once more."""
        return [
            action
            for home_address in self._due.due(now)
            for action in self._ask(home_address, self._queries[home_address])
        ]

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def _ask(self, home_address: Addr, query: _Query) -> list[Action]:
        assert self.server is not None
        query.number = next(self._numbers)
        query.attempts += 1
        self._asked[query.number] = home_address
        detail: dict[str, JSON] = {"to": str(self.server), "attempt": query.attempts}
        body = encode_query(LocationQuery(home_address=home_address))
        return [
            Ask(query.number, self.server, QUERY_PATH, body, ANSWER_TIMEOUT),
            Emit("sent", QUERY_PATH, home_address, None, detail),
        ]

    def _again(self, home_address: Addr, now: float) -> list[Action]:
        query = self._queries[home_address]
        if query.attempts >= MAX_ATTEMPTS:
            return self._failed(home_address, "no answer", now)
        self._due.set(home_address, now + RETRY_FIRST * 2 ** (query.attempts - 1))
        return []

    def _failed(self, home_address: Addr, reason: str, now: float) -> list[Action]:
        """It is not known where the device is; the next `ask` is a query."""
        failed = Emit("location-query-failed", QUERY_PATH, home_address, None, {"reason": reason})
        return [failed, *self._end(home_address, None, 0.0, now)]

    def _end(
        self, home_address: Addr, location: Location1212 | None, fresh: float, now: float
    ) -> list[Action]:
        del self._queries[home_address]
        if fresh > 0:
            self._kept[home_address] = _Kept(location, now + fresh)
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        return self._found(home_address, location, now)
