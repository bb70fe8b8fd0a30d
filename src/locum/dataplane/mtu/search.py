"""The search for the MTU of one path by probes, for routers that drop large packets and tell nothing (RFC 8899, RFC 4821).

The states are those of RFC 8899 section 5.2, with three differences that fit a tunnel, whose packets are others' data:

- A probe never goes alone. One round has the size in question, a small packet, and after the first failure one of BASE
  bytes. A size has failed only if a smaller one of the same round was answered: a lossy path, or a far end that answers
  nothing, lowers no MTU.
- The MTU in use stays as the route says until MOST_FAILURES rounds have shown that it does not get through; a tunnel that
  works is not narrowed for the time of a search. The first size to try is the MTU in use.
- DISABLED is the state before the first large packet, and of a path whose far end answers nothing.

Sizes are bytes of whole tunnel packets, times are seconds, handed in. It must not know tunnels, sockets or clocks.
"""

from dataclasses import dataclass, field
from enum import Enum

SMALL = 0  # stands for the size of a probe without padding
MOST_FAILURES = 3  # MAX_PROBES
FIRST_TIMER = LEAST_TIMER = 1.0  # PROBE_TIMER: before an answer is known, and at least
ROUND_TRIPS = 3.0  # of the path, that a probe has time for
RAISE_TIMER = 600.0  # PMTU_RAISE_TIMER
CONFIRM_TIMER = 15.0  # CONFIRMATION_TIMER: an MTU in use is confirmed no sooner
SILENCE, LONGEST_SILENCE = 30.0, 600.0  # before a silent far end is asked again; doubled each time
# MTUs of usual links and tunnels: a search tries these first.
USUAL = (576, 1006, 1280, 1300, 1340, 1360, 1380, 1400, 1420, 1440, 1454, 1460, 1472, 1480, 1492, 1500)
COARSE = 32  # bytes: a search ends when it knows the MTU so exactly


class State(Enum):
    """RFC 8899 section 5.2."""

    DISABLED = "disabled"
    BASE = "base"
    SEARCHING = "searching"
    SEARCH_COMPLETE = "search-complete"
    ERROR = "error"


