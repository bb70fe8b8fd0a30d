"""State and result of one wake, and its pending 634 (C3): sent, answered, or repeated after a pause.

This module must not know which request comes next.
"""

from locum.roles.actions import Action, Emit
from locum.roles.mobile_node.handover import StandInDialogue
from locum.roles.mobile_node.wake.states import (
    TABLE,
    Arriving,
    Asking,
    Awake,
    Ended,
    Event,
    GivenUp,
    Pausing,
    State,
    StillAsleep,
)
from locum.roles.mobile_node.wake.still_away import StillAway
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire.control import Done, Finish, Reclaim, Request634

# Seconds until a 634 without an answer is asked again; doubled each time up to a maximum.
RETRY_FIRST = 1.0
RETRY_MAX = 15.0


class Course:
    """The course of one wake. `untold`: the stand-in may not know which sessions an earlier run had back."""

    def __init__(self, mobile: RegistrationClient, dialogue: StandInDialogue, away: StillAway) -> None:
        self.state: State = Arriving()
        self.result: Awake | StillAsleep | GivenUp | None = None
        self.untold = bool(away.handover.returned)
        self._mobile = mobile
        self._dialogue = dialogue
        self._away = away
        self._pause = RETRY_FIRST

    def reclaim(self) -> Request634:
        """Return the first request. It precedes all others, so that the stand-in stops returned sessions."""
        handover = self._away.handover
        if self.untold:
            return Done(handover.identifier, handover.returned)
        return Reclaim(handover.identifier, self._mobile.configuration.home_addresses)

    def ask(self, value: Request634) -> list[Action]:
        """Send this request and wait for its answer."""
        asked = self._dialogue.ask(value, bulk=isinstance(value, Finish))
        self.enter("ask", Asking(self._dialogue.last, value))
        return list(asked)

    def answered(self) -> None:
        """Start again with the first pause: the stand-in does answer."""
        self._pause = RETRY_FIRST

    def unanswered(self, value: Request634, reason: str, now: float) -> list[Action]:
        """Pause before this request is asked again."""
        self.enter("no answer", Pausing(now + self._pause, value))
        self._pause = min(RETRY_MAX, 2 * self._pause)
        home_address = self._mobile.configuration.home_address
        return [Emit("stand-in-silent", "634", home_address, None, {"reason": reason})]

    def end(self, result: Awake | StillAsleep | GivenUp) -> None:
        """End the wake with this result."""
        self.enter("end", Ended())
        self.result = result

    def enter(self, event: Event, state: State) -> None:
        """Change the state."""
        self.state = TABLE.change(self.state, event, state)
