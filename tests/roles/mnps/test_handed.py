"""Connections that proxies hand over to their sleeping device: held, told to the device, or refused."""

from dataclasses import replace

import pytest

from locum.roles import actions as a
from locum.roles.action_values.forwarding import ClearFlow, FlowEntry, FlowVerdict, ReleaseHeld, SetFlow
from locum.roles.action_values.handed import (
    ConnectionHanded,
    ConnectionOffered,
    OfferEnded,
    RefuseOffered,
    TakeOffered,
)
from locum.roles.action_values.sessions import DropSessions, HeldSession, Measured, NotPerformed, SessionFinal
from locum.roles.action_values.sessions import Stopped as SessionsStopped
from locum.roles.mnps.configuration import Quota
from locum.roles.mnps.handed import TAKEN, TOO_LATE, TOO_MANY
from locum.wire.control import MAX_HANDED, Done, Finish, Flow, Handed, Reclaim
from tests.roles.mnps.test_listening import HOME, LAST, ONE, OTHER, OWN, PEER, TWO, Stand
from tests.wire.strategies import session_record

CHAT = Flow(6, HOME, 40001, PEER, 5222)


def asleep(**options: object) -> Stand:
    stand = Stand(**options)
    stand.sleep()
    return stand


def handed(stand: Stand, flow: Flow = CHAT, number: int = 1, session: int = LAST) -> None:
    stand.tell(ConnectionOffered(ONE, number, flow, "chat"))
    assert stand.done == [SetFlow(FlowEntry(flow, FlowVerdict.HOLD)), TakeOffered(ONE, number)]
    stand.tell(ConnectionHanded(ONE, session, flow, "chat"))


def lost(stand: Stand) -> list[object]:
    kinds = [action for action in stand.done if isinstance(action, a.Emit)]
    return [action.detail["reason"] for action in kinds if action.kind == "session-lost"]


def test_connection_of_a_proxy_is_told_to_the_device() -> None:
    stand = asleep()
    handed(stand)
    assert stand.of(SetFlow) == [SetFlow(FlowEntry(CHAT, FlowVerdict.DELIVER))]
    assert stand.of(ReleaseHeld) == [ReleaseHeld(HOME)]
    assert [action.kind for action in stand.done if isinstance(action, a.Emit)] == ["session-handed"]
    stand.ask(Reclaim(ONE, (HOME,)))
    one = Handed("chat", session_record(CHAT))
    stand.tell(Measured(ONE, (HeldSession(0, OWN, 5), HeldSession(LAST, CHAT, 7, handed=one))))
    assert [session.handed for session in stand.answer().sessions] == [None, one]
    stand.ask(Finish(ONE))
    assert not stand.of(DropSessions)
    stand.tell(SessionsStopped(ONE, (SessionFinal(0, OWN, 5), SessionFinal(LAST, CHAT, 7, tail=b"welcome"))))
    stand.ask(Done(ONE))
    assert ClearFlow(CHAT) in stand.done
    assert not stand.rows


def test_a_restart_keeps_it_and_hears_of_it_again() -> None:
    stand = asleep()
    handed(stand)
    stand.restart()
    assert SetFlow(FlowEntry(CHAT, FlowVerdict.DELIVER)) in stand.done
    assert stand.tell(ConnectionHanded(ONE, LAST, CHAT, "chat")) == []
    (taken,) = stand.role.handovers()
    assert [session.kind for session in taken.held] == ["held", "handed"]


def test_a_restart_before_its_row_was_written_adds_it() -> None:
    stand = asleep()
    stand.tell(ConnectionHanded(ONE, LAST, CHAT, "chat"))
    (taken,) = stand.role.handovers()
    assert [session.label for session in taken.held] == [None, "chat"]


def test_one_unknown_to_the_device_is_reset_at_the_end() -> None:
    stand = asleep()
    stand.ask(Reclaim(ONE, (HOME,)))
    stand.tell(Measured(ONE, (HeldSession(0, OWN, 5),)))
    handed(stand)
    stand.ask(Finish(ONE))
    assert stand.of(DropSessions) == [DropSessions(ONE, (LAST,), reset=True)]


def test_late_and_foreign_connections_are_refused() -> None:
    stand = asleep()
    for handover, flow, reason in (
        (TWO, CHAT, TOO_LATE),
        (ONE, replace(CHAT, local=OTHER), TOO_LATE),
        (ONE, OWN, TAKEN),
    ):
        stand.tell(ConnectionOffered(handover, 1, flow, "chat"))
        assert stand.of(RefuseOffered) == [RefuseOffered(handover, 1)]
        assert lost(stand) == [reason] and not stand.of(SetFlow)
    stand.tell(ConnectionOffered(ONE, 1, CHAT, "chat"))
    stand.tell(ConnectionOffered(ONE, 2, CHAT, "chat"))
    assert lost(stand) == [TAKEN]
    stand.ask(Finish(ONE))
    stand.tell(ConnectionHanded(ONE, LAST, CHAT, "chat"))
    assert stand.of(DropSessions) == [DropSessions(ONE, (LAST,), reset=True)]
    assert lost(stand) == [TOO_LATE] and ClearFlow(CHAT) in stand.done


def test_they_are_limited_and_evict_no_session_of_the_device() -> None:
    stand = asleep()
    for number in range(MAX_HANDED):
        handed(stand, replace(CHAT, local_port=1 + number), number, LAST - number)
    stand.tell(ConnectionOffered(ONE, 99, CHAT, "chat"))
    assert lost(stand) == [TOO_MANY]
    for options in ({"max_sessions": 1}, {"quota": Quota(sessions=1)}):
        small = asleep(**options)
        small.tell(ConnectionOffered(ONE, 1, CHAT, "chat"))
        assert lost(small) == [TOO_MANY] and not small.of(DropSessions)


@pytest.mark.parametrize("failure", ["ended", "not performed"])
def test_one_that_cannot_become_a_session_leaves_nothing(failure: str) -> None:
    stand = asleep()
    stand.tell(ConnectionOffered(ONE, 1, CHAT, "chat"))
    if failure == "ended":
        stand.tell(OfferEnded(ONE, CHAT, "chat", "it is over"))
    else:
        stand.tell(NotPerformed(TakeOffered(ONE, 1), "it is over"))
        assert stand.of(RefuseOffered) == [RefuseOffered(ONE, 1)]
    assert lost(stand) == ["it is over"]
    assert stand.of(ClearFlow) == [ClearFlow(CHAT)] and stand.of(ReleaseHeld)
    handed(stand)
    assert stand.of(SetFlow)
