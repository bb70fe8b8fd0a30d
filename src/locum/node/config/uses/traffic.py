"""Keys of [mobile_node] that say which programs use the home address, and how names are resolved meanwhile."""

from dataclasses import dataclass
from enum import Enum

from locum.node.config.toml_table import Table


class Traffic(Enum):
    """Programs whose packets have the home address."""

    # every program that chooses no other address
    ALL = "all"
    # those that `locum run` starts
    RUN = "run"
    # those that choose it; by co-located care-of address and IPv4 also those that choose none
    BOUND = "bound"


@dataclass(frozen=True, slots=True)
class UsesSettings:
    """Wishes of one device."""

    traffic: Traffic = Traffic.BOUND
    ipv6_around: bool = False  # without an IPv6 home address, IPv6 goes by the visited network

    @property
    def led(self) -> bool:
        """True if policy rules lead programs to the home address."""
        return self.traffic is not Traffic.BOUND


BOUND = UsesSettings()


def uses(table: Table) -> UsesSettings:
    """The keys. Raises ConfigError."""
    traffic = Traffic(table.choice("traffic", tuple(one.value for one in Traffic), Traffic.BOUND.value))
    around = table.boolean("ipv6_around", False)
    if around and traffic is Traffic.BOUND:
        raise table.error("ipv6_around", 'is for traffic = "all" or "run"')
    return UsesSettings(traffic, around)
