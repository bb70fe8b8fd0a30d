"""Requests about profiles of the policy server: `locum profile list | refresh` (features R3, C9), at the home agent.

A profile goes out without its keys.
"""

import time
from collections.abc import Mapping
from functools import partial
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control_socket import RequestFailed
from locum.node.rule_text import rule_text

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.node import Node
    from locum.roles.actions import Action, Role
    from locum.roles.home_agent import HomeAgent
    from locum.roles.homes import KnownHome

Row = dict[str, Any]


def profile_list(node: "Node", arguments: Mapping[str, Any]) -> list[Row]:
    """Home addresses that are served because of a profile, and what it says."""
    now = time.time()
    return [_row(each, now) for each in _home_agent(node).profiles()]


def profile_refresh(node: "Node", arguments: Mapping[str, Any]) -> list[str]:
    """Ask for the profile of `home_address` again, or for all; those that are asked for. Raises RequestFailed."""
    role, wanted = _home_agent(node), arguments.get("home_address")
    known = [each.home_address for each in role.profiles()]
    if wanted is not None:
        try:
            home_address = IPv4Address(str(wanted))
        except AddressValueError:
            raise RequestFailed(f"home_address: {wanted!r} is no IPv4 address") from None
        if home_address not in known:
            raise RequestFailed(
                f"{home_address} is not served because of a profile; see `locum profile list`"
            )
        known = [home_address]
    for each in known:
        node.command("home_agent", partial(_refresh, each))
    return [str(each) for each in known]


def _refresh(home_address: IPv4Address, home: "Role", now: float) -> "list[Action]":
    return cast("HomeAgent", home).refresh_profile(home_address, now=now)


def _home_agent(node: "Node") -> "HomeAgent":
    slot = node.slots.get("home_agent")
    if slot is None:
        raise RequestFailed("this node is no home agent; ask the one whose configuration has [home_agent]")
    return cast("HomeAgent", slot.role)


def _row(known: "KnownHome", now: float) -> Row:
    profile = known.profile
    return {
        "home_address": str(known.home_address),
        "home_address_v6": None if profile.home_address_v6 is None else str(profile.home_address_v6),
        "nai": known.nai,
        "pool": profile.pool if profile.home_address is None else None,
        "default_coa": None if profile.default_care_of is None else str(profile.default_care_of),
        "stand_ins": [f"{each.name} {each.address}" for each in profile.stand_ins],
        "rules": [rule_text(each) for each in profile.rules],
        "age": round(now - known.fetched_at, 1),
        "remaining": None if known.fetch_at is None else round(known.fetch_at - now, 1),
    }
