"""Proxies of a handover at the stand-in's role: checked, started, ended by a reclaim, started again (A1, C2, C3)."""

from collections.abc import Sequence
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.app_orders import MAX_APPS, orders
from locum.roles.action_values.apps import AppOrder, AppsPaused, Consume, EndApps, PauseApps, StartApps, When
from locum.roles.action_values.emission import EXPECTED, permits
from locum.roles.action_values.sessions import (
    HeldSession,
    Measured,
    MeasureSessions,
    NotPerformed,
    Restored,
    SessionFinal,
)
from locum.roles.action_values.sessions import Stopped as SessionsStopped
from locum.roles.mnps.handover import Holding, TakenOver
from locum.roles.mnps.role import StandIn
from locum.wire.control import (
    Abandon,
    Answer632,
    Cancel,
    Finish,
    Flow,
    Reclaim,
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
FLOW = Flow(6, HOA, 40000, ip_address("192.0.2.1"), 1883)
CONSUME_WORDS = 'app a: consume: "replay", "replace" or "omit" is expected'
ORDER = AppOrder("mqtt", "keepalive", {"interval": 5})
CONFIGURATION = {"apps": [["mqtt", "keepalive", {"interval": 5}]]}


def check(order: AppOrder, others: Sequence[AppOrder]) -> str | None:
    """Kinds and ports."""
    place = f"[[mobile_node.app]] {order.name}"
    for other in others:
        if "port" in order.settings and other.settings.get("port") == order.settings["port"]:
            return f"{place}: settings.port: it is that of {other.name}"
    return None if order.kind == "keepalive" else f"{place}: kind: not known"


def stand_in() -> StandIn:
    role = World().mnps.role
    assert isinstance(role, StandIn)
    return StandIn(role.configuration, Random(1), check)


def ask(role: StandIn, request: Request634) -> tuple[list[a.Action], list[Answer632]]:
    return split(role.happened(a.Asked(1, "634", encode_634(request), HOA, (HOA,)), now=NOW))


def split(actions: list[a.Action]) -> tuple[list[a.Action], list[Answer632]]:
    return actions, [decode_632(action.body) for action in actions if isinstance(action, a.Answer)]


def of(actions: list[a.Action], kind: type[Any]) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]


def asleep() -> tuple[StandIn, list[a.Action]]:
    role = stand_in()
    ask(role, TakeoverPrepare(HANDOVER, (HOA,), (FLOW,), CONFIGURATION))
    ask(role, TakeoverTransfer(HANDOVER, ({0: FLOW.to_cbor()},), {"apps": {"mqtt": {"seen": 3}}}))
    return role, role.happened(Restored(HANDOVER, (0,)), now=NOW)


def row(actions: list[a.Action]) -> a.Persist:
    found = of(actions, a.Persist)[-1]
    assert isinstance(found, a.Persist)
    return found


def test_proxies_begin_when_the_sessions_live_here() -> None:
    _, actions = asleep()
    assert of(actions, StartApps) == [StartApps(HANDOVER, HOA, (ORDER,), {"mqtt": {"seen": 3}}, (HOA,))]
    assert actions.index(row(actions)) < actions.index(of(actions, StartApps)[0])


def test_reclaim_waits_for_the_proxies_and_carries_their_words() -> None:
    role, _ = asleep()
    actions, answers = ask(role, Reclaim(HANDOVER, (HOA,)))
    assert (
        of(actions, PauseApps) == [PauseApps(HANDOVER)] and not answers and not of(actions, MeasureSessions)
    )
    actions = role.happened(AppsPaused(HANDOVER, {"mqtt": {"result": 7}}, {0: b"\xc0\x00"}), now=NOW)
    assert actions.index(row(actions)) < actions.index(of(actions, MeasureSessions)[0])
    _, answers = split(role.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 2),)), now=NOW))
    (answer,) = answers
    assert answer.status is Status.OK and answer.application["apps"] == {"mqtt": {"result": 7}}
    assert [status.spoken for status in answer.sessions] == [b"\xc0\x00"]


