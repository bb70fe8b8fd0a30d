"""Requests that change bindings by hand: `locum binding revoke` (RFC 3543) and `locum binding forget-identification`."""

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.answering.stored import stored
from locum.node.control.server import RequestFailed
from locum.roles.actions import Action, Emit

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.home_agent.role import HomeAgent

Row = dict[str, Any]
_LONGEST_REASON = 200


async def revoke(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
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
    if "home_agent" in node.driver.slots:
        home = cast("HomeAgent", node.driver.slots["home_agent"].role)
        lost = home.revocation.revocable(home_address, agent)
        if lost:
            node.driver.command(
                "home_agent",
                lambda _, now: home.revocation.revoke(home_address, agent=agent, reason=reason, now=now),
            )
            await stored(node, "home_agent")
            revoked += [str(care_of.address) for care_of in lost]
    if "foreign_agent" in node.driver.slots and agent is None:
        foreign = cast("ForeignAgent", node.driver.slots["foreign_agent"].role)
        if any(visitor.home_address == home_address for visitor in foreign.visitors()):
            node.driver.command(
                "foreign_agent", lambda _, now: foreign.revoke(home_address, reason=reason, now=now)
            )
            await stored(node, "foreign_agent")
            revoked.append(str(foreign.configuration.care_of_address))
    if not revoked:
        raise RequestFailed(f"{home_address}: nothing is registered here that could be revoked")
    return {"home_address": str(home_address), "care_of": revoked, "reason": reason}


async def forget_identification(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Forget identifications in the future, of a home address or of `all` (RFC 5944 section 5.7.1). Raises RequestFailed."""
    home_address = _address(arguments, "home_address", optional=True)
    if (home_address is None) is not (arguments.get("all") is True):
        raise RequestFailed("name one home address, or all of them")
    if (slot := node.driver.slots.get("home_agent")) is None:
        raise RequestFailed("this node is no home agent")
    home = cast("HomeAgent", slot.role)
    before = home.timestamps.held_ahead
    forgotten: list[Emit] = []

    def forget(_: object, now: float) -> list[Action]:
        actions = home.forget_identification(home_address, now=now)
        forgotten.extend(action for action in actions if isinstance(action, Emit))
        return actions

    node.driver.command("home_agent", forget)
    await stored(node, "home_agent")
    after = home.timestamps.held_ahead
    if not forgotten and after == before:
        raise RequestFailed("no identification lies in the future")
    return {
        "forgotten": [
            {"home_address": str(event.home_address), **(event.detail or {})} for event in forgotten
        ],
        "clock_ahead": round(after, 3),
    }


def _address(arguments: Mapping[str, Any], key: str, *, optional: bool = False) -> IPv4Address | None:
    value = arguments.get(key)
    if value is None and optional:
        return None
    try:
        return IPv4Address(value)
    except (AddressValueError, ValueError, TypeError):
        raise RequestFailed(f"{key}: an IPv4 address, not {value!r}") from None
