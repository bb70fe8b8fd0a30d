"""Sessions whose programs do not read: the rest comes back beside everything else, after the wake has ended (C3).

The stand-in's sockets are stopped and keep the received data; here the programs run with their flows suspended, and the
node answers their peers that there is no room. Whenever a program has read, more is fetched and put in. A new sleep sends
all of it back: the stand-in goes on with its sockets as they are. It must not know how a socket is filled or a peer answered.
"""

from dataclasses import replace

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.sessions import (
    AbandonSessions,
    Finished,
    FinishSessions,
    HasRoom,
    InjectData,
    Injected,
    Loosen,
    NotPerformed,
    SessionFailure,
    StopAnswering,
    Thaw,
    Tighten,
    Tightened,
    WatchReading,
)
from locum.roles.actions import Action, Answered, Emit, Event, NoAnswer
from locum.roles.flow_rows import set_flows
from locum.roles.mobile_node.handover import AwaySession, Stage, StandInDialogue
from locum.roles.mobile_node.wake.coming_states import (
    TABLE,
    Asking,
    Back,
    Completing,
    Ended,
    Injecting,
    Pausing,
    Rests,
    State,
    Tightening,
    Unsure,
    Watching,
)
from locum.roles.mobile_node.wake.coming_states import Event as StateEvent
from locum.roles.mobile_node.wake.fetch_window import CHUNK
from locum.roles.mobile_node.wake.receiving import released
from locum.roles.mobile_node.wake.rest import Rest
from locum.roles.mobile_node.wake.states import GivenUp, abandoned, final_of
from locum.roles.session_report import Fate, Report
from locum.roles.session_words import CLOSED, GONE_THERE, ended_by
from locum.wire.control import (
    Abandon,
    Answer632,
    Cancel,
    Done,
    Fetch,
    Finish,
    Flow,
    Request634,
    Status,
    decode_632,
)
from locum.wire.errors import WireError

RETRY_FIRST = 1.0  # seconds until a 634 that was not answered is asked again
RETRY_MAX = 60.0
SIGN_OF_LIFE = 600.0  # seconds; the stand-in drops stopped sessions without a request for an hour
END_ATTEMPTS = 5  # of the last `done`: after that the stand-in's own timer ends the handover


