"""The parts that every registrant adds to its requests: identity, IPv6, NAT traversal, revocation, context and routing.

This module must not know when a request is sent, nor by which attachment.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.dialogue import RegistrationPart
from locum.roles.registrant.identity_options import Ipv6Registration, OwnNai
from locum.roles.registrant.movement import Movement
from locum.roles.registrant.nat import MobileTraversal
from locum.roles.registrant.revocation import MobileRevocation
from locum.roles.registrant.routing import OwnRouting


class OwnParts:
    """The parts of one registrant; `in_order` is their order in a request."""

    def __init__(self, configuration: MobileNodeConfiguration, randomness: Randomness) -> None:
        home_address, home_agent = configuration.home_address, configuration.home_agent
        self.traversal = MobileTraversal(
            home_address, home_agent, configuration.nat_traversal, configuration.keepalive, randomness
        )
        self.revocation = MobileRevocation(home_address, home_agent, configuration.association)
        self.routing = OwnRouting(configuration.routing)
        self.movement = Movement(
            enabled=configuration.context_transfer, brief_lifetime=configuration.brief_lifetime
        )
        self.in_order: tuple[RegistrationPart, ...] = (
            OwnNai(configuration.nai),
            Ipv6Registration(configuration.home_address_v6),
            self.traversal,
            self.revocation,
            self.movement,
            self.routing,
        )

    def assign(self, home_address: IPv4Address) -> None:
        """Use this home address from now on."""
        self.revocation.home_address = home_address
        self.traversal.at_home(home_address)

    def to_row(self) -> dict[str, JSON]:
        """Return the state of the parts, as fields of a row."""
        return {
            "nat": self.traversal.to_row(),
            "revocable": self.revocation.to_row(),
            "context": self.movement.to_row(),
            "routing": self.routing.to_row(),
        }

    def from_row(self, row: Mapping[str, JSON]) -> None:
        """Read all but the UDP tunnel, which only a registration that still holds has; raises as the parts do."""
        self.revocation.from_row(row.get("revocable"))
        self.movement.from_row(row.get("context"))
        self.routing.from_row(row.get("routing"))
