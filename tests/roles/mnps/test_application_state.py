"""Application state that travels in a 634 waits at the stand-in, outlives it, and comes back in the last 632 (C2, C3)."""

from random import Random

from locum.roles import actions as a
from locum.roles.action_values.app_orders import MAX_APPLICATION
from locum.roles.action_values.sessions import Stopped
from locum.roles.mnps.role import StandIn
from locum.wire.control import (
    Answer632,
    Finish,
    Request634,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_634,
)
from tests.roles.world import HOA, World

HANDOVER = bytes(range(16))
NOW = 1000.0
STATE = {"mail": {"seen": 3, "box": b"INBOX"}}


def stand_in() -> StandIn:
    role = World().mnps.role
    assert isinstance(role, StandIn)
    return role


def ask(role: StandIn, request: Request634) -> tuple[list[a.Action], list[Answer632]]:
    actions = role.happened(a.Asked(1, "634", encode_634(request), HOA, (HOA,)), now=NOW)
    return actions, [decode_632(action.body) for action in actions if isinstance(action, a.Answer)]


def rows(actions: list[a.Action]) -> list[a.Persist]:
    return [action for action in actions if isinstance(action, a.Persist) and action.key == HANDOVER.hex()]


def test_application_state_returns_after_a_stand_in_crash() -> None:
    role = stand_in()
    ask(role, TakeoverPrepare(HANDOVER, (HOA,), ()))
    kept, answers = ask(role, TakeoverTransfer(HANDOVER, (), STATE))
    assert [answer.status for answer in answers] == [Status.OK]
    another = StandIn(role.configuration, Random(1))
    another.restore(rows(kept)[-1:], now=NOW)
    for holder in (role, another):
        actions, answers = ask(holder, Finish(HANDOVER))
        if not answers:  # the node has no sockets to stop, and says so
            actions = holder.happened(Stopped(HANDOVER, ()), now=NOW)
            answers = [decode_632(one.body) for one in actions if isinstance(one, a.Answer)]
        assert [one.application for one in answers] == [STATE]


def test_bounds() -> None:
    role = stand_in()
    ask(role, TakeoverPrepare(HANDOVER, (HOA,), ()))
    actions, answers = ask(role, TakeoverTransfer(HANDOVER, (), {"x": bytes(MAX_APPLICATION)}))
    assert [answer.status for answer in answers] == [Status.LIMIT] and a.Count("takeover-limit") in actions
    assert not rows(actions)


def test_configuration_of_a_missing_proxy_is_refused() -> None:
    actions, answers = ask(stand_in(), TakeoverPrepare(HANDOVER, (HOA,), (), {"mail": {"server": "x"}}))
    assert [answer.status for answer in answers] == [Status.REFUSED] and a.Count(
        "takeover-refused"
    ) in actions
    assert not rows(actions)
