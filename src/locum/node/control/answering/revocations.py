"""Requests that end registrations: `locum binding revoke` (RFC 3543), and the last words of an access node."""

import asyncio
import contextlib
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.server import RequestFailed
from locum.node.performer import Sequential

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.node import Node
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.home_agent.role import HomeAgent

Row = dict[str, Any]
_LONGEST_REASON = 200
_LONGEST_FAREWELL = 1.0  # seconds that the end of a daemon waits for the home agents' answers


def revoke(node: "Node", arguments: Mapping[str, Any]) -> Row:
    """End the registration of a home address, at the home agent or as its access node. Raises RequestFailed.

    `agent` limits it to the care-of addresses that this agent registered, or to the care-of address itself.
    """
    home_address = _address(arguments, "home_address")
    assert home_address is not None
    agent = _address(arguments, "agent", optional=True)
    reason = arguments.get("reason") or "revoked by hand"
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
        raise RequestFailed(f"reason: a text of at most {_LONGEST_REASON} characters")
    revoked: list[str] = []
    if "home_agent" in node.slots:
        home = cast("HomeAgent", node.slots["home_agent"].role)
        lost = home.revocation.revocable(home_address, agent)
        if lost:
            node.command(
                "home_agent",
                lambda _, now: home.revocation.revoke(home_address, agent=agent, reason=reason, now=now),
            )
            revoked += [str(each.address) for each in lost]
    if "foreign_agent" in node.slots and agent is None:
        foreign = cast("ForeignAgent", node.slots["foreign_agent"].role)
        if any(each.home_address == home_address for each in foreign.visitors()):
            node.command("foreign_agent", lambda _, now: foreign.revoke(home_address, reason=reason, now=now))
            revoked.append(str(foreign.configuration.care_of_address))
    if not revoked:
        raise RequestFailed(f"{home_address}: nothing is registered here that could be revoked")
    return {"home_address": str(home_address), "care_of": revoked, "reason": reason}


def _address(arguments: Mapping[str, Any], key: str, *, optional: bool = False) -> IPv4Address | None:
    value = arguments.get(key)
    if value is None and optional:
        return None
    try:
        return IPv4Address(value)
    except (AddressValueError, ValueError, TypeError):
        raise RequestFailed(f"{key}: an IPv4 address, not {value!r}") from None


async def farewell(node: "Node") -> None:
    """The daemon of an access node ends: its visitors' home agents are told, if that can be done in a moment."""
    slot = node.slots["foreign_agent"]
    role = cast("ForeignAgent", slot.role)
    actions = role.farewell(now=node.clock.now())
    if not actions:
        return
    slot.performer.perform(actions)
    answered = asyncio.Event()

    def look() -> None:
        if not role.leaving:
            answered.set()

    slot.told.add(look)
    try:
        look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_FAREWELL):
                await answered.wait()
    finally:
        slot.told.discard(look)
    if isinstance(slot.performer, Sequential):
        await slot.performer.drained()
