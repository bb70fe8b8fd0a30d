"""The order of actions is kept, and replies leave after their commit and forwarding."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import pytest

from locum.dataplane.performer import Refused
from locum.node.apps.attended import AttendedStandIn
from locum.node.apps.attending import Apps
from locum.node.apps.outlets import Outlets
from locum.node.apps.paging.table_events import TableEvents
from locum.node.apps.transfers import AppTransfers
from locum.node.coap.exchanges import Exchanges
from locum.node.config.settings import AppLimits
from locum.node.events import EventStream
from locum.node.host.handlers import HostHandlers
from locum.node.node import Node
from locum.node.performer import OUTGOING, Performer, Pipelined, Sequential
from locum.node.policy.radius import RadiusClient
from locum.node.registration.demultiplexer import RegistrationIo
from locum.node.registration.prober import Prober
from locum.node.sessions.bringing_back import BringingBack
from locum.node.sessions.device import SessionCapture
from locum.node.sessions.replaying import Replaying
from locum.node.sessions.trickle import Trickle
from locum.node.sessions.waiting import WaitingConnections
from locum.node.store import Store
from locum.node.tables import RoleTables, StoreError
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.forwarding import (
    FORWARDING,
    AcceptTunnel,
    BindingEntry,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    ReleaseHeld,
    SetFlow,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.action_values.forwarding_order import by_home_address, home_address_of
from locum.roles.action_values.sessions import FindSessions, Freeze, NotPerformed, Process, Thaw
from locum.roles.actions import Action, Answer, Ask, Count, Emit, NoAnswer, Persist, Reply, SendRegistration
from locum.roles.profile_requests import AnswerPush, PushOutcome
from locum.wire.control import Flow

HOME, OTHER, CARE_OF = (ip_address(text) for text in ("10.36.0.4", "10.36.0.5", "10.2.0.2"))
TO = Source(CARE_OF, 434, "eth0")
Part = TypeVar("Part")
FLOW = Flow(6, HOME, 5, OTHER, 80)


def acceptance(home_address: Any = HOME) -> TunnelAcceptance:
    return TunnelAcceptance(CARE_OF, home_address, Side.FROM_HOME_ADDRESS)


class Bench:
    """Everything a performer talks to, written down in the order in which it is talked to."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path / "n.db")
        self.tables = RoleTables("home_agent", self.store, self.store)
        self.events = EventStream("n")
        self.events.subscribe(lambda line: self.log.append("event"))
        self.log: list[str] = []
        self.broken = False
        self.refused: set[Any] = set()  # home addresses that find no room

    def forward(self, actions: Sequence[Action]) -> list[Refused]:
        if self.broken:
            raise OSError("the table is full")
        self.log.append("forward " + " ".join(type(action).__name__ for action in actions))
        return [
            Refused(home_address_of(part[0]), tuple(part), OSError("the table is full"))
            for part in by_home_address(actions)
            if home_address_of(part[0]) in self.refused
        ]

    def reply(self, action: Reply) -> None:
        committed = self.store.rows("home_agent.binding").get("k", {})
        self.log.append(f"reply {action.message.decode()} {committed.get('n')}")

    async def freeze(self, action: Freeze) -> None:
        self.log.append("freezing")
        await asyncio.sleep(0.02)
        self.log.append("frozen")

    async def fail(self, action: Thaw) -> None:
        raise OSError("no such process")

    def handlers(self) -> dict[type, Any]:
        return {
            Reply: self.reply,
            Freeze: self.freeze,
            Thaw: self.fail,
            Answer: lambda _: self.log.append("answer"),
            AnswerPush: lambda _: self.log.append("push"),
            Ask: lambda _: self.log.append("ask"),
            SendRegistration: lambda _: self.log.append("registration"),
        }

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.log) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.store.close()


async def test_a_reply_waits_for_its_commit_and_its_forwarding(bench: Bench) -> None:
    performer = Pipelined(bench.tables, bench.events, bench.forward, bench.handlers())
    for number in range(3):
        performer.perform(
            [
                Persist("binding", "k", {"n": number}),
                InstallBinding(BindingEntry(HOME, Verdict.NATIVE)),
                Reply(TO, b"%d" % number),
                Emit("sent"),
            ]
        )
    assert bench.log == []
    await bench.until(7)
    assert bench.log[0] == "forward InstallBinding"
    assert bench.log[1:] == ["reply 0 2", "reply 1 2", "reply 2 2", "event", "event", "event"]


