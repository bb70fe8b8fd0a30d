"""WAKE at the mobile node: reclaim, fetch in rounds, return, finish (C3, A12; messages 601-604, 634, 632).

The stand-in goes on receiving until `Finish`; up to then everything can be repeated or undone. It must not know how
sessions are put back or packets held.
"""

from collections.abc import Iterable
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
    ReleaseCaptured,
    ReleaseHeld,
    SessionFinal,
    Thaw,
)
from locum.roles.attachment import Outcome, RegistrationAccepted, Wish
from locum.roles.handover import AwaySession, Correspondence, Handover, Stage, set_flows
from locum.roles.mobile_node import MobileNode
from locum.wire.control import (
    MAX_CHUNK,
    Answer632,
    Cancel,
    Done,
    Fetch,
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
CHUNK = MAX_CHUNK  # bytes of one fetch
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
    """The 634 was not answered; it is asked again at `retry_at`."""

    retry_at: float
    value: Request634


@dataclass(frozen=True, slots=True)
class Injecting:
    """The node appends bytes to a receive queue."""

    flow: Flow
    length: int


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


State = Arriving | Asking | Pausing | Injecting | Draining | Returning | Completing | Ended


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
        self._full: set[Flow] = set()
        self._finals: dict[Flow, FinalState] = {}
        self._finishing = False
        self._rounds = 0
        self._drained_round = 0
        self._pause = RETRY_FIRST
        self._done_attempts = 0
        self._lost = 0

    def start(self, *, now: float) -> list[Action]:
        """Step 1: become reachable, while the stand-in keeps the flows."""
        return [
            self.handover.persist(),
            *set_flows(self.handover.flows, FlowVerdict.SUSPEND),
            *self._mobile.wish(Wish.BRIEF, now=now),
        ]

    def outcome(self, outcome: Outcome, *, now: float) -> list[Action]:
        """How the registration fares; refusals and lost links are pursued by the mobile node itself."""
        match self.state, outcome:
            case Arriving(), RegistrationAccepted(wish=Wish.BRIEF):
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
            case Injecting(flow, length), Injected() if event.flow == flow:
                return self._injected(event, length, now)
            case Draining(), Drained():
                self._full.clear()
                return self._next(now)
            case Completing(flows), Finished():
                return self._completed(flows, event, now)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again."""
        if isinstance(self.state, Pausing) and self.state.retry_at <= now:
            return self._ask(self.state.value)
        return []

    def deadline(self) -> float | None:
        """Wall-clock seconds."""
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
        return [self.handover.persist(), *asked, *self._mobile.wish(Wish.NOTHING, now=now)]

    # Step 2: reclaim and pre-copy --------------------------------------------------------------------------------

    def _reclaim(self) -> Reclaim:
        return Reclaim(self.handover.identifier, self._mobile.configuration.home_addresses)

    def _ask(self, value: Request634) -> list[Action]:
        bulk = isinstance(value, Fetch | Finish)
        asked = self._correspondence.ask(value, bulk=bulk)
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
            case Fetch():
                return self._fetched(value, answer, now)
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
        remaining = sum(max(0, self._totals[each.flow] - each.offset) for each in self.handover.sessions)
        if remaining <= LITTLE or self._rounds >= MAX_ROUNDS:
            return [*actions, self.handover.persist(), *self._return(now)]
        self._rounds += 1
        return [*actions, self.handover.persist(), *self._next(now)]

    def _nothing_there(self, status: Status, now: float) -> list[Action]:
        """The stand-in does not have them: it never took them, or it has lost them."""
        cancel: list[Action] = []
        if status is not Status.UNKNOWN_HANDOVER:
            cancel = list(self._correspondence.ask(Cancel(self.handover.identifier)))
        actions = cancel + self._give_up(self.handover.flows)
        home_address = self._mobile.configuration.home_address
        actions.append(Emit("nothing-to-reclaim", "632", home_address, None, {"status": status.name.lower()}))
        return actions + self._awake(now)

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
        """Fetch from the next session that is behind and has room; drain if none has; then measure again."""
        behind = [each for each in self.handover.sessions if each.offset < self._target(each)]
        for each in behind:
            if each.flow not in self._full:
                return self._more(each)
        if self._full:
            return self._drain()
        if self._finishing:
            return self._complete(self.handover.flows)
        if self._drained_round < self._rounds:
            self._drained_round = self._rounds
            return self._drain()
        return self._ask(self._reclaim())

    def _target(self, session: AwaySession) -> int:
        if self._finishing:
            return self._finals[session.flow].received
        return self._totals.get(session.flow, 0)

    def _more(self, session: AwaySession) -> list[Action]:
        """The next bytes: from the tail that came with the final state, or by a fetch."""
        final = self._finals.get(session.flow)
        if final is not None and final.tail_offset <= session.offset < final.tail_offset + len(final.tail):
            return self._inject(session.flow, final.tail[session.offset - final.tail_offset :])
        limit = min(CHUNK, self._target(session) - session.offset)
        return self._ask(Fetch(self.handover.identifier, session.session, session.offset, limit))

    def _fetched(self, value: Fetch, answer: Answer632, now: float) -> list[Action]:
        session = next(each for each in self.handover.sessions if each.session == value.session)
        if answer.status is not Status.OK or not answer.data or value.offset != session.offset:
            return self._unanswered(
                self._reclaim() if not self._finishing else value, answer.status.name, now
            )
        return self._inject(session.flow, answer.data)

    def _inject(self, flow: Flow, data: bytes) -> list[Action]:
        self.state = Injecting(flow, len(data))
        return [InjectData(flow, data)]

    def _injected(self, event: Injected, length: int, now: float) -> list[Action]:
        if event.error is not None:
            self.handover = self.handover.without((event.flow,))
            self._lost += 1
            detail = {"reason": event.error}
            return [
                AbandonSessions((event.flow,)),
                *_released((event.flow,)),
                Emit("session-lost", None, event.flow.local, event.flow, detail),
                self.handover.persist(),
                *self._next(now),
            ]
        self.handover = self.handover.advanced(event.flow, event.taken)
        if event.taken < length:
            self._full.add(event.flow)
        return [self.handover.persist(), *self._next(now)]

    def _drain(self) -> list[Action]:
        """Let the programs read what they have; those of other sessions are frozen as before."""
        flows = tuple(sorted(self._full, key=str)) or self.handover.flows
        pids = dict.fromkeys(
            pid for each in self.handover.sessions if each.flow in flows for pid in each.pids
        )
        self.state = Draining()
        return [DrainRound(flows, tuple(pids), DRAIN_PATIENCE)]

    # Steps 3 and 4: return and finish ----------------------------------------------------------------------------

    def _return(self, now: float) -> list[Action]:
        self.state = Returning()
        return [*set_flows(self.handover.flows, FlowVerdict.HOLD), *self._mobile.wish(Wish.ORDINARY, now=now)]

    def _finish(self) -> list[Action]:
        """604 is here: what comes from now on comes to this host, what is on its way to the stand-in is ahead of us."""
        self._finishing = True
        return self._ask(Finish(self.handover.identifier))

    def _finished(self, answer: Answer632, now: float) -> list[Action]:
        if answer.status is not Status.OK:
            return self._nothing_there(answer.status, now)
        by_number = {each.session: each for each in answer.final}
        self._finals = {
            each.flow: by_number[each.session] for each in self.handover.sessions if each.session in by_number
        }
        actions = self._give_up([flow for flow in self.handover.flows if flow not in self._finals])
        return actions + self._next(now)

    def _complete(self, flows: tuple[Flow, ...]) -> list[Action]:
        self.state = Completing(flows)
        finals = tuple(_final(flow, self._finals[flow]) for flow in flows)
        return [FinishSessions(finals)]

    def _completed(self, flows: tuple[Flow, ...], event: Finished, now: float) -> list[Action]:
        failed = {each.flow: each.reason for each in event.failures}
        self._lost += len(failed)
        actions = _released(flows)
        actions += [Emit("session-lost", None, each.local, each, {"reason": failed[each]}) for each in failed]
        actions += [Emit("session-returned", "632", each.local, each) for each in flows if each not in failed]
        return actions + self._awake(now)

    # Step 5 ------------------------------------------------------------------------------------------------------

    def _awake(self, now: float) -> list[Action]:
        """The programs run; the stand-in is told."""
        actions: list[Action] = [Thaw(self.handover.pids)] if self.handover.pids else []
        self.handover = self.handover.at(Stage.RETURNED)
        actions.append(self.handover.persist())
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
