"""A stand-in with one device on a virtual clock; its home agent answers as a test says."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import count
from random import Random
from typing import Any

from locum.node.tables import StoredRow
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import AppsPaused, AppTold, PauseApps
from locum.roles.action_values.event_tables import TellCorrespondent, WatchPackets
from locum.roles.action_values.sessions import (
    HeldSession,
    Measured,
    MeasureSessions,
    Restored,
    SessionFinal,
    Stopped,
    StopSessions,
)
from locum.roles.mnps.configuration import StandInConfiguration
from locum.roles.mnps.handover import Holding, TakenOver
from locum.roles.mnps.role import StandIn
from locum.wire.control import (
    Answer632,
    Done,
    Finish,
    Flow,
    Reclaim,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_634,
)
from locum.wire.control.paging.agent_rules import AgentRules1208, decode_1208
from locum.wire.control.paging.entry import ActionKind, Entry, EntryAction, Limits, Pattern
from locum.wire.control.paging.event_table import EventTable1206, Operation, encode_1206
from locum.wire.control.paging.outcome import Outcome, PageAnswer, encode_page_answer
from locum.wire.control.paging.page_request import PageRequest1172, decode_1172
from locum.wire.control.paging.rules import AgentRule
from locum.wire.control.paging.status import (
    PagingStatus,
    StatusAnswer,
    decode_status_answer,
    encode_status_answer,
)
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector

HOA, HOA6 = IPv4Address("10.50.0.9"), IPv6Address("2001:db8:50::9")
OTHER = IPv4Address("10.50.0.10")
HA, AN, STAND_IN = IPv4Address("10.5.0.1"), IPv4Address("10.1.0.1"), IPv4Address("10.3.0.9")
START = 1_790_000_000.0  # 13:33 UTC
FLOW = Flow(6, HOA, 40000, ip_address("192.0.2.1"), 1883)
CONFIGURATION = StandInConfiguration(
    STAND_IN,
    IPv4Address("10.3.0.1"),
    (IPv4Network("10.50.0.0/16"), IPv6Network("2001:db8:50::/48")),
    home_agent=HA,
)
PAGE, DIRECT = EntryAction(ActionKind.PAGE), EntryAction(ActionKind.PAGE_DIRECT)
STORE, TELL = EntryAction(ActionKind.STORE), EntryAction(ActionKind.TELL, text="asleep")
RULE = AgentRule(7, 10, (Ipv4Selector(protocol=(17, 17)),))


def entry(
    number: int = 1,
    *actions: EntryAction,
    app: str = "*",
    kind: str = "delivered",
    limits: Limits = Limits(),  # noqa: B008 - frozen
    **more: Any,
) -> Entry:
    """An entry for events of this kind; without actions it pages."""
    return Entry(number, (Pattern(app, kind),), actions or (PAGE,), limits=limits, **more)


def table(sent: int, *entries: Entry, **more: Any) -> EventTable1206:
    """A 1206 that replaces the table."""
    return EventTable1206((HOA,), Operation.REPLACE, sent, entries, **more)


class Bench:
    """Everything that the stand-in says, and a home agent that answers by `outcome` and `rules_answer`, or is silent."""

    def __init__(self, configuration: StandInConfiguration = CONFIGURATION) -> None:
        self.configuration = configuration
        self.now, self.ahead = START, 0.0
        self.rows: dict[tuple[str, str], a.Persist] = {}
        self.events: list[a.Emit] = []
        self.counts: dict[str, int] = {}
        self.pages: list[PageRequest1172] = []
        self.rules: list[AgentRules1208] = []
        self.answers: dict[int, bytes] = {}
        self.watched: list[WatchPackets] = []
        self.told: list[TellCorrespondent] = []
        self.outcome: Callable[[PageRequest1172], Outcome | None] = lambda _page: Outcome.REACHED
        self.rules_answer: Callable[[AgentRules1208], StatusAnswer | None] = lambda rules: StatusAnswer(
            PagingStatus.OK, lifetime=rules.lifetime
        )
        self.delay = 0.1
        self._answers_at: list[tuple[float, int, a.Answered | a.NoAnswer]] = []
        self._exchanges, self._order = count(1), count()
        self.role = self._made()

    def _made(self) -> StandIn:
        role = StandIn(self.configuration, Random(1), lambda _order, _others: None)
        rows = [StoredRow(row.table, row.key, json.dumps(row.value)) for row in self.rows.values()]
        self._perform(role.restore(rows, now=self.now))
        self._perform(role.happened(a.WallClockStepped(self.ahead), now=self.now))
        return role

    def restart(self) -> None:
        """The daemon is killed: requests under way are gone, rows are there."""
        self._answers_at.clear()
        self.role = self._made()

    # Time

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            times = [at for at, _, _ in self._answers_at]
            if (due := self.role.deadline()) is not None:
                times.append(due)
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(self.now, min(times))
            arrived = sorted(item for item in self._answers_at if item[0] <= self.now)
            self._answers_at = [item for item in self._answers_at if item[0] > self.now]
            for _at, _order, event in arrived:
                self.tell(event)
            if due is not None and due <= self.now:
                self._perform(self.role.timeout(now=self.now))

    def step_wall_clock(self, seconds: float) -> None:
        self.ahead += seconds
        self.tell(a.WallClockStepped(self.ahead))

    # In

    def tell(self, event: a.Event) -> None:
        self._perform(self.role.happened(event, now=self.now))

    def ask(
        self, path: str, body: bytes, peer: Addr = HOA, authorised: tuple[Addr, ...] = (HOA, HOA6)
    ) -> int:
        exchange = next(self._exchanges)
        self.tell(a.Asked(exchange, path, body, peer, authorised))
        return exchange

    def change(self, change: EventTable1206, **more: Any) -> int:
        """A 1206; the number of its exchange."""
        return self.ask("1206", encode_1206(change), **more)

    def changed(self, change: EventTable1206, **more: Any) -> StatusAnswer:
        """A 1206 and its answer, which comes in time."""
        exchange = self.change(change, **more)
        self.advance(10.0)
        return decode_status_answer(self.answers[exchange])

    def sleep(
        self,
        handover: bytes = b"h" * 16,
        *,
        flows: tuple[Flow, ...] = (FLOW,),
        switch: Takes | None = None,
        apps: object = (("mqtt", "keepalive", {}),),
    ) -> None:
        """The device hands its sessions over."""
        configuration: Mapping[str, object] = {"apps": [list(app) for app in apps]} if apps else {}  # type: ignore[attr-defined]
        self.prepare(handover, flows, switch, configuration)
        sessions = tuple({0: flow.to_cbor()} for flow in flows)
        self.ask("634", encode_634(TakeoverTransfer(handover, sessions, {})))
        self.tell(Restored(handover, tuple(range(len(flows)))))

    def order(self, handover: bytes = b"o" * 16) -> None:
        """A proxy that runs while the device is awake, in a handover of its own."""
        taken = TakenOver(handover, (HOA, HOA6), (), Holding(), switch=Takes.RULED)
        self.role._holdings.keep(taken)

    def prepare(
        self,
        handover: bytes = b"h" * 16,
        flows: tuple[Flow, ...] = (FLOW,),
        switch: Takes | None = None,
        configuration: Mapping[str, object] | None = None,
    ) -> None:
        request = TakeoverPrepare(handover, (HOA, HOA6), flows, configuration or {}, switch)
        self.ask("634", encode_634(request))

    def reclaim(self, handover: bytes = b"h" * 16) -> Answer632:
        exchange = self.ask("634", encode_634(Reclaim(handover, (HOA,))))
        return decode_632(self.answers[exchange])

    def done(self, handover: bytes = b"h" * 16) -> None:
        """The device has its sessions."""
        self.ask("634", encode_634(Finish(handover)))
        self.ask("634", encode_634(Done(handover)))

    def wake(self, handover: bytes = b"h" * 16) -> Answer632:
        """The whole course of a wake; the answer to its reclaim."""
        answer = self.reclaim(handover)
        self.done(handover)
        return answer

    def happened(
        self,
        kind: str = "delivered",
        app: str = "mqtt",
        handover: bytes = b"h" * 16,
        flow: Flow | None = FLOW,
        **detail: Any,
    ) -> None:
        """An event of a proxy."""
        self.tell(AppTold(handover, app, kind, flow, detail))

    # Out

    def kinds(self, *names: str) -> list[str]:
        return [event.kind for event in self.events if not names or event.kind in names]

    def outcomes(self) -> list[object]:
        return [event.detail["outcome"] for event in self.events if event.kind == "page-outcome"]

    def _perform(self, actions: list[a.Action]) -> None:
        for action in actions:
            self._one(action)

    def _one(self, action: a.Action) -> None:
        match action:
            case a.Persist():
                self.rows[action.table, action.key] = replace(action)
            case a.Forget():
                self.rows.pop((action.table, action.key), None)
            case a.Emit():
                self.events.append(action)
            case a.Count():
                self.counts[action.reason] = self.counts.get(action.reason, 0) + action.number
            case a.Answer():
                assert action.exchange not in self.answers, "an exchange is answered once"
                self.answers[action.exchange] = action.body
            case WatchPackets():
                self.watched.append(action)
            case TellCorrespondent():
                self.told.append(action)
            case a.Ask(path="1172"):
                page = decode_1172(action.body)
                self.pages.append(page)
                outcome = self.outcome(page)
                body = None if outcome is None else encode_page_answer(PageAnswer(page.page, outcome))
                self._reply(action, body)
            case a.Ask(path="1208"):
                rules = decode_1208(action.body)
                self.rules.append(rules)
                answer = self.rules_answer(rules)
                self._reply(action, None if answer is None else encode_status_answer(answer))
            case PauseApps():
                self.tell(AppsPaused(action.handover))
            case MeasureSessions(handover):
                self.tell(Measured(handover, (HeldSession(0, FLOW, 0),)))
            case StopSessions(handover):
                self.tell(Stopped(handover, (SessionFinal(0, FLOW, 0),)))

    def _reply(self, action: a.Ask, body: bytes | None) -> None:
        event: a.Answered | a.NoAnswer = a.NoAnswer(action.request, "no answer")
        at = self.now + action.timeout
        if body is not None:
            event, at = a.Answered(action.request, body), self.now + self.delay
        self._answers_at.append((at, next(self._order), event))
