"""An entry of the location server (P6): one device. Values; the role decides about them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Persist, Table
from locum.wire.control.paging.location import Location1212, decode_1212, encode_1212
from locum.wire.control.paging.page_rules import DeviceState

TABLE: Table = "entry"
"""Of the store."""


class Origin(Enum):
    """Sender of an update."""

    DEVICE = "device"
    ACCESS_NODE = "access-node"
    REGISTRATION = "registration"  # drawn from a message at the home agent of this host (1202, 1208, 1210)


@dataclass(frozen=True, slots=True)
class LocationEntry:
    """The location of one device. `location.lifetime` is the granted one."""

    location: Location1212
    origin: Origin
    reporter: Addr | None  # None: the home agent of this host
    expires_at: float  # steady seconds

    @property
    def key(self) -> str:
        """Key of its row."""
        return str(self.location.home_addresses[0])

    @property
    def asleep(self) -> bool:
        """True if the device has said that it sleeps."""
        return self.location.state is DeviceState.ASLEEP

    def left(self, now: float) -> Location1212:
        """The location with the seconds that are left of its lifetime."""
        return replace(self.location, lifetime=max(round(self.expires_at - now), 0))

    def persist(self) -> Persist:
        """Its row."""
        row: dict[str, JSON] = {
            "location": encode_1212(self.location).hex(),
            "origin": self.origin.value,
            "reporter": None if self.reporter is None else str(self.reporter),
            "expires_at": self.expires_at,
        }
        return Persist(TABLE, self.key, row)

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "LocationEntry":
        """The entry in a row of our own; raises ValueError, KeyError, TypeError or WireError for anything else."""
        expires_at, reporter = row["expires_at"], row["reporter"]
        if not isinstance(expires_at, int | float):
            raise ValueError("expires_at is a number")
        return cls(
            decode_1212(bytes.fromhex(str(row["location"]))),
            Origin(row["origin"]),
            None if reporter is None else ip_address(str(reporter)),
            float(expires_at),
        )
