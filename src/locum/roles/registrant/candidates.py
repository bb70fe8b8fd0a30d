"""Candidate paths of a registrant: foreign agents in reach, or its own addresses (RFC 5944 section 2.4).

It must not know registrations, except that a way was refused and is to be avoided for a while.
"""

from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Randomness
from locum.roles.action_values.flows import Encapsulation
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.discovery import AgentDiscovery, HeardAgent


class CareOfCandidates:
    """Links in order of preference; with `colocated` the care-of address is `care_of_address`, or the link's own.

    With one of those a foreign agent is asked only where one of the link requires it (R bit, section 3.1).
    """

    def __init__(self, configuration: MobileNodeConfiguration, randomness: Randomness) -> None:
        self.discovery = AgentDiscovery(configuration.links, randomness)
        self.links = configuration.links
        self.colocated = configuration.colocated
        self.home_address, self.home_agent = configuration.home_address, configuration.home_agent
        self._care_of_address, self._encapsulation = (
            configuration.care_of_address,
            configuration.encapsulation,
        )
        self._broadcasts = configuration.broadcasts
        self._link_addresses: dict[str, tuple[Addr, ...]] = {}
        self._avoid: dict[tuple[str, Addr], float] = {}
        self._longest: dict[tuple[str, Addr], int] = {}
        self._plain: set[tuple[str, Addr]] = set()  # tunnels by them are IP in IP

    def link_up(self, link: str, addresses: tuple[Addr, ...]) -> None:
        """The link can be used; `addresses` are its own."""
        self.discovery.link_up(link)
        self._link_addresses[link] = addresses

    def link_down(self, link: str) -> None:
        """The link and its candidates are gone."""
        self.discovery.link_down(link)
        self._link_addresses.pop(link, None)

    def available(
        self, now: float, in_use: Attachment | None, preferred: IPv4Address | None = None
    ) -> list[Attachment]:
        """The best first: the preferred care-of address, then the one in use while it works."""
        if self.colocated:
            found = [attachment for link in self.links for attachment in self._own(link, now, in_use)]
        else:
            found = [
                Attachment(
                    agent.link,
                    agent.address,
                    agent.care_of,
                    False,
                    agent.link_layer,
                    encapsulation=self._shape(agent.link, agent.address, agent),
                    broadcasts=self._broadcasts,
                )
                for agent in self.discovery.agents(now)
                if not agent.busy or (in_use is not None and in_use.agent == agent.address)
            ]
        usable = [
            attachment
            for attachment in found
            if self._avoid.get((attachment.link, attachment.agent), now) <= now
        ]
        return sorted(usable, key=lambda candidate: (candidate.care_of != preferred, candidate != in_use))

    def others(self, attachment: Attachment, now: float) -> bool:
        """True if there is another agent."""
        return any(other.agent != attachment.agent for other in self.available(now, attachment))

    def in_reach(self, attachment: Attachment) -> bool:
        """True if the candidate still works, by its advertisements."""
        if attachment.colocated:
            return self._own_address(attachment.link) == attachment.care_of
        return self.discovery.find(attachment.link, attachment.agent) is not None

    def challenge(self, attachment: Attachment) -> bytes | None:
        """The last one that the foreign agent has advertised."""
        agent = None if attachment.direct else self.discovery.find(attachment.link, attachment.agent)
        return None if agent is None else agent.challenge

    def bounded(self, attachment: Attachment, lifetime: int) -> int:
        """A lifetime in seconds that this candidate allows."""
        agent = None if attachment.direct else self.discovery.find(attachment.link, attachment.agent)
        if agent is not None:
            lifetime = min(lifetime, agent.registration_lifetime)
        return min(lifetime, self._longest.get((attachment.link, attachment.agent), lifetime))

    def bound(self, attachment: Attachment, longest: int) -> None:
        """Code 69: no more than so many seconds (section 3.7.2.3)."""
        self._longest[attachment.link, attachment.agent] = longest

    def avoid(self, attachment: Attachment, until: float) -> None:
        """It refused; another is to be preferred until then (steady seconds)."""
        self._avoid[attachment.link, attachment.agent] = until

    def avoid_none(self) -> None:
        """All may be tried again."""
        self._avoid.clear()

    def go_plain(self, attachment: Attachment) -> None:
        """Its encapsulation was refused: tunnels by this agent are IP in IP, which every agent has (section 3.3)."""
        self._plain.add((attachment.link, attachment.agent))

    def _shape(self, link: str, agent: Addr, heard: HeardAgent | None = None) -> Encapsulation:
        """The encapsulation to ask this agent for; `heard`: it is the end of the tunnel, and says which ones it has."""
        offered = heard is None or self._encapsulation in heard.encapsulations
        return self._encapsulation if offered and (link, agent) not in self._plain else Encapsulation.IPIP

    def bypasses(self, attachment: Attachment | None, now: float) -> bool:
        """True if it passes by an agent of its link that requires registration through one of them."""
        return attachment is not None and attachment.direct and bool(self._required(attachment.link, now))

    def _required(self, link: str, now: float) -> list[HeardAgent]:
        """The agents through which to register with a co-located care-of address of this link; none: directly."""
        agents = [agent for agent in self.discovery.agents(now) if agent.link == link]
        return agents if any(agent.required for agent in agents) else []

    def _own(self, link: str, now: float, in_use: Attachment | None) -> list[Attachment]:
        care_of = self._own_address(link)
        if care_of is None:
            return []
        agents = self._required(link, now)
        if not agents:
            return [
                Attachment(
                    link,
                    self.home_agent,
                    care_of,
                    True,
                    encapsulation=self._shape(link, self.home_agent),
                    broadcasts=self._broadcasts,
                )
            ]
        return [
            Attachment(
                link,
                agent.address,
                care_of,
                True,
                agent.link_layer,
                relayed=True,
                encapsulation=self._shape(link, agent.address),
                broadcasts=self._broadcasts,
            )
            for agent in agents
            if not agent.busy or (in_use is not None and in_use.agent == agent.address)
        ]

    def _own_address(self, link: str) -> IPv4Address | None:
        if not self.discovery.is_up(link):
            return None
        own = [address for address in self._link_addresses.get(link, ()) if isinstance(address, IPv4Address)]
        others = [address for address in own if address != self.home_address]
        return self._care_of_address or next(iter(others), None)
