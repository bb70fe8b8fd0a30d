"""The parts that every registrant adds to its requests: identity, IPv6, NAT traversal, revocation, context and routing.

This module must not know when a request is sent, nor by which attachment.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.dialogue import RegistrationPart
from locum.roles.registrant.home_agent_choice import HomeAgentChoice
from locum.roles.registrant.identity_options import Ipv6Registration, OwnNai
from locum.roles.registrant.movement import Movement
from locum.roles.registrant.nat import MobileTraversal
from locum.roles.registrant.own_keys import AgentKeys, OwnKeys
from locum.roles.registrant.revocation import MobileRevocation
from locum.roles.registrant.routing import OwnRouting
from locum.security.association import Association


class OwnParts:
    """The parts of one registrant; `in_order` is their order in a request."""

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        foreign_agents: Mapping[Addr, Association],
        randomness: Randomness,
    ) -> None:
        """`foreign_agents` are associations with agents by their address."""
        home_address, home_agent = configuration.home_address, configuration.home_agent
        self.traversal = MobileTraversal(
            home_address, home_agent, configuration.nat_traversal, configuration.keepalive, randomness
        )
        self.keys = OwnKeys(configuration, randomness)
        self.agent_keys = AgentKeys(configuration, foreign_agents, randomness)
        self.revocation = MobileRevocation(home_address, home_agent, self.keys)
        self.home_agent = HomeAgentChoice(home_agent, dynamic=configuration.dynamic)
        self.routing = OwnRouting(configuration.routing)
        self.movement = Movement(
            enabled=configuration.context_transfer, brief_lifetime=configuration.brief_lifetime
        )
        self.in_order: tuple[RegistrationPart, ...] = (
            OwnNai(configuration.nai),
            Ipv6Registration(configuration.home_address_v6),
            self.home_agent,
            self.traversal,
            self.revocation,
            self.movement,
            self.routing,
        )

    def assign(self, home_address: IPv4Address) -> None:
        """Use this home address from now on."""
        self.revocation.home_address = home_address
        self.traversal.at_home(home_address)

    def serve(self, home_agent: IPv4Address) -> None:
        """The home agent from now on."""
        self.revocation.home_agent = home_agent
        self.traversal.served_by(home_agent)

    def to_row(self) -> dict[str, JSON]:
        """Return the state of the parts, as fields of a row."""
        return {
            "key": self.keys.to_row(),
            "agent_keys": self.agent_keys.to_row(),
            "nat": self.traversal.to_row(),
            "revocable": self.revocation.to_row(),
            "context": self.movement.to_row(),
            "routing": self.routing.to_row(),
            "home_agent": None if self.home_agent.assigned is None else str(self.home_agent.assigned),
        }

    def from_row(self, row: Mapping[str, JSON]) -> None:
        """Read all but the UDP tunnel, which only a registration that still holds has; raises as the parts do."""
        self.keys.from_row(row.get("key"))
        self.agent_keys.from_row(row.get("agent_keys"))
        self.revocation.from_row(row.get("revocable"))
        self.movement.from_row(row.get("context"))
        self.routing.from_row(row.get("routing"))
        if (assigned := row.get("home_agent")) is not None:
            self.home_agent.accepted(IPv4Address(str(assigned)))
