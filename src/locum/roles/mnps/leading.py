"""Packets of proxies whose device may be awake (R7): a flow rule for each connection and port, and for nothing else.

The home agent sends to a device that is awake everything that no rule takes. A connection is therefore opened, and a port
answers, when the rule is in force; rules end with their connections and ports. This module must not know sockets.
"""

from collections.abc import Callable, Iterable

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import PacketsLed, PacketsWanted, Part
from locum.roles.actions import Action, Count, Event
from locum.roles.mnps.handover import TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.parts import WaitingPart
from locum.roles.mnps.registration import MAX_FLOWS, StandInRegistration

PATIENCE = 10.0  # seconds for the home agent's answer
NOT_REGISTERED = "the stand-in does not register for this device; set mode and [[mnps.mobile]] in [mnps]"
TOO_MANY = f"the home agent takes at most {MAX_FLOWS} rules of a stand-in for a device"
SILENT = "the home agent has not answered"


class Leading(WaitingPart):
    """Of the handovers of `holdings`; `want(home_addresses, now)` makes the registration follow."""

    def __init__(
        self,
        holdings: Holdings,
        registration: StandInRegistration | None,
        want: Callable[[Iterable[Addr], float], list[Action]],
    ) -> None:
        self._holdings, self._registration, self._want = holdings, registration, want
        self._parts: dict[bytes, tuple[Part, ...]] = {}
        self._pending: dict[bytes, float] = {}  # until when an answer of the home agent is waited for

    def of(self, home_addresses: Iterable[Addr]) -> tuple[Part, ...]:
        """Parts that the home agent is to send here."""
        return tuple(
            part
            for taken in self._holdings.of(home_addresses)
            if taken.wants_packets
            for part in self._parts.get(taken.identifier, ())
        )

    def ended(self, taken: TakenOver) -> list[Action]:
        """The handover ends."""
        self._parts.pop(taken.identifier, None)
        self._pending.pop(taken.identifier, None)
        return []

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Proxies of a handover need these packets."""
        if not isinstance(event, PacketsWanted):
            return None
        taken = self._holdings.get(event.handover)
        if taken is None:
            return [Count("packets-of-no-handover")]
        if self._registration is None or self._registration.standing(taken.home_addresses) is None:
            return [PacketsLed(event.handover, event.parts, NOT_REGISTERED)]
        before = self._parts.get(event.handover, ())
        others = len(self.of(taken.home_addresses)) - len(before)
        flows = sum(len(other.flows) for other in self._holdings.of(taken.home_addresses))
        if len(event.parts) > len(before) and others + flows + len(event.parts) > MAX_FLOWS:
            return [PacketsLed(event.handover, event.parts, TOO_MANY)]
        self._parts[event.handover] = event.parts
        self._pending[event.handover] = now + PATIENCE
        return self._want(taken.home_addresses, now)

    def follow(self, *, now: float) -> list[Action]:
        """Say so when the rules are in force, or refused."""
        actions: list[Action] = []
        for handover in tuple(self._pending):
            taken = self._holdings.get(handover)
            registration = self._registration
            standing = (
                None if taken is None or registration is None else registration.standing(taken.home_addresses)
            )
            if standing is None:
                del self._pending[handover]
            elif standing.holds:
                actions += self._told(handover, "")
            elif standing.refused is not None:
                actions += self._told(
                    handover, f"the home agent or access node refused with {standing.refused}"
                )
        return actions

    def timeout(self, *, now: float) -> list[Action]:
        """The home agent is silent."""
        late = [handover for handover, until in self._pending.items() if until <= now]
        return [action for handover in late for action in self._told(handover, SILENT)]

    def deadline(self) -> float | None:
        """Steady seconds."""
        return min(self._pending.values(), default=None)

    def _told(self, handover: bytes, reason: str) -> list[Action]:
        del self._pending[handover]
        return [PacketsLed(handover, self._parts.get(handover, ()), reason)]
