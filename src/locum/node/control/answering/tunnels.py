"""Requests about the data plane's tunnels: `locum tunnel list`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from locum.roles.action_values.flows import Encapsulation, Tunnel

if TYPE_CHECKING:
    from locum.node.control.view import NodeView

Row = dict[str, Any]


def tunnels(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Every tunnel of the data plane with its counters: into it, out of it."""
    plane = node.plane
    state = plane.state
    rows: list[Row] = []
    for binding in state.bindings.values():
        counter = plane.binding_counters(binding.home_address)
        peers = [(binding.peer_tunnel, binding.peer)] if binding.peer_tunnel is not None else []
        for tunnel, peer in [*((tunnel, None) for tunnel in binding.tunnels), *peers]:
            rows.append(
                {
                    "direction": "to-home-address",
                    "home_address": str(binding.home_address),
                    "verdict": binding.verdict.value,
                    "peer": None if peer is None else str(peer),
                    **_tunnel(tunnel),
                    "packets": counter.packets,
                    "bytes": counter.bytes,
                }
            )
    for entry in state.outbound_entries():
        counter = plane.outbound_counters(entry)
        rows.append(
            {
                "direction": "from-home-address",
                "home_address": str(entry.home_address),
                "link": entry.link,
                **_tunnel(entry.tunnel),
                "packets": counter.packets,
                "bytes": counter.bytes,
            }
        )
    for acceptance in state.acceptances.values():
        counter = plane.acceptance_counters(acceptance)
        rows.append(
            {
                "direction": "accepted",
                "home_address": str(acceptance.home_address),
                "source": str(acceptance.outer_source),
                "side": acceptance.side.value,
                "end": None if acceptance.end is None else str(acceptance.end),
                "link": acceptance.link,
                "next_hop": None if acceptance.next_hop is None else str(acceptance.next_hop),
                "packets": counter.packets,
                "bytes": counter.bytes,
            }
        )
    return rows


def _tunnel(tunnel: Tunnel) -> Row:
    row: Row = {
        "source": str(tunnel.source),
        "destination": str(tunnel.destination),
        "encapsulation": tunnel.encapsulation.value,
    }
    if tunnel.encapsulation is Encapsulation.UDP:
        row |= {"source_port": tunnel.source_port, "destination_port": tunnel.destination_port}
    if tunnel.gre_key is not None:
        row["gre_key"] = tunnel.gre_key
    return row
