"""Reports of an access node to a location server about its visitors (1212, P6).

A visitor with a very short lifetime is on its way to sleep or back: it is reported as asleep here, and stays reported when
its registration ends. Stand-ins that register for a home address are no location of the device.
"""

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action
from locum.roles.foreign_agent.configuration import ReportingConfiguration
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.location.reports import ASLEEP_LIFETIME, LocationReports
from locum.wire.control.paging.location import Location1212
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.provision import MAX_NODE_ID

MARGIN = 10
"""Seconds that an entry outlives the registration: a renewal may be on its way."""


class VisitorLocations:
    """Of one access node with this care-of address. `reports` is a part of the role."""

    def __init__(self, reporting: ReportingConfiguration, care_of: Addr, short_lifetime: int) -> None:
        self.reports = LocationReports(reporting.server)
        self._own = reporting.own or care_of
        self._care_of = care_of
        self._short_lifetime = short_lifetime

    def registered(self, visitor: Visitor, nai: str | None, *, now: float) -> list[Action]:
        """A registration was accepted; `nai` identifies the device if the request did."""
        if self.reports.server is None or visitor.next_hop is not None:
            return []
        asleep = self._passing(visitor)
        location = self._location(
            visitor, ASLEEP_LIFETIME if asleep else visitor.lifetime + MARGIN, nai or ""
        )
        return self.reports.report(location, now=now)

    def left(self, visitor: Visitor) -> list[Action]:
        """A visitor is no longer on the list: its registration has ended, or was revoked."""
        if self.reports.server is not None and visitor.next_hop is None and not self._passing(visitor):
            self.reports.report_soon(self._location(visitor, 0))
        return []

    def _passing(self, visitor: Visitor) -> bool:
        return visitor.lifetime <= self._short_lifetime

    def _location(self, visitor: Visitor, lifetime: int, nai: str = "") -> Location1212:
        homes: tuple[Addr, ...] = (visitor.home_address,)
        if visitor.home_address_v6 is not None:
            homes = (*homes, visitor.home_address_v6)
        return Location1212(
            homes,
            lifetime,
            0,
            node_id=nai if len(nai) <= MAX_NODE_ID else "",
            access_node=self._own,
            care_of=self._care_of,
            state=DeviceState.ASLEEP if self._passing(visitor) else DeviceState.AWAKE,
        )
