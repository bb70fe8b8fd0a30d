"""SLEEP at the mobile node: prepare, leave, capture, transfer (C2, A12; messages 634, 632, 601-604).

It ends in `result`. It moves the wish of the mobile node, and must not know how sessions are captured or forwarded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from locum.roles.actions import (
    Action,
    Addr,
    Answered,
    Capture,
    Captured,
    ClearFlow,
    Emit,
    Event,
    FindSessions,
    FlowVerdict,
    Freeze,
    NoAnswer,
    NotPerformed,
    Process,
    Randomness,
    ReleaseCaptured,
    ReleaseHeld,
    SessionRecordItem,
    SessionsFound,
    Thaw,
)
from locum.roles.attachment import Outcome, RegistrationAccepted, RegistrationDenied, Wish
from locum.roles.handover import AwaySession, Correspondence, Handover, Stage, set_flows
from locum.roles.mobile_node import MobileNode
from locum.roles.selection import EVERYTHING, Selection, with_companions
from locum.roles.session_report import Report
from locum.wire.control import (
    HANDOVER_BYTES,
    MAX_BODY,
    MAX_SESSIONS,
    Answer632,
    Cancel,
    Flow,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_634,
)
from locum.wire.errors import WireError
from locum.wire.vendor import Takes

MAX_GENERATIONS = 32  # looks for programs that were started while others were being frozen
LEAVE_TIMEOUT = 12.0  # seconds for 601-604; three retransmissions of RFC 5944 section 3.6.3 (1 + 2 + 4) fit


@dataclass(frozen=True, slots=True)
class Finding:
    """The node lists the open connections."""


@dataclass(frozen=True, slots=True)
class Preparing:
    """634 prepare is on its way."""

    request: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """The very short registration is on its way."""

    give_up_at: float


@dataclass(frozen=True, slots=True)
class Gathering:
    """The node freezes programs, and looks for those that they have started meanwhile."""

    generation: int = 1


@dataclass(frozen=True, slots=True)
class Capturing:
    """The node reads the sockets."""


@dataclass(frozen=True, slots=True)
class Transferring:
    """634 transfer is on its way."""

    request: int


@dataclass(frozen=True, slots=True)
class Ended:
    """`result` says how."""


State = Finding | Preparing | Leaving | Gathering | Capturing | Transferring | Ended


@dataclass(frozen=True, slots=True)
class Slept:
    """The stand-in has the sessions."""

    handover: Handover


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The stand-in may have the sessions: only it can tell, so they are reclaimed."""

    handover: Handover
    reason: str


@dataclass(frozen=True, slots=True)
class NotSlept:
    """Everything is as before."""

    reason: str


@dataclass(frozen=True, slots=True)
class Departure:
    """What is handed over, to whom, and how the home agent learns of it.

    With `switch` the stand-in registers; without it the device leaves its packets to the default CoA (R2). `given`: the
    device stays awake, with all that is not selected. `elsewhere` are flows that are at stand-ins already, `others`
    other handovers of the device at this one. `stays` says why a flow that is given has to stay; None: it has not.
    """

    stand_in: Addr
    selection: Selection = EVERYTHING
    switch: Takes | None = None
    given: bool = False
    elsewhere: frozenset[Flow] = frozenset()
    others: tuple[bytes, ...] = ()
    configuration: Mapping[str, object] = field(default_factory=dict)
    stays: Callable[[Flow], str | None] = lambda _flow: None


