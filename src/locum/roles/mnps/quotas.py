"""Limits of a stand-in for one device, in time, number and bytes: most idle sessions end first (C2).

The node tells how the sessions are used (`SurveySessions`), now and then. Sessions that end here are reset towards their
peers; their device gets the reason at its next request. It must not know sockets or files.
"""

from collections.abc import Iterable, Sequence

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.sessions import SessionUse, Surveyed, SurveySessions
from locum.roles.actions import Action, Emit, Event
from locum.roles.mnps.configuration import DAY, Quota
from locum.roles.mnps.giving_up import GivingUp
from locum.roles.mnps.handover import Holding, Prepared, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.parts import WaitingPart

SURVEYS = 20  # in the time after which a session ends, so that it ends at most a twentieth late
LONGEST_PAUSE = 60.0  # seconds between surveys: a device's bytes may be used up sooner than its time
YIELDS = 3600.0  # seconds of quiet after which a session may give way to the bytes of others

MOST_HANDOVERS = 64  # of one device: sessions that it gives one by one, and its sleep
MOST_PREPARED = 4  # of these, not transferred yet: a device prepares one at a time, and a cancel may be lost

Number = tuple[bytes, int]  # handover, session


class Quotas(WaitingPart):
    """The quota of every device that has handovers in `holdings`. All times are steady seconds."""

    def __init__(self, quota: Quota, holdings: Holdings, giving_up: GivingUp) -> None:
        self._quota, self._holdings, self._giving_up = quota, holdings, giving_up
        self._quiet_since: dict[Number, float] = {}
        self._empty_since: dict[bytes, float] = {}
        self._survey_at: float | None = None

    def follow(self, *, now: float) -> list[Action]:
        """Look at the sessions later if there are any."""
        if not self._holdings.all():
            self._survey_at = None
        elif self._survey_at is None:
            self._survey_at = now + self._pause
        return []

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The use of the sessions, as the node has found it."""
        return self._surveyed(event, now) if isinstance(event, Surveyed) else None

    @property
    def _pause(self) -> float:
        return min(self._quota.held_seconds / SURVEYS, LONGEST_PAUSE)

    def deadline(self) -> float | None:
        """Time of the next survey of the sessions."""
        return self._survey_at

    def timeout(self, *, now: float) -> list[Action]:
        """Look at them."""
        if self._survey_at is None or self._survey_at > now:
            return []
        self._survey_at = now + self._pause
        return [SurveySessions()]

    def _surveyed(self, event: Surveyed, now: float) -> list[Action]:
        """End sessions that were idle for too long, and those that exceed a device's quota."""
        self._quiet_since = {
            (session.handover, session.session): now - session.idle for session in event.sessions
        }
        expired = [session for session in event.sessions if session.idle >= self._quota.held_seconds]
        reason = f"its peer sent nothing for {_time(self._quota.held_seconds)}"
        actions = self._end(
            ((session.handover, session.session) for session in expired), reason, "session-expired"
        )
        return actions + self._make_room_for_bytes(event.sessions) + self._forget_empty(now)

    def _end(self, numbers: Iterable[Number], reason: str, kind: str) -> list[Action]:
        by_handover: dict[bytes, set[int]] = {}
        for handover, session in numbers:
            by_handover.setdefault(handover, set()).add(session)
        actions: list[Action] = []
        for handover, sessions in by_handover.items():
            taken = self._holdings.get(handover)
            # A session in transit to its device has no peer that could send.
            if taken is not None and isinstance(taken.state, Holding):
                actions += self._giving_up.some(taken, sessions, reason, kind)
        return actions

    def _make_room_for_bytes(self, sessions: Sequence[SessionUse]) -> list[Action]:
        by_device: dict[Addr, list[SessionUse]] = {}
        for session in sessions:
            if (taken := self._holdings.get(session.handover)) is not None:
                by_device.setdefault(taken.home_addresses[0], []).append(session)
        actions: list[Action] = []
        for uses in by_device.values():
            over = sum(use.stored for use in uses) - self._quota.stored
            if over >= 0:
                quiet = [use for use in uses if use.idle >= YIELDS and use.stored]
                quiet.sort(key=lambda session: -session.idle)
                gone = []
                while quiet and over >= 0:
                    over -= quiet[0].stored
                    gone.append(quiet.pop(0))
                reason = "the device's bytes at the stand-in were used up, and it had been quiet for longest"
                numbers = ((session.handover, session.session) for session in gone)
                actions += self._end(numbers, reason, "session-evicted")
        return actions

    def used(self, handover: bytes) -> None:
        """Its device has asked for it, or a peer has connected: its time begins anew."""
        self._empty_since.pop(handover, None)

    def _forget_empty(self, now: float) -> list[Action]:
        """Handovers in which nothing lives any more, and whose device does not come."""
        empty = [
            handover
            for handover in self._holdings.all()
            if isinstance(handover.state, Holding) and not handover.held
        ]
        self._empty_since = {
            handover.identifier: self._empty_since.get(handover.identifier, now) for handover in empty
        }
        actions: list[Action] = []
        for handover in empty:
            if now - self._empty_since[handover.identifier] >= self._quota.held_seconds:
                actions += self._giving_up.end(handover, now)
                actions.append(Emit("handover-forgotten", None, handover.home_addresses[0]))
        return actions

    def fair(self, handover: bytes, home_addresses: Iterable[Addr]) -> bool:
        """True if this hand-over of the device leaves room for those of other devices."""
        own = [taken for taken in self._holdings.of(home_addresses) if taken.identifier != handover]
        prepared = sum(isinstance(taken.state, Prepared) for taken in own)
        return len(own) < MOST_HANDOVERS and prepared < MOST_PREPARED

    def admits(self, number: int) -> bool:
        """True if the session of that number in a prepare, from 0, can be held for one device."""
        return number < self._quota.sessions

    def make_room(self, taken: TakenOver, now: float) -> list[Action]:
        """Evict the device's most idle sessions before those of `taken` live here."""
        others = [
            other for other in self._holdings.of(taken.home_addresses) if other.identifier != taken.identifier
        ]
        over = len(taken.held) + sum(len(other.held) for other in others) - self._quota.sessions
        if over <= 0:
            return []
        candidates = [
            (other.identifier, held.session)
            for other in others
            if isinstance(other.state, Holding)
            for held in other.held
        ]
        candidates.sort(key=lambda number: self._quiet_since.get(number, now))
        reason = f"the device has {self._quota.sessions} sessions at the stand-in, and it had been quiet for longest"
        return self._end(candidates[:over], reason, "session-evicted")


def _time(seconds: float) -> str:
    return f"{seconds / DAY:g} days" if seconds >= DAY else f"{seconds:g} s"
