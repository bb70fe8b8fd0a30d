"""The clock by which a home agent judges timestamps (RFC 5944 section 5.7.1): the wall clock, but it does not go back.

Requests that came while the wall clock was ahead were accepted with timestamps that nothing later could surpass until
the wall clock is there again. So this clock stays where it was, ahead of the wall clock, and registrants learn it from a
refusal with code 133, which costs each a round trip. It must not know registrations.
"""

from collections.abc import Iterable

from locum.security.replay import (
    DEFAULT_TOLERANCE,
    TimestampWindow,
    Verdict,
    mismatch_identification,
    wall_of,
)

_WINDOW = TimestampWindow()


class HomeTimestamps:
    """One home agent's clock for all its registrants."""

    __slots__ = ("_ahead", "_least", "_told")

    def __init__(self) -> None:
        self._ahead = 0.0  # seconds that the wall clock is ahead of `now`
        self._told = False  # by `stepped`
        self._least = float("-inf")  # this clock is ahead of `now` by no less

    def restore(self, accepted: Iterable[int], *, now: float) -> None:
        """Start no earlier than the identifications that were accepted last, of every registrant."""
        ahead = (wall_of(number, near=now) - now for number in accepted)
        self._least = max(ahead, default=float("-inf")) - DEFAULT_TOLERANCE

    def stepped(self, ahead: float) -> None:
        """The wall clock is so far ahead of `now`; back by less than the tolerance, it is simply followed."""
        if self._told and self._ahead - ahead > DEFAULT_TOLERANCE:
            self._least = max(self._least, self._ahead)
        self._ahead, self._told = ahead, True

    def time(self, now: float) -> float:
        """Time of this clock, in seconds since 1970."""
        return now + max(self._ahead, self._least)

    def fresh(self, identification: int, last: int | None, *, now: float) -> bool:
        """True if a request's identification is near this clock, and ahead of the last accepted one."""
        return _WINDOW.check(identification, self.time(now), last) is Verdict.OK

    def mismatch(self, identification: int, *, now: float) -> int:
        """Identification of a reply with code 133."""
        return mismatch_identification(identification, self.time(now))
