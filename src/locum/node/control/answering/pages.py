"""Requests about pages at a home agent: `locum page MN` and `locum page list` (P1)."""

import asyncio
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.server import RequestFailed
from locum.roles.home_agent.paging.pages import NotPaged
from locum.roles.paging.routine import cause_detail, word
from locum.wire.control.paging.outcome import AnsweredBy

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.home_agent.role import HomeAgent
    from locum.roles.paging.routine import PageInProgress

Row = dict[str, Any]

_BY = {None: None, AnsweredBy.MOBILE_NODE: "mn", AnsweredBy.ACCESS_NODE: "an"}


async def page(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Page the device `home_address`; returns the outcome when the page has ended. Raises RequestFailed."""
    role = _home_agent(node)
    value = arguments.get("home_address")
    try:
        home_address = IPv4Address(str(value))
    except AddressValueError:
        raise RequestFailed(f"home_address: {value!r} is not an IPv4 address") from None
    slot = node.driver.slots["home_agent"]
    stepped = asyncio.Event()
    slot.told.add(stepped.set)
    routine = role.paging.routine
    before = routine.ended.get(home_address)
    try:
        node.driver.command(
            "home_agent",
            lambda home, now: cast("HomeAgent", home).paging.command(home_address, now=now),
        )
        while (ended := routine.ended.get(home_address)) is None or ended is before:
            stepped.clear()
            await stepped.wait()
    except NotPaged as problem:
        raise RequestFailed(str(problem)) from None
    finally:
        slot.told.discard(stepped.set)
    return {
        **_row(node, ended.page),
        "state": word(ended.outcome),
        "reason": ended.text or None,
        "seconds": round(ended.at - ended.page.begun, 3),
    }


def page_list(node: "NodeView", _arguments: Mapping[str, Any]) -> list[Row]:
    """Pages in progress, and the last one of each device. Raises RequestFailed."""
    routine = _home_agent(node).paging.routine
    rows = []
    for ended in routine.ended.values():
        state = "limited" if ended.limited else word(ended.outcome)
        seconds = round(ended.at - ended.page.begun, 3)
        rows.append(
            {**_row(node, ended.page), "state": state, "reason": ended.text or None, "seconds": seconds}
        )
    now = node.clock.now()
    for found in routine.pages():
        state = "paging" if found.answered_by is None else "waking"
        seconds = round(now - found.begun, 3)
        rows.append({**_row(node, found), "state": state, "reason": None, "seconds": seconds})
    return rows


def _row(node: "NodeView", found: "PageInProgress") -> Row:
    return {
        "home_address": str(found.home_address),
        "page": found.identifier.hex(),
        **cause_detail(found.cause),
        "begun": node.clock.for_people(found.begun),
        "access_node": None if found.to is None else str(found.to),
        "answered_by": _BY[found.answered_by],
        "attempts": found.attempt,
        "folded": found.folded,
    }


def _home_agent(node: "NodeView") -> "HomeAgent":
    slot = node.driver.slots.get("home_agent")
    if slot is None:
        raise RequestFailed("this node pages nobody; ask the home agent")
    return cast("HomeAgent", slot.role)
