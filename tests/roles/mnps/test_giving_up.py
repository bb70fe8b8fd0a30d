"""Sessions that end at the stand-in without a return to their device: their peers are reset (634 abandon)."""

from dataclasses import replace

import pytest

from locum.roles import actions as a
from locum.roles.action_values.forwarding import ClearFlow, FlowEntry, FlowVerdict, SetFlow
from locum.roles.action_values.sessions import (
    DropSessions,
    HeldSession,
    Measured,
    Restored,
    RestoreSessions,
    ResumeSessions,
    SessionFinal,
    Stopped,
)
from locum.roles.mnps.role import StandIn
from locum.wire.control import (
    Abandon,
    Answer632,
    Cancel,
    Done,
    Fetch,
    Finish,
    Reclaim,
    Request634,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_634,
)
from tests.roles.world import HOA, START, World, flow

FIRST, SECOND = b"\x01" * 16, b"\x02" * 16


class Device:
    """Speaks 634 with a stand-in; the stand-in's actions are performed at once."""

    def __init__(self, *, registers: bool = False) -> None:
        self.world = World(registers=registers)
        self.exchange = 0

    @property
    def role(self) -> StandIn:
        assert isinstance(self.world.mnps.role, StandIn)
        return self.world.mnps.role

    def ask(self, request: Request634, after: float = 0.0) -> list[a.Action]:
        """`after` seconds of the start."""
        self.exchange += 1
        return self.tell(a.Asked(self.exchange, "634", encode_634(request), HOA, (HOA,)), after)

    def tell(self, event: a.Event, after: float = 0.0) -> list[a.Action]:
        return self._kept(self.role.happened(event, now=START + after))

    def at(self, after: float) -> list[a.Action]:
        """Actions of the stand-in's own timers then."""
        return self._kept(self.role.timeout(now=START + after))

    def _kept(self, actions: list[a.Action]) -> list[a.Action]:
        for action in actions:
            if isinstance(action, a.Persist):
                self.world.mnps.rows[action.table, action.key] = action
            elif isinstance(action, a.Forget):
                self.world.mnps.rows.pop((action.table, action.key), None)
        return actions

    def hand_over(self, handover: bytes, *numbers: int, others: tuple[bytes, ...] = ()) -> list[a.Action]:
        """Return the stand-in's actions after the transfer and its end."""
        flows = tuple(flow(number) for number in numbers)
        self.ask(TakeoverPrepare(handover, (HOA,), flows))
        records = tuple({0: flow.to_cbor()} for flow in flows)
        actions = self.ask(TakeoverTransfer(handover, records, others=others))
        return actions + self.tell(Restored(handover, tuple(range(len(flows)))))

    def stop(self, handover: bytes, *numbers: int) -> list[a.Action]:
        finals = tuple(SessionFinal(n, flow(number), 10) for n, number in enumerate(numbers))
        return self.ask(Finish(handover)) + self.tell(Stopped(handover, finals))

    def restart(self) -> list[a.Action]:
        """Restart the stand-in's daemon; return its actions."""
        host = self.world.mnps
        host.role = host.make()
        return host.role.restore(list(host.rows.values()), now=START)


def answers(actions: list[a.Action]) -> list[Answer632]:
    return [decode_632(action.body) for action in actions if isinstance(action, a.Answer)]


def drops(actions: list[a.Action]) -> list[DropSessions]:
    return [action for action in actions if isinstance(action, DropSessions)]


def test_abandoned_sessions_are_reset_before_the_answer() -> None:
    device = Device()
    device.hand_over(FIRST, 0, 1)
    actions = device.ask(Abandon(FIRST))
    assert drops(actions) == [DropSessions(FIRST, reset=True)]
    assert [answer.status for answer in answers(actions)] == [Status.OK]
    dropped = actions.index(DropSessions(FIRST, reset=True))
    assert dropped < actions.index(ClearFlow(flow(0)))  # its packets would find no way otherwise
    assert dropped < next(n for n, action in enumerate(actions) if isinstance(action, a.Answer))
    again = device.ask(Abandon(FIRST))
    assert not drops(again) and [answer.status for answer in answers(again)] == [Status.OK]


