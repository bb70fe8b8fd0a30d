"""Multicast groups of visitors: which links of an access node they are forwarded to (C4).

Memberships are part of the contexts; a group is joined and forwarded as soon as a member is here or known to come. It
must not know IGMP, MLD or the kernel.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import ForwardGroup, MembershipChanged
from locum.roles.actions import Action, Event, Persist
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.in_flight import InFlight, Waiting
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.parts import Part
from locum.wire.control.context_blocks import MAX_GROUPS, MulticastBlock


class Memberships(Part):
    """The groups of one access node; `upstream` is where the host joins them (None: it forwards no groups)."""

    def __init__(
        self,
        upstream: str | None,
        links: tuple[str, ...],
        visitors: VisitorList,
        book: ContextBook,
        flights: InFlight,
    ) -> None:
        self._upstream, self._links = upstream, links
        self._visitors, self._book, self._flights = visitors, book, flights
        self._forwarded: dict[Addr, tuple[str, ...]] = {}

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Forward the groups in the contexts of an earlier run."""
        return self.refresh()

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """A visitor has joined or left a group."""
        return self._changed(event) if isinstance(event, MembershipChanged) else None

    def _changed(self, event: MembershipChanged) -> list[Action]:
        home_address = event.home_address
        if not isinstance(home_address, IPv4Address) or not self._where(home_address):
            return []  # a leave that is only heard here because the device is elsewhere
        groups = self._book.groups(home_address)
        if event.joined and event.group not in groups and len(groups) < MAX_GROUPS:
            groups = (*groups, event.group)
        elif not event.joined:
            groups = tuple(group for group in groups if group != event.group)
        return [*self._book.note(home_address, MulticastBlock(groups)), *self.refresh()]

    def refresh(self) -> list[Action]:
        """Change the joined groups from the forwarded ones to the wanted ones."""
        if self._upstream is None:
            return []
        wanted = self._wanted()
        actions: list[Action] = [
            ForwardGroup(group, self._upstream, links)
            for group, links in wanted.items()
            if self._forwarded.get(group) != links
        ]
        actions += [
            ForwardGroup(group, self._upstream, ()) for group in self._forwarded if group not in wanted
        ]
        self._forwarded = dict(wanted)
        return actions

    def _wanted(self) -> Mapping[Addr, tuple[str, ...]]:
        links: dict[Addr, set[str]] = {}
        for context in self._book.all():
            for group in self._book.groups(context.home_address):
                links.setdefault(group, set()).update(self._where(context.home_address))
        return {group: tuple(sorted(found)) for group, found in links.items() if found}

    def _where(self, home_address: IPv4Address) -> tuple[str, ...]:
        """The links on which this member is, or will be."""
        if self._flights.waiting(home_address) is Waiting.EXPECTED:
            return self._links
        if self._flights.outgoing(home_address) is not None:
            return ()
        served = self._visitors.get(home_address) or self._visitors.static(home_address)
        return () if served is None else (served.link,)
