"""A stand-in's handovers by identifier, the owner of each flow, the guard, and ended handovers.

Several handovers of one home address stand side by side, each with flows of its own. It must not know requests.
"""

from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address
from typing import TypeVar

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
from locum.roles.action_values.forwarding_order import difference
from locum.roles.action_values.sessions import DropSessions
from locum.roles.actions import Action
from locum.roles.forwarding import NOTHING, Forwarding, forwarding
from locum.roles.mnps.handover import STATES, Prepared, Releasing, Stopped, TakenOver
from locum.roles.timers import Deadlines
from locum.wire.control import Flow

MAX_REMEMBERED = 256  # handovers that have ended, so that a repeated done is answered alike


class Holdings:
    """`address` is the stand-in's own; where `home_agent` knows one for a home address, its tunnel ends here (Fig. 8).

    `home_agent` has the same answer for an address all the time.
    """

    def __init__(self, address: IPv4Address, home_agent: Callable[[Addr], IPv4Address | None]) -> None:
        self._address = address
        self._home_agent = home_agent
        self._taken: dict[bytes, TakenOver] = {}
        self._ended: dict[bytes, None] = {}
        self._timers: Deadlines[bytes] = Deadlines()
        self._by_home: dict[Addr, dict[bytes, None]] = {}  # names of handovers
        self._held: dict[Flow, dict[bytes, None]] = {}
        self._flows: dict[Flow, dict[bytes, None]] = {}
        self._switching: dict[bytes, None] = {}
        self._number_of_flows = 0
        self._forwarding: dict[Addr, Forwarding] = {}  # as the data plane has it
        self._changed: dict[Addr, None] = {}  # since
        self._guarded: dict[Addr, None] = {}  # without a handover, when it was settled last
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
        found: dict[bytes, None] = {}
        for home_address in home_addresses:
            found |= self._by_home.get(home_address, {})
        return [self._taken[identifier] for identifier in found]

    def is_owned(self, flow: Flow, *, besides: bytes) -> bool:
        """True if its session lives here, or is being made to, under another handover than this one."""
        return any(identifier != besides for identifier in self._held.get(flow, ()))

    def is_wanted(self, flow: Flow, *, besides: bytes | None = None) -> bool:
        """True if the data plane has to know it because of any handover, or of any but this one."""
        return any(identifier != besides for identifier in self._flows.get(flow, ()))

    def switching(self) -> list[TakenOver]:
        """Those for which the stand-in tells the home agent."""
        return [self._taken[identifier] for identifier in self._switching]

    def numbers(self, *, besides: bytes) -> tuple[int, int]:
        """Number of handovers, and of their flows, without this one."""
        taken = self._taken.get(besides)
        if taken is None:
            return len(self._taken), self._number_of_flows
        return len(self._taken) - 1, self._number_of_flows - len(taken.flows)

    def keep(self, taken: TakenOver) -> None:
        """Add or replace."""
        before = self._taken.get(taken.identifier)
        self._taken[taken.identifier] = taken
        if before is None:
            for home_address in taken.home_addresses:
                self._by_home.setdefault(home_address, {})[taken.identifier] = None
            self._changed |= dict.fromkeys(taken.home_addresses)
        if taken.switch is not None or isinstance(taken.state, Releasing):
            self._switching[taken.identifier] = None
        else:
            self._switching.pop(taken.identifier, None)
        if before is None or before.flows != taken.flows or before.sessions != taken.sessions:
            if before is not None:
                self._forget_flows(before)
            self._number_of_flows += len(taken.flows)
            for flow in taken.flows:
                self._flows.setdefault(flow, {})[taken.identifier] = None
            for held in taken.held:
                self._held.setdefault(held.flow, {})[taken.identifier] = None
        if isinstance(taken.state, Prepared | Stopped):
            self._timers.set(taken.identifier, taken.state.forget_at)
        else:
            self._timers.cancel(taken.identifier)

    def _forget_flows(self, taken: TakenOver) -> None:
        self._number_of_flows -= len(taken.flows)
        for flow in taken.flows:
            _remove(self._flows, flow, taken.identifier)
        for held in taken.held:
            _remove(self._held, held.flow, taken.identifier)

    def end(self, taken: TakenOver, *, reset: bool = False) -> list[Action]:
        """Remove all state, except to recognise a repeated request. With `reset` the peers are reset."""
        STATES.change(taken.state, "end", None)
        self._forget_flows(self._taken.pop(taken.identifier))
        for home_address in taken.home_addresses:
            _remove(self._by_home, home_address, taken.identifier)
        self._switching.pop(taken.identifier, None)
        self._changed |= dict.fromkeys(taken.home_addresses)
        self._timers.cancel(taken.identifier)
        self.remember(taken.identifier)
        drop: list[Action] = [DropSessions(taken.identifier, reset=reset)] if taken.held else []
        cleared = [ClearFlow(flow) for flow in taken.flows if not self.is_wanted(flow)]
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
        also = dict.fromkeys(self.also_guarded())
        changed, self._changed = self._changed, {}
        changed |= dict.fromkeys(home for home in also if home not in self._forwarding)
        changed |= dict.fromkeys(home for home in self._guarded if home not in also)
        self._guarded = also
        before = [self._forwarding.pop(home, NOTHING) for home in changed]
        after = [self._wanted(home) for home in changed if home in self._by_home or home in also]
        self._forwarding |= {home: found for found in after for home in found.bindings}
        had = [entry for found in before for entry in found.entries()]
        wanted = [entry for found in after for entry in found.entries()]
        return [*difference(had, wanted)]

    def _wanted(self, home_address: Addr) -> Forwarding:
        entries: list[BindingEntry | TunnelAcceptance | OutboundEntry] = []
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


_Key = TypeVar("_Key")


def _remove(index: dict[_Key, dict[bytes, None]], key: _Key, identifier: bytes) -> None:
    """Remove a name, and the key with its last one."""
    names = index.get(key)
    if names is not None:
        names.pop(identifier, None)
        if not names:
            del index[key]
