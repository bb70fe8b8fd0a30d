"""The end of a handover whose sessions are back (C3): the stand-in is told, and the row is removed.

Connections that the stand-in accepted may still be on their way. This module must not know sessions.
"""

from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.actions import Action
from locum.roles.flow_rows import set_flows
from locum.roles.mobile_node.wake.course import Course
from locum.roles.mobile_node.wake.newcomers import Newcomers
from locum.roles.mobile_node.wake.states import AwaitingAccepted, Awake
from locum.roles.mobile_node.wake.still_away import StillAway
from locum.wire.control import Abandon, Answer632, Done, Finish, Reclaim, Request634, Status

# After so many the stand-in's own timer ends the handover.
DONE_ATTEMPTS = 5


class Closing:
    """The requests of a handover in stage RETURNED, and their answers."""

    def __init__(self, course: Course, newcomers: Newcomers, away: StillAway) -> None:
        self._course, self._newcomers, self._away = course, newcomers, away
        self._attempts = 0

    def tell(self) -> list[Action]:
        """Send 634 done, once nothing is to come any more and the stand-in has reset the sessions that ended here."""
        handover = self._away.handover
        if self._newcomers.busy:
            self._course.enter("await accepted", AwaitingAccepted())
            return []
        if handover.disowned:  # an earlier abandon says the same, but done could overtake it
            return self._course.ask(Abandon(handover.identifier, handover.disowned))
        return self._course.ask(Done(handover.identifier))

    def tell_again(self) -> list[Action]:
        """Continue after a restart in stage RETURNED: accepted connections may be still to come."""
        accepted = self._away.handover.accepted
        if not accepted:
            return self.tell()
        return [*set_flows(accepted, FlowVerdict.SUSPEND), *self._course.ask(self._course.reclaim())]

    def unanswered(self, value: Request634, reason: str, now: float) -> list[Action]:
        """Ask again after a pause, or stop after too many attempts."""
        self._attempts += 1
        if self._attempts >= DONE_ATTEMPTS:
            return self._close()
        return self._course.unanswered(value, reason, now)

    def answered(self, value: Request634, answer: Answer632, now: float) -> list[Action]:
        """Handle the answer to this request."""
        if isinstance(value, Done) and not value.sessions:
            return self._done_answered(value, answer)
        if answer.status in (Status.BUSY, Status.LIMIT):
            return self.unanswered(value, answer.status.name.lower(), now)
        self._course.answered()
        match value:
            case Done() if answer.status is Status.WRONG_STATE:
                return self.unanswered(value, answer.status.name.lower(), now)
            case Done():
                self._course.untold = False
                return self._course.ask(self._course.reclaim())
            case Reclaim():
                announced = self._newcomers.announced(answer)
                return [*announced, *self._course.ask(Finish(self._away.handover.identifier))]
            case Finish():
                return [*self._newcomers.begin(answer), *self.tell()]
            case Abandon():
                self._away.handover = self._away.handover.disowned_told()
                return [self._away.handover.persist(), *self.tell()]
        return []

    def _done_answered(self, value: Done, answer: Answer632) -> list[Action]:
        """A stand-in that was started again meanwhile has to stop once more before it forgets."""
        if answer.status is Status.WRONG_STATE and self._attempts < DONE_ATTEMPTS:
            self._attempts += 1
            return self._course.ask(Finish(value.handover))
        return self._close()

    def _close(self) -> list[Action]:
        """Ask nothing more: accepted connections that have not come by now are lost."""
        given_up = self._newcomers.give_up()
        self._course.end(Awake(self._away.lost))
        return [*given_up, self._away.handover.forget()]
