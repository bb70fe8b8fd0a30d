"""Requests about what shall wake a device: `locum wake-on add | remove | list`."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from locum.node.control.answering.stored import stored
from locum.node.control.server import RequestFailed
from locum.node.control.wish_rows import at_offset, sleeping_node, wish_of, wish_row
from locum.roles.mobile_node.paging.own_paging import PATIENCE, WishRefused
from locum.roles.mobile_node.paging.wishes import Wish

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.actions import Action

Row = dict[str, Any]


async def add(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Returns when home agent and stand-in have answered, or not within seconds. Raises RequestFailed."""
    asked = wish_of(arguments.get("wish"))
    at_offset(sleeping_node(node))
    made: list[Wish] = []

    def command(_: object, now: float) -> "list[Action]":
        found, actions = sleeping_node(node).paging.add(asked, now=now)
        made.append(found)
        return actions

    await _commanded(node, command)
    return next(
        wish_row(sleeping_node(node), standing)
        for standing in sleeping_node(node).paging.standings()
        if standing.wish == made[0]
    )


async def remove(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Returns when home agent and stand-in know it, or do not answer within seconds. Raises RequestFailed."""
    number = arguments.get("number")
    if not isinstance(number, int) or isinstance(number, bool):
        raise RequestFailed("number: the number of a wish; `locum wake-on list` has all")
    at_offset(sleeping_node(node))
    gone: list[Wish] = []

    def command(_: object, now: float) -> "list[Action]":
        found, actions = sleeping_node(node).paging.remove(number, now=now)
        gone.append(found)
        return actions

    await _commanded(node, command)
    unaware = [
        telling for telling in sleeping_node(node).paging.tellings if telling.left and not telling.taken
    ]
    said = "; ".join(f"{telling.peer} may not know it: {telling.text or 'no answer'}" for telling in unaware)
    return {"wish": number, "text": gone[0].text, "warning": said}


def wish_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Every wish with its state. Raises RequestFailed."""
    return [wish_row(sleeping_node(node), standing) for standing in sleeping_node(node).paging.standings()]


async def _commanded(node: "NodeView", command: Any) -> None:
    slot, paging = node.driver.slots["mobile_node"], sleeping_node(node).paging
    stepped = asyncio.Event()
    slot.told.add(stepped.set)
    try:
        node.driver.command("mobile_node", command)
        await stored(node, "mobile_node")
        async with asyncio.timeout(PATIENCE):
            while not paging.settled:
                stepped.clear()
                await stepped.wait()
    except WishRefused as problem:
        raise RequestFailed(str(problem)) from None
    except TimeoutError:
        return  # the state of the wish says so
    finally:
        slot.told.discard(stepped.set)
