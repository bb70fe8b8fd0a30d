"""What one stand-in is told before it starts. Values only; mnps.py goes by them."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter, Translation
from locum.roles.forwarding import Forwarding, forwarding
from locum.roles.mnps.quotas import ORDINARY, Quota
from locum.roles.mnps.registration import StandInRegistrationConfiguration
from locum.wire.control import MAX_SESSIONS


@dataclass(frozen=True, slots=True)
class StandInConfiguration:
    """`home_prefixes` bound what may be taken over at all; `address` is a care-of address of co-located registrations.

    With `colocated_home_agent` that agent has it as the default care-of address of all of them.
    """

    address: IPv4Address
    access_node: Addr
    home_prefixes: tuple[IPv4Network | IPv6Network, ...]
    max_sessions: int = MAX_SESSIONS
    max_handovers: int = 256
    quota: Quota = ORDINARY  # of each device
    colocated_home_agent: IPv4Address | None = None
    registration: StandInRegistrationConfiguration | None = None
    address_v6: IPv6Address | None = None
    translated: tuple[Addr, ...] = ()  # home addresses that become the stand-in's own address here (R12)
    emission: tuple[Filter, ...] = ()  # what programs of this host may send from home addresses (R20)
    services: tuple[
        tuple[int, int], ...
    ] = ()  # protocol and port of what may answer for an absent device here

    def forwarding(self) -> Forwarding:
        """What stands whatever is taken over."""
        own = {4: self.address, 6: self.address_v6}
        pairs = [(home_address, own[home_address.version]) for home_address in self.translated]
        return forwarding(
            *self.emission, *(Translation(home, each) for home, each in pairs if each is not None)
        )
