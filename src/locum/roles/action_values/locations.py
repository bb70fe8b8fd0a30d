"""Action and event by which a message at the home agent reaches the location server of the same host (P6)."""

from dataclasses import dataclass

from locum.wire.control.paging.location import Location1212


@dataclass(frozen=True, slots=True)
class TellLocation:
    """Tell the location server of this host, if it has that role, where a message shows a device.

    `location.sent` is the time of the observation; 0: now. An earlier one does not count against a later one, but it keeps
    the entry of a device that sleeps there.
    """

    location: Location1212


@dataclass(frozen=True, slots=True)
class LocationTold:
    """Event of the location server: the same."""

    location: Location1212