def test_surplus_of_replaced_bytes_goes_with_the_session() -> None:
    """Also after a restart of the daemon."""
    role, _ = asleep()
    ask(role, Reclaim(HANDOVER, (HOA,)))
    paused = role.happened(AppsPaused(HANDOVER, {}, {}, {0: -3}), now=NOW)
    again = stand_in()
    again.restore([row(paused)], now=NOW)
    ask(again, Reclaim(HANDOVER, (HOA,)))
    for one in (role, again):
        _, (answer,) = split(one.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 2),)), now=NOW))
        assert [(status.total, status.surplus) for status in answer.sessions] == [(2, -3)]


@pytest.mark.parametrize("consume", Consume)
def test_order_and_row_keep_the_leave_to_consume(consume: Consume) -> None:
    order = AppOrder("mqtt", "keepalive", {"interval": 5}, consume, permits(["tcp 1883"]), When.ALWAYS)
    assert orders({"apps": [order.to_json()]}) == (order,)
    taken = TakenOver(HANDOVER, (HOA,), (), Holding(), apps=(order,))
    assert TakenOver.from_row(HANDOVER.hex(), dict(taken.persist().value)).apps == (order,)


def test_second_proxy_of_one_port_is_to_blame() -> None:
    apps = [[name, "keepalive", {"port": 80}] for name in ("first", "second")]
    _, (answer,) = ask(stand_in(), TakeoverPrepare(HANDOVER, (HOA,), (FLOW,), {"apps": apps}))
    assert answer.status is Status.REFUSED and "second: settings.port: it is that of first" in answer.reason


def test_repeated_reclaim_says_the_same_and_starts_nothing() -> None:
    role, _ = asleep()
    ask(role, Reclaim(HANDOVER, (HOA,)))
    role.happened(AppsPaused(HANDOVER, {}, {0: b"x"}), now=NOW)
    role.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 2),)), now=NOW)
    actions, _ = ask(role, Reclaim(HANDOVER, (HOA,)))
    assert not of(actions, PauseApps) and of(actions, MeasureSessions)
    _, (answer,) = split(role.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 2),)), now=NOW))
    assert [status.spoken for status in answer.sessions] == [b"x"]


def test_no_proxy_speaks_after_a_reclaim_was_cancelled() -> None:
    role, _ = asleep()
    ask(role, Reclaim(HANDOVER, (HOA,)))
    role.happened(AppsPaused(HANDOVER, {}, {}), now=NOW)
    role.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 0),)), now=NOW)
    actions, _ = ask(role, Cancel(HANDOVER))
    assert not of(actions, StartApps)


def test_restart_of_the_daemon_starts_them_again_until_a_reclaim() -> None:
    role, actions = asleep()
    another = stand_in()
    begun = of(another.restore([row(actions)], now=NOW), StartApps)
    assert begun == [StartApps(HANDOVER, HOA, (ORDER,), {"mqtt": {"seen": 3}}, (HOA,))]
    ask(role, Reclaim(HANDOVER, (HOA,)))
    paused = role.happened(AppsPaused(HANDOVER, {}, {0: b"xy"}), now=NOW)
    third = stand_in()
    assert not of(third.restore([row(paused)], now=NOW), StartApps)
    ask(third, Reclaim(HANDOVER, (HOA,)))
    _, (answer,) = split(third.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 2),)), now=NOW))
    assert [status.spoken for status in answer.sessions] == [b"xy"]


def test_reclaim_is_busy_when_proxies_could_not_be_ended() -> None:
    role, _ = asleep()
    ask(role, Reclaim(HANDOVER, (HOA,)))
    failed = role.happened(NotPerformed(PauseApps(HANDOVER), "no descriptors"), now=NOW)
    assert [answer.status for answer in split(failed)[1]] == [Status.BUSY]
    actions, _ = ask(role, Reclaim(HANDOVER, (HOA,)))
    assert of(actions, PauseApps) == [PauseApps(HANDOVER)]


