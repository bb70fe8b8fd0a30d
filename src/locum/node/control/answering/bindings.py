"""Requests about bindings: `locum binding list`."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.answering.flows import rule_rows

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.home_agent.role import HomeAgent

Row = dict[str, Any]


def bindings(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Bindings of a home agent, visitors of an access node (R1)."""
    rows: list[Row] = []
    now = node.clock.now()
    if (slot := node.driver.slots.get("home_agent")) is not None:
        home = cast("HomeAgent", slot.role)
        rows += [_binding(node, entry, now) for entry in home.visitor_list(now=now)]
    return rows + visitors(node, arguments)


def visitors(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Visitors of an access node alone."""
    rows: list[Row] = []
    now = node.clock.now()
    if (slot := node.driver.slots.get("foreign_agent")) is not None:
        foreign = cast("ForeignAgent", slot.role)
        lost = foreign.lost()
        rows += [
            {**_visitor(visitor, now), "lost": visitor.home_address in lost} for visitor in foreign.visitors()
        ]
        rows += [_static(visitor) for visitor in foreign.static_visitors()]
    return rows


def _binding(node: "NodeView", entry: Any, now: float) -> Row:
    return {
        "kind": "binding",
        "home_address": str(entry.home_address),
        "home_address_v6": None if entry.home_address_v6 is None else str(entry.home_address_v6),
        "home_agent": str(entry.home_agent),
        "care_of": [
            *(_care_of(care_of, "mn", now) for care_of in entry.care_of),
            *(_care_of(care_of, one.name, now) for one in entry.stand_ins for care_of in one.care_of),
        ],
        "default_coa": None if entry.default_care_of is None else str(entry.default_care_of),
        "in_force": _texts(entry.in_force),
        "ipv6": entry.ipv6,
        "spi": entry.spi,
        "stand_ins": [
            {
                "name": stand_in.name,
                "address": str(stand_in.address),
                "spi": stand_in.spi,
                "ipv6": stand_in.ipv6,
            }
            for stand_in in entry.stand_ins
        ],
        "rules": rule_rows(node, entry.rules, {entry.home_address: entry.home_address_v6}),
    }


def _care_of(care_of: Any, registrant: str, now: float) -> Row:
    row: Row = {
        "address": str(care_of.address),
        "registrant": registrant,
        "lifetime": care_of.lifetime,
        "remaining": round(care_of.expires_at - now, 1),
        "agent": str(care_of.agent),
        "brief": care_of.brief,
        "weight": care_of.weight,
    }
    if care_of.bid is not None:
        row["bid"] = care_of.bid
    if care_of.outer is not None:
        row["outer"] = f"{care_of.outer.address}:{care_of.outer.port}"
    if registrant != "mn":
        row["takes"] = "ruled" if care_of.ruled else "all"
    return row


def _visitor(visitor: Any, now: float) -> Row:
    return {
        "kind": "visitor",
        "home_address": str(visitor.home_address),
        "home_address_v6": None if visitor.home_address_v6 is None else str(visitor.home_address_v6),
        "home_agent": str(visitor.home_agent),
        "link": visitor.link,
        "link_layer": None if visitor.link_layer is None else visitor.link_layer.hex(":"),
        "lifetime": visitor.lifetime,
        "remaining": round(visitor.expires_at - now, 1),
    }


def _static(visitor: Any) -> Row:
    return {
        "kind": "static",
        "home_address": str(visitor.home_address),
        "home_address_v6": None if visitor.home_address_v6 is None else str(visitor.home_address_v6),
        "home_agent": str(visitor.home_agent),
        "link": visitor.link,
        "next_hop": str(visitor.next_hop),
    }


def _texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]
