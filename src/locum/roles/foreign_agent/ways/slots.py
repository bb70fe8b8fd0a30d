"""Slots in which a sleeping device listens (P13): when a call is sent so that the device hears it.

Times are milliseconds since 1970 by the wall clock. Slot n begins at `offset + n * cycle` and lasts `length`. Two clocks never
agree: with a guard the call is heard by every device whose clock differs from this node's by no more than the guard.
"""

from dataclasses import dataclass, field
from math import ceil, floor

from locum.wire.control.paging.way import Way

ROUNDING = 0.25
"""Milliseconds by which a timer may come early: seconds since 1970 as a float have a resolution of 0.0002 ms."""


MOST_CALLS = 16
"""In one slot: a longer guard than that many slots cover is cut."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of one device. `instants` are the times of calls, in milliseconds after the beginning of a slot.

    A call at x is heard by devices whose clock is ahead by -x at least and by less than length - x. One call `guard` after the
    beginning is therefore enough where the slot is twice as long as the guard; a shorter slot needs several.
    """

    cycle: int
    offset: int
    length: int
    guard: float = 0.0
    instants: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        guard = min(self.guard, self.cycle / 2, (MOST_CALLS - 1) * self.length / 2)
        calls = floor(2 * guard / self.length) + 1
        first = guard if calls == 1 else max(self.length - guard, -self.cycle / 2)
        between = (guard - first) / (calls - 1) if calls > 1 else 0.0
        object.__setattr__(self, "guard", guard)
        object.__setattr__(self, "instants", tuple(first + number * between for number in range(calls)))

    @classmethod
    def of(cls, way: Way, guard: float) -> "Slots | None":
        """The slots of a way; None if the device always listens. `guard` in seconds."""
        return cls(way.cycle, way.offset, way.length, 1000 * guard) if way.cycle else None

    def begin(self, at: float) -> float:
        """Beginning of the slot whose calls are sent at this time, or that is next."""
        number = floor((at - self.offset - self.instants[0]) / self.cycle)
        begin = self.offset + number * self.cycle
        return begin if at <= begin + self.latest + ROUNDING else begin + self.cycle

    @property
    def latest(self) -> float:
        """Milliseconds after the beginning of a slot at which a call that is late is still worth sending."""
        return max(self.instants[-1], self.length - self.guard)

    def next(self, at: float) -> float:
        """The time of the first call from `at` on: `at` itself inside a slot."""
        return max(at, self.begin(at) + self.instants[0])

    def first(self, at: float) -> float:
        """The time of the first call of the first slot all of whose calls come at `at` or later."""
        number = ceil((at - self.offset - self.instants[0]) / self.cycle)
        return self.offset + number * self.cycle + self.instants[0]

    def after(self, at: float) -> float | None:
        """The time of the next call in the same slot as a call at `at`; None after the last one."""
        begin = self.begin(at)
        return next((begin + instant for instant in self.instants if begin + instant > at + ROUNDING), None)

    def in_time(self, at: float) -> bool:
        """True if a call at this time is heard."""
        return self.begin(at) + self.instants[0] <= at + ROUNDING
