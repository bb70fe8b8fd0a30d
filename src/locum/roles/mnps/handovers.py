"""A stand-in's handovers by identifier, the owner of each flow, the guard, and ended handovers.

Several handovers of one home address stand side by side, each with flows of its own. It must not know requests.
"""

from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import (
    BindingEntry,
    ClearFlow,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.action_values.sessions import DropSessions
from locum.roles.actions import Action
from locum.roles.forwarding import NOTHING, Forwarding, changes, forwarding
from locum.roles.mnps.handover import STATES, Prepared, Stopped, TakenOver
from locum.roles.timers import Deadlines
from locum.wire.control import Flow

MAX_REMEMBERED = 256  # handovers that have ended, so that a repeated done is answered alike


class Holdings:
    """`address` is the stand-in's own; where `home_agent` knows one for a home address, its tunnel ends here (Fig. 8)."""

    def __init__(self, address: IPv4Address, home_agent: Callable[[Addr], IPv4Address | None]) -> None:
        self._address = address
        self._home_agent = home_agent
        self._taken: dict[bytes, TakenOver] = {}
        self._ended: dict[bytes, None] = {}
        self._timers: Deadlines[bytes] = Deadlines()
        self._forwarding = NOTHING
        self.also_guarded: Callable[[], Iterable[Addr]] = tuple  # home addresses that no handover is about

        self.ended: Callable[[TakenOver], list[Action]] = lambda _taken: []  # what else ends with a handover

    def all(self) -> Collection[TakenOver]:
        """Every handover."""
        return self._taken.values()

    def get(self, identifier: bytes) -> TakenOver | None:
        """The handover of that name."""
        return self._taken.get(identifier)

    def of(self, home_addresses: Iterable[Addr]) -> list[TakenOver]:
        """Those that have one of these home addresses."""
        wanted = set(home_addresses)
        return [taken for taken in self._taken.values() if wanted & set(taken.home_addresses)]

    def owned_flows(self, *, besides: bytes) -> frozenset[Flow]:
        """Flows whose sessions live here, or are being made to, under other handovers than this one."""
        others = (taken for taken in self._taken.values() if taken.identifier != besides)
        return frozenset(held.flow for other in others for held in other.held)

    def wanted_flows(self, *, besides: bytes | None = None) -> frozenset[Flow]:
        """Flows that the data plane has to know, of all handovers, or of all but this one."""
        others = (taken for taken in self._taken.values() if taken.identifier != besides)
        return frozenset(flow for other in others for flow in other.flows)

    def keep(self, taken: TakenOver) -> None:
        """Add or replace."""
        self._taken[taken.identifier] = taken
        if isinstance(taken.state, Prepared | Stopped):
            self._timers.set(taken.identifier, taken.state.forget_at)
        else:
            self._timers.cancel(taken.identifier)

    def end(self, taken: TakenOver, *, reset: bool = False) -> list[Action]:
        """Remove all state, except to recognise a repeated request. With `reset` the peers are reset."""
        STATES.change(taken.state, "end", None)
        del self._taken[taken.identifier]
        self._timers.cancel(taken.identifier)
        self.remember(taken.identifier)
        drop: list[Action] = [DropSessions(taken.identifier, reset=reset)] if taken.held else []
        wanted = self.wanted_flows()
        cleared = [ClearFlow(flow) for flow in taken.flows if flow not in wanted]
        return [*self.ended(taken), *drop, *cleared, *self.settle(), taken.forget()]

    def remember(self, identifier: bytes) -> None:
        """This handover is over, whatever may still come of it."""
        self._ended[identifier] = None
        if len(self._ended) > MAX_REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def is_over(self, identifier: bytes | None) -> bool:
        """True if it has been here and has ended."""
        return identifier in self._ended

    def settle(self) -> list[Action]:
        """Actions that bring the data plane up to date: a guard for each home address, and tunnel ends."""
        before, self._forwarding = self._forwarding, self._wanted()
        return changes(before, self._forwarding)

    def _wanted(self) -> Forwarding:
        entries: list[BindingEntry | TunnelAcceptance | OutboundEntry] = []
        homes = [home for taken in self._taken.values() for home in taken.home_addresses]
        for home_address in dict.fromkeys((*homes, *self.also_guarded())):
            entries.append(BindingEntry(home_address, Verdict.GUARD))
            home_agent = self._home_agent(home_address)
            if home_agent is not None:
                # Of this end alone: the device may be a visitor of this very host (R17).
                own = TunnelAcceptance(home_agent, home_address, Side.TO_HOME_ADDRESS, end=self._address)
                entries.append(own)
            if home_agent not in (
                None,
                self._address,
            ):  # on the home agent's own host there is no way back to go (R17)
                assert home_agent is not None
                entries.append(OutboundEntry(home_address, None, Tunnel(self._address, home_agent)))
        return forwarding(*entries)

    def due(self, now: float) -> list[TakenOver]:
        """Unclaimed handovers."""
        return [self._taken[identifier] for identifier in self._timers.due(now)]

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._timers.next()
