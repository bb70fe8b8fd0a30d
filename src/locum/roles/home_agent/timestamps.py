"""The clock by which a home agent judges timestamps (RFC 5944 section 5.7.1): the wall clock, but it does not go back.

Requests that came while the wall clock was ahead were accepted with timestamps that nothing later could surpass until
the wall clock is there again. So this clock stays where it was, ahead of the wall clock, and registrants learn it from a
refusal with code 133, which costs each a round trip. Only an administrator ends this (`forget`). It must not know
registrations.
"""

from collections.abc import Iterable

from locum.security.replay import (
    DEFAULT_TOLERANCE,
    TimestampWindow,
    Verdict,
    difference,
    mismatch_identification,
    wall_of,
)

_SECOND = 1 << 32  # of an identification


class HomeTimestamps:
    """One home agent's clock for all its registrants. `tolerance`: seconds that a registrant's clock may differ."""

    __slots__ = ("_ahead", "_least", "_told", "_window")

    def __init__(self, tolerance: float = DEFAULT_TOLERANCE) -> None:
        self._window = TimestampWindow(tolerance)
        self._ahead = 0.0  # seconds that the wall clock is ahead of `now`
        self._told = False  # by `stepped`
        self._least = float("-inf")  # this clock is ahead of `now` by no less

    def restore(self, accepted: Iterable[int], *, now: float) -> None:
        """Start no earlier than the identifications that were accepted last, of every registrant."""
        ahead = (wall_of(number, near=now) - now for number in accepted)
        self._least = max(ahead, default=float("-inf")) - self._window.tolerance

    def stepped(self, ahead: float) -> None:
        """The wall clock is so far ahead of `now`; back by less than the tolerance, it is simply followed."""
        if self._told and self._ahead - ahead > self._window.tolerance:
            self._least = max(self._least, self._ahead)
        self._ahead, self._told = ahead, True

    def time(self, now: float) -> float:
        """Time of this clock, in seconds since 1970."""
        return now + max(self._ahead, self._least)

    def beyond(self, last: int | None, *, now: float) -> float:
        """Seconds by which that identification is ahead of what the wall clock alone would accept; 0: it is not."""
        if last is None:
            return 0.0
        return max(0.0, wall_of(last, near=now) - (now + self._ahead) - self._window.tolerance)

    def forget(self, accepted: Iterable[int], *, now: float) -> None:
        """Follow the wall clock again, as far as these identifications, which were accepted last, allow."""
        self.restore(accepted, now=now)

    @property
    def held_ahead(self) -> float:
        """Seconds that this clock is ahead of the wall clock."""
        return max(0.0, self._least - self._ahead)

    @property
    def tolerance(self) -> float:
        """Seconds that a registrant's clock may differ from this one."""
        return self._window.tolerance

    def fresh(self, identification: int, last: int | None, *, now: float) -> bool:
        """True if a request's identification is near this clock, and ahead of the last accepted one."""
        return self._window.check(identification, self.time(now), last) is Verdict.OK

    def mismatch(self, identification: int, last: int | None, *, now: float) -> int:
        """Identification of a reply with code 133, whose high half is a time that will be accepted.

        That is this clock's, or the second after the last accepted identification. One that is farther ahead than the
        tolerance, from a home agent with which the store was shared, brings this clock forward: else its registrant
        could not register for so long.
        """
        offered = mismatch_identification(identification, self.time(now))
        if last is None or difference(offered, last) > 0:
            return offered
        self._least = max(self._least, wall_of(last, near=now) - now - self._window.tolerance)
        # Whole seconds: the low half tells the registrant which request this answers.
        offered += difference(last, offered) // _SECOND * _SECOND
        later = offered if difference(offered, last) > 0 else offered + _SECOND
        return later % (1 << 64)
