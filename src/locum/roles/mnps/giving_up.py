"""End of sessions at a stand-in without a return to their device (C2; message 634 abandon).

The device gives them up, or does not know of them any more. Their peers get a reset: a connection that no program
owns must not look alive. It must not know who may ask, nor how a reset is sent.
"""

from collections.abc import Callable, Collection

from locum.roles.action_values.forwarding import ClearFlow
from locum.roles.action_values.sessions import DropSessions
from locum.roles.actions import Action, Emit
from locum.roles.mnps.giving_back import GivingBack
from locum.roles.mnps.handover import Holding, Releasing, Restoring, Stopping, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.replies_632 import Replies
from locum.wire.control import Abandon, Done, Status

DISCLAIMED = "the device has given it up"
RETURNED = "the device has it again"
NOT_ANNOUNCED = "it was opened while the device was on its way back"

Want = Callable[[TakenOver, float], list[Action]]  # what has to be registered after a change of this handover


class GivingUp:
    """The ends of the handovers of `holdings`. Times are those of the role."""

    def __init__(self, holdings: Holdings, replies: Replies, giving_back: GivingBack, want: Want) -> None:
        self._holdings, self._replies, self._giving_back, self._want = holdings, replies, giving_back, want

    def end(self, taken: TakenOver, now: float, *, reset: bool = False) -> list[Action]:
        """End the whole handover, resetting peers with `reset`. Pending requests are answered."""
        unanswered = [
            self._replies.answer(number, Status.UNKNOWN_HANDOVER, taken.identifier)
            for number in _waiting(taken)
        ]
        self._giving_back.forget(taken.identifier)
        return [*self._holdings.end(taken, reset=reset), *self._want(taken, now), *unanswered]

    def abandon(self, request: Abandon, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        """Abandon all of it, or the named sessions. Sessions that are not held any more are no error."""
        answer = self._replies.answer(exchange, Status.OK, taken.identifier)
        if not request.sessions:
            told = [
                Emit("session-abandoned", "634", session.flow.local, session.flow) for session in taken.held
            ]
            return [*self.end(taken, now, reset=True), *told, answer]
        return [*self.some(taken, frozenset(request.sessions), DISCLAIMED, "session-abandoned"), answer]

    def some(self, taken: TakenOver, numbers: Collection[int], reason: str, kind: str) -> list[Action]:
        """Reset these sessions; the device gets the reason at its next request. `kind` is the event's."""
        gone = [session for session in taken.held if session.session in numbers]
        return [
            *self._without(taken, numbers, reason, reset=True),
            *(Emit(kind, None, session.flow.local, session.flow, {"reason": reason}) for session in gone),
        ]

    def unannounced(self, taken: TakenOver) -> list[Action]:
        """Reset connections accepted after the device's reclaim was answered: it would not take them."""
        numbers = {session.session for session in taken.unannounced}
        return self.some(taken, numbers, NOT_ANNOUNCED, "session-lost")

    def _without(
        self, taken: TakenOver, numbers: Collection[int], reason: str, *, reset: bool
    ) -> list[Action]:
        gone = [session for session in taken.held if session.session in numbers]
        if not gone:
            return []
        left = taken.without({session.session for session in gone}, reason)
        self._holdings.keep(left)
        wanted = self._holdings.is_wanted
        return [
            DropSessions(taken.identifier, tuple(session.session for session in gone), reset=reset),
            left.persist(),
            *(ClearFlow(session.flow) for session in gone if not wanted(session.flow)),
        ]

    def done(self, request: Done, taken: TakenOver, exchange: int) -> list[Action]:
        """These sessions live at their device again, and the others stay here as they are."""
        gone = self._without(taken, frozenset(request.sessions), RETURNED, reset=False)
        return [*gone, self._replies.answer(exchange, Status.OK, taken.identifier)]

    def supersede(self, taken: TakenOver, others: Collection[bytes], now: float) -> list[Action]:
        """End handovers unknown to their device, which cannot be reclaimed.

        Only a transfer says so. It answers a 632, so it is no message of an attempt that its device has given up. A
        device that has the final state may have its sessions: their peers get no reset.
        """
        actions: list[Action] = []
        for other in self._holdings.of(taken.home_addresses):
            if other.identifier in (taken.identifier, *others) or isinstance(
                other.state, Restoring | Stopping
            ):
                continue
            living = isinstance(other.state, Holding | Releasing)
            actions.append(Emit("handover-superseded", "634", other.home_addresses[0]))
            actions += self.end(other, now, reset=living)
        return actions


def _waiting(taken: TakenOver) -> tuple[int, ...]:
    return taken.state.exchanges if isinstance(taken.state, Restoring | Releasing | Stopping) else ()