def test_unknown_handover_can_be_abandoned() -> None:
    device = Device()
    assert answers(device.ask(Abandon(FIRST)))[0].status is Status.UNKNOWN_HANDOVER
    late = device.ask(TakeoverPrepare(FIRST, (HOA,), (flow(0),)))
    assert answers(late)[0].status is Status.UNKNOWN_HANDOVER


def test_some_sessions_are_abandoned_and_the_others_go_on() -> None:
    device = Device()
    device.hand_over(FIRST, 0, 1, 2)
    actions = device.ask(Abandon(FIRST, (0, 2, 77)))
    assert drops(actions) == [DropSessions(FIRST, (0, 2), reset=True)]
    assert ClearFlow(flow(0)) in actions and ClearFlow(flow(1)) not in actions
    assert not drops(device.ask(Abandon(FIRST, (0, 2))))
    device.ask(Reclaim(FIRST, (HOA,)))
    held = (HeldSession(1, flow(1), 5),)
    (answer,) = answers(device.tell(Measured(FIRST, held)))
    assert {session.session: session.status for session in answer.sessions} == {
        0: Status.REFUSED,
        1: Status.OK,
        2: Status.REFUSED,
    }
    assert all(session.reason for session in answer.sessions if session.status is not Status.OK)
    assert answers(device.ask(Fetch(FIRST, 0, 0, 10)))[0].status is Status.REFUSED


@pytest.mark.parametrize("stopped", [True, False])
def test_returned_sessions_are_dropped_without_a_reset(stopped: bool) -> None:
    """A restarted stand-in has its sockets running, and trusts the device's message."""
    device = Device()
    device.hand_over(FIRST, 0, 1, 2)
    if stopped:
        device.stop(FIRST, 0, 1, 2)
    actions = device.ask(Done(FIRST, (0, 2)))
    assert drops(actions) == [DropSessions(FIRST, (0, 2))]
    assert [answer.status for answer in answers(actions)] == [Status.OK]
    assert ClearFlow(flow(0)) in actions and ClearFlow(flow(1)) not in actions
    again = device.ask(Done(FIRST, (0, 2)))
    assert not drops(again) and answers(again)[0].status is Status.OK
    assert [session.flow for taken in device.role.handovers() for session in taken.held] == [flow(1)]
    resumed = device.ask(Cancel(FIRST))
    assert (ResumeSessions(FIRST) in resumed) == stopped and answers(resumed)[0].status is Status.OK


@pytest.mark.parametrize("state", ["prepared", "restoring", "stopping", "stopped"])
def test_abandon_in_every_state_answers_pending_requests(state: str) -> None:
    device = Device()
    device.ask(TakeoverPrepare(FIRST, (HOA,), (flow(0),)))
    waiting: list[int] = []
    if state != "prepared":
        device.ask(TakeoverTransfer(FIRST, ({0: flow(0).to_cbor()},)))
        waiting = [device.exchange]
    if state in ("stopping", "stopped"):
        device.tell(Restored(FIRST, (0,)))
        device.ask(Finish(FIRST))
        waiting = [device.exchange]
    if state == "stopped":
        device.tell(Stopped(FIRST, (SessionFinal(0, flow(0), 0),)))
        waiting = []
    actions = device.ask(Abandon(FIRST))
    assert [action.reset for action in drops(actions)] == [True] * (state != "prepared")
    answered = {
        action.exchange: decode_632(action.body).status for action in actions if isinstance(action, a.Answer)
    }
    assert answered == {number: Status.UNKNOWN_HANDOVER for number in waiting} | {device.exchange: Status.OK}
    late: list[a.Event] = [Restored(FIRST, (0,)), Stopped(FIRST, (SessionFinal(0, flow(0), 0),))]
    for event in late:
        assert [type(action) for action in device.tell(event)] == [a.Count]


