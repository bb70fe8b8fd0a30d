"""Contexts that an access node keeps, with their lifetimes and owners (C4, C7).

Both sides of the context transfer work on them. This module must not know 622 and 624.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import TypeGuard

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.context import Context
from locum.roles.foreign_agent.contexts.in_flight import InFlight, Mobile, Waiting
from locum.roles.foreign_agent.contexts.membership import Memberships
from locum.roles.foreign_agent.contexts.requests import ContextRequests
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.context import Onward
from locum.wire.control.context_blocks import VisitorBlock

KEEP = 1800.0  # seconds that a context is kept for a device that does not visit here (C7)
# Seconds after a registration has run out in which a stand-in's access node may ask for its context
AFTERWARDS = 10.0

Notice = Callable[[Addr, IPv4Address, bool], list[Action]]


class KeptContexts(Part):
    """`access_nodes` are the others, each with the home addresses that it may speak for (none named: all)."""

    def __init__(
        self,
        care_of_address: IPv4Address,
        access_nodes: Mapping[Addr, frozenset[Addr]],
        visitors: VisitorList,
        book: ContextBook,
        flights: InFlight,
        memberships: Memberships,
        notice: Notice,
    ) -> None:
        self.care_of_address = care_of_address
        self._access_nodes = dict(access_nodes)
        self.visitors, self.book, self.flights = visitors, book, flights
        self.memberships = memberships
        self._notice = notice
        self.trigger_requests = ContextRequests(book, self.current)
        self._times: Deadlines[IPv4Address] = Deadlines()
        self.moved: set[IPv4Address] = set()  # visitors that are on their way to another access node
        visitors.dismissed.append(self._dismissed)
        flights.ended.append(self._followed)

    @property
    def enabled(self) -> bool:
        """True if there is another access node to talk to."""
        return bool(self._access_nodes)

    def known(self, peer: Addr, home_address: Addr) -> TypeGuard[IPv4Address]:
        """True if that access node has authority for that home address, and is not this one."""
        allowed = self._access_nodes.get(peer) if isinstance(peer, IPv4Address) else None
        return (
            allowed is not None and peer != self.care_of_address and (not allowed or home_address in allowed)
        )

    # For how long -------------------------------------------------------------------------------------------------------

    def keep(self, home_address: IPv4Address, *, until: float) -> None:
        """Keep the context of a device that is no visitor until this time, in steady seconds."""
        self._times.set(home_address, until)

    def stays(self, home_address: IPv4Address) -> None:
        """Keep the context as long as the device is a visitor."""
        self._times.cancel(home_address)

    def timeout(self, *, now: float) -> list[Action]:
        """Forget contexts that were kept long enough, or that nothing needs any more."""
        actions: list[Action] = []
        for home_address in tuple(self._times.due(now)):
            actions += self._forget(home_address)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._times.next()

    def _dismissed(self, visitor: Visitor) -> list[Action]:
        """The device left the list: drop held packets, and its context unless it may still be requested.

        An expired visitor may be taken over just then: its context, and packets in flight, follow.
        """
        home_address = visitor.home_address
        actions: list[Action] = []
        if self.flights.waiting(home_address) is not Waiting.EXPECTED:
            actions += self.flights.forget(home_address)
        actions += self.memberships.refresh()
        if self.visitors.static(home_address) is not None or self.book.get(home_address) is None:
            return actions
        if not self.enabled:
            return actions + self.book.drop(home_address)
        if visitor.next_hop is None and self.book.visit(home_address) is None:
            visit = VisitorBlock(visitor.home_agent, visitor.flags, 0, visitor.home_address_v6)
            actions += self.book.note(home_address, visit)
        self._times.set(home_address, visitor.expires_at + AFTERWARDS)
        return actions

    def _followed(self, home_address: IPv4Address) -> list[Action]:
        """No packets follow it any more: a device that moved on in good order leaves the list, too."""
        if home_address not in self.moved:
            return []
        self.moved.discard(home_address)
        return self.visitors.dismiss(home_address)

    def _forget(self, home_address: IPv4Address) -> list[Action]:
        if home_address in self.visitors:
            return []
        self.trigger_requests.forget(home_address)
        return [*self.book.drop(home_address), *self.memberships.refresh()]

    # Whose --------------------------------------------------------------------------------------------------------------

    def mobile_of(self, home_address: IPv4Address) -> Mobile | None:
        """The home addresses and home agent of a device that is served here, followed or only kept."""
        served = self.visitors.get(home_address) or self.visitors.static(home_address)
        if served is not None:
            return Mobile(home_address, served.home_agent, served.home_address_v6)
        flight = self.flights.flights().get(home_address)
        if flight is not None:
            return flight.mobile
        visit = self.book.visit(home_address)
        return None if visit is None else Mobile(home_address, visit.home_agent, visit.home_address_v6)

    def current(self, home_address: IPv4Address, now: float) -> Context | None:
        """The context with its current registration; None for an unknown device."""
        visitor = self.visitors.get(home_address)
        if visitor is not None and visitor.next_hop is None:
            left = max(0, min(0xFFFF, int(visitor.expires_at - now)))
            block = VisitorBlock(visitor.home_agent, visitor.flags, left, visitor.home_address_v6)
            self.book.note(home_address, block)
        context = self.book.get(home_address)
        if context is None and self.visitors.static(home_address) is not None:
            return Context(home_address)
        return context

    # 618 ----------------------------------------------------------------------------------------------------------------

    def tell_stand_in(self, home_address: IPv4Address, responsible: bool) -> list[Action]:
        """618'' to a stand-in after 622 and 624."""
        served = self.visitors.get(home_address) or self.visitors.static(home_address)
        if served is None or served.next_hop is None:
            return []
        return self._notice(served.next_hop, home_address, responsible)

    def tell_device(self, home_address: IPv4Address, onward: Onward, responsible: bool) -> list[Action]:
        """618 after 622 and 624, to a device that is here while a stand-in takes or gives back.

        A device that moves got it with its 604, and gets it on no link that it has left.
        """
        visitor = self.visitors.get(home_address)
        if onward not in (Onward.TAKEN, Onward.SHARED) or visitor is None or visitor.next_hop is not None:
            return []
        if self.flights.waiting(home_address) is Waiting.STRANDED:
            return []  # its link is down
        return self._notice(home_address, home_address, responsible)
