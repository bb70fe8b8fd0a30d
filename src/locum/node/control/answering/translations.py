"""Requests about translations and multicast groups of the data plane: `locum translation list`, `locum group list`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locum.node.control.view import NodeView

Row = dict[str, Any]


def translations(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Home addresses translated to a stand-in's interface address here (R12), with counts."""
    rows: list[Row] = []
    for translation in node.plane.state.translations.values():
        towards, back = node.plane.translation_counters(translation.home_address, translation.tunnel)
        rows.append(
            {
                "home_address": str(translation.home_address),
                "interface_address": str(translation.interface_address),
                "tunnel": None if translation.tunnel is None else str(translation.tunnel),
                "packets_towards": towards.packets,
                "bytes_towards": towards.bytes,
                "packets_back": back.packets,
                "bytes_back": back.bytes,
            }
        )
    return rows


def groups(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Multicast groups that are forwarded to access links (C4), with the copies made."""
    rows: list[Row] = []
    for group in node.plane.state.groups.values():
        counter = node.plane.group_counters(group.group)
        rows.append(
            {
                "group": str(group.group),
                "upstream": group.upstream,
                "links": list(group.links),
                "packets": counter.packets,
                "bytes": counter.bytes,
            }
        )
    return rows
