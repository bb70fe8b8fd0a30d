"""Requests about the node itself: `locum status | node check | counters | shutdown`."""

import os
import signal
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.answering.sessions import sleeper
from locum.node.events import prometheus_text

if TYPE_CHECKING:
    from locum.node.control.view import NodeView
    from locum.roles.home_agent.role import HomeAgent
    from locum.roles.mnps.role import StandIn


MOST_PATHS_NAMED = 16  # in the status


def status(node: "NodeView", arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The node, its roles and how it is."""
    facts: dict[str, Any] = {
        "node": node.settings.node.name,
        "roles": list(node.driver.slots),
        "pid": os.getpid(),
        "since": node.clock.for_people(node.started_at),
        "interfaces": node.interface_states(),
    }
    if waits := node.forwarder.status():
        facts["forwarding"] = waits
    if (held := node.plane.held.waiting())["packets"]:
        facts["held"] = held
    if paths := path_mtus(node):
        facts["path_mtu"] = paths
    if troubles := node.beside.troubles():
        facts["host"] = troubles
    if node.wireguard is not None:
        facts["wireguard"] = node.wireguard.status()
    if "mobile_node" in node.driver.slots:
        facts["mobile_node"] = sleeper(node).state()
        if node.moving is not None:
            facts["suspend"] = node.moving.status()
    if (slot := node.driver.slots.get("home_agent")) is not None:
        timestamps = cast("HomeAgent", slot.role).timestamps
        facts["home_agent"] = {
            "timestamp_tolerance": timestamps.tolerance,
            "clock_ahead": round(timestamps.held_ahead, 3),
        }
    if node.stand_in is not None:
        taken = cast("StandIn", node.driver.slots["mnps"].role).triggering.taken()
        facts["mnps"] = {
            "sessions": len(node.stand_in.sessions()),
            "triggered": [
                f"{triggered.home_addresses[0]} by {triggered.by}: {triggered.reason.name.lower()}"
                for triggered in taken
            ],
        }
    return facts


def path_mtus(node: "NodeView") -> dict[str, Any]:
    """Numbers of probed paths of tunnels by the state of their search, and MTUs of narrow ones; empty: there are none."""
    facts: dict[str, Any] = dict(node.plane.probes.probing.states())
    if narrow := node.plane.narrow_paths:
        facts["narrow"] = len(narrow)
        facts["mtus"] = {str(end): mtu for end, mtu in islice(narrow.items(), MOST_PATHS_NAMED)}
    return facts


async def check(node: "NodeView", arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    """Look at the host now: each trouble with its place, and the command that ends it."""
    return await node.beside.check()


def counters(node: "NodeView", arguments: Mapping[str, Any]) -> dict[str, dict[str, int]] | str:
    """Every counter: events by kind, refusals of the daemon by reason, drops of the data plane by reason."""
    groups = {
        "events": dict(sorted(node.events.counts.items())),
        "refusals": dict(sorted(node.events.reasons.items())),
        "data_plane": node.plane.counters(),
    }
    if node.wireguard is not None:
        groups["wireguard"] = node.wireguard.counters()
    if arguments.get("format") == "prometheus":
        return prometheus_text(node.settings.node.name, groups)
    return groups


def shutdown(node: "NodeView", arguments: Mapping[str, Any]) -> str:
    """End the daemon; the network is left as it was found."""
    os.kill(os.getpid(), signal.SIGTERM)
    return "stopping"
