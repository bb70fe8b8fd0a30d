"""WAKE at the mobile node: reclaim, fetch in rounds, return, finish (C3, A12; messages 601-604, 634, 632).

The stand-in goes on receiving until `Finish`; up to then everything can be repeated or undone. It must not know how
sessions are put back or packets held.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from locum.roles.actions import (
    AbandonSessions,
    Action,
    Answered,
    ClearFlow,
    Drained,
    DrainRound,
    Emit,
    Event,
    Finished,
    FinishSessions,
    FlowVerdict,
    InjectData,
    Injected,
    NoAnswer,
    NotPerformed,
    ReleaseCaptured,
    ReleaseHeld,
    SessionFailure,
    SessionFinal,
    Thaw,
)
from locum.roles.attachment import Outcome, RegistrationAccepted, Wish
from locum.roles.fetching import FetchAhead
from locum.roles.handover import AwaySession, Correspondence, Handover, Stage, set_flows
from locum.roles.mobile_node import MobileNode
from locum.roles.session_report import Report
from locum.wire.control import (
    Answer632,
    Cancel,
    Done,
    FinalState,
    Finish,
    Flow,
    Reclaim,
    Request634,
    Status,
    decode_632,
)
from locum.wire.errors import WireError

LITTLE = (
    256 * 1024
)  # bytes; what remains at or below this comes with the finish, within the gap that is allowed
MAX_ROUNDS = 8  # of pre-copy: a sender as fast as the fetch would keep it going for ever
DRAIN_PATIENCE = 0.5  # seconds that the programs get to read in a round
RETRY_FIRST = 1.0  # seconds until a 634 that was not answered is asked again
RETRY_MAX = 15.0
DONE_ATTEMPTS = 5  # after that the stand-in's own timer ends the handover


@dataclass(frozen=True, slots=True)
class Arriving:
    """The very short registration is on its way."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A 634 is on its way."""

    request: int
    value: Request634


@dataclass(frozen=True, slots=True)
class Pausing:
    """The 634 was not answered, or programs could not be frozen (None); it is tried again at `retry_at`."""

    retry_at: float
    value: Request634 | None


@dataclass(frozen=True, slots=True)
class Fetching:
    """Fetches are on their way, and nothing is here to be injected."""


@dataclass(frozen=True, slots=True)
class Injecting:
    """The node appends bytes to a receive queue."""

    flow: Flow
    data: bytes


@dataclass(frozen=True, slots=True)
class Draining:
    """The programs read."""


@dataclass(frozen=True, slots=True)
class Returning:
    """The full registration is on its way."""


