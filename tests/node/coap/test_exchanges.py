"""Which role of a host gets a request over CoAP, for hosts with several roles."""

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from locum.node.coap.exchanges import Exchanges
from locum.node.events import EventStream
from locum.roles.actions import Answer, Asked, Event

OWN = ip_address("10.36.0.4")
HA, FA, MN, MNPS = "home_agent", "foreign_agent", "mobile_node", "mnps"


@pytest.mark.parametrize(
    ("roles", "path", "receiver"),
    [
        ((MN,), "618", MN),
        ((MNPS,), "618", MNPS),
        ((MN, MNPS), "618", MN),
        ((MNPS, MN), "618", MN),
        ((HA, FA), "618", None),
        ((MN, MNPS), "634", MNPS),
        ((MN,), "634", None),
        ((HA, FA, MN, MNPS), "622", FA),
        ((HA, FA, MN, MNPS), "624", FA),
        ((HA, MN, MNPS), "622", None),
        ((HA, MN, MNPS), "624", None),
        ((MN, MNPS), "trigger", MNPS),
        ((MN,), "trigger", None),
    ],
)
async def test_receiver_of_a_request(roles: tuple[str, ...], path: str, receiver: str | None) -> None:
    events = EventStream("n")
    asked: list[tuple[str, Event]] = []

    def feed(role: str, event: Event) -> None:
        asked.append((role, event))
        assert isinstance(event, Asked)
        handlers = exchanges.handlers(role)
        handlers[Answer](Answer(event.exchange, b"from " + role.encode()))

    settings = SimpleNamespace(roles=roles, control=None)
    exchanges = Exchanges(cast(Any, settings), cast(Any, None), events, feed)
    exchanges.begin()
    async with asyncio.timeout(30):
        answer = await exchanges.ask_here(path, b"body", OWN, (OWN,))
    assert [role for role, _ in asked] == ([receiver] if receiver else [])
    assert answer == (b"from " + receiver.encode() if receiver else b"")
    assert events.reasons == ({} if receiver else {f"request-{path}-not-served": 1})
