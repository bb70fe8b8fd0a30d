"""WAKE at the mobile node: reclaim, fetch in rounds, return, finish (C3, A12; messages 601-604, 634, 632).

The stand-in goes on receiving until `Finish`; up to then everything can be repeated or undone. Programs are frozen only
while something happens: one that waits too long for the network or the stand-in runs, with its flows suspended, and is
frozen again when there is something to put back. It must not know how sessions are put back or packets held.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.sessions import (
    AnswerPeers,
    Drained,
    Finished,
    FinishSessions,
    Injected,
    Loosen,
    NotPerformed,
    Thaw,
    Tighten,
    Tightened,
)
from locum.roles.actions import Action, Answered, Emit, Event, NoAnswer
from locum.roles.app_results import plain, results
from locum.roles.flow_rows import set_flows
from locum.roles.mobile_node.handover import Handover, Stage, StandInDialogue
from locum.roles.mobile_node.wake.closing import Closing
from locum.roles.mobile_node.wake.course import RETRY_FIRST, Course
from locum.roles.mobile_node.wake.data_moves import DataMoves
from locum.roles.mobile_node.wake.newcomers import Newcomers
from locum.roles.mobile_node.wake.programs import Programs
from locum.roles.mobile_node.wake.receiving import Receiving, released
from locum.roles.mobile_node.wake.rest import Rest
from locum.roles.mobile_node.wake.rounds import Rounds
from locum.roles.mobile_node.wake.states import (
    Arriving,
    Asking,
    AwaitingAccepted,
    Awake,
    Completing,
    Ended,
    Fetching,
    GivenUp,
    Pausing,
    Returning,
    State,
    StillAsleep,
    abandoned,
    final_of,
)
from locum.roles.mobile_node.wake.step_results import step_result
from locum.roles.mobile_node.wake.still_away import StillAway
from locum.roles.paging.stored_events import EVENTS
from locum.roles.registrant.attachment import Outcome, RegistrationAccepted, RegistrationTarget
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire.control import (
    Answer632,
    Cancel,
    Done,
    Finish,
    Flow,
    Reclaim,
    Request634,
    Status,
    decode_632,
)
from locum.wire.errors import WireError


class Waking:
    """One return. `uncertain`: the stand-in may never have had the sessions.

    Of a handover in stage RETURNED only the stand-in has to be told: `closing.tell`, or after a restart `closing.tell_again`.
    """

    def __init__(
        self,
        mobile: RegistrationClient,
        dialogue: StandInDialogue,
        handover: Handover,
        *,
        uncertain: bool = False,
    ) -> None:
        if handover.stage is not Stage.RETURNED:
            handover = handover.at(Stage.LEAVING if uncertain else Stage.WAKING)
        self._away = StillAway(dialogue, handover)
        self._bytes = self._away.bytes
        self.progress, self.report = self._away.progress, self._away.report
        self._course = Course(mobile, dialogue, self._away)
        self._programs = Programs(mobile, self._course, self._away)
        self._moves = DataMoves(self._course, self._programs, self._away)
        self._rounds = Rounds(self.progress, mobile.configuration)
        self._mobile = mobile
        self._dialogue = dialogue
        self._uncertain = uncertain
        self._placed = False  # the kernel has told how much each socket has
        self._rest: Rest | None = None
        homes = mobile.configuration.home_addresses
        receiving = Receiving(dialogue, handover.identifier, homes, handover.returned)
        self._newcomers = Newcomers(receiving, self._away)
        self.closing = Closing(self._course, self._newcomers, self._away)
        self._held = False  # the flows' packets wait here
        self._finishing = False
        # Keeps the states and results of the proxies (1079); called with steady seconds.
        self.returned: Callable[[Mapping[str, object], float], list[Action]] = lambda _application, _now: []

    @property
    def state(self) -> State:
        """Return the state of the wake."""
        return self._course.state

    @property
    def result(self) -> Awake | StillAsleep | GivenUp | None:
        """Return how the wake has ended; None: it goes on."""
        return self._course.result

    @property
    def handover(self) -> Handover:
        """Its row, as it is now."""
        return self._away.handover

    def _note(self, handover: Handover) -> list[Action]:
        """From now on this is its row."""
        self._away.handover = handover
        return [handover.persist()]

    def start(self, *, now: float) -> list[Action]:
        """Step 1: become reachable, while the stand-in keeps the flows. A device that is awake is."""
        self._programs.wait(now)
        actions: list[Action] = [
            self.handover.persist(),
            *set_flows((*self.handover.flows, *self.handover.accepted), FlowVerdict.SUSPEND),
        ]
        if self.handover.given:
            return [*actions, *self._course.ask(self._course.reclaim())]
        return [*actions, *self._mobile.set_target(self._reachable, now=now)]

    @property
    def stranded(self) -> bool:
        """The programs run while the wake waits for the network or the stand-in."""
        return self._programs.stranded

    def outcome(self, outcome: Outcome, *, now: float) -> list[Action]:
        """Handle the registration's outcome; the mobile node itself handles refusals and lost links."""
        match self.state, outcome:
            case Arriving(), RegistrationAccepted(target=target) if target is self._reachable:
                self._programs.wait(now)
                return self._course.ask(self._course.reclaim())
            case Returning(), RegistrationAccepted(target=RegistrationTarget.ORDINARY):
                self._programs.wait(now)
                return self._finish()
        return []

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Handle results of the current step; late ones are ignored."""
        if (received := self._newcomers.happened(event)) is not None:
            return self._come(received, now)
        match self.state, event:
            case Asking(request, value), Answered() if event.request == request:
                self._programs.wait(now)
                return self._answered(value, event.body, now)
            case Asking(request, value), NoAnswer() if event.request == request:
                return self._unanswered(value, event.reason, now)
            case _, Answered() if event.request in self._bytes:
                self._programs.wait(now)
                return self._fetched(event, now)
            case _, NoAnswer() if event.request in self._bytes:
                return self._not_fetched(event.reason, now)
            case _:
                return self._performed(event, now)

    def _performed(self, event: Event, now: float) -> list[Action]:
        match step_result(self.state, event):
            case Tightened() as result:
                return self._tightened(result, now)
            case Injected() as result:
                return self._injected(result, now)
            case Drained() as result:
                return self._drained(result, now)
            case Finished() as result:
                return self._completed(result, now)
            case NotPerformed():
                self._course.enter("not frozen", Pausing(now + RETRY_FIRST, None))
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again; let programs run that have waited long enough."""
        actions = self._programs.timeout(now)
        if isinstance(self.state, Pausing) and self.state.retry_at <= now:
            value = self.state.value
            actions += self._programs.tighten() if value is None else self._course.ask(value)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        retry_at = self.state.retry_at if isinstance(self.state, Pausing) else None
        return min((at for at in (retry_at, self._programs.deadline()) if at is not None), default=None)

    def call_off(self, *, now: float) -> list[Action]:
        """Sleep again, if the stand-in was not told to stop; else the return goes on."""
        if self._uncertain or self._finishing or isinstance(self.state, Completing | Ended | Returning):
            return []
        if self.handover.returned:  # these live here: no stand-in would answer their peers
            return []
        asked = (
            [] if isinstance(self.state, Arriving) else self._dialogue.ask(Cancel(self.handover.identifier))
        )
        frozen: list[Action] = [Tighten(self.handover.flows)] if self._programs.loose else []
        frozen += self._newcomers.forget()
        noted = self._note(replace(self.handover.at(Stage.ASLEEP), loose=False))
        self._course.end(StillAsleep(self.handover))
        quiet = [] if self.handover.given else self._mobile.set_target(RegistrationTarget.NOTHING, now=now)
        return [*frozen, *noted, *asked, *quiet]

    def abandon(self, *, now: float) -> list[Action]:
        """Give up: the programs' connections are reset, and the device is awake."""
        if isinstance(self.state, Ended) or self.handover.stage is Stage.RETURNED:
            return []
        self._away.lose_all("the sessions were given up")
        forgotten = self._newcomers.forget()
        noted = self._note(self.handover.at(Stage.ABANDONED))
        self._course.end(GivenUp(self.handover))
        return [
            *noted,
            *abandoned(self.handover, "the sessions were given up"),
            *forgotten,
            *self._ordinary(now),
        ]

    @property
    def _reachable(self) -> RegistrationTarget:
        """Actions that open the path to the stand-in, without taking the flows from it."""
        return RegistrationTarget.BRIEF if self._gives_way else RegistrationTarget.ORDINARY

    @property
    def _gives_way(self) -> bool:
        """True if an ordinary registration of the device would take flows from the stand-in."""
        return not self.handover.given and self._mobile.gives_way(self.handover.switch)

    def _ordinary(self, now: float) -> list[Action]:
        return (
            []
            if self._mobile.target is RegistrationTarget.ORDINARY
            else self._mobile.set_target(RegistrationTarget.ORDINARY, now=now)
        )

    def _tightened(self, event: Tightened, now: float) -> list[Action]:
        self._programs.loose, self._placed = False, True
        self.progress.place(event.positions, event.gone)
        for failure in event.failures:
            self.progress.pass_over(failure.flow)
        actions: list[Action] = []
        if self._held:
            actions += set_flows(self.handover.flows, FlowVerdict.HOLD)
        if self._finishing:
            self._bytes.add_tails()
            return [*actions, *self._next(now)]
        return [*actions, *self._measured(now)]

    # Step 2: reclaim and pre-copy --------------------------------------------------------------------------------

    def _unanswered(self, value: Request634, reason: str, now: float) -> list[Action]:
        closing = self.handover.stage is Stage.RETURNED
        return (self.closing if closing else self._course).unanswered(value, reason, now)

    def _answered(self, value: Request634, body: bytes, now: float) -> list[Action]:
        try:
            answer = decode_632(body)
        except WireError as error:
            return self._unanswered(value, str(error), now)
        if self.handover.stage is Stage.RETURNED:
            return self.closing.answered(value, answer, now)
        if answer.status in (Status.BUSY, Status.LIMIT):
            return self._unanswered(value, answer.status.name.lower(), now)
        self._course.answered()
        match value:
            case Done() if answer.status is Status.WRONG_STATE:
                return self._unanswered(value, answer.status.name.lower(), now)
            case Done():
                self._course.untold = False
                return self._course.ask(self._course.reclaim())
            case Reclaim():
                return self._reclaimed(answer, now)
            case Finish():
                return self._finished(answer, now)
        return []

    def _reclaimed(self, answer: Answer632, now: float) -> list[Action]:
        if answer.status is not Status.OK:
            return self._nothing_there(answer.status, now)
        held = {session.flow: session for session in answer.sessions if session.status is Status.OK}
        missing = [flow for flow in self.handover.flows if flow not in held]
        reasons = {session.flow: session.reason for session in answer.sessions if session.reason}
        actions = self._away.give_up(missing, reasons, stays=self._uncertain)
        if self._uncertain or missing:
            self._uncertain = False
            actions += self._note(self.handover.at(Stage.WAKING))
        actions += self._newcomers.announced(answer)
        self._away.number({flow: set_flow.session for flow, set_flow in held.items()})
        actions += self._told_by_apps(answer, now)
        self._programs.spoken = {flow: session.spoken for flow, session in held.items()}
        self._programs.surplus = {flow: session.surplus for flow, session in held.items()}
        self.progress.aim({flow: set_flow.total for flow, set_flow in held.items()})
        if self._programs.loose or not self._placed:
            return [*actions, *self._programs.tighten()]
        return [*actions, *self._measured(now)]

    def _told_by_apps(self, answer: Answer632, now: float) -> list[Action]:
        """Results of the proxies, told once in a wake (1079), and events that were stored, also later ones."""
        if not answer.application:
            return []
        if self._programs.spoken is not None:
            return self.returned({EVENTS: answer.application.get(EVENTS, [])}, now)
        home_address = self._mobile.configuration.home_address
        told: list[Action] = [
            Emit("app-result", "632", home_address, None, {"app": name, "result": plain(result)})
            for name, result in results(answer.application).items()
        ]
        return [*self.returned(answer.application, now), *told]

    def _measured(self, now: float) -> list[Action]:
        """It is known how much is there, and how much here: fetch it, or return when it is little."""
        if not self._rounds.begin() and not self._rounds.go_beyond():
            return self._return(now)
        self._bytes.start_over()  # session numbers may be others now
        return self._next(now)

    def _nothing_there(self, status: Status, now: float) -> list[Action]:
        """The stand-in does not have them: it never took them, or it has lost them."""
        cancel: list[Action] = []
        if status is not Status.UNKNOWN_HANDOVER:
            cancel = list(self._dialogue.ask(Cancel(self.handover.identifier)))
        actions = cancel + self._away.give_up(self.handover.flows, {}, stays=self._uncertain)
        actions += self._newcomers.forget()
        home_address = self._mobile.configuration.home_address
        actions.append(Emit("nothing-to-reclaim", "632", home_address, None, {"status": status.name.lower()}))
        return actions + self._awake((), now)

    def _next(self, now: float) -> list[Action]:
        """Inject data while more is fetched; without either: let programs read, measure again."""
        if (moves := self._moves.step()) is not None:
            return moves
        if self._finishing:
            return self._conclude(now)
        if self.progress.full:
            return self._moves.drain(self.progress.full)
        if reading := self._rounds.readers():
            return self._moves.drain(reading)
        return self._course.ask(self._course.reclaim())

    def _fetched(self, event: Answered, now: float) -> list[Action]:
        if (reason := self._bytes.keep(event)) is not None:
            return self._not_fetched(reason, now)
        return self._next(now) if isinstance(self.state, Fetching) else []

    def _not_fetched(self, reason: str, now: float) -> list[Action]:
        """Data is not at the expected place: reclaim from the beginning."""
        self._bytes.start_over()
        if not isinstance(self.state, Fetching):
            return []
        again = Finish(self.handover.identifier) if self._finishing else self._course.reclaim()
        return self._unanswered(again, reason, now)

    def _injected(self, event: Injected, now: float) -> list[Action]:
        return [*self._moves.injected(event), *self._next(now)]

    def _drained(self, event: Drained, now: float) -> list[Action]:
        self._moves.drained(event, now)
        return self._next(now)

    # Steps 3 and 4: return and finish ----------------------------------------------------------------------------

    def _return(self, now: float) -> list[Action]:
        """Packets wait here once the home agent switches: by our registration, or by the stand-in's (R4)."""
        self._held = True
        self._programs.wait(now)
        held = set_flows(self.handover.flows, FlowVerdict.HOLD)
        if not self._gives_way:
            return [*held, *self._finish()]
        self._course.enter("return", Returning())
        return [*held, *self._mobile.set_target(RegistrationTarget.ORDINARY, now=now)]

    def _finish(self) -> list[Action]:
        """604 is here: new packets come to this host, and those to the stand-in precede our request.

        A stand-in that has registered makes the switch itself, and waits for its 604 likewise.
        """
        self._finishing = True
        self.progress.try_again()
        return self._course.ask(Finish(self.handover.identifier))

    def _finished(self, answer: Answer632, now: float) -> list[Action]:
        if answer.status is not Status.OK:
            return self._nothing_there(answer.status, now)
        by_number = {state.session: state for state in answer.final}
        finals = {
            session.flow: by_number[session.session]
            for session in self.handover.sessions
            if session.session in by_number
        }
        self._bytes.stopped(finals)
        actions = self._newcomers.begin(answer)
        missing = [flow for flow in self.handover.flows if flow not in finals]
        actions += self._away.give_up(missing, {}, stays=self._uncertain)
        self.progress.aim({flow: final.received for flow, final in finals.items()})
        if self._programs.loose:
            return [*actions, *self._programs.tighten()]
        self._bytes.add_tails()
        return [*actions, *self._next(now)]

    def _conclude(self, now: float) -> list[Action]:
        """Without more data to put back: give back complete sessions, let the others read."""
        actions = self._away.closed() if self.progress.gone else []
        if ready := self.progress.complete:
            return [*actions, *(self._programs.tighten() if self._programs.loose else self._complete(ready))]
        if not self.progress.behind:
            return [*actions, *self._awake((), now)]
        if self.progress.full:
            return [*actions, *self._moves.drain(self.progress.full)]
        if self._rounds.go_beyond():
            return [*actions, *self._next(now)]
        return [*actions, *self._leave_rest(now)]

    def _end_with(self, rest: Rest) -> None:
        """The wake has ended, unless connections that the stand-in accepted are still to come."""
        if self._newcomers.busy:
            self._course.enter("await accepted", AwaitingAccepted())
        else:
            self._course.end(Awake(self._away.lost, replace(rest, handover=self.handover)))

    def _leave_rest(self, now: float) -> list[Action]:
        """Leave sessions with programs that do not read: they delay neither the wake nor a sleep."""
        if self._programs.loose:
            return self._programs.tighten()
        flows = self.handover.flows
        self._programs.loose = True
        noted = self._note(replace(self.handover.at(Stage.COMING), given=True, loose=True, coming=True))
        self._rest = self._away.rest()
        self._end_with(self._rest)
        return [
            *noted,
            *set_flows(flows, FlowVerdict.SUSPEND),
            AnswerPeers(tuple(final_of(flow, self.progress.final(flow)) for flow in flows)),
            Loosen(flows, self.handover.processes),
            *self._away.come_later(),
            *self._ordinary(now),
        ]

    def _complete(self, flows: tuple[Flow, ...]) -> list[Action]:
        self._course.enter("complete", Completing(flows))
        return [FinishSessions(tuple(final_of(flow, self.progress.final(flow)) for flow in flows))]

    def _completed(self, event: Finished, now: float) -> list[Action]:
        flows = event.flows
        told = self._away.came(flows, event)
        if not self.handover.sessions:
            return [*self._awake(flows, now), *told]
        free = self._away.unbind()
        thaw: list[Action] = [Thaw(free)] if free else []
        return [self.handover.persist(), *thaw, *released(flows), *told, *self._next(now)]

    # Step 5 ------------------------------------------------------------------------------------------------------

    def _awake(self, flows: tuple[Flow, ...], now: float) -> list[Action]:
        """Write the row, then run the programs: a restarted daemon must not take running sessions for captured."""
        thaw: list[Action] = [Thaw(self.handover.processes)] if self.handover.processes else []
        noted = self._note(self.handover.at(Stage.RETURNED))
        actions: list[Action] = [*noted, *thaw, *released(flows)]
        return [*actions, *self._ordinary(now), *self.closing.tell()]

    def _come(self, received: list[Action], now: float) -> list[Action]:
        """A connection that the stand-in accepted has come, or will not: the end may have waited for it."""
        self._programs.wait(now)
        if isinstance(self.state, AwaitingAccepted) and not self._newcomers.busy:
            if self._rest is None:
                return [*received, *self.closing.tell()]
            self._end_with(self._rest)
        return received
