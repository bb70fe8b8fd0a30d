"""What a node answers on its control socket: lists for people and programs, and the commands sleep and wake.

Reads roles and data plane, commands only the mobile node's role. Every value is JSON; times are wall-clock seconds.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from locum.node.control_socket import RequestFailed
from locum.node.events import flow_text, prometheus_text
from locum.node.performer import Sequential
from locum.roles.actions import Encapsulation, Tunnel
from locum.roles.foreign_agent import ForeignAgent
from locum.roles.home_agent import HomeAgent
from locum.roles.mnps import StandIn
from locum.roles.sleeping import ComingUp, Down, GoingDown, NotPossible, SleepingNode, SleepState, Up

if TYPE_CHECKING:
    from locum.node.node import Node, Slot

_STATES = {Up: "awake", GoingDown: "falling-asleep", Down: "asleep", ComingUp: "waking"}
_LONGEST_SLEEP = 365 * 86400.0
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
                return await self._sleep(arguments.get("for"))
            case "wake":
                return await self._wake()
            case "shutdown":
                os.kill(os.getpid(), signal.SIGTERM)
                return "stopping"
        raise RequestFailed(f"there is no request {request!r}")

    # lists -----------------------------------------------------------------------------------------------------------

    def status(self) -> Row:
        """The node, its roles and how it is."""
        facts = self._node.facts()
        slot = self._node.slots.get("mobile_node")
        if slot is not None and isinstance(slot.role, SleepingNode):
            facts["mobile_node"] = self._mobile(slot.role)
        if self._node.stand_in is not None:
            facts["mnps"] = {"sessions": len(self._node.stand_in.sessions())}
        return facts

    def _mobile(self, role: SleepingNode) -> Row:
        mobile, state = role.mobile, role.state
        registered = mobile.registered
        return {
            "state": _STATES[type(state)],
            "last": state.last if isinstance(state, Up) else None,
            "home_addresses": [str(each) for each in mobile.configuration.home_addresses],
            "home_agent": str(mobile.configuration.home_agent),
            "agent": None if mobile.attachment is None else str(mobile.attachment.agent),
            "link": None if mobile.attachment is None else mobile.attachment.link,
            "care_of": None if registered is None else str(registered.attachment.care_of),
            "lifetime": None if registered is None else registered.lifetime,
            "expires_at": None if registered is None else registered.expires_at,
            "wake_at": state.handover.wake_at if isinstance(state, Down) else None,
            "frozen": sorted(self._node.napping.frozen) if self._node.napping is not None else [],
        }

    def bindings(self) -> list[Row]:
        """Bindings of a home agent, visitors of an access node (R1)."""
        rows: list[Row] = []
        now = time.time()
        for slot in self._node.slots.values():
            if isinstance(slot.role, HomeAgent):
                rows += [_binding(entry, now) for entry in slot.role.visitor_list(now=now)]
            elif isinstance(slot.role, ForeignAgent):
                rows += [_visitor(visitor, now) for visitor in slot.role.visitors()]
                rows += [_static(visitor) for visitor in slot.role.static_visitors()]
        return rows

    def sessions(self) -> list[Row]:
        """Sessions that are away (mobile node) or held (stand-in)."""
        rows: list[Row] = []
        for slot in self._node.slots.values():
            if isinstance(slot.role, SleepingNode):
                rows += _away(slot.role)
            elif isinstance(slot.role, StandIn):
                rows += self._held(slot.role)
        return rows

    def _held(self, role: StandIn) -> list[Row]:
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

    # commands --------------------------------------------------------------------------------------------------------

    def _sleeper(self) -> "tuple[Slot, SleepingNode]":
        slot = self._node.slots.get("mobile_node")
        if slot is None or not isinstance(slot.role, SleepingNode):
            raise RequestFailed("this node is no mobile node; ask the one whose configuration has [mobile_node]")
        return slot, slot.role

    async def _sleep(self, seconds: Any) -> Row:
        """Returns when the stand-in has everything; on failure everything is as before."""
        if seconds is not None and (
            not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds <= _LONGEST_SLEEP
        ):
            raise RequestFailed("for: a number of seconds above 0")
        slot, role = self._sleeper()
        if isinstance(role.state, Down):
            return self._mobile(role)
        before = role.state
        if not isinstance(before, GoingDown):
            self._command(slot, lambda now: role.sleep(now=now, wake_after=seconds))
        await self._settled(slot, lambda: isinstance(role.state, Up | Down), "falling asleep", cancel=True)
        if isinstance(role.state, Up):
            raise RequestFailed(f"still awake: {role.state.last or 'woken meanwhile'}")
        return self._mobile(role)

    async def _wake(self) -> Row:
        """Returns when everything is back in the programs."""
        slot, role = self._sleeper()
        if isinstance(role.state, Up):
            return self._mobile(role)
        if not isinstance(role.state, ComingUp):
            self._command(slot, lambda now: role.wake(now=now))
        await self._settled(slot, lambda: isinstance(role.state, Up), "waking", cancel=False)
        ended: SleepState = role.state
        if isinstance(ended, Up) and ended.last:
            raise RequestFailed(f"awake, but {ended.last}")
        return self._mobile(role)

    def _command(self, slot: "Slot", command: Callable[[float], Any]) -> None:
        try:
            self._node.command(slot.name, lambda _, now: command(now))
        except NotPossible as problem:
            raise RequestFailed(str(problem)) from None

    async def _settled(self, slot: "Slot", done: Callable[[], bool], doing: str, *, cancel: bool) -> None:
        """Wait until the role is where it should be and everything it decided is performed."""
        mobile = self._node.settings.mobile_node
        assert mobile is not None and isinstance(slot.performer, Sequential)
        stepped = asyncio.Event()
        slot.told.add(stepped.set)
        try:
            async with asyncio.timeout(mobile.sleep_seconds):
                while not done():
                    stepped.clear()
                    await stepped.wait()
                await slot.performer.drained()
        except TimeoutError:
            if cancel:
                assert isinstance(slot.role, SleepingNode)
                role = slot.role
                self._command(slot, lambda now: role.cancel(now=now))
            note = "turning back" if cancel else "it goes on"
            raise RequestFailed(f"still {doing} after {mobile.sleep_seconds:g} s; {note}") from None
        finally:
            slot.told.discard(stepped.set)


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


def _away(role: SleepingNode) -> list[Row]:
    match role.state:
        case Down(handover):
            pass
        case GoingDown(machine) | ComingUp(machine):
            handover = machine.handover
        case _:
            return []
    return [
        {
            "kind": "away",
            "handover": handover.identifier.hex(),
            "session": each.session,
            "flow": flow_text(each.flow),
            "state": handover.stage.value,
            "pids": list(each.pids),
            "bytes_back": each.offset,
        }
        for each in handover.sessions
    ]


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