@dataclass(slots=True)
class Search:
    """The MTU of one path. `limit` is what probes have found; None: as the route says."""

    least: int  # that an MTU may be lowered to: MIN_PLPMTU
    base: int  # that most paths take: BASE_PLPMTU
    most: int = 0  # of the route: MAX_PLPMTU
    limit: int | None = None
    state: State = State.DISABLED
    under_way: dict[int, bool] = field(default_factory=dict)  # sizes of this round, and if they were answered
    ends: float = 0.0  # of this round
    failed: int = 0  # sizes that failed in a round, since the beginning
    _first: int | None = None  # to be tried before all others
    _floor: int = 0  # the largest size that was answered in this search
    _ceiling: int = 0  # no size from here on gets through
    _failures: dict[int, int] = field(default_factory=dict)  # rounds in succession, by size: PROBE_COUNT
    _sent_at: float = 0.0
    _round_trip: float | None = None
    _silent: int = 0  # rounds without any answer, in succession
    _quiet: float = 0.0  # for so long
    _quiet_until: float = 0.0
    _confirmed_at: float = 0.0
    _searched_at: float = 0.0

    # In

    def heard(self, most: int, limit: int | None, now: float) -> bool:
        """A large packet went there: true if a round is to begin.

        `most` is the MTU of the route, `limit` the one that is believed now, None: that of the route.
        """
        if self.wants:
            return False
        if limit is not None and limit >= most:
            limit = None
        changed = (most, limit) != (self.most, self.limit)
        self.most, self.limit = most, limit
        in_use = limit or most
        if self.state is State.DISABLED:
            if now < self._quiet_until:
                return False
            self._begin(in_use, in_use + 1)
        elif changed:
            self._begin(in_use, in_use + 1)
        elif limit is not None and now >= self._searched_at + RAISE_TIMER:
            self._searched_at = now
            self._begin(most, most + 1, limit if self.state is State.SEARCH_COMPLETE else 0)
        elif now >= self._confirmed_at + CONFIRM_TIMER:
            self._begin(in_use, in_use + 1)
        else:
            return False
        return True

    def told(self, mtu: int, now: float) -> None:
        """A router told of this MTU, and is believed (RFC 8899 section 4.6.2): the search goes on below it."""
        self.limit, self._searched_at = mtu, now
        if self.wants:
            self.under_way = {}
            self._begin(mtu, mtu + 1)

    def begin(self, now: float) -> tuple[int, ...]:
        """Begin a round: the sizes to send."""
        candidate = self._candidate()
        assert candidate is not None, "no round is wanted"
        sizes = {SMALL, candidate}
        if self._failures.get(candidate) and self._floor < self._base < candidate:
            sizes.add(self.base)
        self.under_way = dict.fromkeys(sorted(sizes), False)
        self._sent_at = now
        timer = FIRST_TIMER if self._round_trip is None else self._round_trip * ROUND_TRIPS
        self.ends = now + max(LEAST_TIMER, timer)
        return tuple(self.under_way)

    def answered(self, size: int, sent_at: float, now: float) -> bool:
        """A probe of this size was answered, perhaps one of an earlier round; true if the round is over."""
        trip = now - sent_at
        self._round_trip = trip if self._round_trip is None else (self._round_trip * 7 + trip) / 8
        self._silent, self._quiet, self._quiet_until = 0, 0.0, 0.0
        if not self.under_way:
            return False
        self._failures.pop(size, None)
        if size in self.under_way:
            self.under_way[size] = True
        self.ends = max(self.ends, self._sent_at + self._round_trip * ROUND_TRIPS)
        return all(self.under_way.values())

    def conclude(self, now: float) -> None:
        """The round is over; `wants` tells whether another one follows."""
        got = [size for size, answered in self.under_way.items() if answered]
        asked, self.under_way = self.under_way, {}
        if not got:
            self._silent += 1
            if self._silent >= MOST_FAILURES:
                self._be_quiet(now)
            return
        self._silent = 0
        best = max(got)
        self._floor = max(self._floor, best)
        self._ceiling = max(self._ceiling, self._floor + 1)
        for size in asked:
            if size > best:
                self.failed += 1
                self._failures[size] = self._failures.get(size, 0) + 1
                if self._failures[size] >= MOST_FAILURES:
                    self._ceiling = min(self._ceiling, size)
        if self._first is not None and not self._floor < self._first < self._ceiling:
            self._first = None
        self._settle(now)

    # Out

    @property
    def wants(self) -> bool:
        """True while a round is under way, or is to follow."""
        return bool(self.under_way) or (self.state is not State.DISABLED and self._candidate() is not None)

    # The search

    def _begin(self, first: int, ceiling: int, floor: int = 0) -> None:
        self.state = State.SEARCHING if floor else State.BASE
        self._first, self._floor, self._ceiling = first, floor, ceiling
        self._failures.clear()
        self._silent = 0

    def _candidate(self) -> int | None:
        """The size to try next; None: the search is over."""
        if self._first is not None:
            return self._first
        if self._floor < self._base < self._ceiling:
            return self._base
        low = max(self._floor, self.least)
        between = [size for size in USUAL if low < size < self._ceiling]
        if between:
            return between[len(between) // 2]
        if self._ceiling - low > COARSE:
            return (low + self._ceiling) // 2
        return None

    @property
    def _base(self) -> int:
        return min(self.base, self.most)

    def _settle(self, now: float) -> None:
        """The MTU and the state after a round."""
        if self._first is not None:
            return
        if self._floor < self._base < self._ceiling:
            self.state = State.BASE
            return
        if self._floor < self.least:  # BASE has failed
            self.limit = self.least
            self.state = State.ERROR
        else:
            self.limit = self._floor if self._floor < self.most else None
            self.state = State.SEARCHING
        if self._candidate() is None:
            if self.state is State.SEARCHING:
                self.state = State.SEARCH_COMPLETE
            if self._ceiling != (self.limit or self.most) + 1 or self._searched_at == 0.0:
                self._searched_at = now  # more than a confirmation
            self._confirmed_at = now

    def _be_quiet(self, now: float) -> None:
        self.state = State.DISABLED
        self._first, self._silent = None, 0
        self._failures.clear()
        self._quiet = min(max(self._quiet * 2, SILENCE), LONGEST_SILENCE)
        self._quiet_until = now + self._quiet
