"""Actions and events of the in-flight tunnel (620, C5) and of context transfer; part of the actions of an access node.

Nothing here decides or sends.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class DropHeld:
    """Drop packets held for this home address; they are counted."""

    home_address: Address


@dataclass(frozen=True, slots=True)
class CountInFlight:
    """Ask how many packets of the home addresses (one node, both families) have gone by the tunnel 620 so far.

    To `peer`, or from it with `incoming`; the answer is `InFlightCounted`.
    """

    home_addresses: tuple[Address, ...]
    peer: Address
    incoming: bool


@dataclass(frozen=True, slots=True)
class InFlightCounted:
    """Event: the answer to `CountInFlight`, about the first of its home addresses."""

    home_address: Address
    peer: Address
    incoming: bool
    packets: int
