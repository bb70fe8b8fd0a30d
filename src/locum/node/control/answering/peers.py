"""Requests about associations: `locum peer list`. Keys stay where they are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from locum.node.clock import boot_seconds
from locum.node.config.settings import PeerKey
from locum.security.association import Association

if TYPE_CHECKING:
    from locum.node.control.view import NodeView

Row = dict[str, Any]


def peer_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Peers of CoAP with counts of messages, and those that share an association for registrations."""
    return [*_control(node), *_home_agent(node), *_foreign_agent(node), *_mobile_node(node), *_stand_in(node)]


def _control(node: "NodeView") -> list[Row]:
    now = boot_seconds()
    rows: list[Row] = []
    for association in node.exchanges.associations():
        passed = node.exchanges.conversation(association.peer)
        rows.append(
            {
                "kind": "control",
                "address": str(association.peer),
                "speaks_for": [str(home) for home in association.home_addresses],
                "may_trigger": association.may_trigger,
                "last_heard": None if passed.last_heard is None else round(now - passed.last_heard, 1),
                "asked": passed.asked,
                "failed": passed.failed,
                "received": passed.received,
            }
        )
    return rows


def _home_agent(node: "NodeView") -> list[Row]:
    own = node.settings.home_agent
    if own is None:
        return []
    rows = [_row("foreign-agent", foreign_agent) for foreign_agent in own.foreign_agents]
    for mobile in own.mobiles:
        home = {"home_address": str(mobile.home_address)}
        rows.append(
            {"kind": "mobile-node", "address": str(mobile.home_address), **home, **_of(mobile.association)}
        )
        rows += [
            {
                "kind": "stand-in",
                "address": str(stand_in.address),
                "name": stand_in.name,
                **home,
                **_of(stand_in.association),
            }
            for stand_in in mobile.stand_ins
        ]
    return rows


def _foreign_agent(node: "NodeView") -> list[Row]:
    own = node.settings.foreign_agent
    if own is None:
        return []
    rows = [_row("home-agent", home_agent) for home_agent in own.home_agents]
    return rows + [_row("mobile-node", mobile) for mobile in own.mobiles]


def _mobile_node(node: "NodeView") -> list[Row]:
    own = node.settings.mobile_node
    if own is None:
        return []
    home_agent = PeerKey(own.configuration.home_agent, own.configuration.association)
    return [
        _row("home-agent", home_agent),
        *(_row("foreign-agent", foreign_agent) for foreign_agent in own.foreign_agents),
    ]


def _stand_in(node: "NodeView") -> list[Row]:
    own = node.settings.mnps
    return [
        {
            "kind": "home-agent",
            "address": str(device.home_agent),
            "home_address": str(device.home_address),
            **_of(device.association),
        }
        for device in (own.devices if own else ())
    ]


def _row(kind: str, key: PeerKey) -> Row:
    return {"kind": kind, "address": str(key.address), **_of(key.association)}


def _of(association: Association) -> Row:
    return {
        "spi": association.spi,
        "sent_spi": association.outgoing_spi,
        "algorithm": association.algorithm.value,
        "replay": association.replay.value,
    }
