"""Return of sessions by a stand-in: reclaim, fetch, finish (C3, A12; messages 634, 632).

The sessions go on here until `Finish`; stopped sessions can be resumed. It must not know who may ask.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from locum.roles.action_values.apps import PauseApps
from locum.roles.action_values.forwarding import FlowVerdict, ReleaseHeld
from locum.roles.action_values.sessions import (
    FetchData,
    Fetched,
    Measured,
    MeasureSessions,
    ResumeSessions,
    SessionFinal,
    StopSessions,
)
from locum.roles.action_values.sessions import Stopped as SessionsStopped
from locum.roles.actions import Action, Count
from locum.roles.flow_rows import set_flows
from locum.roles.mnps.handover import Holding, Prepared, Releasing, Restoring, Stopped, Stopping, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.replies_632 import Replies
from locum.wire.control import Fetch, FinalState, SessionStatus, Status

STOPPED_TIMEOUT = 3600.0  # seconds; a device that has had the final state and every byte has its sessions
TAIL_LIMIT = 2 << 20  # bytes of all tails in one answer; the rest is fetched


class GivingBack:
    """The second half of every handover of `holdings`."""

    def __init__(self, holdings: Holdings, replies: Replies, patience: float) -> None:
        """`patience`: seconds that a device may take to fetch the rest of a session that is stopped."""
        self._holdings = holdings
        self._patience = patience
        self._replies = replies
        self._measuring: dict[bytes, list[int]] = {}
        self._fetching: dict[int, Fetch] = {}
        self._fetched: dict[tuple[bytes, int], int] = {}
        self.pause_apps: Callable[[TakenOver], list[Action]] = lambda _taken: []

    def forget(self, identifier: bytes) -> None:
        """The handover has ended."""
        self._fetched = {key: end for key, end in self._fetched.items() if key[0] != identifier}

    # Reclaim -----------------------------------------------------------------------------------------------------

    def reclaim(self, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        """Handle a reclaim; the answer follows the measurement (C3)."""
        self._go_on(taken, now)
        match taken.state:
            case Prepared():
                return [self._replies.wrong(exchange, taken)]
            case Restoring() | Releasing() | Stopping():
                return [self._replies.answer(exchange, Status.BUSY, taken.identifier)]
        waiting = self._measuring.setdefault(taken.identifier, [])
        waiting.append(exchange)
        if len(waiting) > 1:
            return []
        return self.pause_apps(taken) or [MeasureSessions(taken.identifier)]

    def apps_paused(self, taken: TakenOver) -> list[Action]:
        """No proxy speaks any more: go on with the reclaim that waits for it."""
        return [MeasureSessions(taken.identifier)] if taken.identifier in self._measuring else []

    def busy(self, handover: bytes) -> list[Action]:
        """The step before the answer to a reclaim was not done: the device may ask again."""
        exchanges = self._measuring.pop(handover, [])
        return [self._replies.answer(exchange, Status.BUSY, handover) for exchange in exchanges]

    def measured(self, event: Measured) -> list[Action]:
        """Handle the measurement."""
        exchanges = self._measuring.pop(event.handover, [])
        taken = self._holdings.get(event.handover)
        if taken is None:
            return [
                self._replies.answer(exchange, Status.UNKNOWN_HANDOVER, event.handover)
                for exchange in exchanges
            ]
        held = {session.flow: session.accepted for session in taken.held}
        statuses = tuple(
            SessionStatus(
                session.session,
                session.flow,
                Status.OK,
                session.total,
                session.total,
                session.peer_closed,
                session.error,
                accepted=held[session.flow],
                spoken=taken.spoken.get(session.session, b""),
                surplus=taken.surplus.get(session.session, 0),
                handed=session.handed,
            )
            for session in event.sessions
            if session.flow in held
        )
        statuses += taken.not_held()
        answers: list[Action] = [self._replies.measured(exchange, taken, statuses) for exchange in exchanges]
        if not answers:
            return []
        told = self._announce(taken, {status.session for status in statuses if status.status is Status.OK})
        return [*told, *answers, self._replies.sent("reclaim", taken, None)]

    def _announce(self, taken: TakenOver, numbers: Collection[int]) -> list[Action]:
        """Store the row before the answer: sessions known to the device are not reset after a restart."""
        if not any(session.session in numbers for session in taken.unannounced):
            return []
        sessions = tuple(
            replace(session, announced=session.announced or session.session in numbers)
            if session.newcomer
            else session
            for session in taken.sessions
        )
        taken = replace(taken, sessions=sessions)
        self._holdings.keep(taken)
        return [taken.persist()]

    # Fetch -------------------------------------------------------------------------------------------------------

    def fetch(self, request: Fetch, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        """Bytes of one session."""
        self._go_on(taken, now)
        if not isinstance(taken.state, Holding | Stopped):
            return [self._replies.wrong(exchange, taken)]
        if not taken.holds(request.session):
            return [self._replies.answer(exchange, Status.REFUSED, taken.identifier)]
        self._fetching[exchange] = request
        return [FetchData(exchange, taken.identifier, request.session, request.offset, request.limit)]

    def fetch_done(self, event: Fetched) -> list[Action]:
        """The bytes, or that there are none."""
        request = self._fetching.pop(event.exchange, None)
        if request is None:
            return [Count("result-unexpected")]
        if event.data is None:
            return [self._replies.answer(event.exchange, Status.REFUSED, request.handover)]
        key = (request.handover, request.session)
        self._fetched[key] = max(self._fetched.get(key, 0), request.offset + len(event.data))
        return [self._replies.data(event.exchange, request.handover, event.data, more=event.more)]

    # Finish ------------------------------------------------------------------------------------------------------

    def finish(self, taken: TakenOver, exchange: int) -> list[Action]:
        """Step 4: everything sent to us is ahead of this request; stop, and give the last state."""
        match taken.state:
            case Prepared() | Restoring():
                return [self._replies.wrong(exchange, taken)]
            case Stopping(exchanges):
                self._holdings.keep(taken.at("stop", Stopping((*exchanges, exchange))))
                return []
            case Stopped(finals) if finals is not None:
                return [self._final_answer(exchange, taken, finals)]
        return self.stop(taken, (exchange,))

    def stop(self, taken: TakenOver, exchanges: tuple[int, ...]) -> list[Action]:
        """Hold packets of these sessions, and stop their sockets."""
        taken = taken.at("stop", Stopping(exchanges))
        self._holdings.keep(taken)
        fetched = tuple(
            (session.session, self._fetched.get((taken.identifier, session.session), 0))
            for session in taken.held
        )
        held = [session.flow for session in taken.held]
        return [
            taken.persist(),
            *set_flows(held, FlowVerdict.HOLD),
            StopSessions(taken.identifier, fetched, TAIL_LIMIT),
        ]

    def stopped(self, event: SessionsStopped, now: float) -> list[Action]:
        """The last state."""
        taken = self._holdings.get(event.handover)
        if taken is None or not isinstance(taken.state, Stopping):
            return [Count("result-unexpected")]
        exchanges = taken.state.exchanges
        held = {session.flow for session in taken.held}
        finals = tuple(final for final in event.finals if final.flow in held)
        taken = taken.at("stopped", Stopped(finals, now + STOPPED_TIMEOUT))
        taken = self._go_on(taken, now)
        answers = [self._final_answer(exchange, taken, finals) for exchange in exchanges]
        return [taken.persist(), *answers, self._replies.sent("finish", taken, None)]

    def _final_answer(self, exchange: int, taken: TakenOver, finals: tuple[SessionFinal, ...]) -> Action:
        states = tuple(
            FinalState(
                session=final.session,
                ts_value=final.timestamp,
                received=final.total,
                tail_offset=final.tail_offset,
                peer_closed=final.peer_closed,
                error=final.error,
                acked=final.acknowledged,
                tail=final.tail,
            )
            for final in finals
        )
        return self._replies.final(exchange, taken, states)

    def _go_on(self, taken: TakenOver, now: float) -> TakenOver:
        """The device of a stopped handover is at it; it keeps its time."""
        if isinstance(taken.state, Stopped):
            patience = STOPPED_TIMEOUT if self.all_given(taken) else self._patience
            taken = taken.at("ask", Stopped(taken.state.finals, now + patience))
            self._holdings.keep(taken)
        return taken

    def all_given(self, taken: TakenOver) -> bool:
        """True if the device of a stopped handover has the final state and every byte."""
        if not isinstance(taken.state, Stopped) or taken.state.finals is None:
            return False
        return all(
            self._fetched.get((taken.identifier, final.session), 0) >= final.tail_offset
            for final in taken.state.finals
        )

    def resume(self, taken: TakenOver) -> list[Action]:
        """The sessions go on here."""
        taken = taken.at("resume", Holding())
        self._holdings.keep(taken)
        flows = [session.flow for session in taken.held]
        return [
            taken.persist(),
            ResumeSessions(taken.identifier),
            *set_flows(flows, FlowVerdict.DELIVER),
            *(ReleaseHeld(home_address) for home_address in taken.home_addresses),
        ]

    # Failed actions of the node ----------------------------------------------------------------------------------

    def not_performed(self, action: object) -> list[Action]:
        """Back to where the device can ask again."""
        match action:
            case StopSessions(handover):
                taken = self._holdings.get(handover)
                if taken is None or not isinstance(taken.state, Stopping):
                    return []
                busy = [
                    self._replies.answer(exchange, Status.BUSY, handover)
                    for exchange in taken.state.exchanges
                ]
                return [*self.resume(taken), *busy]
            case MeasureSessions(handover) | PauseApps(handover):
                return self.busy(handover)
            case FetchData(exchange):
                request = self._fetching.pop(exchange, None)
                if request is not None:
                    return [self._replies.answer(exchange, Status.BUSY, request.handover)]
        return []
