"""Requests about the node itself: `locum status | counters | shutdown`."""

import os
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.answering.sessions import sleeper
from locum.node.events import prometheus_text

if TYPE_CHECKING:
    from locum.node.control.view import NodeView
    from locum.roles.mnps.role import StandIn


def status(node: "NodeView", arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The node, its roles and how it is."""
    facts: dict[str, Any] = {
        "node": node.settings.node.name,
        "roles": list(node.driver.slots),
        "pid": os.getpid(),
        "since": node.clock.for_people(node.started_at),
        "interfaces": node.interface_states(),
    }
    if "mobile_node" in node.driver.slots:
        facts["mobile_node"] = sleeper(node).state()
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


def counters(node: "NodeView", arguments: Mapping[str, Any]) -> dict[str, dict[str, int]] | str:
    """Every counter: events by kind, refusals of the daemon by reason, drops of the data plane by reason."""
    groups = {
        "events": dict(sorted(node.events.counts.items())),
        "refusals": dict(sorted(node.events.reasons.items())),
        "data_plane": node.plane.counters(),
    }
    if arguments.get("format") == "prometheus":
        return prometheus_text(node.settings.node.name, groups)
    return groups


def shutdown(node: "NodeView", arguments: Mapping[str, Any]) -> str:
    """End the daemon; the network is left as it was found."""
    os.kill(os.getpid(), signal.SIGTERM)
    return "stopping"
