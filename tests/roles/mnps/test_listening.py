"""Ports of a sleeping device at its stand-in: opened, closed for a reclaim, and accepted sessions."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import UnwatchPort, WatchPort
from locum.roles.action_values.forwarding import ClearFlow, FlowEntry, FlowVerdict, SetFlow
from locum.roles.action_values.listeners import AcceptedEnded, ClosePorts, ConnectionAccepted, OpenPorts
from locum.roles.action_values.sessions import (
    DropSessions,
    HeldSession,
    Measured,
    MeasureSessions,
    Restored,
    SessionFinal,
    Stopped,
    Surveyed,
)
from locum.roles.mnps.configuration import Quota, StandInConfiguration
from locum.roles.mnps.listening import PAUSE
from locum.roles.mnps.role import StandIn
from locum.wire.control import (
    Abandon,
    Answer632,
    Cancel,
    Done,
    Finish,
    Flow,
    Handshake,
    Listener,
    Policy,
    Reclaim,
    Request634,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_634,
)
from tests.wire.strategies import session_record

HOME, OTHER, DEVICE = ip_address("10.0.9.1"), ip_address("10.0.9.2"), ip_address("10.0.0.7")
PEER = ip_address("192.0.2.77")
SSH = Listener(HOME, 22, Policy.ACCEPT, 2, 0x8000)
WEB = Listener(HOME, 80, Policy.REFUSE, 1, 0x8000)
QUIET = Listener(HOME, 9, Policy.IGNORE, 1, 0x8000)
OWN = Flow(6, HOME, 1000, PEER, 443)
CALL = Flow(6, HOME, 22, PEER, 40000)
GREETING = Handshake(5, 6, 1460, True, 64240)
ONE, TWO = bytes(15) + b"\1", bytes(15) + b"\2"
LAST = 4095


class Stand:
    """A stand-in's role, asked by one device; `done` are the last step's actions, `rows` the stored rows."""

    def __init__(self, **options: object) -> None:
        configuration = StandInConfiguration(
            ip_address("10.0.0.1"), ip_address("10.0.0.2"), (ip_network("10.0.9.0/24"),), **options  # type: ignore[arg-type]
        )  # fmt: skip
        self.configuration, self.now = configuration, 100.0
        self.role = StandIn(configuration, random.Random(1))
        self.rows: dict[tuple[str, str], a.Persist] = {}
        self.done: list[a.Action] = []
        self._exchange = 0

    def take(self, actions: list[a.Action]) -> list[a.Action]:
        for action in actions:
            match action:
                case a.Persist(table, key):
                    self.rows[table, key] = action
                case a.Forget(table, key):
                    self.rows.pop((table, key), None)
        self.done = actions
        return actions

    def ask(self, request: Request634, *homes: Addr) -> list[a.Action]:
        self._exchange += 1
        asked = a.Asked(self._exchange, "634", encode_634(request), DEVICE, homes or (HOME,))
        return self.take(self.role.happened(asked, now=self.now))

    def tell(self, event: a.Event) -> list[a.Action]:
        return self.take(self.role.happened(event, now=self.now))

    def answer(self) -> Answer632:
        (found,) = [action for action in self.done if isinstance(action, a.Answer)]
        return decode_632(found.body)

    def restart(self) -> list[a.Action]:
        self.role = StandIn(self.configuration, random.Random(2))
        return self.take(self.role.restore(list(self.rows.values()), now=self.now))

    def sleep(self, *listeners: Listener, handover: bytes = ONE, flows: tuple[Flow, ...] = (OWN,)) -> None:
        self.ask(TakeoverPrepare(handover, (HOME,), flows, listeners=listeners))
        assert self.answer().status is Status.OK
        assert not self.of(OpenPorts)
        others = tuple(other for other in (ONE, TWO) if other != handover)
        self.ask(TakeoverTransfer(handover, tuple(map(session_record, flows)), others=others))
        if flows:
            self.tell(Restored(handover, tuple(range(len(flows)))))

    def of(self, kind: type) -> list[a.Action]:
        return [action for action in self.done if isinstance(action, kind)]


def test_ports_are_open_while_the_sessions_live_here() -> None:
    stand = Stand()
    stand.sleep(SSH, WEB, QUIET)
    assert stand.of(OpenPorts) == [OpenPorts(ONE, (SSH, WEB))]
    assert stand.of(WatchPort) == [WatchPort(HOME, 22), WatchPort(HOME, 80)]
    stand.ask(Reclaim(ONE, (HOME,)))
    assert stand.of(ClosePorts) == [ClosePorts(ONE)]
    assert stand.of(UnwatchPort) == [UnwatchPort(HOME, 22), UnwatchPort(HOME, 80)]
    closed, measured = stand.done.index(ClosePorts(ONE)), stand.done.index(MeasureSessions(ONE))
    assert closed < measured
    stand.ask(Cancel(ONE))
    assert stand.of(OpenPorts)


def test_a_device_without_any_session_has_ports_too() -> None:
    stand = Stand()
    stand.sleep(SSH, flows=())
    assert stand.of(OpenPorts) == [OpenPorts(ONE, (SSH,))]
    stand.ask(Done(ONE))
    assert stand.of(ClosePorts)
    assert not stand.rows


def test_accepted_connection_is_reported_to_the_device() -> None:
    stand = Stand()
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    assert stand.of(SetFlow) == [SetFlow(FlowEntry(CALL, FlowVerdict.DELIVER))]
    assert [action.kind for action in stand.done if isinstance(action, a.Emit)] == ["session-accepted"]
    assert not stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.ask(Reclaim(ONE, (HOME,)))
    stand.tell(Measured(ONE, (HeldSession(0, OWN, 5), HeldSession(LAST, CALL, 7))))
    own, call = stand.answer().sessions
    assert (own.accepted, call.accepted, call.session) == (None, GREETING, LAST)
    stand.ask(Finish(ONE))
    for flow in (OWN, CALL):
        assert SetFlow(FlowEntry(flow, FlowVerdict.HOLD)) in stand.done
    stand.tell(Stopped(ONE, (SessionFinal(0, OWN, 5), SessionFinal(LAST, CALL, 7, tail=b"request"))))
    stand.ask(Done(ONE))
    assert ClearFlow(CALL) in stand.done
    assert not stand.rows


def test_a_restart_keeps_ports_and_accepted_sessions() -> None:
    stand = Stand()
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.restart()
    assert stand.of(OpenPorts) == [OpenPorts(ONE, (SSH,))]
    assert SetFlow(FlowEntry(CALL, FlowVerdict.DELIVER)) in stand.done
    assert not stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))  # the node tells of each again
    stand.ask(Reclaim(ONE, (HOME,)))
    stand.tell(Measured(ONE, (HeldSession(0, OWN, 5), HeldSession(LAST, CALL, 7))))
    assert stand.answer().sessions[1].accepted == GREETING


def test_ports_reopen_if_the_device_reclaims_and_vanishes() -> None:
    stand = Stand()
    stand.sleep(SSH)
    stand.ask(Reclaim(ONE, (HOME,)))
    stand.tell(Measured(ONE, (HeldSession(0, OWN, 5),)))
    assert stand.role.deadline() == stand.now + PAUSE
    stand.now += PAUSE
    assert stand.take(stand.role.timeout(now=stand.now))
    assert stand.of(OpenPorts) == [OpenPorts(ONE, (SSH,))]
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.ask(Finish(ONE))
    assert stand.of(DropSessions) == [
        DropSessions(ONE, (LAST,), reset=True)
    ]  # the device has not heard of it
    assert SetFlow(FlowEntry(CALL, FlowVerdict.HOLD)) not in stand.done
    lost = [action for action in stand.done if isinstance(action, a.Emit) and action.kind == "session-lost"]
    assert [action.flow for action in lost] == [CALL]
    stand.tell(Stopped(ONE, (SessionFinal(0, OWN, 5),)))
    stand.now += PAUSE
    stand.take(stand.role.timeout(now=stand.now))
    assert not stand.of(OpenPorts)


def test_late_or_excess_accepted_connections_are_reset() -> None:
    stand = Stand(max_sessions=2)
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(TWO, LAST, CALL, GREETING))
    assert stand.of(DropSessions) == [DropSessions(TWO, (LAST,), reset=True)]
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    assert not stand.of(DropSessions)
    stand.tell(ConnectionAccepted(ONE, LAST - 1, replace(CALL, peer_port=2), GREETING))
    assert stand.of(DropSessions) == [DropSessions(ONE, (LAST - 1,), reset=True)]


def test_accepted_connections_evict_no_sessions_of_the_device() -> None:
    stand = Stand(quota=Quota(sessions=2))
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.tell(ConnectionAccepted(ONE, LAST - 1, replace(CALL, peer_port=2), GREETING))
    assert stand.of(DropSessions) == [DropSessions(ONE, (LAST - 1,), reset=True)]


def test_connection_reset_by_its_peer_is_dropped() -> None:
    stand = Stand()
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.tell(AcceptedEnded(ONE, (LAST,)))
    assert stand.of(DropSessions) == [DropSessions(ONE, (LAST,), reset=True)]
    assert not stand.of(ClosePorts)
    stand.tell(AcceptedEnded(ONE, (LAST,)))
    assert not stand.done


def test_device_abandons_one_connection_and_keeps_the_rest() -> None:
    stand = Stand()
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.ask(Abandon(ONE, (LAST,)))
    assert stand.of(DropSessions) == [DropSessions(ONE, (LAST,), reset=True)]
    assert ClearFlow(CALL) in stand.done


def test_foreign_address_is_refused_and_a_port_opens_once() -> None:
    stand = Stand()
    stand.ask(TakeoverPrepare(ONE, (HOME,), (), listeners=(replace(SSH, address=OTHER),)))
    assert stand.answer().status is Status.NOT_AUTHORISED
    stand.sleep(SSH)
    stand.sleep(SSH, WEB, handover=TWO, flows=())
    assert stand.of(OpenPorts) == [OpenPorts(TWO, (WEB,))]


@pytest.mark.parametrize("restarted", [False, True])
def test_reported_connections_are_given_to_the_device(restarted: bool) -> None:
    stand = Stand()
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.ask(Reclaim(ONE, (HOME,)))
    stand.tell(Measured(ONE, (HeldSession(0, OWN, 5), HeldSession(LAST, CALL, 7))))
    if restarted:
        stand.restart()
        assert not stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.ask(Finish(ONE))
    assert not stand.of(DropSessions)


@pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
@pytest.mark.parametrize("call", [CALL, replace(CALL, peer_port=2)], ids=["same", "other"])
def test_reused_number_names_the_newer_connection(heard: bool, call: Flow) -> None:
    """The node gives the number of one that has ended to the next, although the role may not know yet."""
    stand = Stand()
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    if heard:
        stand.tell(AcceptedEnded(ONE, (LAST,)))
    newer = replace(GREETING, peer_isn=77)
    stand.tell(ConnectionAccepted(ONE, LAST, call, newer))
    assert not stand.of(DropSessions)
    (taken,) = stand.role.handovers()
    assert [(session.session, session.flow) for session in taken.held] == [(0, OWN), (LAST, call)]
    assert sorted(map(str, taken.flows)) == sorted(map(str, (OWN, call)))
    stand.ask(Reclaim(ONE, (HOME,)))
    stand.tell(Measured(ONE, (HeldSession(0, OWN, 5), HeldSession(LAST, call, 7))))
    assert [(session.session, session.flow, session.accepted) for session in stand.answer().sessions] == [
        (0, OWN, None),
        (LAST, call, newer),
    ]


def test_number_of_an_own_session_is_not_given_to_a_new_one() -> None:
    stand = Stand()
    stand.sleep(SSH)
    stand.tell(ConnectionAccepted(ONE, 0, CALL, GREETING))
    assert stand.of(DropSessions) == [DropSessions(ONE, (0,), reset=True)]


def test_unused_ports_close_after_a_time() -> None:
    stand = Stand(quota=Quota(held_seconds=1000))
    stand.sleep(SSH, flows=())

    def look(after: float) -> None:
        stand.now += after
        stand.tell(Surveyed(()))

    look(0)
    look(999)
    stand.tell(ConnectionAccepted(ONE, LAST, CALL, GREETING))
    stand.tell(AcceptedEnded(ONE, (LAST,)))
    look(1)
    look(999)
    stand.ask(Reclaim(ONE, (HOME,)))
    stand.tell(Measured(ONE, ()))
    look(1)
    look(999)
    assert stand.role.handovers()
    look(1)
    assert not stand.role.handovers() and stand.of(ClosePorts) == []
    assert [action.kind for action in stand.done if isinstance(action, a.Emit)] == ["handover-forgotten"]
