"""Takeover of sessions by a stand-in: prepare, transfer, restored (C2, C10; messages 634, 632).

From the prepare on packets of their flows are held; they are delivered when the sockets live here. It must not know sockets.
"""

from dataclasses import replace
from functools import partial

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.app_orders import MAX_APPLICATION, OrderError
from locum.roles.action_values.forwarding import ClearFlow, FlowVerdict, ReleaseHeld
from locum.roles.action_values.sessions import DropSessions, Restored, RestoreSessions, SessionRecordItem
from locum.roles.actions import Action, Answer, Asked, Count, Emit
from locum.roles.flow_rows import set_flows
from locum.roles.mnps.attending import Attending
from locum.roles.mnps.configuration import StandInConfiguration
from locum.roles.mnps.giving_up import GivingUp
from locum.roles.mnps.handover import (
    STATES,
    HeldFlow,
    Holding,
    Prepared,
    Releasing,
    Restoring,
    Stopped,
    Stopping,
    TakenOver,
)
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.listening import Listening, allowed
from locum.roles.mnps.quotas import Quotas
from locum.roles.mnps.replies_632 import Replies
from locum.roles.mnps.switching import Switching
from locum.wire import cbor
from locum.wire.control import Flow, Record, SessionStatus, Status, TakeoverPrepare, TakeoverTransfer
from locum.wire.errors import WireError

TCP, UDP = 6, 17
RECORD_FLOW = 0  # key of the flow in a session record (session.cddl)
_OWNED = "the stand-in has this session already, under another hand-over"
PREPARED_TIMEOUT = 60.0  # seconds; a device that has prepared transfers within its own time-outs or never


