"""The sessions of one wake that are still away (C3): their row, progress, and ends.

It must not know states, nor which question comes next.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from locum.roles.action_values.sessions import (
    AbandonSessions,
    Finished,
    Process,
    ReleaseCaptured,
    SessionFailure,
)
from locum.roles.actions import Action, Emit
from locum.roles.mobile_node.handover import AwaySession, Handover, StandInDialogue
from locum.roles.mobile_node.wake.progress import Progress
from locum.roles.mobile_node.wake.putting_back import PuttingBack
from locum.roles.mobile_node.wake.receiving import released
from locum.roles.mobile_node.wake.rest import ComingSession, Rest
from locum.roles.session_report import Fate, Report
from locum.roles.session_words import CLOSED, COMING, GONE_THERE, ended_by
from locum.wire.control import Abandon, Flow


class StillAway:
    """Of one handover, whose row is `handover`. `lost` counts the sessions that were."""

    def __init__(self, dialogue: StandInDialogue, handover: Handover) -> None:
        self.handover = handover
        self.progress = Progress(handover.sessions)
        self.bytes = PuttingBack(dialogue, handover.identifier, self.progress)
        self.report = Report()
        self.lost = 0
        self._dialogue = dialogue

    def tell(self, session: AwaySession, fate: Fate, reason: str | None = None) -> None:
        """Note its result for users."""
        self.report.tell(session.flow, fate, reason, session.processes, session.programs)

    def number(self, numbers: Mapping[Flow, int]) -> None:
        """The stand-in's numbers of the sessions."""
        if all(numbers[session.flow] == session.session for session in self.handover.sessions):
            return
        self.progress.number(numbers)
        sessions = tuple(
            replace(session, session=numbers[session.flow]) for session in self.handover.sessions
        )
        self.handover = replace(self.handover, sessions=sessions)

    def give_up(self, flows: Iterable[Flow], reasons: Mapping[Flow, str], *, stays: bool) -> list[Action]:
        """Sessions that the stand-in does not have: unharmed if it never had them (`stays`), lost otherwise."""
        listed = tuple(flows)
        if not listed:
            return []
        fate, kind = (Fate.STAYED, "session-stays") if stays else (Fate.LOST, "session-lost")
        told = []
        for flow in listed:
            reason = reasons.get(flow) or ("the stand-in never had it" if stays else GONE_THERE)
            self.tell(self.progress.session(flow), fate, reason)
            told.append(Emit(kind, "632", flow.local, flow, {"reason": reason}))
        self.lost += 0 if stays else len(listed)
        self._drop(listed)
        first: Action = ReleaseCaptured(listed) if stays else AbandonSessions(listed)
        return [first, *released(listed), *told]

    def lose(self, failures: Iterable[SessionFailure]) -> list[Action]:
        """These sockets take nothing any more."""
        failed = {failure.flow: failure.reason for failure in failures}
        actions: list[Action] = []
        for flow, reason in failed.items():
            self.tell(self.progress.session(flow), Fate.LOST, reason)
            actions.append(Emit("session-lost", None, flow.local, flow, {"reason": reason}))
        self.lost += len(failed)
        return self._reset(tuple(failed)) + actions

    def closed(self) -> list[Action]:
        """Note programs that ended before they had all data: their peers get a FIN or reset as usual."""
        flows = tuple(flow for flow in self.progress.gone if flow in self.progress.behind)
        actions: list[Action] = []
        for flow in flows:
            self.tell(self.progress.session(flow), Fate.CLOSED, CLOSED)
            actions.append(Emit("session-closed", None, flow.local, flow, {"reason": CLOSED}))
        return self._reset(flows) + actions

    def come_later(self) -> list[Action]:
        """Note that the wake ends without these sessions: their programs do not read."""
        for session in self.handover.sessions:
            self.tell(session, Fate.COMING, COMING)
        return [
            Emit("session-coming", None, flow.local, flow, {"reason": COMING}) for flow in self.handover.flows
        ]

    def lose_all(self, reason: str) -> None:
        """Mark all as lost."""
        for session in self.handover.sessions:
            self.tell(session, Fate.LOST, reason)
        self.lost += len(self.handover.sessions)

    def _reset(self, flows: tuple[Flow, ...]) -> list[Action]:
        """End these connections at both ends."""
        if not flows:
            return []
        numbers = tuple(self.progress.session(flow).session for flow in flows)
        self._drop(flows)
        self.handover = self.handover.disown(numbers)
        asked = self._dialogue.ask(Abandon(self.handover.identifier, numbers))
        return [AbandonSessions(flows), *released(flows), self.handover.persist(), *asked]

    def came(self, flows: tuple[Flow, ...], event: Finished) -> list[Action]:
        """These sockets are out of repair mode, or could not be finished."""
        failed = {failure.flow: failure.reason for failure in event.failures}
        told: list[Action] = [self._told(flow, failed.get(flow)) for flow in flows]
        self.lost += len(failed)
        numbers = tuple(self.progress.session(flow).session for flow in flows)
        self.handover = replace(self.handover, returned=(*self.handover.returned, *numbers))
        self._drop(flows)
        return told

    def _told(self, flow: Flow, failure: str | None) -> Emit:
        session, final = self.progress.session(flow), self.progress.final(flow)
        closed = flow in self.progress.gone
        if failure is not None:
            self.tell(session, Fate.LOST, failure)
            return Emit("session-lost", None, flow.local, flow, {"reason": failure})
        if closed:
            self.tell(session, Fate.CLOSED, CLOSED)
            return Emit("session-closed", "632", flow.local, flow, {"reason": CLOSED})
        reason = ended_by(final.error) if final.error else None
        self.tell(session, Fate.LOST if final.error else Fate.RETURNED, reason)
        return Emit("session-returned", "632", flow.local, flow, {"reason": reason} if reason else {})

    def _drop(self, flows: tuple[Flow, ...]) -> None:
        """These sessions are no part of it any more."""
        self.bytes.forget(flows)
        self.handover = self.handover.without(flows)

    def rest(self) -> Rest:
        """Return the rest of a wake that ends now."""
        return Rest(
            self.handover,
            {
                session.flow: ComingSession(
                    session, self.progress.final(session.flow), self.progress.offset(session.flow)
                )
                for session in self.handover.sessions
            },
        )

    def unbind(self) -> tuple[Process, ...]:
        """Processes that have no session left that is away."""
        bound = dict.fromkeys(process for session in self.handover.sessions for process in session.processes)
        free = tuple(process for process in self.handover.processes if process not in bound)
        self.handover = replace(self.handover, processes=tuple(bound))
        return free
