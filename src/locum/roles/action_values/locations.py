"""Action and event by which a registration here reaches the location server of the same host (P6)."""

from dataclasses import dataclass

from locum.wire.control.paging.location import Location1212


@dataclass(frozen=True, slots=True)
class TellLocation:
    """Tell the location server of this host, if it has that role, where a registration shows a device."""

    location: Location1212


@dataclass(frozen=True, slots=True)
class LocationTold:
    """Event of the location server: the same."""

    location: Location1212
