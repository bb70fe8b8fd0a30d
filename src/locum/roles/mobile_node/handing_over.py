"""SLEEP at the mobile node: prepare, leave, capture, transfer (C2, A12; messages 634, 632, 601-604).

It ends in `result`. It moves the target of the mobile node, and must not know how sessions are captured or forwarded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.forwarding import ClearFlow, FlowVerdict, ReleaseHeld
from locum.roles.action_values.sessions import (
    Capture,
    Captured,
    FindSessions,
    Freeze,
    FreezeFailed,
    LeftSession,
    NotPerformed,
    Process,
    ReleaseCaptured,
    SessionsFound,
    Thaw,
)
from locum.roles.actions import Action, Answered, Emit, Event, NoAnswer
from locum.roles.flow_rows import set_flows
from locum.roles.mobile_node.departing import Choice, Departure, choose, told
from locum.roles.mobile_node.fitting import TOO_LARGE, fitting
from locum.roles.mobile_node.handing_over_states import (
    TABLE,
    Capturing,
    Ended,
    Extending,
    Finding,
    Gathering,
    Leaving,
    NotSlept,
    Preparing,
    Slept,
    State,
    Telling,
    Transferring,
    Uncertain,
)
from locum.roles.mobile_node.handover import AwaySession, Handover, Stage, StandInDialogue
from locum.roles.registrant.attachment import (
    Outcome,
    RegistrationAccepted,
    RegistrationDenied,
    RegistrationTarget,
)
from locum.roles.registrant.registrant import RegistrationClient
from locum.roles.session_report import Fate, Report
from locum.wire.control import (
    HANDOVER_BYTES,
    Answer632,
    Cancel,
    Flow,
    SessionStatus,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
)
from locum.wire.errors import WireError

MANY_FLOWS = 40  # in a prepare; more of them make a body of several blocks, which a stream carries better
MAX_GENERATIONS = 32  # looks for programs that were started while others were being frozen
LEAVE_TIMEOUT = 12.0  # seconds for 601-604; three retransmissions of RFC 5944 section 3.6.3 (1 + 2 + 4) fit


class FallingAsleep:
    """One attempt to hand sessions over: all of them to sleep, or some (`locum give`)."""

    def __init__(
        self,
        mobile: RegistrationClient,
        dialogue: StandInDialogue,
        departure: Departure,
        randomness: Randomness,
    ) -> None:
        identifier = randomness.getrandbits(8 * HANDOVER_BYTES).to_bytes(HANDOVER_BYTES, "big")
        self.state: State = Finding()
        self.result: Slept | Uncertain | NotSlept | None = None
        self.handover = Handover(
            identifier,
            Stage.PREPARING,
            stand_in=departure.stand_in,
            switch=departure.switch,
            given=departure.given,
            boot=mobile.configuration.boot,
            attended=bool(departure.configuration),
            order=departure.order,
        )
        self.report = Report()
        self._staying: dict[Flow, LeftSession] = {}
        self._refused: dict[Flow, str] = {}
        self.refused_orders: dict[str, str] = {}  # by name: the stand-in's reason
        self._unfrozen: dict[Process, str] = {}
        self._asked_for: dict[Flow, None] = {}  # in a prepare, in this order
        self._agreed: tuple[Flow, ...] = ()  # asked for in the first prepare, which was answered
        self._mobile = mobile
        self._dialogue = dialogue
        self._departure = departure

    def start(self) -> list[Action]:
        """Step 0: find the sessions to hand over."""
        return [FindSessions(self._home_addresses)]

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Handle results of the current step; late ones are ignored."""
        match self.state, event:
            case Finding(), SessionsFound():
                return self._prepare(event, now)
            case Preparing(request), Answered() if event.request == request:
                return self._prepared(event.body, now)
            case Preparing(request), NoAnswer() if event.request == request:
                return self._undo(f"the stand-in did not answer: {event.reason}")
            case Gathering(), FreezeFailed():
                self._unfrozen |= event.reasons
            case Extending(request), Answered() if event.request == request:
                return self._extended(event.body, now)
            case Extending(request), NoAnswer() if event.request == request:
                return self._undo(f"the stand-in did not answer: {event.reason}", now=now)
            case Gathering(generation), SessionsFound():
                return self._gathered(event, generation, now)
            case Capturing(), Captured():
                return self._captured(event, now)
            case Finding() | Gathering() | Capturing(), NotPerformed():
                return self._undo(event.reason, now=now)
            case Transferring(request), Answered() if event.request == request:
                return self._transferred(event.body, now)
            case Transferring(request), NoAnswer() if event.request == request:
                return self._uncertain(f"the stand-in did not answer: {event.reason}")
        return []

    def outcome(self, outcome: Outcome, *, now: float) -> list[Action]:
        """Handle the registration's outcome."""
        if not isinstance(self.state, Leaving):
            return []
        match outcome:
            case RegistrationAccepted(target=RegistrationTarget.BRIEF):
                return (
                    self._gather(self.handover.processes, 1)
                    if self.handover.processes
                    else self._capture(now)
                )
            case RegistrationDenied():
                return self._undo(f"the home agent or access node refused with code {outcome.code}", now=now)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """No answer to the registration."""
        if isinstance(self.state, Leaving) and self.state.give_up_at <= now:
            return self._undo("the registration was not answered", now=now)
        return []

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self.state.give_up_at if isinstance(self.state, Leaving) else None

    def cancel(self, *, now: float) -> bool:
        """True if the attempt can still be undone; then `undo` does it."""
        return isinstance(self.state, Finding | Telling | Preparing | Leaving)

    def undo(self, reason: str, *, now: float) -> list[Action]:
        """Give up before anything was captured."""
        return self._undo(reason, now=now)

    @property
    def _gives_way(self) -> bool:
        """True if the device's own registration must get very short; `given`: it stays unchanged."""
        departure = self._departure
        return not departure.given and (departure.brief or self._mobile.gives_way(departure.switch))

    @property
    def orders(self) -> frozenset[str]:
        """Names of the orders that the stand-in is asked to run."""
        return self._departure.orders

    # Steps -------------------------------------------------------------------------------------------------------

    @property
    def _home_addresses(self) -> tuple[Addr, ...]:
        return self._mobile.configuration.home_addresses

    def _prepare(self, found: SessionsFound, now: float) -> list[Action]:
        """Step 1: the stand-in holds the packets of these flows."""
        choice = self._choose(found)
        if self._departure.given and not self._departure.order:
            if not choice.going:
                return self._undo(_first_reason(choice) or "there is no such session", now=now)
            for session in choice.going:
                if (reason := self._departure.stays(session.flow)) is not None:
                    return self._undo(reason, now=now)
        self._take(choice)
        self.handover = replace(self.handover, processes=_processes(self.handover.sessions))
        told = self._announce(now)
        if told and not self._departure.announcing.may_go:
            self.state = TABLE.change(self.state, "tell", Telling())
            return told
        return [*told, *self._begin_prepare()]

    def _begin_prepare(self) -> list[Action]:
        asked = self._ask_prepare()
        self.state = TABLE.change(self.state, "prepare", Preparing(self._dialogue.last))
        return [self.handover.persist(), *asked]

    def _announce(self, now: float) -> list[Action]:
        """Tell others which flows go as far as is known; nothing if they know."""
        return self._departure.announcing.go(
            self.handover.flows, self._staying, self._departure.stand_in, now
        )

    @property
    def may_go_on(self) -> bool:
        """True if those who were told have answered; then `go_on` does it."""
        return isinstance(self.state, Telling) and self._departure.announcing.may_go

    def go_on(self, *, now: float) -> list[Action]:
        """The step after telling others."""
        assert isinstance(self.state, Telling)
        return self._leave(self.state.access_node, now) if self.state.prepared else self._begin_prepare()

    def _choose(self, found: SessionsFound) -> Choice:
        return choose(
            self._departure, self._home_addresses, found, refused=self._refused, unfrozen=self._unfrozen
        )

    def _take(self, choice: Choice) -> None:
        """Set the sessions of the handover; connections that have ended meanwhile are left out."""
        self._staying = {session.flow: session for session in choice.staying}
        sessions = tuple(
            AwaySession(number, session.flow, session.processes, session.programs)
            for number, session in enumerate(choice.going)
        )
        self.handover = replace(self.handover, sessions=sessions)

    def _ask_prepare(self) -> list[Action]:
        """Also for more flows than before: a prepare that is repeated names all that were ever asked for."""
        departure, attachment = self._departure, self._mobile.attachment
        self._asked_for |= dict.fromkeys(self.handover.flows)
        request = TakeoverPrepare(
            self.handover.identifier,
            self._home_addresses,
            tuple(self._asked_for),
            departure.configuration,
            departure.switch,
            None
            if attachment is None or attachment.colocated or departure.switch is None
            else attachment.care_of,
            () if departure.given else self._mobile.configuration.listeners,
        )
        return list(self._dialogue.ask(request, bulk=len(self._asked_for) > MANY_FLOWS))

    def _prepared(self, body: bytes, now: float) -> list[Action]:
        answer = _answer(body)
        if answer is not None and answer.app in self._departure.orders and answer.status is Status.REFUSED:
            return self._leave_out(answer.app, answer.reason)
        if answer is None or answer.status is not Status.OK:
            return self._undo(f"the stand-in refused: {_said(answer)}")
        self._agreed = tuple(self._asked_for)
        self._refuse(answer)
        self.handover = replace(self.handover.at(Stage.LEAVING), processes=_processes(self.handover.sessions))
        if self._departure.given and not self._departure.order and not self.handover.sessions:
            return self._undo("the stand-in refused every session", now=now)
        told = self._announce(now)
        if not self._gives_way:
            # The home agent switched before the stand-in answered, and this answer came behind all it sent before.
            return [*told, self.handover.persist(), *self._gather(self.handover.processes, 1)]
        if told and self._departure.switch is None and not self._departure.announcing.may_go:
            self.state = TABLE.change(self.state, "tell", Telling(True, answer.access_node))
            return told
        return [*told, *self._leave(answer.access_node, now)]

    def _leave(self, access_node: Addr | None, now: float) -> list[Action]:
        self.state = TABLE.change(self.state, "leave", Leaving(now + LEAVE_TIMEOUT))
        if self._departure.switch is None:  # else the stand-in's registration brings the context
            self._mobile.movement.store_at(access_node)
        # The row says LEAVING before the home agent can have switched.
        return [self.handover.persist(), *self._mobile.set_target(RegistrationTarget.BRIEF, now=now)]

    def _leave_out(self, order: str, reason: str) -> list[Action]:
        """The stand-in cannot run this order: the sleep goes on without it."""
        self.refused_orders[order] = reason
        if self._departure.order:
            return self._undo(reason)
        self._departure = self._departure.without(order)
        self.handover = replace(self.handover, attended=bool(self._departure.configuration))
        asked = self._ask_prepare()
        self.state = TABLE.change(self.state, "prepare", Preparing(self._dialogue.last))
        return [self.handover.persist(), *asked]

    def _refuse(self, answer: Answer632) -> None:
        """Sessions that the stand-in does not take stay."""
        refused = {
            session.flow: refusal(session) for session in answer.sessions if session.status is not Status.OK
        }
        self._refused |= refused
        self._stay_for(refused)

    def _stay_for(self, reasons: Mapping[Flow, str]) -> None:
        for session in self.handover.sessions:
            if (reason := reasons.get(session.flow)) is not None:
                self._staying[session.flow] = LeftSession(
                    session.flow, reason, session.pids, session.programs
                )
        self.handover = self.handover.without(reasons)

    def _gather(self, processes: tuple[Process, ...], generation: int) -> list[Action]:
        """Step 3: 604 is here, so every packet that was sent to this host has arrived (the links are FIFO)."""
        self.state = TABLE.change(self.state, "freeze", Gathering(generation))
        freeze: list[Action] = [Freeze(processes)] if processes else []
        return [*freeze, FindSessions(self._home_addresses, again=True)]

    def _gathered(self, found: SessionsFound, generation: int, now: float) -> list[Action]:
        """Freeze new holders: a program may have forked since it was found, or opened connections."""
        self._take(self._choose(found))
        frozen = frozenset(self.handover.processes)
        new = tuple(process for process in _processes(self.handover.sessions) if process not in frozen)
        if new:
            if generation >= MAX_GENERATIONS:
                return self._undo("programs start others faster than they can be frozen", now=now)
            self.handover = replace(self.handover, processes=(*self.handover.processes, *new))
            return [self.handover.persist(), *self._gather(new, generation + 1)]
        if self._asked_for.keys() >= set(self.handover.flows):
            return self._capture(now)
        asked = self._ask_prepare()
        self.state = TABLE.change(self.state, "extend", Extending(self._dialogue.last))
        return [self.handover.persist(), *asked]

    def _extended(self, body: bytes, now: float) -> list[Action]:
        """The stand-in holds the packets of the newcomers as well; if it does not, they alone stay."""
        answer = _answer(body)
        if answer is not None and answer.status is Status.OK:
            self._refuse(answer)
        else:
            agreed = set(self._agreed)
            reason = (
                f"it was opened while the device fell asleep, and the stand-in refused it: {_word(answer)}"
            )
            self._stay_for({flow: reason for flow in self.handover.flows if flow not in agreed})
        return [self.handover.persist(), *self._capture(now)]

    def _capture(self, now: float) -> list[Action]:
        told = self._announce(now)  # of newcomers: the answer may find no way back
        self.state = TABLE.change(self.state, "capture", Capturing())
        return [*told, *set_flows(self.handover.flows, FlowVerdict.SUSPEND), Capture(self.handover.flows)]

    def _captured(self, captured: Captured, now: float) -> list[Action]:
        failed = {failure.flow: failure.reason for failure in captured.failures}
        items, too_large = fitting(captured.records)
        there = {item.flow for item in items}
        missing = [flow for flow in self.handover.flows if flow not in there]
        self._stay_for({flow: failed.get(flow, TOO_LARGE) for flow in missing})
        before = {session.flow: session for session in self.handover.sessions}
        sessions = tuple(replace(before[item.flow], session=n) for n, item in enumerate(items))
        self.handover = replace(self.handover, sessions=sessions)
        asked = self._dialogue.ask(
            TakeoverTransfer(
                self.handover.identifier,
                tuple(item.record for item in items),
                self._departure.application,
                self._departure.others,
            ),
            bulk=True,
        )
        self.state = TABLE.change(self.state, "transfer", Transferring(self._dialogue.last))
        actions: list[Action] = [ReleaseCaptured(too_large)] if too_large else []
        actions += [*self._keep(missing), *self._announce(now)]
        freed = self._free()
        return [*actions, self.handover.persist(), *freed, *asked]

    def _free(self) -> list[Action]:
        """Processes without a session that goes run on; the handover names the others."""
        needed = _processes(self.handover.sessions)
        known = frozenset(needed)
        free = tuple(process for process in self.handover.processes if process not in known)
        self.handover = replace(self.handover, processes=needed)
        return [Thaw(free)] if free else []

    def _transferred(self, body: bytes, now: float) -> list[Action]:
        answer = _answer(body)
        if answer is None:
            return self._uncertain("the stand-in's answer is malformed")
        if answer.status is Status.BUSY:
            return self._uncertain("the stand-in is still at it")
        if answer.status is not Status.OK:
            released: list[Action] = [ReleaseCaptured(self.handover.flows)] if self.handover.flows else []
            return [*released, *self._undo(f"the stand-in refused: {_word(answer)}", now=now)]
        refused = {
            session.flow: refusal(session) for session in answer.sessions if session.status is not Status.OK
        }
        actions: list[Action] = []
        if refused:
            actions += [ReleaseCaptured(tuple(refused)), *self._keep(refused)]
            self._stay_for(refused)
            actions += self._announce(now)
        freed = self._free()
        self.handover = self.handover.at(Stage.ASLEEP)
        self.state, self.result = TABLE.change(self.state, "end", Ended()), Slept(self.handover)
        quiet = [] if self._departure.given else self._mobile.set_target(RegistrationTarget.NOTHING, now=now)
        return [*actions, self.handover.persist(), *freed, *self._reports(), *quiet]

    # Endings -----------------------------------------------------------------------------------------------------

    def _uncertain(self, reason: str) -> list[Action]:
        self.state = TABLE.change(self.state, "end", Ended())
        self.result = Uncertain(self.handover, reason)
        return [self.handover.persist()]

    def _undo(self, reason: str, *, now: float | None = None) -> list[Action]:
        """Back to where it began: the stand-in forgets, the home agent gets the full lifetime again."""
        left = self._gives_way and not isinstance(self.state, Finding | Telling | Preparing)
        actions: list[Action] = []
        if not isinstance(self.state, Finding) and self.state != Telling():
            actions += self._dialogue.ask(Cancel(self.handover.identifier))
        if isinstance(self.state, Capturing) and self.handover.flows:
            actions.append(ReleaseCaptured(self.handover.flows))
        if isinstance(self.state, Capturing | Transferring):
            actions += self._keep(self.handover.flows)
        if (
            isinstance(self.state, Gathering | Extending | Capturing | Transferring)
            and self.handover.processes
        ):
            actions.append(Thaw(self.handover.processes))
        self.state, self.result = TABLE.change(self.state, "undo", Ended()), NotSlept(reason)
        actions.append(self.handover.forget())
        if left and now is not None:
            actions += self._mobile.set_target(RegistrationTarget.ORDINARY, now=now)
        return actions

    def _keep(self, flows: Iterable[Flow]) -> list[Action]:
        """These flows remain this host's."""
        listed = tuple(flows)
        addresses = dict.fromkeys(flow.local for flow in listed)
        return [*(ClearFlow(flow) for flow in listed), *(ReleaseHeld(address) for address in addresses)]

    def _reports(self) -> list[Action]:
        """The fate of each session, and an event for each that stays."""
        for session in self.handover.sessions:
            self.report.tell(session.flow, Fate.WENT, None, session.processes, session.programs)
        frozen = {process.pid for process in self.handover.processes}
        actions: list[Action] = []
        for left in self._staying.values():
            fate = told(left, frozen)
            self.report.note(fate)
            detail: dict[str, JSON] = {"reason": fate.reason, "programs": list(fate.programs)}
            actions.append(Emit("session-stays", "632", left.flow.local, left.flow, detail))
        return actions


def refusal(session: SessionStatus) -> str:
    """Reason why the stand-in refused it."""
    return f"the stand-in refused it: {session.reason}" if session.reason else "the stand-in refused it"


def _first_reason(choice: Choice) -> str | None:
    """Reason why the selected sessions cannot go."""
    return next((f"the session stays: {session.reason}" for session in choice.staying), None)


def _processes(sessions: Iterable[AwaySession]) -> tuple[Process, ...]:
    """The processes that hold them, each once."""
    return tuple(dict.fromkeys(process for session in sessions for process in session.processes))


def _answer(body: bytes) -> Answer632 | None:
    try:
        return decode_632(body)
    except WireError:
        return None


def _word(answer: Answer632 | None) -> str:
    return "malformed answer" if answer is None else answer.status.name.lower().replace("_", " ")


def _said(answer: Answer632 | None) -> str:
    """The reason that the stand-in gives, else its status."""
    return answer.reason if answer is not None and answer.reason else _word(answer)
