"""Ports that sleeping devices listen on, at their stand-in: opened while the sessions live here, closed for a reclaim.

A device that comes back must know every connection before packets reach it again, so nothing is accepted between its
reclaim and what follows: a peer that connects meanwhile tries again, and meets the device. This module must not know how
connections are accepted.
"""

from collections.abc import Iterable
from dataclasses import replace

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import UnwatchPort, WatchPort
from locum.roles.action_values.forwarding import ClearFlow, FlowVerdict
from locum.roles.action_values.listeners import ClosePorts, ConnectionAccepted, OpenPorts
from locum.roles.action_values.sessions import DropSessions
from locum.roles.actions import Action, Count, Emit
from locum.roles.flow_rows import set_flows
from locum.roles.mnps.handover import HeldFlow, Holding, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.parts import WaitingPart
from locum.roles.session_words import GIVEN_UP
from locum.roles.timers import Deadlines
from locum.wire.control import Listener, Policy

PAUSE = 60.0  # seconds after a reclaim that nothing followed: the device has not come back after all

Port = tuple[Addr, int]


class Listening(WaitingPart):
    """Of the handovers of `holdings`. Times are those of the role."""

    def __init__(self, holdings: Holdings, most: int, most_of_device: int) -> None:
        """Limits of sessions in all, and of one device; accepted connections evict none."""
        self._holdings, self._most, self._most_of_device = holdings, most, most_of_device
        self._open: dict[bytes, tuple[Port, ...]] = {}
        self._paused: Deadlines[bytes] = Deadlines()

    def begin(self, taken: TakenOver) -> list[Action]:
        """The sessions live here: apply the device's policies to new connections. May be repeated."""
        self._paused.cancel(taken.identifier)
        if taken.identifier in self._open or not isinstance(taken.state, Holding):
            return []
        others = {port for ports in self._open.values() for port in ports}
        listeners = tuple(
            listener
            for listener in taken.listeners
            if listener.policy is not Policy.IGNORE and (listener.address, listener.port) not in others
        )
        if not listeners:
            return []
        ports = self._open[taken.identifier] = tuple(
            (listener.address, listener.port) for listener in listeners
        )
        return [OpenPorts(taken.identifier, listeners), *(WatchPort(*port) for port in ports)]

    def pause(self, taken: TakenOver, now: float) -> list[Action]:
        """The device reclaims: accept no connection until it has its sessions, or sleeps on."""
        actions = self.end(taken)
        if actions:
            self._paused.set(taken.identifier, now + PAUSE)
        return actions

    def end(self, taken: TakenOver) -> list[Action]:
        """New connections are left unanswered; those that are here stay."""
        self._paused.cancel(taken.identifier)
        ports = self._open.pop(taken.identifier, ())
        if not ports:
            return []
        return [*(UnwatchPort(*port) for port in ports), ClosePorts(taken.identifier)]

    def accepted(self, event: ConnectionAccepted) -> list[Action]:
        """Add a session to the handover; after a restart the node reports each again."""
        taken = self._holdings.get(event.handover)
        drop = DropSessions(event.handover, (event.session,), reset=True)
        if taken is None or not isinstance(taken.state, Holding):
            return [Count("accepted-late"), drop]
        earlier = next((session for session in taken.held if session.session == event.session), None)
        one = HeldFlow(event.session, event.flow, accepted=event.handshake)
        if earlier is not None and replace(earlier, announced=False) == one:
            return []
        if earlier is not None and earlier.accepted is None:
            return [Count("accepted-under-used-number"), drop]
        ended = self._ended(taken, earlier)
        taken = self._holdings.get(event.handover) or taken
        if not self._has_room(taken):
            return [*ended, Count("accepted-over-limit"), drop]
        taken = replace(
            taken,
            sessions=(*(session for session in taken.sessions if session.session != one.session), one),
            flows=(*taken.flows, event.flow),
        )
        self._holdings.keep(taken)
        return [
            *ended,
            taken.persist(),
            *set_flows((event.flow,), FlowVerdict.DELIVER),
            Emit("session-accepted", None, event.flow.local, event.flow),
        ]

    def _ended(self, taken: TakenOver, earlier: HeldFlow | None) -> list[Action]:
        """The node has reused its number: the earlier connection has ended, reported or not."""
        if earlier is None:
            return []
        left = taken.without({earlier.session}, GIVEN_UP)
        self._holdings.keep(left)
        flow = earlier.flow
        clear: list[Action] = [] if self._holdings.is_wanted(flow) else [ClearFlow(flow)]
        return [left.persist(), *clear, Emit("session-lost", None, flow.local, flow, {"reason": GIVEN_UP})]

    def _has_room(self, taken: TakenOver) -> bool:
        of_device = self._holdings.of(taken.home_addresses)
        return (
            sum(len(handover.held) for handover in self._holdings.all()) < self._most
            and sum(len(handover.held) for handover in of_device) < self._most_of_device
        )

    def timeout(self, *, now: float) -> list[Action]:
        """Devices that asked and did not come back."""
        actions: list[Action] = []
        for identifier in self._paused.due(now):
            self._paused.cancel(identifier)
            taken = self._holdings.get(identifier)
            actions += [] if taken is None else self.begin(taken)
        return actions

    def deadline(self) -> float | None:
        """Of the role's clock."""
        return self._paused.next()


def allowed(listeners: Iterable[Listener], home_addresses: Iterable[Addr]) -> bool:
    """True if all of them are at the device's own addresses (C9)."""
    own = set(home_addresses)
    return all(listener.address in own for listener in listeners)
