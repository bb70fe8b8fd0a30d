"""The configuration of a stand-in as values. The role goes by them; nothing here imports its machines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, Translation
from locum.roles.action_values.paging import PageForwarding
from locum.roles.forwarding import Forwarding, forwarding
from locum.roles.paging.limits import PageLimits
from locum.security.association import Association
from locum.security.sealing import SealingKeys
from locum.wire.control import MAX_SESSIONS

MAX_BID = 63  # a rule's identifier is made of the binding's: those from 16384 on are the home agent's to give
MAX_HANDOVERS = 256  # of all devices, unless the configuration has another number
MOST_SECONDS = 45.0  # of a direct page: a device takes no call that is older than a minute
DAY = 86400.0
MAX_HELD = 7 * DAY


@dataclass(frozen=True, slots=True)
class StoodInFor:
    """One device: its home addresses, its home agent, and this stand-in's association with that agent."""

    home_address: IPv4Address
    home_agent: IPv4Address
    association: Association
    binding: int  # binding identifier, 1 to MAX_BID, another for each stand-in of the device
    home_address_v6: IPv6Address | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class StandInRegistrationConfiguration:
    """`address` is the stand-in's own, on the first of `links`; lifetime in seconds."""

    address: IPv4Address
    links: tuple[str, ...]
    devices: tuple[StoodInFor, ...]
    colocated: bool = False
    lifetime: int = 300


@dataclass(frozen=True, slots=True)
class Quota:
    """Of one device."""

    held_seconds: float = MAX_HELD  # without a byte from the peer
    sessions: int = MAX_SESSIONS
    stored: int = 1 << 62  # bytes; the node takes no more, and quiet sessions make room


ORDINARY = Quota()


@dataclass(frozen=True, slots=True)
class StandInConfiguration:
    """`home_prefixes` bound the home addresses; `address` is a care-of address of co-located registrations.

    With `colocated_home_agent` that agent has it as the default care-of address of all of them.
    """

    address: IPv4Address
    access_node: Addr
    home_prefixes: tuple[IPv4Network | IPv6Network, ...]
    max_sessions: int = MAX_SESSIONS
    max_handovers: int = MAX_HANDOVERS
    quota: Quota = ORDINARY  # of each device
    colocated_home_agent: IPv4Address | None = None
    registration: StandInRegistrationConfiguration | None = None
    address_v6: IPv6Address | None = None
    translated: tuple[Addr, ...] = ()  # home addresses that become the stand-in's own address here (R12)
    emission: tuple[Filter, ...] = ()  # what programs of this host may send from home addresses (R20)
    home_agent: IPv4Address | None = None  # of devices that it does not register for
    # Protocol and port of programs here that may answer for an absent device.
    services: tuple[tuple[int, int], ...] = ()
    location_server: Addr | None = None  # is asked where a device is (1135)
    pages: PageLimits = field(default_factory=PageLimits)  # direct ones (1172A)
    # Of packets that page a device which has answered a direct page (1210): at once, or after its registration
    page_forwarding: PageForwarding = PageForwarding.REGISTRATION
    # Keys of direct pages, by home address: of the association with each device (1172A)
    sealing: Mapping[Addr, SealingKeys] = field(default_factory=dict)

    def forwarding(self) -> Forwarding:
        """Permanent forwarding state, independent of takeovers."""
        own = {4: self.address, 6: self.address_v6}
        pairs = [(home_address, own[home_address.version]) for home_address in self.translated]
        return forwarding(
            *self.emission, *(Translation(home, local) for home, local in pairs if local is not None)
        )
