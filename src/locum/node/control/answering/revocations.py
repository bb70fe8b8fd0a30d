"""The request that ends registrations: `locum binding revoke` (RFC 3543)."""

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.server import RequestFailed

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.home_agent.role import HomeAgent

Row = dict[str, Any]
_LONGEST_REASON = 200


def revoke(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
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
            revoked += [str(care_of.address) for care_of in lost]
    if "foreign_agent" in node.driver.slots and agent is None:
        foreign = cast("ForeignAgent", node.driver.slots["foreign_agent"].role)
        if any(visitor.home_address == home_address for visitor in foreign.visitors()):
            node.driver.command(
                "foreign_agent", lambda _, now: foreign.revoke(home_address, reason=reason, now=now)
            )
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
