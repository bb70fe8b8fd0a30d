"""What a node answers on its control socket: lists for people and programs.

Reads roles and data plane and changes nothing. Every value is JSON; times are wall-clock seconds.
"""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from locum.node.control_socket import RequestFailed
from locum.node.events import flow_text, prometheus_text
from locum.roles.actions import Encapsulation, Tunnel

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.node import Node
    from locum.node.sleep_control import SleepControl
    from locum.roles.foreign_agent import ForeignAgent
    from locum.roles.home_agent import HomeAgent
    from locum.roles.mnps import StandIn

Row = dict[str, Any]


class Answers:
    """The handler of one node's control socket."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    async def answer(self, request: str, arguments: Mapping[str, Any]) -> Any:
        """The result of a request. Raises RequestFailed."""
        match request:
            case "status":
                return self.status()
            case "binding list" | "bindings":
                return self.bindings()
            case "visitors":
                return [row for row in self.bindings() if row["kind"] != "binding"]
            case "session list" | "sessions":
                return self.sessions()
            case "tunnel list" | "tunnels":
                return self.tunnels()
            case "counters":
                groups = self.counters()
                if arguments.get("format") == "prometheus":
                    return prometheus_text(self._node.settings.node.name, groups)
                return groups
            case "sleep":
                return await self._sleeper().sleep(arguments.get("for"))
            case "wake":
                return await self._sleeper().wake()
            case "shutdown":
                os.kill(os.getpid(), signal.SIGTERM)
                return "stopping"
        raise RequestFailed(f"there is no request {request!r}")

    # lists -----------------------------------------------------------------------------------------------------------

    def status(self) -> Row:
        """The node, its roles and how it is."""
        facts = self._node.facts()
        if "mobile_node" in self._node.slots:
            facts["mobile_node"] = self._sleeper().state()
        if self._node.stand_in is not None:
            facts["mnps"] = {"sessions": len(self._node.stand_in.sessions())}
        return facts

    def bindings(self) -> list[Row]:
        """Bindings of a home agent, visitors of an access node (R1)."""
        rows: list[Row] = []
        now = time.time()
        if (slot := self._node.slots.get("home_agent")) is not None:
            home = cast("HomeAgent", slot.role)
            rows += [_binding(entry, now) for entry in home.visitor_list(now=now)]
        if (slot := self._node.slots.get("foreign_agent")) is not None:
            foreign = cast("ForeignAgent", slot.role)
            rows += [_visitor(visitor, now) for visitor in foreign.visitors()]
            rows += [_static(visitor) for visitor in foreign.static_visitors()]
        return rows

    def sessions(self) -> list[Row]:
        """Sessions that are away (mobile node) or held (stand-in)."""
        rows: list[Row] = []
        if "mobile_node" in self._node.slots:
            rows += self._sleeper().away()
        if (slot := self._node.slots.get("mnps")) is not None:
            rows += self._held(cast("StandIn", slot.role))
        return rows

    def _sleeper(self) -> "SleepControl":
        slot = self._node.slots.get("mobile_node")
        if slot is None:
            raise RequestFailed(
                "this node is no mobile node; ask the one whose configuration has [mobile_node]"
            )
        from locum.node.sleep_control import SleepControl

        return SleepControl(self._node, slot)

    def _held(self, role: "StandIn") -> list[Row]:
        stand_in = self._node.stand_in
        live = {(each["handover"], each["session"]): each for each in stand_in.sessions()} if stand_in else {}
        rows = []
        for taken in role.handovers():
            for session in taken.sessions:
                key = (taken.identifier.hex(), session.session)
                row: Row = {
                    "kind": "held",
                    "handover": key[0],
                    "session": session.session,
                    "flow": flow_text(session.flow),
                    "state": type(taken.state).__name__.lower(),
                    "status": session.status.name.lower(),
                }
                if key in live:
                    row |= {
                        "total": live[key]["received"],
                        "spool_disk": live[key]["spilled"],
                        "peer_closed": live[key]["peer_closed"],
                        "error": live[key]["error"],
                    }
                rows.append(row)
        return rows

    def tunnels(self) -> list[Row]:
        """Every tunnel of the data plane with its counters: into it, out of it."""
        plane = self._node.plane
        state = plane.state
        rows: list[Row] = []
        for binding in state.bindings.values():
            counter = plane.binding_counters(binding.home_address)
            peers = [(binding.peer_tunnel, binding.peer)] if binding.peer_tunnel is not None else []
            for tunnel, peer in [*((each, None) for each in binding.tunnels), *peers]:
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
                    "link": acceptance.link,
                    "next_hop": None if acceptance.next_hop is None else str(acceptance.next_hop),
                    "packets": counter.packets,
                    "bytes": counter.bytes,
                }
            )
        return rows

    def counters(self) -> dict[str, dict[str, int]]:
        """Every counter: events by kind, refusals of the daemon by reason, drops of the data plane by reason."""
        events = self._node.events
        return {
            "events": dict(sorted(events.counts.items())),
            "refusals": dict(sorted(events.reasons.items())),
            "data_plane": self._node.plane.counters(),
        }


def _binding(entry: Any, now: float) -> Row:
    return {
        "kind": "binding",
        "home_address": str(entry.home_address),
        "home_address_v6": None if entry.home_address_v6 is None else str(entry.home_address_v6),
        "home_agent": str(entry.home_agent),
        "care_of": [
            {
                "address": str(each.address),
                "lifetime": each.lifetime,
                "remaining": round(each.expires_at - now, 1),
                "agent": str(each.agent),
                "brief": each.brief,
            }
            for each in entry.care_of
        ],
        "default_coa": None if entry.default_care_of is None else str(entry.default_care_of),
        "in_force": _texts(entry.in_force),
        "ipv6": entry.ipv6,
        "spi": entry.spi,
    }


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


def _texts(values: Iterable[object]) -> list[str]:
    return [str(each) for each in values]