class TakingOver:
    """The first half of every handover of `holdings`."""

    def __init__(
        self,
        configuration: StandInConfiguration,
        holdings: Holdings,
        replies: Replies,
        switching: Switching,
        listening: Listening,
        giving_up: GivingUp,
        quotas: Quotas,
        attending: Attending,
    ) -> None:
        self.configuration, self._holdings, self._replies = configuration, holdings, replies
        self._switching, self._listening = switching, listening
        self._giving_up, self._quotas, self._attending = giving_up, quotas, attending

    def prepare(self, request: TakeoverPrepare, event: Asked, now: float) -> list[Action]:
        """Step 1: hold the packets of these flows, answer for the home addresses (C10: this is how they are learnt)."""
        refusal = self._refusal(request, event.authorised)
        if refusal is not None:
            return [
                Count(f"takeover-{refusal.name.lower().replace('_', '-')}"),
                self._replies.answer(event.exchange, refusal, request.handover),
            ]
        try:
            apps = self._attending.ordered(request.configuration)
        except OrderError as problem:
            answer = self._replies.answer(
                event.exchange, Status.REFUSED, request.handover, reason=str(problem), app=problem.app
            )
            return [Count("takeover-refused"), answer]
        if self._holdings.is_over(request.handover):
            return [Count("takeover-late"), self._replies.answer(event.exchange, Status.UNKNOWN_HANDOVER)]
        flows = self._takeable(request)
        known = self._holdings.get(request.handover)
        if known is not None:
            if known.home_addresses != request.home_addresses:  # the name of another device's hand-over
                return [
                    Count("takeover-not-authorised"),
                    self._replies.answer(event.exchange, Status.NOT_AUTHORISED, request.handover),
                ]
            if not isinstance(known.state, Prepared) or not set(known.flows) <= set(flows):
                return [self._replies.wrong(event.exchange, known)]
            if known.flows != flows:
                return self._extend(known, flows, request, event, now)
            return self._switching.prepared(known, self._prepared_answer(request, event.exchange), now)
        taken = TakenOver(
            request.handover,
            request.home_addresses,
            flows,
            STATES.change(None, "prepare", Prepared(now + PREPARED_TIMEOUT)),
            switch=request.switch,
            access_node=request.access_node,
            listeners=request.listeners,
            apps=apps,
        )
        self._holdings.keep(taken)
        return [
            taken.persist(),
            *set_flows(taken.flows, FlowVerdict.HOLD),
            *self._holdings.settle(),
            *self._switching.want(taken, now),
            *self._switching.prepared(taken, self._prepared_answer(request, event.exchange), now),
            self._replies.sent("prepare", taken, event.peer),
        ]

    def _extend(
        self, known: TakenOver, flows: tuple[Flow, ...], request: TakeoverPrepare, event: Asked, now: float
    ) -> list[Action]:
        """Connections that were opened while their device fell asleep join those that are prepared."""
        taken = replace(known.at("prepare", Prepared(now + PREPARED_TIMEOUT)), flows=flows)
        before = set(known.flows)
        self._holdings.keep(taken)
        return [
            taken.persist(),
            *set_flows([flow for flow in flows if flow not in before], FlowVerdict.HOLD),
            *self._holdings.settle(),
            *self._switching.want(taken, now),
            *self._switching.prepared(taken, self._prepared_answer(request, event.exchange), now),
            self._replies.sent("prepare", taken, event.peer),
        ]

    def _refusal(self, request: TakeoverPrepare, authorised: tuple[Addr, ...]) -> Status | None:
        if not request.home_addresses or not set(request.home_addresses) <= set(authorised):
            return Status.NOT_AUTHORISED
        if any(flow.local not in request.home_addresses for flow in request.flows):
            return Status.NOT_AUTHORISED
        if not allowed(request.listeners, request.home_addresses):
            return Status.NOT_AUTHORISED
        served = self.configuration.home_prefixes
        if not all(any(home in prefix for prefix in served) for home in request.home_addresses):
            return Status.NOT_AUTHORISED
        others, sessions = self._holdings.numbers(besides=request.handover)
        most, most_sessions = self.configuration.max_handovers, self.configuration.max_sessions
        if sessions + len(request.flows) > most_sessions or others >= most:
            return Status.LIMIT
        if not self._quotas.fair(request.handover, request.home_addresses):
            return Status.LIMIT
        if request.switch is not None:
            return self._switching.refusal(request.home_addresses, request.switch, len(request.flows))
        return None

    def _takeable(self, request: TakeoverPrepare) -> tuple[Flow, ...]:
        """True for new TCP and UDP flows: a late prepare must not touch sessions that live here."""
        owned = partial(self._holdings.is_owned, besides=request.handover)
        return tuple(
            flow
            for number, flow in enumerate(request.flows)
            if flow.protocol in (TCP, UDP) and not owned(flow) and self._quotas.admits(number)
        )

    def _prepared_answer(self, request: TakeoverPrepare, exchange: int) -> Answer:
        takeable = set(self._takeable(request))
        statuses = tuple(
            SessionStatus(number, flow, Status.OK)
            if flow in takeable
            else SessionStatus(number, flow, Status.REFUSED, reason=self._why_not(number, flow))
            for number, flow in enumerate(request.flows)
        )
        return self._replies.answer(exchange, Status.OK, request.handover, sessions=statuses)

    def _why_not(self, number: int, flow: Flow) -> str:
        if flow.protocol not in (TCP, UDP):
            return f"the stand-in takes no sessions of protocol {flow.protocol}"
        if not self._quotas.admits(number):
            return f"the stand-in holds at most {self.configuration.quota.sessions} sessions of a device"
        return _OWNED

    def transfer(
        self, request: TakeoverTransfer, taken: TakenOver, exchange: int, now: float
    ) -> list[Action]:
        """Step 3: make the sessions live here. A record of another's address condemns the whole transfer."""
        match taken.state:
            case Restoring(exchanges):
                self._holdings.keep(taken.at("transfer", Restoring((*exchanges, exchange))))
                return []
            case Holding():
                return [
                    self._replies.answer(exchange, Status.OK, taken.identifier, sessions=taken.statuses())
                ]
            case Releasing() | Stopping() | Stopped():
                return [self._replies.wrong(exchange, taken)]
        try:
            flows = [_record_flow(session) for session in request.sessions]
        except WireError as error:
            return [
                Count(f"takeover-{error.reason}"),
                self._replies.answer(exchange, Status.MALFORMED, taken.identifier),
            ]
        if any(flow.local not in taken.home_addresses for flow in flows):
            return [
                Count("takeover-not-authorised"),
                self._replies.answer(exchange, Status.NOT_AUTHORISED, taken.identifier),
            ]
        if len(set(flows)) != len(flows):
            return [
                Count("takeover-repeated-flow"),
                self._replies.answer(exchange, Status.MALFORMED, taken.identifier),
            ]
        if len(cbor.encode(dict(request.application))) > MAX_APPLICATION:
            return [
                Count("takeover-limit"),
                self._replies.answer(exchange, Status.LIMIT, taken.identifier),
            ]
        prepared = set(taken.flows)
        owned = partial(self._holdings.is_owned, besides=taken.identifier)
        refusals = {flow: "it was not prepared" for flow in flows if flow not in prepared}
        refusals |= {flow: _OWNED for flow in flows if owned(flow)}  # since it was prepared
        sessions = tuple(
            HeldFlow(number, flow, Status.REFUSED, refusals[flow])
            if flow in refusals
            else HeldFlow(number, flow)
            for number, flow in enumerate(flows)
        )
        taken = replace(
            taken.at("transfer", Restoring((exchange,))), sessions=sessions, application=request.application
        )
        self._holdings.keep(taken)
        superseded = self._giving_up.supersede(taken, request.others, now)
        superseded += self._quotas.make_room(taken, now)
        items = tuple(
            SessionRecordItem(session.session, session.flow, request.sessions[session.session])
            for session in taken.held
        )
        if not items:
            return [*superseded, taken.persist(), *self.restored(Restored(taken.identifier, ()))]
        return [
            *superseded,
            taken.persist(),
            RestoreSessions(taken.identifier, items, taken.home_addresses[0]),
        ]

    def restored(self, event: Restored) -> list[Action]:
        """Let packets in for live sessions, and answer the device for each one."""
        taken = self._holdings.get(event.handover)
        if taken is None or not isinstance(taken.state, Restoring):
            return [Count("result-unexpected")]
        exchanges = taken.state.exchanges
        restored, failed = frozenset(event.restored), dict(event.failures)
        sessions = tuple(
            replace(session, status=Status.REFUSED, reason=failed.get(session.session, ""))
            if session.status is Status.OK and session.session not in restored
            else session
            for session in taken.sessions
        )
        taken = replace(taken.at("restored", Holding()), sessions=sessions, attended=bool(taken.apps))
        self._holdings.keep(taken)
        ours = dict.fromkeys(session.flow for session in taken.held)
        actions: list[Action] = [taken.persist(), *set_flows(ours, FlowVerdict.DELIVER)]
        # First this: a packet that is released for a flow without a socket would be answered with a reset.
        wanted = partial(self._holdings.is_wanted, besides=taken.identifier)
        actions += [ClearFlow(flow) for flow in taken.flows if flow not in ours and not wanted(flow)]
        actions += [ReleaseHeld(home_address) for home_address in taken.home_addresses]
        actions += [
            Emit("session-refused", "632", session.flow.local, session.flow, {"reason": session.reason})
            for session in taken.sessions
            if session.status is not Status.OK
        ]
        actions += [
            self._replies.answer(exchange, Status.OK, taken.identifier, sessions=taken.statuses())
            for exchange in exchanges
        ]
        begun = [*self._listening.begin(taken), *self._attending.begin(taken)]
        return [*actions, *begun, self._replies.sent("transfer", taken, None)]

    def not_restored(self, action: RestoreSessions, reason: str) -> list[Action]:
        """The node could not do it (a full disk): every session stays with its device."""
        taken = self._holdings.get(action.handover)
        if taken is None or not isinstance(taken.state, Restoring):
            return []
        refused = Restored(
            action.handover, (), tuple((session.session, reason) for session in action.sessions)
        )
        return [DropSessions(action.handover), *self.restored(refused)]


def _record_flow(record: Record) -> Flow:
    """The flow of a session record; raises WireError."""
    if RECORD_FLOW not in record:
        raise WireError("634.session-record.flow", 0, "missing")
    return Flow.from_cbor(record[RECORD_FLOW], "634.session-record.flow")
