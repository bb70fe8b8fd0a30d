"""Agent discovery of a mobile node (RFC 5944 section 2.4): agents in reach, and solicitations.

It must not know registrations: the mobile node decides which agent it uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from locum.roles.action_values.addresses import Addr, Randomness, Source
from locum.roles.action_values.flows import Encapsulation
from locum.roles.actions import Action, Solicit
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag, AgentSolicitation

SOLICIT_FIRST = 1.0  # seconds; section 2.4: the first three at most one a second
SOLICIT_QUICK = 3
SOLICIT_MAX = 60.0  # seconds; then exponential back-off up to (at least) a minute
SILENT_PART = 2 / 3  # of an advertisement's lifetime: two intervals (section 2.3), so that one may be lost
REBOOT_SEQUENCE = 256  # section 2.3.2: a number below this that falls behind the last one means a restart

_EVERYBODY = IPv4Address("255.255.255.255")
_OFFERS = {AgentFlag.G: Encapsulation.GRE, AgentFlag.M: Encapsulation.MINIMAL}


@dataclass(frozen=True, slots=True)
class HeardAgent:
    """A foreign agent as it advertised itself last."""

    link: str
    address: Addr
    link_layer: bytes | None
    care_of: IPv4Address
    sequence: int
    registration_lifetime: int  # seconds
    busy: bool
    challenge: bytes | None
    expires_at: float  # steady seconds
    heard_at: float  # the same
    # Registration goes through an agent of the link, also with a co-located care-of address
    required: bool = False
    prefixes: frozenset[IPv4Network] = frozenset()  # of the link, where it says them
    encapsulations: frozenset[Encapsulation] = frozenset()  # beside IP in IP

    @property
    def silent_at(self) -> float:
        """Time at which two of its advertisements are missing."""
        return self.heard_at + SILENT_PART * (self.expires_at - self.heard_at)


class Hearing(Enum):
    """Result of an advertisement."""

    NEW = "new"
    SAME = "same"
    REBOOTED = "rebooted"
    UNUSABLE = "unusable"


class AgentDiscovery:
    """The agents in reach, in the order of the configured links."""

    def __init__(self, links: Sequence[str], randomness: Randomness) -> None:
        self._links = tuple(links)
        self._randomness = randomness
        self._up: set[str] = set(links)
        self._agents: dict[tuple[str, Addr], HeardAgent] = {}
        self._solicit_at: float | None = None
        self._solicited = 0

    def link_up(self, link: str) -> None:
        """The link can be used."""
        if link in self._links:
            self._up.add(link)

    def link_down(self, link: str) -> None:
        """The link and every agent on it are gone."""
        self._up.discard(link)
        self._agents = {key: agent for key, agent in self._agents.items() if agent.link != link}

    def is_up(self, link: str) -> bool:
        """True if the link is usable."""
        return link in self._up

    def receive(self, message: bytes, source: Source, now: float) -> tuple[Hearing, Addr]:
        """Take an advertisement in: its result, and the agent's address. Raises WireError."""
        advertisement = AgentAdvertisement.decode(message)
        return self.heard(advertisement, source, now), _address(advertisement, source)

    def heard(self, advertisement: AgentAdvertisement, source: Source, now: float) -> Hearing:
        """Take an advertisement in."""
        if source.link not in self._up or not advertisement.care_of_addresses:
            return Hearing.UNUSABLE
        if AgentFlag.F not in advertisement.flags or AgentFlag.T not in advertisement.flags:
            return Hearing.UNUSABLE
        address = _address(advertisement, source)
        key = (source.link, address)
        before = self._agents.get(key)
        if self._unasked(source):
            return self._told_alone(key, before, advertisement, source)
        self._agents[key] = HeardAgent(
            link=source.link,
            address=address,
            link_layer=source.link_layer,
            care_of=advertisement.care_of_addresses[0],
            sequence=advertisement.sequence,
            registration_lifetime=advertisement.registration_lifetime,
            busy=AgentFlag.B in advertisement.flags,
            challenge=advertisement.challenge,
            expires_at=now + advertisement.lifetime,
            heard_at=now,
            required=AgentFlag.R in advertisement.flags,
            encapsulations=frozenset(kind for flag, kind in _OFFERS.items() if flag in advertisement.flags),
            prefixes=_prefixes(advertisement),
        )
        if before is None:
            return Hearing.NEW
        return Hearing.REBOOTED if _rebooted(before.sequence, advertisement.sequence) else Hearing.SAME

    def _unasked(self, source: Source) -> bool:
        """True if it was sent to us alone although we do not solicit.

        Known agents send such ones to announce a revocation (RFC 3543 section 4.2). Any host can
        send one from afar: a tunnel ends here, and a sender that counts the routers can make it arrive with a TTL of 1. No
        router forwards packets to all hosts of a link.
        """
        to = source.local
        for_all = not isinstance(to, IPv4Address) or to.is_multicast or to == _EVERYBODY
        return not for_all and self._solicit_at is None

    def _told_alone(
        self,
        key: tuple[str, Addr],
        before: HeardAgent | None,
        advertisement: AgentAdvertisement,
        source: Source,
    ) -> Hearing:
        """Accept the restart of a known agent; other messages of an agent go to all."""
        known = (
            before is not None
            and before.link_layer == source.link_layer
            and before.care_of == advertisement.care_of_addresses[0]
        )
        if before is None or not known:
            return Hearing.UNUSABLE
        self._agents[key] = replace(before, sequence=advertisement.sequence)
        return Hearing.REBOOTED if _rebooted(before.sequence, advertisement.sequence) else Hearing.SAME

    def find(self, link: str, address: Addr) -> HeardAgent | None:
        """The agent, if it is still in reach."""
        return self._agents.get((link, address))

    def agents(self, now: float) -> tuple[HeardAgent, ...]:
        """Agents in reach, the first link's first, on a link the latest first."""
        alive = [other for other in self._agents.values() if other.expires_at > now]
        return tuple(sorted(alive, key=lambda agent: (self._links.index(agent.link), -agent.expires_at)))

    def forget_silent(self, now: float) -> None:
        """Drop agents whose advertisements have lapsed (section 2.4.2.1), and those that were left (2.4.2.2)."""
        self._agents = {
            key: agent
            for key, agent in self._agents.items()
            if agent.expires_at > now and not (agent.silent_at <= now and self._left(agent))
        }

    def _left(self, agent: HeardAgent) -> bool:
        """Section 2.4.2.2: an agent of another network advertised later on the same link; both give prefixes.

        One that also advertises may be a neighbour of the present one: only a silent agent was left.
        """
        return bool(agent.prefixes) and any(
            other.link == agent.link
            and other.heard_at > agent.heard_at
            and bool(other.prefixes)
            and other.prefixes.isdisjoint(agent.prefixes)
            for other in self._agents.values()
        )

    def search(self, now: float) -> None:
        """Begin to solicit, unless it is being done."""
        if self._solicit_at is None:
            self._solicit_at, self._solicited = now, 0

    def settle(self) -> None:
        """No need to solicit any more."""
        self._solicit_at = None

    def timeout(self, now: float) -> list[Action]:
        """The solicitations that are due."""
        if self._solicit_at is None or self._solicit_at > now:
            return []
        self._solicited += 1
        backoff = SOLICIT_FIRST * 2.0 ** min(16, max(0, self._solicited - SOLICIT_QUICK))
        self._solicit_at = now + min(SOLICIT_MAX, backoff) * (1 + 0.1 * self._randomness.random())
        message = AgentSolicitation().encode()
        return [Solicit(link, message) for link in self._links if link in self._up]

    def deadline(self) -> float | None:
        """Steady seconds of the next solicitation or lapse."""
        agents = self._agents.values()
        times = [agent.silent_at if self._left(agent) else agent.expires_at for agent in agents]
        if self._solicit_at is not None:
            times.append(self._solicit_at)
        return min(times, default=None)


def _address(advertisement: AgentAdvertisement, source: Source) -> Addr:
    return advertisement.addresses[0][0] if advertisement.addresses else source.address


def _prefixes(advertisement: AgentAdvertisement) -> frozenset[IPv4Network]:
    """Networks of the router addresses; none without their lengths. A length of 0 is ignored."""
    lengths = advertisement.prefix_lengths
    if len(lengths) != len(advertisement.addresses) or not all(lengths):
        return frozenset()
    routers = zip(advertisement.addresses, lengths, strict=True)
    return frozenset(IPv4Network((address, length), strict=False) for (address, _), length in routers)


def _rebooted(last: int, sequence: int) -> bool:
    """Section 2.3.2: the count began again; one that only comes round goes on at 256."""
    return sequence < REBOOT_SEQUENCE and sequence < last