@dataclass(frozen=True, slots=True)
class Completing:
    """The node takes the sockets out of repair mode."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """Awake, or asleep again."""


State = Arriving | Asking | Pausing | Fetching | Injecting | Draining | Returning | Completing | Ended


@dataclass(frozen=True, slots=True)
class Awake:
    """All is back, or what could not come back was given up."""

    lost: int


@dataclass(frozen=True, slots=True)
class StillAsleep:
    """The wake was called off; the stand-in has the sessions."""

    handover: Handover


class Waking:
    """One return. `uncertain`: the stand-in may never have had the sessions."""

    def __init__(
        self,
        mobile: MobileNode,
        correspondence: Correspondence,
        handover: Handover,
        *,
        uncertain: bool = False,
    ) -> None:
        self.state: State = Arriving()
        self.result: Awake | StillAsleep | None = None
        self.handover = handover.at(Stage.LEAVING if uncertain else Stage.WAKING)
        self._mobile = mobile
        self._correspondence = correspondence
        self._uncertain = uncertain
        self._totals: dict[Flow, int] = {}
        self._ahead = FetchAhead(correspondence, handover.identifier)
        self._full: set[Flow] = set()  # took less than was given; their programs must read first
        self._rested: set[Flow] = set()  # had time to read, and have taken nothing since
        self._stalled: set[Flow] = set()  # did not read in that time: they wait for the finish
        self._unread: set[Flow] = set()  # had bytes left after a round: not waited for any more
        self._finals: dict[Flow, FinalState] = {}
        self._finishing = False
        self._rounds = 0
        self._drained_round = 0
        self._pause = RETRY_FIRST
        self._done_attempts = 0
        self._lost = 0
        self.report = Report()

    def start(self, *, now: float) -> list[Action]:
        """Step 1: become reachable, while the stand-in keeps the flows. A device that is awake is."""
        actions: list[Action] = [
            self.handover.persist(),
            *set_flows(self.handover.flows, FlowVerdict.SUSPEND),
        ]
        if self.handover.given:
            return [*actions, *self._ask(self._reclaim())]
        return [*actions, *self._mobile.wish(self._reachable, now=now)]

    def outcome(self, outcome: Outcome, *, now: float) -> list[Action]:
        """How the registration fares; refusals and lost links are pursued by the mobile node itself."""
        match self.state, outcome:
            case Arriving(), RegistrationAccepted(wish=wish) if wish is self._reachable:
                return self._ask(self._reclaim())
            case Returning(), RegistrationAccepted(wish=Wish.ORDINARY):
                return self._finish()
        return []

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Results of the step that is under way; others are late and mean nothing."""
        match self.state, event:
            case Asking(request, value), Answered() if event.request == request:
                self._pause = RETRY_FIRST
                return self._answered(value, event.body, now)
            case Asking(request, value), NoAnswer() if event.request == request:
                return self._unanswered(value, event.reason, now)
            case _, Answered() if event.request in self._ahead:
                return self._fetched(event, now)
            case _, NoAnswer() if event.request in self._ahead:
                return self._not_fetched(event.reason, now)
            case Injecting(flow, data), Injected() if event.flow == flow:
                return self._injected(event, data, now)
            case Injecting(flow, data), NotPerformed(action=InjectData()):
                return self._injected(Injected(flow, 0, event.reason), data, now)
            case Draining(), Drained():
                return self._drained(event, now)
            case Draining(), NotPerformed(action=DrainRound()):
                self.state = Pausing(now + RETRY_FIRST, None)
            case Completing(flows), Finished():
                return self._completed(flows, event, now)
            case Completing(flows), NotPerformed(action=FinishSessions()):
                failures = tuple(SessionFailure(each, event.reason) for each in flows)
                return self._completed(flows, Finished(flows, failures), now)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again."""
        if isinstance(self.state, Pausing) and self.state.retry_at <= now:
            value = self.state.value
            return self._drain(self._full) if value is None else self._ask(value)
        return []

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self.state.retry_at if isinstance(self.state, Pausing) else None

    def call_off(self, *, now: float) -> list[Action]:
        """Sleep again, if the stand-in has not been told to stop; else the return goes on."""
        if self._uncertain or self._finishing or isinstance(self.state, Completing | Ended | Returning):
            return []
        asked = (
            []
            if isinstance(self.state, Arriving)
            else self._correspondence.ask(Cancel(self.handover.identifier))
        )
        self.handover = self.handover.at(Stage.ASLEEP)
        self.state, self.result = Ended(), StillAsleep(self.handover)
        quiet = [] if self.handover.given else self._mobile.wish(Wish.NOTHING, now=now)
        return [self.handover.persist(), *asked, *quiet]

    @property
    def _reachable(self) -> Wish:
        """What opens the way to the stand-in, and leaves the flows with it."""
        return Wish.BRIEF if self._gives_way else Wish.ORDINARY

    @property
    def _gives_way(self) -> bool:
        """Whether an ordinary registration of the device would take flows from the stand-in."""
        return not self.handover.given and self._mobile.gives_way(self.handover.switch)

    # Step 2: reclaim and pre-copy --------------------------------------------------------------------------------

    def _reclaim(self) -> Reclaim:
        return Reclaim(self.handover.identifier, self._mobile.configuration.home_addresses)

    def _ask(self, value: Request634) -> list[Action]:
        asked = self._correspondence.ask(value, bulk=isinstance(value, Finish))
        self.state = Asking(self._correspondence.last, value)
        return list(asked)

    def _unanswered(self, value: Request634, reason: str, now: float) -> list[Action]:
        if isinstance(value, Done):
            self._done_attempts += 1
            if self._done_attempts >= DONE_ATTEMPTS:
                return self._close()
        self.state = Pausing(now + self._pause, value)
        self._pause = min(RETRY_MAX, 2 * self._pause)
        home_address = self._mobile.configuration.home_address
        return [Emit("stand-in-silent", "634", home_address, None, {"reason": reason})]

    def _answered(self, value: Request634, body: bytes, now: float) -> list[Action]:
        try:
            answer = decode_632(body)
        except WireError as error:
            return self._unanswered(value, str(error), now)
        if isinstance(value, Done):
            return self._close()
        if answer.status in (Status.BUSY, Status.LIMIT):
            return self._unanswered(value, answer.status.name.lower(), now)
        match value:
            case Reclaim():
                return self._reclaimed(answer, now)
            case Finish():
                return self._finished(answer, now)
        return []

    def _reclaimed(self, answer: Answer632, now: float) -> list[Action]:
        if answer.status is not Status.OK:
            return self._nothing_there(answer.status, now)
        held = {each.flow: each for each in answer.sessions if each.status is Status.OK}
        missing = [flow for flow in self.handover.flows if flow not in held]
        actions = self._give_up(missing)
        self._uncertain = False
        sessions = tuple(
            replace(each, session=held[each.flow].session)
            for each in self.handover.sessions
            if each.flow in held
        )
        self.handover = replace(self.handover, sessions=sessions).at(Stage.WAKING)
        self._totals = {flow: each.total for flow, each in held.items()}
        reading = [each for each in self.handover.sessions if each.flow not in self._stalled]
        remaining = sum(max(0, self._totals[each.flow] - each.offset) for each in reading)
        if remaining <= LITTLE or self._rounds >= MAX_ROUNDS:
            return [*actions, self.handover.persist(), *self._return(now)]
        self._rounds += 1
        self._ahead.clear()  # session numbers may be others now
        return [*actions, self.handover.persist(), *self._next(now)]

    def _nothing_there(self, status: Status, now: float) -> list[Action]:
        """The stand-in does not have them: it never took them, or it has lost them."""
        cancel: list[Action] = []
        if status is not Status.UNKNOWN_HANDOVER:
            cancel = list(self._correspondence.ask(Cancel(self.handover.identifier)))
        actions = cancel + self._give_up(self.handover.flows)
        home_address = self._mobile.configuration.home_address
        actions.append(Emit("nothing-to-reclaim", "632", home_address, None, {"status": status.name.lower()}))
        return actions + self._awake((), now)

    def _give_up(self, flows: Iterable[Flow]) -> list[Action]:
        """Sessions that the stand-in does not have: unharmed if it never had them, lost otherwise."""
        listed = tuple(flows)
        if not listed:
            return []
        self.handover = self.handover.without(listed)
        first: Action = ReleaseCaptured(listed) if self._uncertain else AbandonSessions(listed)
        kind = "session-stays" if self._uncertain else "session-lost"
        self._lost += 0 if self._uncertain else len(listed)
        return [first, *_released(listed), *(Emit(kind, "632", each.local, each) for each in listed)]

    def _next(self, now: float) -> list[Action]:
        """Inject what is here while more is fetched; when nothing is left to do: let programs read, measure again."""
        behind = [each for each in self.handover.sessions if each.offset < self._target(each)]
        taking = [each for each in behind if each.flow not in self._full | self._stalled]
        fetches = self._ahead.more(
            (each, self._fetched_end(each))
            for each in taking
            if each.flow not in self._rested or not self._ahead.has(each)  # first it has to take what is here
        )
        for each in taking:
            if data := self._tail(each) or self._ahead.take(each):
                return [*fetches, *self._inject(each.flow, data)]
        if self._ahead.busy:
            self.state = Fetching()
            return fetches
        if self._finishing:
            waiting = {each.flow for each in behind}
            ready = tuple(flow for flow in self.handover.flows if flow not in waiting)
            # A program that does not read keeps nobody waiting but itself.
            return self._complete(ready) if ready or not waiting else self._drain(self._full)
        if self._full:
            return self._drain(self._full)
        if self._drained_round < self._rounds:
            self._drained_round = self._rounds
            if reading := set(self.handover.flows) - self._unread - self._stalled:
                return self._drain(reading)
        return self._ask(self._reclaim())

    def _target(self, session: AwaySession) -> int:
        if self._finishing:
            return self._finals[session.flow].received
        return self._totals.get(session.flow, 0)

    def _fetched_end(self, session: AwaySession) -> int:
        """Up to where bytes have to be fetched: the tail came with the final state."""
        final = self._finals.get(session.flow)
        return self._target(session) if final is None or not final.tail else final.tail_offset

    def _tail(self, session: AwaySession) -> bytes:
        final = self._finals.get(session.flow)
        if final is None or not final.tail_offset <= session.offset:
            return b""
        return final.tail[session.offset - final.tail_offset :]

    def _fetched(self, event: Answered, now: float) -> list[Action]:
        try:
            answer = decode_632(event.body)
        except WireError as error:
            return self._not_fetched(str(error), now)
        if answer.status is not Status.OK:
            return self._not_fetched(answer.status.name.lower(), now)
        if not self._ahead.keep(event.request, answer.data):
            return self._not_fetched("short", now)
        return self._next(now) if isinstance(self.state, Fetching) else []

    def _not_fetched(self, reason: str, now: float) -> list[Action]:
        """Where the stand-in is, it says when it is asked from the beginning."""
        self._ahead.clear()
        if not isinstance(self.state, Fetching):
            return []
        again = Finish(self.handover.identifier) if self._finishing else self._reclaim()
        return self._unanswered(again, reason, now)

    def _inject(self, flow: Flow, data: bytes) -> list[Action]:
        self.state = Injecting(flow, data)
        return [InjectData(flow, data)]

    def _injected(self, event: Injected, data: bytes, now: float) -> list[Action]:
        flow = event.flow
        if event.error is not None:
            self._ahead.forget(self._session(flow).session)
            self.handover = self.handover.without((flow,))
            self._lost += 1
            detail = {"reason": event.error}
            return [
                AbandonSessions((flow,)),
                *_released((flow,)),
                Emit("session-lost", None, flow.local, flow, detail),
                self.handover.persist(),
                *self._next(now),
            ]
        self.handover = self.handover.advanced(flow, event.taken)
        if event.taken:
            self._pause = RETRY_FIRST
            self._rested.discard(flow)
        if event.taken < len(data):
            self._ahead.put_back(self._session(flow), data[event.taken :])
            given_up = flow in self._rested and not self._finishing
            (self._stalled if given_up else self._full).add(flow)
        return [self.handover.persist(), *self._next(now)]

    def _session(self, flow: Flow) -> AwaySession:
        return next(each for each in self.handover.sessions if each.flow == flow)

    def _drain(self, flows: Set[Flow]) -> list[Action]:
        """Let the programs read what they have; those of other sessions are frozen as before."""
        processes = dict.fromkeys(
            process for each in self.handover.sessions if each.flow in flows for process in each.processes
        )
        self.state = Draining()
        return [DrainRound(tuple(sorted(flows, key=str)), tuple(processes), DRAIN_PATIENCE)]

    def _drained(self, event: Drained, now: float) -> list[Action]:
        self._rested |= self._full
        self._unread |= {flow for flow, unread in event.unread if unread}
        self._full.clear()
        return self._next(now)

    # Steps 3 and 4: return and finish ----------------------------------------------------------------------------

    def _return(self, now: float) -> list[Action]:
        """Packets wait here once the home agent switches: by our registration, or by the stand-in's (R4)."""
        if not self._gives_way:
            return [*set_flows(self.handover.flows, FlowVerdict.HOLD), *self._finish()]
        self.state = Returning()
        return [*set_flows(self.handover.flows, FlowVerdict.HOLD), *self._mobile.wish(Wish.ORDINARY, now=now)]

    def _finish(self) -> list[Action]:
        """604 is here: what comes from now on comes to this host, what is on its way to the stand-in is ahead of us.

        A stand-in that has registered makes the switch itself, and waits for its 604 likewise.
        """
        self._finishing = True
        self._full.clear()
        self._stalled.clear()
        return self._ask(Finish(self.handover.identifier))

    def _finished(self, answer: Answer632, now: float) -> list[Action]:
        if answer.status is not Status.OK:
            return self._nothing_there(answer.status, now)
        by_number = {each.session: each for each in answer.final}
        self._finals = {
            each.flow: by_number[each.session] for each in self.handover.sessions if each.session in by_number
        }
        self._ahead.clear()
        actions = self._give_up([flow for flow in self.handover.flows if flow not in self._finals])
        return actions + self._next(now)

    def _complete(self, flows: tuple[Flow, ...]) -> list[Action]:
        self.state = Completing(flows)
        finals = tuple(_final(flow, self._finals[flow]) for flow in flows)
        return [FinishSessions(finals)]

    def _completed(self, flows: tuple[Flow, ...], event: Finished, now: float) -> list[Action]:
        failed = {each.flow: each.reason for each in event.failures}
        self._lost += len(failed)
        told = [Emit("session-lost", None, each.local, each, {"reason": failed[each]}) for each in failed]
        told += [Emit("session-returned", "632", each.local, each) for each in flows if each not in failed]
        rest = self.handover.without(flows)
        if not rest.sessions:
            return [*self._awake(flows, now), *told]
        still = tuple(dict.fromkeys(process for each in rest.sessions for process in each.processes))
        free = tuple(each for each in self.handover.processes if each not in still)
        self.handover = replace(rest, processes=still)
        thaw: list[Action] = [Thaw(free)] if free else []
        return [self.handover.persist(), *thaw, *_released(flows), *told, *self._next(now)]

    # Step 5 ------------------------------------------------------------------------------------------------------

    def _awake(self, flows: tuple[Flow, ...], now: float) -> list[Action]:
        """The programs run; the stand-in is told. The row comes first: what runs may not be taken for captured again."""
        thaw: list[Action] = [Thaw(self.handover.processes)] if self.handover.processes else []
        self.handover = self.handover.at(Stage.RETURNED)
        actions: list[Action] = [self.handover.persist(), *thaw, *_released(flows)]
        if self._mobile.wished is not Wish.ORDINARY:
            actions += self._mobile.wish(Wish.ORDINARY, now=now)
        return actions + self.tell()

    def tell(self) -> list[Action]:
        """634 done; also all that is left to do after a restart in stage RETURNED."""
        return self._ask(Done(self.handover.identifier))

    def _close(self) -> list[Action]:
        self.state, self.result = Ended(), Awake(self._lost)
        return [self.handover.forget()]


def _released(flows: Iterable[Flow]) -> list[Action]:
    """These flows are this host's again: what was held for them is delivered in order.

    DELIVER before the entry goes: newcomers wait until the queue is empty. One that overtook it would be acknowledged
    with its younger timestamp, and the older packets would be dropped for theirs (RFC 7323 section 5, PAWS).
    """
    listed = tuple(flows)
    addresses = dict.fromkeys(each.local for each in listed)
    return [
        *set_flows(listed, FlowVerdict.DELIVER),
        *(ClearFlow(each) for each in listed),
        *(ReleaseHeld(each) for each in addresses),
    ]


def _final(flow: Flow, state: FinalState) -> SessionFinal:
    return SessionFinal(
        session=state.session,
        flow=flow,
        total=state.received,
        acknowledged=state.acked,
        timestamp=state.ts_value,
        peer_closed=state.peer_closed,
        error=state.error,
        tail_offset=state.received,
    )
