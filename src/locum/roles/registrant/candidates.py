"""Candidate paths of a registrant: foreign agents in reach, or its own addresses (RFC 5944 section 2.4).

It must not know registrations, except that a way was refused and is to be avoided for a while.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Randomness
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.discovery import AgentDiscovery, HeardAgent


class CareOfCandidates:
    """`links` in order of preference; with `colocated` the care-of address is `care_of_address`, or the link's own.

    With one of those a foreign agent is asked only where one of the link requires it (R bit, section 3.1).
    """

    def __init__(
        self,
        home_address: IPv4Address,
        home_agent: IPv4Address,
        links: Sequence[str],
        randomness: Randomness,
        *,
        colocated: bool = False,
        care_of_address: IPv4Address | None = None,
    ) -> None:
        self.discovery = AgentDiscovery(links, randomness)
        self.links = tuple(links)
        self.colocated = colocated
        self.home_address = home_address
        self._home_agent = home_agent
        self._care_of_address = care_of_address
        self._link_addresses: dict[str, tuple[Addr, ...]] = {}
        self._avoid: dict[tuple[str, Addr], float] = {}
        self._longest: dict[tuple[str, Addr], int] = {}

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
            found = [each for link in self.links for each in self._own(link, now, in_use)]
        else:
            found = [
                Attachment(each.link, each.address, each.care_of, False, each.link_layer)
                for each in self.discovery.agents(now)
                if not each.busy or (in_use is not None and in_use.agent == each.address)
            ]
        usable = [each for each in found if self._avoid.get((each.link, each.agent), now) <= now]
        return sorted(usable, key=lambda each: (each.care_of != preferred, each != in_use))

    def others(self, way: Attachment, now: float) -> bool:
        """True if there is another agent."""
        return any(each.agent != way.agent for each in self.available(now, way))

    def in_reach(self, way: Attachment) -> bool:
        """True if the candidate still works, by its advertisements."""
        if way.colocated:
            return self._own_address(way.link) == way.care_of
        return self.discovery.find(way.link, way.agent) is not None

    def challenge(self, way: Attachment) -> bytes | None:
        """The last one that the foreign agent has advertised."""
        agent = None if way.direct else self.discovery.find(way.link, way.agent)
        return None if agent is None else agent.challenge

    def bounded(self, way: Attachment, lifetime: int) -> int:
        """A lifetime in seconds that this candidate allows."""
        agent = None if way.direct else self.discovery.find(way.link, way.agent)
        if agent is not None:
            lifetime = min(lifetime, agent.registration_lifetime)
        return min(lifetime, self._longest.get((way.link, way.agent), lifetime))

    def bound(self, way: Attachment, longest: int) -> None:
        """Code 69: no more than so many seconds (section 3.7.2.3)."""
        self._longest[way.link, way.agent] = longest

    def avoid(self, way: Attachment, until: float) -> None:
        """It refused; another is to be preferred until then (steady seconds)."""
        self._avoid[way.link, way.agent] = until

    def avoid_none(self) -> None:
        """All may be tried again."""
        self._avoid.clear()

    def bypasses(self, way: Attachment | None, now: float) -> bool:
        """True if it passes by an agent of its link that requires registration through one of them."""
        return way is not None and way.direct and bool(self._required(way.link, now))

    def _required(self, link: str, now: float) -> list[HeardAgent]:
        """The agents through which to register with a co-located care-of address of this link; none: directly."""
        agents = [each for each in self.discovery.agents(now) if each.link == link]
        return agents if any(each.required for each in agents) else []

    def _own(self, link: str, now: float, in_use: Attachment | None) -> list[Attachment]:
        care_of = self._own_address(link)
        if care_of is None:
            return []
        agents = self._required(link, now)
        if not agents:
            return [Attachment(link, self._home_agent, care_of, True)]
        return [
            Attachment(link, each.address, care_of, True, each.link_layer, relayed=True)
            for each in agents
            if not each.busy or (in_use is not None and in_use.agent == each.address)
        ]

    def _own_address(self, link: str) -> IPv4Address | None:
        if not self.discovery.is_up(link):
            return None
        own = [each for each in self._link_addresses.get(link, ()) if isinstance(each, IPv4Address)]
        others = [each for each in own if each != self.home_address]
        return self._care_of_address or next(iter(others), None)
