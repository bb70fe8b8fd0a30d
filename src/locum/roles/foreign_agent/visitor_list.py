"""The visitor list of a foreign agent (R1, R11): visitors, their lifetimes, and their forwarding state.

It must not know messages. Whatever decides about the packets of a visitor changes its own state and calls `refresh`,
which returns the difference between the data plane's state and the wanted one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action, Emit, Forget, Persist
from locum.roles.foreign_agent.configuration import StaticVisitor
from locum.roles.foreign_agent.filter_room import FilterRoom
from locum.roles.foreign_agent.visitor import Visitor, both_here, static_forwarding, visitor_forwarding
from locum.roles.forwarding import NOTHING, Forwarding, changes
from locum.roles.parts import Part, readable
from locum.roles.timers import Deadlines

TABLE: Final = "visitor"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The list's data about a home address for its forwarding state."""

    home_address: IPv4Address
    visitor: Visitor | None
    static: StaticVisitor | None
    forwarding: Forwarding  # of visitor or static alone
    stood_in_for: bool = False  # the packets of both are the latter's (see `VisitorList.stood_in_for`)


Adjust = Callable[[Wanted], Forwarding]


class VisitorList(Part):
    """Visitors and home addresses bound in advance, at most `most` of the former.

    A visitor with no more than `short_lifetime` seconds has left its packets to the default care-of address (R2).
    """

    def __init__(
        self,
        care_of_address: IPv4Address,
        static: Iterable[StaticVisitor],
        home_agents: Collection[Addr],
        most: int,
        short_lifetime: int = 0,
        serves: Callable[[str], bool] = lambda _link: True,
        filter_room: FilterRoom | None = None,
    ) -> None:
        """`serves` is true for a link on which visitors of an earlier run are still served."""
        self._filter_room = filter_room or FilterRoom(None)
        self._closed: dict[IPv4Address, None] = {}  # whose filters found no room
        self._serves = serves
        self.most = most
        self._short_lifetime = short_lifetime
        self._care_of_address = care_of_address
        self._static = {visitor.home_address: visitor for visitor in static}
        self._home_agents = frozenset(home_agents)
        self._visitors: dict[IPv4Address, Visitor] = {}
        self._timers: Deadlines[IPv4Address] = Deadlines()
        self._installed: dict[IPv4Address, Forwarding] = {}
        self._adjustments: list[Adjust] = []
        # A visitor that has not registered yet; it is not on the list
        self.provisional: Callable[[IPv4Address], Visitor | None] = lambda _home_address: None
        self.dismissed: list[Callable[[Visitor], list[Action]]] = []  # called for every visitor that leaves

    def adjust(self, adjustment: Adjust) -> None:
        """Let `adjustment` have a say in the forwarding state of every home address (in-flight tunnels, ...)."""
        self._adjustments.append(adjustment)

    # Reading -----------------------------------------------------------------------------------------------------

    def __contains__(self, home_address: object) -> bool:
        return home_address in self._visitors

    def __len__(self) -> int:
        return len(self._visitors)

    @property
    def home_addresses(self) -> Collection[IPv4Address]:
        """The home addresses of all visitors."""
        return self._visitors.keys()

    def get(self, home_address: Addr) -> Visitor | None:
        """The visitor with that IPv4 home address."""
        return self._visitors.get(home_address) if isinstance(home_address, IPv4Address) else None

    def static(self, home_address: Addr) -> StaticVisitor | None:
        """The preconfigured stand-in of that IPv4 home address."""
        return self._static.get(home_address) if isinstance(home_address, IPv4Address) else None

    def stood_in_for(self, home_address: IPv4Address) -> bool:
        """True if a visitor's packets go to the stand-in on this host, preconfigured for it (R17).

        To the home agent both are at one care-of address: it is the lifetime that tells whose turn it is.
        """
        visitor, static = self._visitors.get(home_address), self._static.get(home_address)
        if visitor is None or static is None or not static.here:
            return False
        return visitor.next_hop is None and visitor.lifetime <= self._short_lifetime

    def all(self) -> Collection[Visitor]:
        """Every registered visitor."""
        return self._visitors.values()

    def all_static(self) -> Collection[StaticVisitor]:
        """Every home address bound in advance."""
        return self._static.values()

    @property
    def full(self) -> bool:
        """True if there is no room for one more (the B bit, RFC 5944 section 2.1.1)."""
        return len(self._visitors) >= self.most

    def has_room(self, home_address: IPv4Address, coming: int) -> bool:
        """True if this one may register while so many others may become visitors."""
        if home_address in self._visitors:
            return True
        present = len(self._visitors)
        return present + coming < self.most and self._filter_room.admits_visitor(present, coming)

    def undisputed(self, home_address: IPv4Address, home_agent: IPv4Address) -> bool:
        """True if no other visitor has the address: an unverified home agent must not displace one."""
        visitor, static = self._visitors.get(home_address), self._static.get(home_address)
        if home_address in (self._care_of_address, home_agent) or home_address in self._home_agents:
            return False
        agents = {visitor.home_agent for visitor in self._visitors.values()}
        if home_address in agents or any(
            home_address == static.home_agent for static in self._static.values()
        ):
            return False
        if static is not None and static.home_agent != home_agent:
            return False
        if visitor is None or visitor.home_agent == home_agent:
            return True
        return home_agent in self._home_agents and visitor.home_agent not in self._home_agents

    # Changing ----------------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the visitors of an earlier run whose lifetime is not over."""
        found, actions = readable(rows, TABLE, lambda row: Visitor.from_row(row.key, row.value))
        remembered: list[Visitor] = []
        for row, visitor in found:
            if visitor.expires_at <= now or not self._serves(visitor.link):
                actions.append(Forget(row.table, row.key))
                continue
            remembered.append(visitor)
        return actions + self.start(remembered)

    def start(self, visitors: Iterable[Visitor]) -> list[Action]:
        """The whole forwarding state, with the visitors of an earlier run."""
        for visitor in visitors:
            self._visitors[visitor.home_address] = visitor
            self._timers.set(visitor.home_address, visitor.expires_at)
        actions: list[Action] = []
        for home_address in dict.fromkeys((*self._static, *self._visitors)):
            actions += self.refresh(home_address)
        return actions

    def admit(self, visitor: Visitor) -> list[Action]:
        """Add or renew; the data plane follows."""
        self._visitors[visitor.home_address] = visitor
        self._timers.set(visitor.home_address, visitor.expires_at)
        row = Persist(TABLE, str(visitor.home_address), visitor.to_row())
        return [row, *self.refresh(visitor.home_address)]

    def dismiss(self, home_address: IPv4Address) -> list[Action]:
        """Take off the list; nothing when it is not on it."""
        visitor = self._visitors.pop(home_address, None)
        if visitor is None:
            return []
        self._timers.cancel(home_address)
        actions = [Forget(TABLE, str(home_address)), *self.refresh(home_address)]
        for listener in self.dismissed:
            actions += listener(visitor)
        return actions

    def refresh(self, home_address: IPv4Address) -> list[Action]:
        """Change the data plane's state of this home address to the wanted one.

        One whose filters find no room has none, until others leave theirs.
        """
        actions = self._refresh(home_address)
        for closed in tuple(self._closed) if self._closed else ():
            if closed != home_address:
                actions += self._refresh(closed)
        return actions

    def _refresh(self, home_address: IPv4Address) -> list[Action]:
        before, after = self._installed.get(home_address, NOTHING), self._wanted(home_address)
        actions: list[Action] = []
        if self._filter_room.admits(before.filters, after.filters):
            self._closed.pop(home_address, None)
        else:
            after = NOTHING
            if home_address not in self._closed:
                self._closed[home_address] = None
                actions.append(Emit("no-room-for-filters", None, home_address))
        self._filter_room.changed(before.filters, after.filters)
        if after == NOTHING:
            self._installed.pop(home_address, None)
        else:
            self._installed[home_address] = after
        return actions + changes(before, after)

    def due(self, now: float) -> Iterator[IPv4Address]:
        """Home addresses of visitors whose lifetime is over; the caller dismisses them."""
        return self._timers.due(now)

    def next_expiry(self) -> float | None:
        """Steady seconds at which the next visitor expires."""
        return self._timers.next()

    def _wanted(self, home_address: IPv4Address) -> Forwarding:
        visitor, static = self._visitors.get(home_address), self._static.get(home_address)
        visitor = visitor or self.provisional(home_address)
        wanted, stood_in_for = NOTHING, self.stood_in_for(home_address)
        if visitor is not None:
            wanted = visitor_forwarding(visitor, self._care_of_address, static)
            if static is not None and static.here:
                own = static_forwarding(static, self._care_of_address)
                wanted = both_here(wanted, own, to_stand_in=stood_in_for)
        elif static is not None:
            wanted = static_forwarding(static, self._care_of_address)
        for adjustment in self._adjustments:
            wanted = adjustment(Wanted(home_address, visitor, static, wanted, stood_in_for))
        return wanted


class VisitorExpiry(Part):
    """Takes visitors off the list when their lifetime is over.

    A part of its own because it comes after those that do something for visitors: at the very end of a lifetime they
    still find the visitor.
    """

    def __init__(self, visitors: VisitorList) -> None:
        self._visitors = visitors

    def timeout(self, *, now: float) -> list[Action]:
        """Dismiss those whose lifetime is over."""
        actions: list[Action] = []
        for home_address in self._visitors.due(now):
            actions += [*self._visitors.dismiss(home_address), Emit("visitor-expired", None, home_address)]
        return actions

    def deadline(self) -> float | None:
        """Steady seconds at which the next visitor expires."""
        return self._visitors.next_expiry()
