"""The mobile node proxy server, stand-in side of 634 and 632 (source text 504''; C2, C3, C9, C10, A12).

Requests of authorised devices in, answers and orders to the sessions out. Every request may come twice and is answered
alike. It must not know CoAP, sockets, the spool or the kernel.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from locum.roles.actions import (
    JSON,
    Action,
    Addr,
    Answer,
    Asked,
    ClearFlow,
    Count,
    DropSessions,
    Emit,
    Event,
    FetchData,
    Fetched,
    FlowVerdict,
    Forget,
    LocalEndpoint,
    Measured,
    MeasureSessions,
    NotPerformed,
    Persist,
    ReleaseHeld,
    Restored,
    RestoreSessions,
    ResumeSessions,
    SessionFinal,
    SessionRecordItem,
    Source,
    StopSessions,
)
from locum.roles.actions import Stopped as SessionsStopped
from locum.roles.forwarding import NOTHING, Forwarding, changes
from locum.roles.handover import TABLE, set_flows
from locum.roles.taken_over import (
    HeldFlow,
    Holding,
    Prepared,
    Restoring,
    Stopped,
    Stopping,
    TakenOver,
    takeover_forwarding,
)
from locum.roles.timers import Deadlines
from locum.wire.control import (
    Answer632,
    Cancel,
    Done,
    Fetch,
    FinalState,
    Finish,
    Flow,
    Reclaim,
    Record,
    Request634,
    SessionStatus,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_618,
    decode_634,
    encode_632,
)
from locum.wire.errors import WireError

TCP = 6
RECORD_FLOW = 0  # key of the flow in a session record (session.cddl)
PREPARED_TIMEOUT = 60.0  # seconds; a device that has prepared transfers within its own time-outs or never
STOPPED_TIMEOUT = 3600.0  # seconds; a device that has had the final state has its sessions
TAIL_LIMIT = 2 << 20  # bytes of all tails in one answer; the rest is fetched
MAX_REMEMBERED = 256  # handovers that have ended, so that a repeated done is answered alike


@dataclass(frozen=True, slots=True)
class StandInConfiguration:
    """`home_prefixes` bound what may be taken over at all; `colocated_home_agent` makes `address` a care-of address."""

    address: IPv4Address
    access_node: Addr
    home_prefixes: tuple[IPv4Network | IPv6Network, ...]
    max_sessions: int = 1024
    max_handovers: int = 256
    colocated_home_agent: IPv4Address | None = None


class StandIn:
    """One stand-in and the handovers it serves."""

    def __init__(self, configuration: StandInConfiguration) -> None:
        self.configuration = configuration
        self._taken: dict[bytes, TakenOver] = {}
        self._ended: dict[bytes, None] = {}
        self._timers: Deadlines[bytes] = Deadlines()
        self._measuring: dict[bytes, list[int]] = {}
        self._fetching: dict[int, Fetch] = {}
        self._fetched: dict[tuple[bytes, int], int] = {}

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; the node has taken held sockets back from their holder before."""
        actions: list[Action] = []
        if self.configuration.colocated_home_agent is not None:
            actions.append(LocalEndpoint(self.configuration.address))
        for row in rows:
            if row.table != TABLE:
                continue
            try:
                taken = TakenOver.from_row(row.key, row.value)
            except (ValueError, KeyError, TypeError):
                actions += [Count("unreadable-row"), Forget(row.table, row.key)]
                continue
            if isinstance(taken.state, Restoring):
                # Nothing has reached these sockets: their packets are held until the row says "holding".
                actions.append(DropSessions(taken.identifier))
                taken = replace(taken, state=Prepared(now + PREPARED_TIMEOUT), sessions=())
                actions.append(taken.persist())
            self._keep(taken)
            verdict = FlowVerdict.DELIVER if isinstance(taken.state, Holding) else FlowVerdict.HOLD
            flows = [each.flow for each in taken.held] if isinstance(taken.state, Holding) else taken.flows
            actions += set_flows(flows, verdict)
            actions += changes(NOTHING, self._wanted(taken))
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """The stand-in takes no datagrams of its own."""
        return [Count("message-unexpected")]

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Requests of devices and access nodes, and results of session actions."""
        match event:
            case Asked(path="634"):
                return self._asked(event, now)
            case Asked(path="618"):
                return self._noticed(event)
            case Asked():
                return [Count("request-unknown"), self._answer(event.exchange, Status.MALFORMED)]
            case Restored():
                return self._restored(event)
            case Measured():
                return self._measured(event)
            case Fetched():
                return self._fetch_done(event)
            case SessionsStopped():
                return self._stopped(event, now)
            case NotPerformed():
                return self._not_performed(event.action, event.reason)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Forget what nobody came back for."""
        actions: list[Action] = []
        for identifier in self._timers.due(now):
            taken = self._taken[identifier]
            actions += self._end(taken)
            actions.append(Emit("handover-forgotten", None, taken.home_addresses[0]))
        return actions

    def deadline(self) -> float | None:
        """Wall-clock seconds."""
        return self._timers.next()

    def handovers(self) -> Collection[TakenOver]:
        """What is being stood in for, for people."""
        return self._taken.values()

    # Requests ----------------------------------------------------------------------------------------------------

    def _asked(self, event: Asked, now: float) -> list[Action]:
        try:
            request = decode_634(event.body)
        except WireError as error:
            return [Count(f"takeover-{error.reason}"), self._answer(event.exchange, Status.MALFORMED)]
        if isinstance(request, TakeoverPrepare):
            return self._prepare(request, event, now)
        taken = self._find(request)
        if taken is None:
            ended = isinstance(request, Done | Cancel) and request.handover in self._ended
            return [
                self._answer(
                    event.exchange, Status.OK if ended else Status.UNKNOWN_HANDOVER, request.handover
                )
            ]
        if not set(taken.home_addresses) <= set(event.authorised):
            return [
                Count("takeover-not-authorised"),
                self._answer(event.exchange, Status.NOT_AUTHORISED, request.handover),
            ]
        match request:
            case TakeoverTransfer():
                return self._transfer(request, taken, event.exchange)
            case Reclaim():
                return self._reclaim(taken, event.exchange)
            case Fetch():
                return self._fetch(request, taken, event.exchange, now)
            case Finish():
                return self._finish(taken, event.exchange)
            case Done():
                return self._done(taken, event.exchange)
            case Cancel():
                return self._cancel(taken, event.exchange)

    def _find(self, request: Request634) -> TakenOver | None:
        if request.handover is not None:
            return self._taken.get(request.handover)
        wanted = set(request.home_addresses)
        return next((each for each in self._taken.values() if wanted & set(each.home_addresses)), None)

    def _prepare(self, request: TakeoverPrepare, event: Asked, now: float) -> list[Action]:
        """Step 1: hold the packets of these flows, answer for the home addresses (C10: this is how they are learnt)."""
        refusal = self._refusal(request, event.authorised)
        if refusal is not None:
            return [
                Count(f"takeover-{refusal.name.lower().replace('_', '-')}"),
                self._answer(event.exchange, refusal, request.handover),
            ]
        known = self._taken.get(request.handover)
        if known is not None:
            same = isinstance(known.state, Prepared) and known.flows == self._tcp(request.flows)
            return [
                self._prepared_answer(request, event.exchange) if same else self._wrong(event.exchange, known)
            ]
        older = [
            each for each in self._taken.values() if set(each.home_addresses) & set(request.home_addresses)
        ]
        if any(isinstance(each.state, Restoring | Stopping) for each in older):
            return [self._answer(event.exchange, Status.BUSY, request.handover)]
        actions: list[Action] = []
        for each in older:
            # Its device prepares anew, so it does not know of the older one any more: nobody can reclaim that.
            actions += [Emit("handover-superseded", "634", each.home_addresses[0]), *self._end(each)]
        taken = TakenOver(
            request.handover,
            request.home_addresses,
            self._tcp(request.flows),
            Prepared(now + PREPARED_TIMEOUT),
        )
        self._keep(taken)
        return [
            *actions,
            taken.persist(),
            *set_flows(taken.flows, FlowVerdict.HOLD),
            *changes(NOTHING, self._wanted(taken)),
            self._prepared_answer(request, event.exchange),
            self._sent("prepare", taken, event.peer),
        ]

    def _refusal(self, request: TakeoverPrepare, authorised: tuple[Addr, ...]) -> Status | None:
        if not request.home_addresses or not set(request.home_addresses) <= set(authorised):
            return Status.NOT_AUTHORISED
        if any(flow.local not in request.home_addresses for flow in request.flows):
            return Status.NOT_AUTHORISED
        served = self.configuration.home_prefixes
        if not all(any(home in prefix for prefix in served) for home in request.home_addresses):
            return Status.NOT_AUTHORISED
        others = [each for each in self._taken.values() if each.identifier != request.handover]
        sessions = sum(len(each.flows) for each in others) + len(request.flows)
        if sessions > self.configuration.max_sessions or len(others) >= self.configuration.max_handovers:
            return Status.LIMIT
        return None

    def _tcp(self, flows: Sequence[Flow]) -> tuple[Flow, ...]:
        return tuple(each for each in flows if each.protocol == TCP)

    def _prepared_answer(self, request: TakeoverPrepare, exchange: int) -> Answer:
        statuses = tuple(
            SessionStatus(number, flow, Status.OK if flow.protocol == TCP else Status.REFUSED)
            for number, flow in enumerate(request.flows)
        )
        return self._answer(exchange, Status.OK, request.handover, sessions=statuses)

    def _transfer(self, request: TakeoverTransfer, taken: TakenOver, exchange: int) -> list[Action]:
        """Step 3: make the sessions live here. A record of another's address condemns the whole transfer."""
        match taken.state:
            case Restoring(exchanges):
                self._keep(taken.at(Restoring((*exchanges, exchange))))
                return []
            case Holding():
                return [self._answer(exchange, Status.OK, taken.identifier, sessions=taken.statuses())]
            case Stopping() | Stopped():
                return [self._wrong(exchange, taken)]
        try:
            flows = [_record_flow(each) for each in request.sessions]
        except WireError as error:
            return [
                Count(f"takeover-{error.reason}"),
                self._answer(exchange, Status.MALFORMED, taken.identifier),
            ]
        if any(flow.local not in taken.home_addresses for flow in flows):
            return [
                Count("takeover-not-authorised"),
                self._answer(exchange, Status.NOT_AUTHORISED, taken.identifier),
            ]
        if len(set(flows)) != len(flows):
            return [
                Count("takeover-repeated-flow"),
                self._answer(exchange, Status.MALFORMED, taken.identifier),
            ]
        sessions = tuple(
            HeldFlow(number, flow, Status.OK if flow in taken.flows else Status.REFUSED)
            for number, flow in enumerate(flows)
        )
        taken = replace(taken, sessions=sessions, state=Restoring((exchange,)))
        self._keep(taken)
        items = tuple(
            SessionRecordItem(each.session, each.flow, request.sessions[each.session]) for each in taken.held
        )
        if not items:
            return [taken.persist(), *self._restored(Restored(taken.identifier, ()))]
        return [taken.persist(), RestoreSessions(taken.identifier, items)]

    def _restored(self, event: Restored) -> list[Action]:
        taken = self._taken.get(event.handover)
        if taken is None or not isinstance(taken.state, Restoring):
            return [Count("result-unexpected")]
        exchanges = taken.state.exchanges
        failed = dict(event.failures)
        sessions = tuple(
            replace(each, status=Status.REFUSED)
            if each.status is Status.OK and each.session not in event.restored
            else each
            for each in taken.sessions
        )
        taken = replace(taken, sessions=sessions, state=Holding())
        self._keep(taken)
        ours = [each.flow for each in taken.held]
        actions: list[Action] = [taken.persist(), *set_flows(ours, FlowVerdict.DELIVER)]
        # First this: a packet that is released for a flow without a socket would be answered with a reset.
        actions += [ClearFlow(each) for each in taken.flows if each not in ours]
        actions += [ReleaseHeld(each) for each in taken.home_addresses]
        actions += [
            Emit(
                "session-refused", "632", each.flow.local, each.flow, {"reason": failed.get(each.session, "")}
            )
            for each in taken.sessions
            if each.status is not Status.OK
        ]
        actions += [
            self._answer(exchange, Status.OK, taken.identifier, sessions=taken.statuses())
            for exchange in exchanges
        ]
        return [*actions, self._sent("transfer", taken, None)]

    def _reclaim(self, taken: TakenOver, exchange: int) -> list[Action]:
        """The answer comes when it is known what there is (C3)."""
        match taken.state:
            case Prepared():
                return [self._wrong(exchange, taken)]
            case Restoring() | Stopping():
                return [self._answer(exchange, Status.BUSY, taken.identifier)]
        waiting = self._measuring.setdefault(taken.identifier, [])
        waiting.append(exchange)
        return [MeasureSessions(taken.identifier)] if len(waiting) == 1 else []

    def _measured(self, event: Measured) -> list[Action]:
        exchanges = self._measuring.pop(event.handover, [])
        taken = self._taken.get(event.handover)
        if taken is None:
            return [self._answer(each, Status.UNKNOWN_HANDOVER, event.handover) for each in exchanges]
        statuses = tuple(
            SessionStatus(
                each.session, each.flow, Status.OK, each.total, each.total, each.peer_closed, each.error
            )
            for each in event.sessions
        )
        answers: list[Action] = [
            self._answer(each, Status.OK, taken.identifier, sessions=statuses) for each in exchanges
        ]
        return [*answers, self._sent("reclaim", taken, None)] if answers else []

    def _fetch(self, request: Fetch, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        if isinstance(taken.state, Stopped):  # its device is still at it
            self._keep(taken.at(replace(taken.state, forget_at=now + STOPPED_TIMEOUT)))
        if not isinstance(taken.state, Holding | Stopped):
            return [self._wrong(exchange, taken)]
        if request.session not in {each.session for each in taken.held}:
            return [self._answer(exchange, Status.REFUSED, taken.identifier)]
        self._fetching[exchange] = request
        return [FetchData(exchange, taken.identifier, request.session, request.offset, request.limit)]

    def _fetch_done(self, event: Fetched) -> list[Action]:
        request = self._fetching.pop(event.exchange, None)
        if request is None:
            return [Count("result-unexpected")]
        if event.data is None:
            return [self._answer(event.exchange, Status.REFUSED, request.handover)]
        self._fetched[(request.handover, request.session)] = request.offset + len(event.data)
        answer = Answer632(Status.OK, request.handover, data=event.data, more=event.more)
        return [Answer(event.exchange, encode_632(answer))]

    def _finish(self, taken: TakenOver, exchange: int) -> list[Action]:
        """Step 4: everything sent to us is ahead of this request; stop, and give the last state."""
        match taken.state:
            case Prepared() | Restoring():
                return [self._wrong(exchange, taken)]
            case Stopping(exchanges):
                self._keep(taken.at(Stopping((*exchanges, exchange))))
                return []
            case Stopped(finals):
                return [self._final_answer(exchange, taken, finals)]
        taken = taken.at(Stopping((exchange,)))
        self._keep(taken)
        fetched = tuple(
            (each.session, self._fetched.get((taken.identifier, each.session), 0)) for each in taken.held
        )
        held = [each.flow for each in taken.held]
        return [
            taken.persist(),
            *set_flows(held, FlowVerdict.HOLD),
            StopSessions(taken.identifier, fetched, TAIL_LIMIT),
        ]

    def _stopped(self, event: SessionsStopped, now: float) -> list[Action]:
        taken = self._taken.get(event.handover)
        if taken is None or not isinstance(taken.state, Stopping):
            return [Count("result-unexpected")]
        exchanges = taken.state.exchanges
        taken = taken.at(Stopped(event.finals, now + STOPPED_TIMEOUT))
        self._keep(taken)
        answers = [self._final_answer(each, taken, event.finals) for each in exchanges]
        return [taken.persist(), *answers, self._sent("finish", taken, None)]

    def _final_answer(self, exchange: int, taken: TakenOver, finals: tuple[SessionFinal, ...]) -> Answer:
        states = tuple(
            FinalState(
                session=each.session,
                ts_value=each.timestamp,
                received=each.total,
                tail_offset=each.tail_offset,
                peer_closed=each.peer_closed,
                error=each.error,
                acked=each.acknowledged,
                tail=each.tail,
            )
            for each in finals
        )
        return Answer(exchange, encode_632(Answer632(Status.OK, taken.identifier, final=states)))

    def _not_performed(self, action: object, reason: str) -> list[Action]:
        """The node could not do it (a full disk): back to where the device can go on, or ask again."""
        match action:
            case RestoreSessions(handover, items):
                taken = self._taken.get(handover)
                if taken is None or not isinstance(taken.state, Restoring):
                    return []
                refused = Restored(handover, (), tuple((each.session, reason) for each in items))
                return [DropSessions(handover), *self._restored(refused)]
            case StopSessions(handover):
                taken = self._taken.get(handover)
                if taken is None or not isinstance(taken.state, Stopping):
                    return []
                busy = [self._answer(each, Status.BUSY, handover) for each in taken.state.exchanges]
                return [*self._resume(taken), *busy]
            case MeasureSessions(handover):
                exchanges = self._measuring.pop(handover, [])
                return [self._answer(each, Status.BUSY, handover) for each in exchanges]
            case FetchData(exchange):
                request = self._fetching.pop(exchange, None)
                return [] if request is None else [self._answer(exchange, Status.BUSY, request.handover)]
        return []

    def _done(self, taken: TakenOver, exchange: int) -> list[Action]:
        """Step 5. Sessions that live here are not given up by a word: the device has to take their final state first."""
        if isinstance(taken.state, Restoring | Stopping) or (isinstance(taken.state, Holding) and taken.held):
            return [self._wrong(exchange, taken)]
        answer = self._answer(exchange, Status.OK, taken.identifier)
        return [*self._end(taken), answer, self._sent("done", taken, None)]

    def _cancel(self, taken: TakenOver, exchange: int) -> list[Action]:
        match taken.state:
            case Restoring() | Stopping():
                return [self._answer(exchange, Status.BUSY, taken.identifier)]
            case Prepared():
                return [*self._end(taken), self._answer(exchange, Status.OK, taken.identifier)]
            case Holding():
                return [self._answer(exchange, Status.OK, taken.identifier)]
        return [*self._resume(taken), self._answer(exchange, Status.OK, taken.identifier)]

    def _resume(self, taken: TakenOver) -> list[Action]:
        """The sessions go on here."""
        taken = taken.at(Holding())
        self._keep(taken)
        flows = [each.flow for each in taken.held]
        return [
            taken.persist(),
            ResumeSessions(taken.identifier),
            *set_flows(flows, FlowVerdict.DELIVER),
            *(ReleaseHeld(each) for each in taken.home_addresses),
        ]

    # State and answers -------------------------------------------------------------------------------------------

    def _keep(self, taken: TakenOver) -> None:
        self._taken[taken.identifier] = taken
        if isinstance(taken.state, Prepared | Stopped):
            self._timers.set(taken.identifier, taken.state.forget_at)
        else:
            self._timers.cancel(taken.identifier)

    def _end(self, taken: TakenOver) -> list[Action]:
        """No trace remains, except that a repeated request is recognised."""
        del self._taken[taken.identifier]
        self._timers.cancel(taken.identifier)
        self._ended[taken.identifier] = None
        if len(self._ended) > MAX_REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._fetched = {key: end for key, end in self._fetched.items() if key[0] != taken.identifier}
        drop: list[Action] = [DropSessions(taken.identifier)] if taken.held else []
        return [
            *drop,
            *(ClearFlow(each) for each in taken.flows),
            *changes(self._wanted(taken), NOTHING),
            taken.forget(),
        ]

    def _wanted(self, taken: TakenOver) -> Forwarding:
        return takeover_forwarding(taken, self.configuration.address, self.configuration.colocated_home_agent)

    def _wrong(self, exchange: int, taken: TakenOver) -> Answer:
        return self._answer(exchange, Status.WRONG_STATE, taken.identifier)

    def _answer(
        self,
        exchange: int,
        status: Status,
        handover: bytes | None = None,
        *,
        sessions: tuple[SessionStatus, ...] = (),
    ) -> Answer:
        access_node = self.configuration.access_node if status is Status.OK else None
        return Answer(exchange, encode_632(Answer632(status, handover, access_node, sessions)))

    def _sent(self, request: str, taken: TakenOver, peer: Addr | None) -> Emit:
        detail: dict[str, JSON] = {"request": request, "sessions": len(taken.held)}
        if peer is not None:
            detail["to"] = str(peer)
        return Emit("sent", "632", taken.home_addresses[0], None, detail)

    def _noticed(self, event: Asked) -> list[Action]:
        """618'' (C6): the access node says who gets the packets; the handover itself does not depend on it."""
        try:
            notice = decode_618(event.body)
        except WireError as error:
            return [Count(f"notice-{error.reason}"), self._answer(event.exchange, Status.MALFORMED)]
        if not any(notice.home_address in each for each in self.configuration.home_prefixes):
            return [Count("notice-foreign"), self._answer(event.exchange, Status.NOT_AUTHORISED)]
        detail: dict[str, JSON] = {"responsible": notice.responsible, "node": str(notice.node)}
        return [
            self._answer(event.exchange, Status.OK),
            Emit("notified", "618", notice.home_address, None, detail),
        ]


def _record_flow(record: Record) -> Flow:
    """The flow of a session record; raises WireError."""
    if RECORD_FLOW not in record:
        raise WireError("634.session-record.flow", 0, "missing")
    return Flow.from_cbor(record[RECORD_FLOW], "634.session-record.flow")