async def test_answers_leave_together_and_failures_are_counted(bench: Bench) -> None:
    def answer(replies: Sequence[Reply]) -> list[tuple[Action, Exception]]:
        bench.log.append("answer " + " ".join(reply.message.decode() for reply in replies))
        return [(replies[1], OSError("no route"))]

    performer = Pipelined(bench.tables, bench.events, bench.forward, bench.handlers())
    performer.answer = answer
    for number in range(3):
        performer.perform([Persist("binding", "k", {"n": number}), Reply(TO, b"%d" % number), Count("seen")])
    await bench.until(2)
    assert bench.log == ["answer 0 1 2", "event"]
    assert bench.events.reasons == {"failed-Reply": 1, "seen": 3}


async def test_reply_without_a_write_does_not_wait(bench: Bench) -> None:
    performer = Pipelined(bench.tables, bench.events, bench.forward, bench.handlers())
    performer.perform([Count("refused-131"), Reply(TO, b"no")])
    assert bench.log == ["reply no None"]
    assert bench.events.reasons["refused-131"] == 1


async def test_failed_commit_sends_no_reply(bench: Bench) -> None:
    performer = Pipelined(bench.tables, bench.events, bench.forward, bench.handlers())
    bench.broken = True
    performer.perform(
        [Persist("binding", "k", {"n": 1}), AcceptTunnel(acceptance()), Reply(TO, b"yes"), Emit("sent")]
    )
    await bench.until(1)
    await asyncio.sleep(0.05)
    assert bench.log == ["event"]  # action-failed
    assert bench.events.counts["action-failed"] == 1
    bench.broken = False
    performer.perform([Persist("binding", "k", {"n": 2}), Reply(TO, b"again")])
    await bench.until(2)
    assert bench.log[1] == "reply again 2"


async def test_refused_change_keeps_its_own_answer_back_and_no_other(bench: Bench) -> None:
    performer = Pipelined(bench.tables, bench.events, bench.forward, bench.handlers())
    bench.refused = {HOME}
    for number, home_address in enumerate((HOME, OTHER)):
        performer.perform(
            [
                Persist("binding", "k", {"n": number}),
                AcceptTunnel(acceptance(home_address)),
                Reply(TO, b"%d" % number),
                Emit("sent"),
            ]
        )
    await bench.until(4)
    await asyncio.sleep(0.05)
    assert bench.log == ["forward AcceptTunnel AcceptTunnel", "event", "reply 1 1", "event"]
    assert bench.events.counts == {"action-failed": 1, "sent": 1}


async def test_refused_change_is_told_in_sequence(bench: Bench) -> None:
    performer = Sequential(bench.tables, bench.events, bench.forward, bench.handlers())
    told: list[Any] = []
    performer.tell_failure = told.append
    bench.refused = {HOME}
    first, second = AcceptTunnel(acceptance(HOME)), AcceptTunnel(acceptance(OTHER))
    performer.perform([first, second])
    (failure,) = told
    assert failure.action == first


async def test_a_store_that_fails_keeps_replies_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    performer = Pipelined(bench.tables, bench.events, bench.forward, bench.handlers())

    def full(batch: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bench.store, "_commit", full)
    performer.perform([Persist("binding", "k", {"n": 1}), Reply(TO, b"yes")])
    await bench.until(1)
    await asyncio.sleep(0.05)
    assert bench.log == ["event"]


@pytest.mark.parametrize("kind", [Pipelined, Sequential])
async def test_saved_waits_for_all_that_was_given(bench: Bench, kind: type[Performer]) -> None:
    """A sequential role's writes may be behind an action that takes time."""
    performer = kind(bench.tables, bench.events, bench.forward, bench.handlers())
    await performer.saved()
    if kind is Sequential:
        performer.perform([Freeze(())])
    performer.perform([Persist("binding", "k", {"n": 1})])
    await performer.saved()
    assert bench.store.rows("home_agent.binding") == {"k": {"n": 1}}
    performer.perform([Persist("binding", "k", {"n": 2}), AcceptTunnel(acceptance()), Emit("sent")])
    await performer.saved()
    assert bench.store.rows("home_agent.binding") == {"k": {"n": 2}}


async def test_waiting_for_writes_may_be_given_up(bench: Bench) -> None:
    performer = Sequential(bench.tables, bench.events, bench.forward, bench.handlers())
    performer.perform([Freeze(())])
    waiting = asyncio.create_task(performer.saved())
    await asyncio.sleep(0)
    waiting.cancel()
    performer.perform([AcceptTunnel(acceptance())])
    await performer.drained()
    assert bench.log == ["freezing", "frozen", "forward AcceptTunnel"] and waiting.cancelled()