@pytest.mark.parametrize("state", ["restoring", "stopping", "stopped"])
def test_session_abandoned_in_transit_does_not_return(state: str) -> None:
    device = Device()
    device.ask(TakeoverPrepare(FIRST, (HOA,), (flow(0), flow(1))))
    device.ask(TakeoverTransfer(FIRST, ({0: flow(0).to_cbor()}, {0: flow(1).to_cbor()})))
    if state != "restoring":
        device.tell(Restored(FIRST, (0, 1)))
        device.ask(Finish(FIRST))
    finals = tuple(SessionFinal(number, flow(number), 3) for number in (0, 1))
    if state == "stopped":
        device.tell(Stopped(FIRST, finals))
    assert drops(device.ask(Abandon(FIRST, (1,)))) == [DropSessions(FIRST, (1,), reset=True)]
    if state == "restoring":
        done = device.tell(Restored(FIRST, (0, 1)))
        assert SetFlow(FlowEntry(flow(1), FlowVerdict.DELIVER)) not in done
        device.ask(Finish(FIRST))
    last = device.ask(Finish(FIRST)) if state == "stopped" else device.tell(Stopped(FIRST, finals))
    assert [final.session for final in answers(last)[-1].final] == [0]


def test_sessions_missing_from_a_new_transfer_are_reset() -> None:
    device = Device()
    device.hand_over(FIRST, 0)
    actions = device.hand_over(SECOND, 1)
    assert drops(actions) == [DropSessions(FIRST, reset=True)]
    assert actions.index(DropSessions(FIRST, reset=True)) < next(
        n for n, action in enumerate(actions) if isinstance(action, RestoreSessions)
    )


def test_device_with_the_final_state_may_keep_the_session() -> None:
    """Its `done` was lost: a reset would end a live session."""
    device = Device()
    device.hand_over(FIRST, 0)
    device.stop(FIRST, 0)
    assert drops(device.hand_over(SECOND, 1)) == [DropSessions(FIRST)]


def test_done_and_a_cancelled_prepare_send_no_reset() -> None:
    device = Device()
    device.hand_over(FIRST, 0)
    device.stop(FIRST, 0)
    assert drops(device.ask(Done(FIRST))) == [DropSessions(FIRST)]
    device.ask(TakeoverPrepare(SECOND, (HOA,), (flow(1),)))
    assert not drops(device.ask(Cancel(SECOND)))


def test_only_its_device_may_abandon_a_handover() -> None:
    device = Device()
    device.hand_over(FIRST, 0)
    asked = a.Asked(99, "634", encode_634(Abandon(FIRST)), HOA, (replace(flow(0)).peer,))
    actions = device.tell(asked)
    assert not drops(actions) and answers(actions)[0].status is Status.NOT_AUTHORISED


def test_unrestorable_session_gives_its_reason() -> None:
    device = Device()
    device.ask(TakeoverPrepare(FIRST, (HOA,), (flow(0),)))
    device.ask(TakeoverTransfer(FIRST, ({0: flow(0).to_cbor()},)))
    (answer,) = answers(device.tell(Restored(FIRST, (), ((0, "no route to the peer"),))))
    assert [(session.status, session.reason) for session in answer.sessions] == [
        (Status.REFUSED, "no route to the peer")
    ]


def test_only_an_unstoppable_session_is_lost() -> None:
    device = Device()
    device.hand_over(FIRST, 0, 1)
    device.ask(Finish(FIRST))
    actions = device.tell(Stopped(FIRST, (SessionFinal(1, flow(1), 10),)))
    assert drops(actions) == [DropSessions(FIRST, (0,), reset=True)]
    assert next(action.kind for action in actions if isinstance(action, a.Emit)) == "session-lost"
    (answer,) = answers(actions)
    assert answer.status is Status.OK and [state.session for state in answer.final] == [1]
    assert drops(device.ask(Done(FIRST))) == [DropSessions(FIRST)]
