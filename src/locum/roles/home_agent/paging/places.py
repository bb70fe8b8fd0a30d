"""The place at which a device is paged: the access node of its registration, else that which a location server knows (P6).

A page goes to the registration's access node first. If it fails there, or there is none, the location server is asked for each
further attempt. It must not know the course of a page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action, Event
from locum.roles.home_agent.registry import Home
from locum.roles.location.asking import LocationQueries
from locum.roles.paging.routine import Delayed, PageInProgress
from locum.roles.parts import Part, Parts
from locum.wire.control.paging.location import Location1212
from locum.wire.control.paging.way import Way

LONGEST_QUERY = 20.0
"""Seconds after which a page goes on without an answer; a query has ended by then."""


@dataclass(frozen=True, slots=True)
class Place:
    """The access node, the end of its tunnels, and the way to reach the device there where one is known."""

    access_node: Addr
    care_of: Addr
    way: Way | None = None


@dataclass(slots=True)
class _Sought:
    """The location for one attempt of a page."""

    page: bytes
    attempt: int
    known: bool = False
    location: Location1212 | None = None


class Places(Part):
    """Places of devices; `resume` goes on with the page of a device whose location has become known."""

    def __init__(self, server: Addr | None, resume: Callable[[Addr, float], list[Action]]) -> None:
        self._resume = resume
        self._queries = LocationQueries(server, self._found)
        self._parts = Parts(self._queries)
        self._sought: dict[Addr, _Sought] = {}

    def of(self, page: PageInProgress, home: Home, now: float) -> Place | Delayed | None:
        """The place for this attempt of the page; None: it is not known."""
        known = home.binding.access_node
        registered = None if known is None else Place(known, known)
        if self._queries.server is None or (registered is not None and not page.attempt):
            return registered
        home_address = page.home_address
        sought = self._sought.get(home_address)
        if sought is None or (sought.page, sought.attempt) != (page.identifier, page.attempt):
            if page.attempt:
                self._queries.forget(home_address)  # it was not there, or was somewhere else
            sought = self._sought[home_address] = _Sought(page.identifier, page.attempt)
            actions = self._queries.ask(home_address, now=now)
            if not sought.known:
                return Delayed(tuple(actions), LONGEST_QUERY)
        return _place(sought.location) or registered

    def ended(self, home_address: Addr) -> None:
        """The page has an outcome."""
        self._sought.pop(home_address, None)

    def _found(self, home_address: Addr, location: Location1212 | None, now: float) -> list[Action]:
        sought = self._sought.get(home_address)
        if sought is None:
            return []
        sought.known, sought.location = True, location
        return self._resume(home_address, now)  # nothing while the page is not delayed yet

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers of the location server."""
        return self._parts.happened(event, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Queries that are repeated."""
        return self._parts.timeout(now=now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._parts.deadline()


def _place(location: Location1212 | None) -> Place | None:
    if location is None or location.access_node is None:
        return None
    access_node = location.access_node
    care_of = location.care_of if isinstance(location.care_of, IPv4Address) else access_node
    return Place(access_node, care_of, location.way)
