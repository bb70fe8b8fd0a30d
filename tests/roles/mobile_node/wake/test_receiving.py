"""Connections that a stand-in accepted: fetched, given to their programs, or reset, each for itself."""

from dataclasses import replace
from itertools import count

import pytest

from locum.roles import actions as a
from locum.roles.action_values.forwarding import ClearFlow, FlowEntry, FlowVerdict, SetFlow
from locum.roles.action_values.handed import RestoreHanded
from locum.roles.action_values.listeners import ReplayAccepted, Replayed
from locum.roles.action_values.sessions import NotPerformed
from locum.roles.mobile_node.handover import StandInDialogue
from locum.roles.mobile_node.wake.receiving import ATTEMPTS, Receiving
from locum.wire.control import (
    Abandon,
    Answer632,
    Fetch,
    FinalState,
    Flow,
    Handed,
    SessionStatus,
    Status,
    decode_634,
    encode_632,
)
from tests.roles.mnps.test_listening import CALL, DEVICE, GREETING, HOME, LAST, ONE, OWN

STATUS = SessionStatus(LAST, CALL, Status.OK, accepted=GREETING)


def receiving() -> Receiving:
    return Receiving(StandInDialogue(DEVICE, HOME, count(1)), ONE, (HOME,))


def waits(one: Receiving) -> bool:
    return one.busy


def final(received: int, tail: bytes = b"", **more: object) -> dict[int, FinalState]:
    offset = received - len(tail)
    return {LAST: FinalState(LAST, None, received, offset, tail=tail, **more)}  # type: ignore[arg-type]


def asked(actions: list[a.Action] | None) -> list[tuple[int, object]]:
    assert actions is not None
    return [(action.request, decode_634(action.body)) for action in actions if isinstance(action, a.Ask)]


def answer(request: int, data: bytes = b"", status: Status = Status.OK) -> a.Answered:
    return a.Answered(request, encode_632(Answer632(status, data=data)))


def test_complete_tail_is_replayed_at_once() -> None:
    one = receiving()
    sessions = (SessionStatus(0, OWN, Status.OK), STATUS)
    assert one.announced(sessions) == [SetFlow(FlowEntry(CALL, FlowVerdict.SUSPEND))]
    assert one.announced(sessions) == []  # the next reclaim says the same
    assert not waits(one)
    assert one.begin(final(3, b"abc", peer_closed=True)) == [ReplayAccepted(CALL, GREETING, b"abc", True)]
    assert waits(one)
    assert one.begin(final(3, b"abc")) == []
    done = one.happened(Replayed(CALL))
    assert done is not None
    assert [type(action).__name__ for action in done] == ["SetFlow", "ClearFlow", "ReleaseHeld", "Emit"]
    assert not waits(one)
    assert (one.arrived, one.failed) == ({CALL: LAST}, {})


def test_data_missing_from_the_final_state_is_fetched() -> None:
    one = receiving()
    one.announced((STATUS,))
    ((first, fetch),) = asked(one.begin(final(10)))
    assert fetch == Fetch(ONE, LAST, 0, 10)
    ((second, fetch),) = asked(one.happened(answer(first, b"12345")))
    assert fetch == Fetch(ONE, LAST, 5, 5)
    ((third, fetch),) = asked(one.happened(a.NoAnswer(second, "lost")))
    assert fetch == Fetch(ONE, LAST, 5, 5)
    assert one.happened(answer(third, b"67890")) == [ReplayAccepted(CALL, GREETING, b"1234567890", False)]


def test_a_connection_without_a_program_is_reset_at_the_stand_in() -> None:
    one = receiving()
    one.announced((STATUS,))
    one.begin(final(0))
    failed = one.happened(Replayed(CALL, "no program listens"))
    ((request, value),) = asked(failed)
    assert value == Abandon(ONE, (LAST,))
    assert failed is not None
    assert ClearFlow(CALL) in failed
    assert waits(one), "the hand-over may not end before the stand-in has heard of it"
    assert one.happened(answer(request)) == []
    assert not waits(one)
    assert one.failed == {CALL: "no program listens"}


@pytest.mark.parametrize("states", [{}, final(0, error=104)])
def test_connection_ended_by_its_peer_is_not_replayed(states: dict[int, FinalState]) -> None:
    one = receiving()
    one.announced((STATUS,))
    assert asked(one.begin(states))[0][1] == Abandon(ONE, (LAST,))


def test_silent_stand_in_is_asked_a_few_times() -> None:
    one = receiving()
    one.announced((STATUS,))
    ((request, _),) = asked(one.begin(final(10)))
    for attempt in range(2 * ATTEMPTS):
        assert waits(one), attempt
        asks = asked(one.happened(a.NoAnswer(request, "silence")))
        if not asks:
            break
        ((request, _),) = asks
    assert not waits(one)
    assert "did not answer" in one.failed[CALL]


def test_lost_connection_and_events_of_others() -> None:
    one = receiving()
    one.announced((STATUS,))
    ((request, _),) = asked(one.begin(final(10)))
    assert one.happened(a.NoAnswer(99, "of somebody else")) is None
    assert one.happened(Replayed(OWN)) is None
    assert asked(one.happened(answer(request, status=Status.REFUSED)))[0][1] == Abandon(ONE, (LAST,))


def test_accepted_connection_missing_from_a_reclaim_is_dropped() -> None:
    one = receiving()
    one.announced((STATUS,))
    assert ClearFlow(CALL) in one.announced(())
    assert one.begin(final(0)) == []
    assert not waits(one)


@pytest.mark.parametrize(
    "flow", [replace(CALL, local=DEVICE), replace(CALL, protocol=17), replace(CALL, peer=HOME)], ids=str
)
def test_only_connections_of_the_devices_own_addresses_are_taken(flow: Flow) -> None:
    one = receiving()
    assert one.announced((replace(STATUS, flow=flow),)) == []
    assert one.begin(final(0)) == []


@pytest.mark.parametrize("result", ["restored", "failed", "not performed"])
def test_connections_of_proxies_come_with_their_label_and_state(result: str) -> None:
    one, chat = receiving(), Handed("chat", {0: 1})
    one.announced((replace(STATUS, accepted=None, handed=chat),))
    states = final(3, b"abc", acked=9)
    action = RestoreHanded(CALL, chat, states[LAST], b"abc")
    assert one.begin(states) == [action]
    if result == "restored":
        done = one.happened(Replayed(CALL))
        assert done is not None
        (told,) = [action for action in done if isinstance(action, a.Emit)]
        assert (told.kind, told.detail) == ("session-arrived", {"label": "chat"})
        assert one.arrived == {CALL: LAST}
    else:
        failed = Replayed(CALL, "no room") if result == "failed" else NotPerformed(action, "no room")
        assert asked(one.happened(failed))[0][1] == Abandon(ONE, (LAST,))
        assert one.failed == {CALL: "no room"}