class Coming:
    """The rest of one handover."""

    def __init__(self, dialogue: StandInDialogue, rest: Rest, home_address: Addr, report: Report) -> None:
        self.handover = rest.handover
        self.state: State = Watching(0.0)
        self.result: Back | Rests | Unsure | GivenUp | None = None
        self._dialogue = dialogue
        self._home_address = home_address
        self._report = report
        self._sessions = dict(rest.sessions)
        self._room: dict[Flow, None] = {}  # whose programs have read, first come, first served
        self._untold = bool(rest.handover.returned)
        self._leaving = False
        self._tight = False
        self._finishing_again = False
        self._pause = RETRY_FIRST
        self._attempts = 0

    def start(self, *, now: float) -> list[Action]:
        """Say which sessions are back, and wait for the others' programs."""
        flows = tuple(self._sessions)
        return [WatchReading(flows), *self._next(now)]

    def offset(self, flow: Flow) -> int:
        """Bytes received at the stand-in that are in the socket again."""
        return self._sessions[flow].offset if flow in self._sessions else 0

    # Commands ----------------------------------------------------------------------------------------------------

    def go_back(self, *, now: float) -> list[Action]:
        """Send the sessions back to the stand-in; `result` is set at the end."""
        if self._leaving or isinstance(self.state, Ended):
            return []
        self._leaving = True
        fetching = isinstance(self.state, Asking) and isinstance(self.state.value, Fetch)
        return self._next(now) if fetching or isinstance(self.state, Watching | Pausing) else []

    def abandon(self) -> list[Action]:
        """Give up: the programs' connections are reset."""
        if isinstance(self.state, Ended) or not self._sessions:
            return []
        reason = "the sessions were given up"
        for session in self._sessions.values():
            self._tell(session.session, Fate.LOST, reason)
        self.handover = self.handover.at(Stage.ABANDONED)
        self._enter("end", Ended())
        self.result = GivenUp(self.handover)
        return [self.handover.persist(), *abandoned(self.handover, reason)]

    # The role's shape --------------------------------------------------------------------------------------------

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Handle answers, and results of the node's work on these sessions; ignore others."""
        match self.state, event:
            case _, HasRoom():
                self._room |= {flow: None for flow in event.flows if flow in self._sessions}
                return self._next(now) if isinstance(self.state, Watching) else []
            case Asking(request, value), Answered() if event.request == request:
                return self._answered(value, event.body, now)
            case Asking(request, value), NoAnswer() if event.request == request:
                return self._unanswered(value, now)
            case Tightening(flows), Tightened() if event.flows == flows:
                return self._tightened(event, now)
            case Tightening(flows), NotPerformed(action=Tighten() as action) if action.flows == flows:
                return self._wait(now)
            case Injecting(flow, data), Injected() if _about(event, flow):
                return self._injected(flow, data, event, now)
            case Injecting(flow), NotPerformed(action=InjectData() as action) if action.pieces[0][0] == flow:
                return self._lose(flow, event.reason, now)
            case Completing(flow), Finished() if event.flows == (flow,):
                return self._completed(flow, event.failures, now)
            case Completing(flow), NotPerformed(action=FinishSessions() as action) if _only(action, flow):
                return self._completed(flow, (SessionFailure(flow, event.reason),), now)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again, or show that the device is alive."""
        match self.state:
            case Pausing(retry_at) if retry_at <= now:
                return self._next(now)
            case Watching(alive_at) if alive_at <= now and self._sessions:
                first = next(iter(self._sessions.values()))
                return self._ask(Fetch(self.handover.identifier, first.session.session, first.offset, 1))
        return []

    def deadline(self) -> float | None:
        """Steady seconds."""
        match self.state:
            case Pausing(at) | Watching(at):
                return at
        return None

    # Steps -------------------------------------------------------------------------------------------------------

    def _next(self, now: float) -> list[Action]:
        """Next step: messages to the stand-in first, then a new sleep, then sockets with room."""
        name = self.handover.identifier
        if self.handover.disowned:  # none of the others may overtake it
            return self._ask(Abandon(name, self.handover.disowned))
        if not self._sessions:
            return self._ask(Finish(name) if self._finishing_again else Done(name))
        if self._untold:
            return self._ask(Done(name, self.handover.returned))
        if self._leaving:
            if not self._tight:
                return self._tighten(tuple(self._sessions))
            return self._ask(Cancel(name))
        if not self._room:
            self._enter("watch", Watching(now + SIGN_OF_LIFE))
            return []
        flow = next(iter(self._room))
        reading = self._sessions[flow]
        if reading.kept or reading.whole:
            return self._tighten((flow,))
        limit = min(CHUNK, reading.lacking)
        return self._ask(Fetch(name, reading.session.session, reading.offset, limit))

    def _enter(self, event: StateEvent, state: State) -> None:
        self.state = TABLE.change(self.state, event, state)

    def _ask(self, value: Request634) -> list[Action]:
        asked = self._dialogue.ask(value, bulk=isinstance(value, Fetch | Finish))
        self._enter("ask", Asking(self._dialogue.last, value))
        return list(asked)

    def _tighten(self, flows: tuple[Flow, ...]) -> list[Action]:
        self._enter("freeze", Tightening(flows))
        return [Tighten(flows)]

    def _wait(self, now: float) -> list[Action]:
        self._enter("wait", Pausing(now + self._pause))
        self._pause = min(RETRY_MAX, 2 * self._pause)
        return []

    def _unanswered(self, value: Request634, now: float) -> list[Action]:
        if isinstance(value, Cancel):
            return self._unsure()
        if not self._sessions:
            self._attempts += 1
            if self._attempts >= END_ATTEMPTS:
                return self._end()
        return self._wait(now)

    def _answered(self, value: Request634, body: bytes, now: float) -> list[Action]:
        try:
            answer = decode_632(body)
        except WireError:
            return self._unanswered(value, now)
        if answer.status in (Status.BUSY, Status.LIMIT):
            return self._unanswered(value, now)
        self._pause = RETRY_FIRST
        match value:
            case Fetch():
                return self._fetched(value, answer, now)
            case Cancel():
                return self._rest() if answer.status is Status.OK else self._unsure()
            case Done(sessions=sessions) if sessions:
                self._untold = False
                return self._next(now)
            case Done() if answer.status is Status.WRONG_STATE and self._attempts < END_ATTEMPTS:
                # A stand-in that was started again meanwhile has to stop once more before it forgets.
                self._attempts += 1
                self._finishing_again = True
                return self._next(now)
            case Finish():
                self._finishing_again = False
                return self._next(now)
            case Abandon():
                self.handover = self.handover.disowned_told()
                return [self.handover.persist(), *self._next(now)]
        return self._end()

    def _fetched(self, value: Fetch, answer: Answer632, now: float) -> list[Action]:
        numbered = (
            flow for flow, session in self._sessions.items() if session.session.session == value.session
        )
        flow = next(numbered, None)
        if answer.status is Status.UNKNOWN_HANDOVER:
            return self._lose_all(now)
        if flow is None:
            return self._next(now)
        if answer.status is Status.REFUSED:
            return self._lose(flow, GONE_THERE, now)
        if answer.status is not Status.OK or not answer.data:
            return self._unsure()
        if flow not in self._room:  # a sign of life
            return self._next(now)
        self._sessions[flow] = replace(self._sessions[flow], kept=answer.data)
        return self._tighten((flow,))

    def _tightened(self, event: Tightened, now: float) -> list[Action]:
        for flow, position in event.positions:
            if position != self._sessions[flow].offset:
                self._sessions[flow] = replace(self._sessions[flow], offset=position, kept=b"")
        gone = [flow for flow in event.gone if not self._sessions[flow].whole]
        actions = [action for flow in gone for action in self._close(flow)]
        if self._leaving:
            self._tight = self._sessions.keys() <= set(event.flows)
            return [*actions, *(self._wait(now) if event.failures else self._next(now))]
        (flow,) = event.flows
        if flow in gone:
            return [*actions, *self._next(now)]
        if event.failures:
            return [*actions, *self._let_read(flow), *self._next(now)]
        if self._sessions[flow].whole:
            return [*actions, *self._complete(flow)]
        data = self._sessions[flow].kept
        self._sessions[flow] = replace(self._sessions[flow], kept=b"")
        self._enter("inject", Injecting(flow, data))
        return [*actions, InjectData(((flow, data),))]

    def _injected(self, flow: Flow, data: bytes, event: Injected, now: float) -> list[Action]:
        if event.failures:
            return self._lose(flow, event.failures[0].reason, now)
        if event.gone:
            return [*self._close(flow), *self._next(now)]
        taken = dict(event.taken)[flow]
        before = self._sessions[flow]
        self._sessions[flow] = replace(before, offset=before.offset + taken, kept=data[taken:])
        if self._sessions[flow].whole:
            return self._complete(flow)
        return [*self._let_read(flow), *self._next(now)]

    def _let_read(self, flow: Flow) -> list[Action]:
        self._room.pop(flow, None)
        if self._leaving:
            return []
        return [Loosen((flow,), self._sessions[flow].session.processes), WatchReading((flow,))]

    def _complete(self, flow: Flow) -> list[Action]:
        self._enter("complete", Completing(flow))
        # The socket's timestamp clock has been the stand-in's since the wake ended, and goes on.
        final = replace(final_of(flow, self._sessions[flow].final), timestamp=None)
        return [*set_flows((flow,), FlowVerdict.HOLD), FinishSessions((final,))]

    def _completed(self, flow: Flow, failures: tuple[SessionFailure, ...], now: float) -> list[Action]:
        session, error = self._sessions[flow].session, self._sessions[flow].final.error
        reason = failures[0].reason if failures else ended_by(error) if error else None
        self._tell(session, Fate.LOST if reason else Fate.RETURNED, reason)
        kind = "session-lost" if failures else "session-returned"
        told = Emit(kind, "632", flow.local, flow, {"reason": reason} if reason else {})
        self.handover = replace(self.handover, returned=(*self.handover.returned, session.session))
        self._drop(flow)
        self._untold = bool(self._sessions)
        thaw: list[Action] = [Thaw(session.processes)] if session.processes else []
        return [self.handover.persist(), *thaw, *released((flow,)), told, *self._next(now)]

    # Endings -----------------------------------------------------------------------------------------------------

    def _tell(self, session: AwaySession, fate: Fate, reason: str | None = None) -> None:
        self._report.tell(session.flow, fate, reason, session.processes, session.programs)

    def _drop(self, flow: Flow) -> None:
        self._sessions.pop(flow, None)
        self._room.pop(flow, None)
        self.handover = self.handover.without((flow,))
        if not self._sessions:
            self.handover = self.handover.at(Stage.RETURNED)

    def _end_one(self, flow: Flow) -> list[Action]:
        """End a session at both ends: the stand-in is told next."""
        session = self._sessions[flow].session
        self._drop(flow)
        self.handover = self.handover.disown((session.session,))
        thaw: list[Action] = [Thaw(session.processes)] if session.processes else []
        row = self.handover.persist()
        return [AbandonSessions((flow,)), row, *thaw, *released((flow,))]

    def _close(self, flow: Flow) -> list[Action]:
        """Close the session: its program has ended, and the peer gets a FIN or reset as usual."""
        self._tell(self._sessions[flow].session, Fate.CLOSED, CLOSED)
        told = Emit("session-closed", None, flow.local, flow, {"reason": CLOSED})
        return [*self._end_one(flow), told]

    def _lose(self, flow: Flow, reason: str, now: float) -> list[Action]:
        self._tell(self._sessions[flow].session, Fate.LOST, reason)
        told = Emit("session-lost", None, flow.local, flow, {"reason": reason})
        return [*self._end_one(flow), told, *self._next(now)]

    def _lose_all(self, now: float) -> list[Action]:
        """The stand-in knows nothing of them."""
        flows = tuple(self._sessions)
        for session in self._sessions.values():
            self._tell(session.session, Fate.LOST, GONE_THERE)
        actions = abandoned(self.handover, GONE_THERE)
        for flow in flows:
            self._drop(flow)
        return [*actions, *self._end()]

    def _rest(self) -> list[Action]:
        # The stand-in has forgotten those that are back, and may use their numbers for others.
        self.handover = replace(self.handover.at(Stage.ASLEEP), loose=False, returned=())
        self._enter("end", Ended())
        self.result = Rests(self.handover)
        return [StopAnswering(self.handover.flows), self.handover.persist()]

    def _unsure(self) -> list[Action]:
        self.handover = self.handover.at(Stage.WAKING)
        self._enter("end", Ended())
        self.result = Unsure(replace(self.handover, loose=not self._tight))
        return []

    def _end(self) -> list[Action]:
        self._enter("end", Ended())
        self.result = Back()
        return [self.handover.forget(), Emit("all-back", "632", self._home_address)]


def _about(event: Injected, flow: Flow) -> bool:
    told = (*(moved for moved, _ in event.taken), *(failure.flow for failure in event.failures), *event.gone)
    return told == (flow,)


def _only(action: FinishSessions, flow: Flow) -> bool:
    return [final.flow for final in action.finals] == [flow]