MESSAGES: tuple[Action, ...] = (
    Reply(TO, b"yes"),
    SendRegistration(b"request", OTHER),
    Ask(7, OTHER, "634", b"", 1.0, False),
    Answer(1, b""),
    AnswerPush(1, PushOutcome.DONE),
)


def test_every_message_to_a_peer_waits_for_the_commit() -> None:
    assert set(map(type, MESSAGES)) == OUTGOING


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_failed_commit_sends_no_reply_in_sequence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, message: Action
) -> None:
    performer = Sequential(bench.tables, bench.events, bench.forward, bench.handlers())
    told: list[Any] = []
    performer.tell_failure = told.append
    commit = bench.store._commit

    def full(batch: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bench.store, "_commit", full)
    performer.perform([Persist("profile", "h", {"n": 1}), message, message])
    await bench.until(2)
    await performer.drained()
    assert bench.log == ["event", "event"]
    assert bench.events.reasons == {f"failed-{type(message).__name__}": 2}
    assert [type(event) for event in told] == [NoAnswer if isinstance(message, Ask) else NotPerformed] * 2
    monkeypatch.setattr(bench.store, "_commit", commit)
    performer.perform([message])
    await performer.drained()
    assert len(bench.log) == 3
    assert bench.store.rows("home_agent.profile") == {"h": {"n": 1}}


async def test_sequential_actions_wait_for_each_other(bench: Bench) -> None:
    performer = Sequential(bench.tables, bench.events, bench.forward, bench.handlers())
    suspend = SetFlow(FlowEntry(FLOW, FlowVerdict.SUSPEND))
    performer.perform(
        [Freeze((Process(1, 10),)), suspend, suspend, Persist("profile", "h", {}), Answer(1, b"")]
    )
    performer.perform([ReleaseHeld(HOME)])
    assert bench.log == []
    await bench.until(5)
    assert bench.log == ["freezing", "frozen", "forward SetFlow SetFlow", "answer", "forward ReleaseHeld"]
    await performer.drained()
    assert performer.idle


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (OSError(2, "No such file or directory"), "No such file or directory"),
        (StoreError("the disk is full"), "the disk is full"),
        (KeyError("x"), "an internal error, which the daemon's log has"),
    ],
)
async def test_failures_are_reported_with_a_reason(bench: Bench, problem: Exception, words: str) -> None:
    def fail(action: Action) -> None:
        raise problem

    performer = Sequential(bench.tables, bench.events, bench.forward, {FindSessions: fail})
    told: list[NotPerformed | NoAnswer] = []
    performer.tell_failure = told.append
    performer.perform([FindSessions((HOME,))])
    (failure,) = told
    assert failure.reason == f"the step 'find sessions' failed: {words}"


async def test_an_action_that_fails_does_not_stop_the_next(bench: Bench) -> None:
    performer = Sequential(bench.tables, bench.events, bench.forward, bench.handlers())
    performer.perform([Thaw((Process(1, 10),)), Reply(TO, b"on")])
    await bench.until(2)
    assert bench.log == ["event", "reply on None"]
    assert bench.events.reasons["failed-Thaw"] == 1


def bare(kind: type[Part]) -> Part:
    """A part of the node that was never opened: enough to ask which actions it performs."""
    return kind.__new__(kind)


def performed(bench: Bench) -> list[type]:
    """The kinds of actions that the data plane, a performer or a part of the node performs."""
    node, session_capture = Node(cast(Any, None)), bare(SessionCapture)
    session_capture._back, session_capture._trickle = bare(BringingBack), bare(Trickle)
    node.registrations, node.exchanges, node.policy = (
        bare(RegistrationIo),
        bare(Exchanges),
        bare(RadiusClient),
    )
    stand_in = bare(AttendedStandIn)
    node.session_capture, node.replaying, node.stand_in = session_capture, bare(Replaying), stand_in
    node.replaying.waiting = bare(WaitingConnections)
    node._prober = bare(Prober)
    node._host = HostHandlers(
        "n", cast(Any, None), None, lambda _: None, lambda _role, _event: None, bench.store
    )
    stand_in.apps, stand_in.transfers = bare(Apps), bare(AppTransfers)
    stand_in.table_events = bare(TableEvents)
    stand_in.apps.outlets = Outlets(cast(Any, None), AppLimits())
    performer = Sequential(bench.tables, bench.events, bench.forward, {})
    return [*FORWARDING, *performer._simple, *node._handlers("role")]


async def test_every_action_is_performed_in_exactly_one_place(bench: Bench) -> None:
    assert Counter(performed(bench)) == Counter(get_args(Action))
