"""Requests about locations of devices (P6): `locum location list` and `show`, at a location server."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.server import RequestFailed

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.control.view import NodeView
    from locum.roles.location.entry import LocationEntry
    from locum.roles.location.role import LocationServer


def location_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every entry, by home address. Raises RequestFailed."""
    return sorted(
        (_row(node, entry) for entry in _server(node).entries()), key=lambda row: str(row["home_address"])
    )


def location_show(node: "NodeView", arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a home address, a node identifier or a SIP URI. Raises RequestFailed."""
    asked = str(arguments.get("device", ""))
    try:
        found = _server(node).find(ip_address(asked))
    except ValueError:
        found = _server(node).find(asked)
    if not found:
        raise RequestFailed(f"there is no location of {asked!r}; `locum location list` has all")
    return [_row(node, entry) for entry in found]


def _server(node: "NodeView") -> "LocationServer":
    slot = node.driver.slots.get("location")
    if slot is None:
        raise RequestFailed("this node is no location server; ask the one whose configuration has [location]")
    return cast("LocationServer", slot.role)


def _row(node: "NodeView", entry: "LocationEntry") -> dict[str, Any]:
    location, way = entry.location, entry.location.way
    return {
        "home_address": str(location.home_addresses[0]),
        "home_addresses": [str(home) for home in location.home_addresses],
        "state": location.state.name.lower(),
        "access_node": None if location.access_node is None else str(location.access_node),
        "care_of": None if location.care_of is None else str(location.care_of),
        "node_id": location.node_id or None,
        "sip_uris": list(location.uris),
        "way": None if way is None else way.name,
        "updated": location.sent / 1000,
        "by": entry.origin.value,
        "reporter": None if entry.reporter is None else str(entry.reporter),
        "remaining": max(round(entry.expires_at - node.clock.now(), 1), 0.0),
    }