class FallingAsleep:
    """One attempt to hand sessions over: all of them to sleep, or some (`locum give`)."""

    def __init__(
        self,
        mobile: MobileNode,
        correspondence: Correspondence,
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
        )
        self.report = Report()
        self._mobile = mobile
        self._correspondence = correspondence
        self._departure = departure

    def start(self) -> list[Action]:
        """Step 0: what is there to hand over?"""
        return [FindSessions(self._home_addresses)]

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Results of the step that is under way; others are late and mean nothing."""
        match self.state, event:
            case Finding(), SessionsFound():
                return self._prepare(event, now)
            case Preparing(request), Answered() if event.request == request:
                return self._prepared(event.body, now)
            case Preparing(request), NoAnswer() if event.request == request:
                return self._undo(f"the stand-in did not answer: {event.reason}")
            case Gathering(generation), SessionsFound():
                return self._gathered(event, generation, now)
            case Capturing(), Captured():
                return self._captured(event)
            case Finding() | Gathering() | Capturing(), NotPerformed():
                return self._undo(event.reason, now=now)
            case Transferring(request), Answered() if event.request == request:
                return self._transferred(event.body, now)
            case Transferring(request), NoAnswer() if event.request == request:
                return self._uncertain(f"the stand-in did not answer: {event.reason}")
        return []

    def outcome(self, outcome: Outcome, *, now: float) -> list[Action]:
        """How the registration fares."""
        if not isinstance(self.state, Leaving):
            return []
        match outcome:
            case RegistrationAccepted(wish=Wish.BRIEF):
                return (
                    self._gather(self.handover.processes, 1) if self.handover.processes else self._capture()
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
        """Wall-clock seconds."""
        return self.state.give_up_at if isinstance(self.state, Leaving) else None

    def cancel(self, *, now: float) -> bool:
        """Whether the attempt can still be undone; then `undo` does it."""
        return isinstance(self.state, Finding | Preparing | Leaving)

    def undo(self, reason: str, *, now: float) -> list[Action]:
        """Give up before anything was captured."""
        return self._undo(reason, now=now)

    @property
    def _gives_way(self) -> bool:
        """Whether the device's own registration has to get very short; `given`: it stays as it is."""
        return not self._departure.given and self._mobile.gives_way(self._departure.switch)

    # Steps -------------------------------------------------------------------------------------------------------

    @property
    def _home_addresses(self) -> tuple[Addr, ...]:
        return self._mobile.configuration.home_addresses

    def _prepare(self, found: SessionsFound, now: float) -> list[Action]:
        """Step 1: the stand-in holds the packets of these flows."""
        departure = self._departure
        here = [
            each
            for each in found.sessions
            if each.flow.local in self._home_addresses and each.flow not in departure.elsewhere
        ]
        ours = with_companions(departure.selection, here)[:MAX_SESSIONS]
        if departure.given and not ours:
            return self._undo("there is no such session", now=now)
        for each in ours if departure.given else ():
            if (reason := departure.stays(each.flow)) is not None:
                return self._undo(reason, now=now)
        sessions = tuple(
            AwaySession(n, each.flow, each.processes, 0, each.programs) for n, each in enumerate(ours)
        )
        processes = _of(sessions)
        self.handover = replace(self.handover, sessions=sessions, processes=processes)
        way = self._mobile.attachment
        request = TakeoverPrepare(
            self.handover.identifier,
            self._home_addresses,
            self.handover.flows,
            departure.configuration,
            departure.switch,
            None if way is None or way.colocated or departure.switch is None else way.care_of,
        )
        asked = self._correspondence.ask(request)
        self.state = Preparing(self._correspondence.last)
        return [self.handover.persist(), *asked]

    def _prepared(self, body: bytes, now: float) -> list[Action]:
        answer = _answer(body)
        if answer is None or answer.status is not Status.OK:
            return self._undo(f"the stand-in refused: {_word(answer)}")
        refused = {each.flow for each in answer.sessions if each.status is not Status.OK}
        self.handover = self.handover.without(refused).at(Stage.LEAVING)
        reports = self._reports(refused, "refused by the stand-in")
        if self._departure.given and not self.handover.sessions:
            return [*reports, *self._undo("the stand-in refused every session", now=now)]
        if not self._gives_way:
            # The home agent switched before the stand-in answered, and this answer came behind all it sent before.
            processes = self.handover.processes
            further = self._gather(processes, 1) if processes else self._capture()
            return [self.handover.persist(), *reports, *further]
        self.state = Leaving(now + LEAVE_TIMEOUT)
        if self._departure.switch is None:  # else the stand-in's registration brings the context
            self._mobile.movement.store_at(answer.access_node)
        # The row says LEAVING before the home agent can have switched.
        return [
            self.handover.persist(),
            *reports,
            *self._mobile.wish(Wish.BRIEF, now=now),
        ]

    def _gather(self, processes: tuple[Process, ...], generation: int) -> list[Action]:
        """Step 3: 604 is here, so every packet that was sent to this host has arrived (the links are FIFO)."""
        self.state = Gathering(generation)
        return [Freeze(processes), FindSessions(self._home_addresses)]

    def _gathered(self, found: SessionsFound, generation: int, now: float) -> list[Action]:
        """A program may have forked since it was found; whoever holds one of the sockets has to stand still."""
        holders = {each.flow: each.processes for each in found.sessions}
        sessions = tuple(
            replace(each, processes=tuple(dict.fromkeys((*each.processes, *holders.get(each.flow, ())))))
            for each in self.handover.sessions
        )
        known = frozenset(self.handover.processes)
        processes = tuple(dict.fromkeys((*self.handover.processes, *_of(sessions))))
        self.handover = replace(self.handover, sessions=sessions, processes=processes)
        new = tuple(each for each in processes if each not in known)
        if not new:
            return self._capture()
        if generation >= MAX_GENERATIONS:
            return self._undo("programs start others faster than they can be frozen", now=now)
        return [self.handover.persist(), *self._gather(new, generation + 1)]

    def _capture(self) -> list[Action]:
        self.state = Capturing()
        return [*set_flows(self.handover.flows, FlowVerdict.SUSPEND), Capture(self.handover.flows)]

    def _captured(self, captured: Captured) -> list[Action]:
        failed = {each.flow: each.reason for each in captured.failures}
        items, too_large = _fitting(captured.records)
        before = {each.flow: each for each in self.handover.sessions}
        missing = [flow for flow in self.handover.flows if flow not in {each.flow for each in items}]
        sessions = tuple(replace(before[each.flow], session=n) for n, each in enumerate(items))
        self.handover = replace(self.handover, sessions=sessions)
        asked = self._correspondence.ask(
            TakeoverTransfer(
                self.handover.identifier,
                tuple(each.record for each in items),
                others=self._departure.others,
            ),
            bulk=True,
        )
        self.state = Transferring(self._correspondence.last)
        actions: list[Action] = [ReleaseCaptured(too_large)] if too_large else []
        actions += self._stay(missing)
        for flow in missing:
            reason = failed.get(flow, "too large to transfer")
            actions.append(Emit("session-stays", "634", flow.local, flow, {"reason": reason}))
        return [*actions, self.handover.persist(), *asked]

    def _transferred(self, body: bytes, now: float) -> list[Action]:
        answer = _answer(body)
        if answer is None:
            return self._uncertain("the stand-in's answer is malformed")
        if answer.status is Status.BUSY:
            return self._uncertain("the stand-in is still at it")
        if answer.status is not Status.OK:
            released: list[Action] = [ReleaseCaptured(self.handover.flows)] if self.handover.flows else []
            return [*released, *self._undo(f"the stand-in refused: {_word(answer)}", now=now)]
        refused = {each.flow for each in answer.sessions if each.status is not Status.OK}
        actions: list[Action] = []
        if refused:
            actions += [ReleaseCaptured(tuple(refused)), *self._stay(refused)]
            actions += self._reports(refused, "refused by the stand-in")
        self.handover = self.handover.without(refused).at(Stage.ASLEEP)
        self.state, self.result = Ended(), Slept(self.handover)
        quiet = [] if self._departure.given else self._mobile.wish(Wish.NOTHING, now=now)
        return [*actions, self.handover.persist(), *quiet]

    # Endings -----------------------------------------------------------------------------------------------------

    def _uncertain(self, reason: str) -> list[Action]:
        self.state, self.result = Ended(), Uncertain(self.handover, reason)
        return [self.handover.persist()]

    def _undo(self, reason: str, *, now: float | None = None) -> list[Action]:
        """Back to where it began: the stand-in forgets, the home agent gets the full lifetime again."""
        left = self._gives_way and not isinstance(self.state, Finding | Preparing)
        actions: list[Action] = []
        if not isinstance(self.state, Finding):
            actions += self._correspondence.ask(Cancel(self.handover.identifier))
        if isinstance(self.state, Capturing) and self.handover.flows:
            actions.append(ReleaseCaptured(self.handover.flows))
        if isinstance(self.state, Capturing | Transferring):
            actions += self._stay(self.handover.flows)
        if isinstance(self.state, Gathering | Capturing | Transferring) and self.handover.processes:
            actions.append(Thaw(self.handover.processes))
        self.state, self.result = Ended(), NotSlept(reason)
        actions.append(self.handover.forget())
        if left and now is not None:
            actions += self._mobile.wish(Wish.ORDINARY, now=now)
        return actions

    def _stay(self, flows: Sequence[Flow] | set[Flow]) -> list[Action]:
        """These flows remain this host's."""
        addresses = dict.fromkeys(each.local for each in flows)
        return [*(ClearFlow(each) for each in flows), *(ReleaseHeld(each) for each in addresses)]

    def _reports(self, flows: set[Flow], reason: str) -> list[Action]:
        return [Emit("session-stays", "632", each.local, each, {"reason": reason}) for each in flows]


def _of(sessions: Iterable[AwaySession]) -> tuple[Process, ...]:
    """The processes that hold them, each once."""
    return tuple(dict.fromkeys(process for each in sessions for process in each.processes))


def _fitting(
    records: Sequence[SessionRecordItem],
) -> tuple[tuple[SessionRecordItem, ...], tuple[Flow, ...]]:
    """As many as one transfer may carry, the largest left out first."""
    kept = list(records)
    while (
        kept
        and len(encode_634(TakeoverTransfer(bytes(HANDOVER_BYTES), tuple(e.record for e in kept)))) > MAX_BODY
    ):
        kept.remove(max(kept, key=_size))
    names = {each.flow for each in kept}
    return tuple(kept), tuple(each.flow for each in records if each.flow not in names)


def _size(item: SessionRecordItem) -> int:
    return sum(len(each) for each in item.record.values() if isinstance(each, bytes))


def _answer(body: bytes) -> Answer632 | None:
    try:
        return decode_632(body)
    except WireError:
        return None


def _word(answer: Answer632 | None) -> str:
    return "malformed answer" if answer is None else answer.status.name.lower().replace("_", " ")
