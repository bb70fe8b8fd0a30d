"""Requests about orders at the stand-in's role: authorised, checked, passed on to the node, answered."""

from ipaddress import ip_address
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.apps import AppDataUsed, AppsPaused, UseAppData
from locum.roles.action_values.sessions import NotPerformed
from locum.roles.mnps.ordering import RUNS
from locum.roles.mnps.role import StandIn
from locum.wire.control import Reclaim
from locum.wire.control.answer import Status
from locum.wire.control.order import (
    PATH,
    Operation,
    OrderAnswer,
    OrderRequest,
    decode_order_answer,
    encode_order,
)
from tests.roles.mnps.test_attending import HANDOVER, NOW, asleep, stand_in
from tests.roles.mnps.test_attending import ask as ask_634
from tests.roles.world import HOA

LISTED = OrderRequest(Operation.LIST, HOA, "fox")


def ask(role: StandIn, request: OrderRequest, authorised: tuple[Any, ...] = (HOA,)) -> list[a.Action]:
    return role.happened(a.Asked(7, PATH, encode_order(request), HOA, authorised), now=NOW)


def answer(actions: list[a.Action]) -> OrderAnswer:
    (found,) = [action for action in actions if isinstance(action, a.Answer)]
    assert found.exchange == 7
    return decode_order_answer(found.body)


def test_order_that_could_run_is_accepted() -> None:
    request = OrderRequest(Operation.CHECK, HOA, "fox", ("fox", "keepalive", {"interval": 5}))
    assert answer(ask(stand_in(), request)) == OrderAnswer(Status.OK)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("downlaod", {}, "[[mobile_node.app]] fox: kind: not known"),
        ("keepalive", {"x": bytes(3)}, "app fox: settings hold numbers, texts, lists and tables"),
        ("keepalive", {"x": "y" * 20_000}, "app fox: settings have at most 16384 bytes"),
    ],
)
def test_wrong_order_is_refused_with_the_reason(kind: str, settings: dict[str, Any], reason: str) -> None:
    request = OrderRequest(Operation.CHECK, HOA, "fox", ("fox", kind, settings))
    assert answer(ask(stand_in(), request)) == OrderAnswer(Status.REFUSED, reason)


def test_order_is_checked_beside_the_others() -> None:
    """One that is wrong itself, or of a later version, is no obstacle."""
    app = ("fox", "keepalive", {"port": 80})
    others = (("bad", "keepalive", 7), ("site", "keepalive", {"port": 80}))
    refused = answer(ask(stand_in(), OrderRequest(Operation.CHECK, HOA, "fox", app, others)))
    assert refused == OrderAnswer(
        Status.REFUSED, "[[mobile_node.app]] fox: settings.port: it is that of site"
    )
    fits = answer(ask(stand_in(), OrderRequest(Operation.CHECK, HOA, "fox", app, others[:1])))
    assert fits == OrderAnswer(Status.OK)


def test_device_uses_only_its_own_files() -> None:
    actions = ask(stand_in(), LISTED, (ip_address("192.0.2.99"),))
    assert answer(actions).status is Status.NOT_AUTHORISED
    foreign = OrderRequest(Operation.LIST, ip_address("192.0.2.99"), "fox")
    assert answer(ask(stand_in(), foreign, (foreign.home_address,))).status is Status.NOT_AUTHORISED


def test_unreadable_request_is_malformed() -> None:
    actions = stand_in().happened(a.Asked(7, PATH, b"\xff", HOA, (HOA,)), now=NOW)
    assert answer(actions).status is Status.MALFORMED


def test_node_uses_the_files_and_the_answer_goes_back() -> None:
    role = stand_in()
    assert ask(role, LISTED) == [UseAppData(7, LISTED)]
    given = OrderAnswer(Status.OK, files=(("a", 3),))
    actions = role.happened(AppDataUsed(7, LISTED, given), now=NOW)
    assert answer(actions) == given and len(actions) == 1


def test_request_that_the_node_could_not_do_may_come_again() -> None:
    actions = stand_in().happened(NotPerformed(UseAppData(7, LISTED), "the disk"), now=NOW)
    assert answer(actions) == OrderAnswer(Status.BUSY, "the disk")


@pytest.mark.parametrize(
    ("request_", "kind", "detail"),
    [
        (OrderRequest(Operation.REMOVE, HOA, "fox"), "order-removed", {"order": "fox"}),
        (
            OrderRequest(Operation.COMMIT, HOA, "fox", file="a", size=3, digest=bytes(32)),
            "order-received",
            {"order": "fox", "file": "a", "bytes": 3},
        ),
    ],
)
def test_changes_are_events(request_: OrderRequest, kind: str, detail: dict[str, Any]) -> None:
    done = stand_in().happened(AppDataUsed(7, request_, OrderAnswer(Status.OK)), now=NOW)
    assert a.Emit(kind, PATH, HOA, None, detail) in done
    failed = stand_in().happened(AppDataUsed(7, request_, OrderAnswer(Status.LIMIT)), now=NOW)
    assert not [action for action in failed if isinstance(action, a.Emit)]


def test_files_of_a_running_order_stay() -> None:
    role, _ = asleep()
    removal = OrderRequest(Operation.REMOVE, HOA, "mqtt")
    assert answer(ask(role, removal)) == OrderAnswer(Status.BUSY, RUNS)
    assert ask(role, OrderRequest(Operation.REMOVE, HOA, "fox")) != []
    ask_634(role, Reclaim(HANDOVER, (HOA,)))
    role.happened(AppsPaused(HANDOVER), now=NOW)
    assert ask(role, removal) == [UseAppData(7, removal)]