def test_words_of_proxies_count_in_stopped_sessions() -> None:
    """A finish overtook the answer to the reclaim: the next reclaim is answered, and with their words."""
    role, _ = asleep()
    ask(role, Reclaim(HANDOVER, (HOA,)))
    ask(role, Finish(HANDOVER))
    role.happened(AppsPaused(HANDOVER, {}, {0: b"xy"}), now=NOW)
    role.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 2),)), now=NOW)
    role.happened(SessionsStopped(HANDOVER, (SessionFinal(0, FLOW, 2, 0),)), now=NOW)
    actions, _ = ask(role, Reclaim(HANDOVER, (HOA,)))
    assert of(actions, MeasureSessions) and not of(actions, PauseApps)
    _, (answer,) = split(role.happened(Measured(HANDOVER, (HeldSession(0, FLOW, 2),)), now=NOW))
    assert [status.spoken for status in answer.sessions] == [b"xy"]


def test_reclaim_is_answered_when_the_handover_ends_meanwhile() -> None:
    role, _ = asleep()
    ask(role, Reclaim(HANDOVER, (HOA,)))
    ask(role, Abandon(HANDOVER))
    _, answers = split(role.happened(AppsPaused(HANDOVER, {}, {}), now=NOW))
    assert [answer.status for answer in answers] == [Status.BUSY]


def test_proxies_end_with_the_handover() -> None:
    role, _ = asleep()
    actions, _ = ask(role, Abandon(HANDOVER))
    assert of(actions, EndApps) == [EndApps(HANDOVER)]


@pytest.mark.parametrize(
    "configuration, reason",
    [
        ({"apps": [["a", "mail", {}]]}, "[[mobile_node.app]] a: kind: not known"),
        ({"mail": {}}, "configuration: mail is not known"),
        ({"apps": {}}, "apps: a list of at most 16 is expected"),
        ({"apps": [["a", "keepalive", {}]] * 2}, "apps: two have the same name"),
        ({"apps": [["", "keepalive", {}]]}, "app: names and kinds have 1 to 64 characters"),
        ({"apps": [["a", "keepalive"]]}, "app: name, kind and settings are expected"),
        ({"apps": [["a", "keepalive", {}, {}, {}]]}, "app: name, kind and settings are expected"),
        ({"apps": [["a", "keepalive", {}, 1]]}, "app a: the only limits are consume, emission and when"),
        (
            {"apps": [["a", "keepalive", {}, {"emission": ["icmp"]}]]},
            f"app a: emission: rule 1, 'icmp': {EXPECTED}",
        ),
        ({"apps": [["a", "keepalive", {}, {"consume": "eat"}]]}, CONSUME_WORDS),
        ({"apps": [["a", "keepalive", {}, {"consume": []}]]}, CONSUME_WORDS),
        (
            {"apps": [["a", "keepalive", {"x": b"y"}]]},
            "app a: settings hold numbers, texts, lists and tables",
        ),
        (
            {"apps": [["a", "keepalive", {"payload": "x" * 20_000}]]},
            "app a: settings have at most 16384 bytes",
        ),
        (
            {"apps": [[f"n{n}", "keepalive", {}] for n in range(MAX_APPS + 1)]},
            "apps: a list of at most 16 is expected",
        ),
    ],
)
def test_wrong_orders_are_refused_with_the_reason(configuration: dict[str, Any], reason: str) -> None:
    actions, (answer,) = ask(stand_in(), TakeoverPrepare(HANDOVER, (HOA,), (FLOW,), configuration))
    assert answer.status is Status.REFUSED and answer.reason == reason
    assert not of(actions, a.Persist) and a.Count("takeover-refused") in actions
