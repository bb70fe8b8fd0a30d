"""Requests about profiles of the policy server: `locum profile list | refresh` (features R3, C9, R20).

A home agent has those of the mobile nodes that it serves because of them, an access node those of its visitors and of
home addresses bound in advance, a stand-in the associations that it has learnt; a host that is several of them answers
for all. A profile goes out without its keys.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from locum.node.config.rule_text import policing_texts, rule_text
from locum.node.control.server import RequestFailed

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.coap.learnt_associations import Learnt
    from locum.node.control.view import NodeView
    from locum.roles.actions import Action, Role
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.foreign_agent.visitor_policy import PolicedVisitor
    from locum.roles.home_agent.profile_homes import KnownHome
    from locum.roles.home_agent.role import HomeAgent

    Agent: TypeAlias = HomeAgent | ForeignAgent

Row = dict[str, Any]
_HOME_AGENT, _ACCESS_NODE, _STAND_IN = "home_agent", "foreign_agent", "mnps"


def profile_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Home addresses with a known or requested profile, and the parts used here. Raises RequestFailed."""
    now, rows = node.clock.now(), list[Row]()
    for name, role in _agents(node).items():
        if name == _HOME_AGENT:
            rows += [_home(profile, now) for profile in cast("HomeAgent", role).profiles()]
        else:
            rows += [_visitor(profile, now) for profile in cast("ForeignAgent", role).profiles()]
    return rows + [_learnt(learnt, now) for learnt in (node.learnt.all() if node.learnt is not None else ())]


def profile_refresh(node: "NodeView", arguments: Mapping[str, Any]) -> list[str]:
    """Ask for the profile of `home_address` again, or for all; those that are asked for. Raises RequestFailed."""
    wanted = arguments.get("home_address")
    known = [(name, address) for name, role in _agents(node).items() for address in _known(role)]
    if node.learnt is not None:
        known += [(_STAND_IN, IPv4Address(str(learnt.association.peer))) for learnt in node.learnt.all()]
    if wanted is not None:
        try:
            home_address = IPv4Address(str(wanted))
        except AddressValueError:
            raise RequestFailed(f"home_address: {wanted!r} is no IPv4 address") from None
        known = [pair for pair in known if pair[1] == home_address]
        if not known:
            raise RequestFailed(
                f"{home_address} is not served because of a profile; see `locum profile list`"
            )
    for name, pair in known:
        if name == _STAND_IN:
            assert node.learnt is not None
            node.learnt.refresh(pair)
        else:
            node.driver.command(name, partial(_refresh, pair))
    return list(dict.fromkeys(str(pair) for _, pair in known))


def _known(role: "Agent") -> list[IPv4Address]:
    profiles = cast("Iterable[KnownHome | PolicedVisitor]", role.profiles())
    return [profile.home_address for profile in profiles]


def _refresh(home_address: IPv4Address, agent: "Role", now: float) -> "list[Action]":
    return cast("Agent", agent).refresh_profile(home_address, now=now)


def _agents(node: "NodeView") -> "dict[str, Agent]":
    """The roles of this host that ask for profiles. Raises RequestFailed."""
    slots = {
        name: node.driver.slots[name] for name in (_HOME_AGENT, _ACCESS_NODE) if name in node.driver.slots
    }
    if not slots and node.learnt is None:
        raise RequestFailed(
            "this node asks no policy server; home agents, access nodes and stand-ins do that have [policy]"
        )
    return {name: cast("Agent", slot.role) for name, slot in slots.items()}


def _home(known: "KnownHome", now: float) -> Row:
    profile = known.profile
    return {
        "at": "home agent",
        "home_address": str(known.home_address),
        "home_address_v6": None if profile.home_address_v6 is None else str(profile.home_address_v6),
        "nai": known.nai,
        "pool": profile.pool if profile.home_address is None else None,
        "default_coa": None if profile.default_care_of is None else str(profile.default_care_of),
        "stand_ins": [f"{stand_in.name} {stand_in.address}" for stand_in in profile.stand_ins],
        "rules": [rule_text(rule) for rule in profile.rules],
        "age": round(now - known.fetched_at, 1),
        "remaining": None if known.fetch_at is None else round(known.fetch_at - now, 1),
    }


def _visitor(known: "PolicedVisitor", now: float) -> Row:
    profile = known.profile
    return {
        "at": "access node",
        "home_address": str(known.home_address),
        "nai": known.nai,
        "filter_to": [] if profile is None else policing_texts(profile.to_visitor),
        "filter_from": [] if profile is None else policing_texts(profile.from_visitor),
        "paging": [] if profile is None else policing_texts(profile.paging),
        "age": None if known.fetched_at is None else round(now - known.fetched_at, 1),
        "remaining": None if known.fetch_at is None else round(known.fetch_at - now, 1),
    }


def _learnt(known: "Learnt", now: float) -> Row:
    own = known.association
    return {
        "at": "stand-in",
        "home_address": str(own.peer),
        "home_address_v6": next(
            (str(home_address) for home_address in own.home_addresses if home_address.version == 6), None
        ),
        "control": f"mnps_id {own.sender_id.hex()}, mn_id {own.recipient_id.hex()}",
        "age": round(now - known.fetched_at, 1),
        "remaining": None if known.fetch_at is None else round(known.fetch_at - now, 1),
    }
