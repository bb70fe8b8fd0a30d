"""Agent advertisements of a foreign agent (RFC 5944 section 2.3): when, with which sequence number, on which link.

It must not know registrations; the visitor list tells it whether the agent is busy.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Randomness, Source
from locum.roles.actions import Action, Advertise, Count, Persist
from locum.roles.foreign_agent.configuration import AccessLink
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.parts import Part
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag, AgentSolicitation, next_sequence

LIFETIME_INTERVALS = 3  # section 2.3: the interval should be no more than 1/3 of the advertisement's lifetime
FIRST_SEQUENCE = 0  # section 2.3.2: after a start without memory
SEQUENCE_AFTER_RESTART = 256  # section 2.3.2: visitors are still known, so none has to register again
SOLICITED_GAP = 0.1  # seconds; at most so often a link gets a solicited advertisement (RFC 1256 section 6.2)
CHALLENGE_WINDOW = 2  # RFC 4721 section 2.1: how many of the last challenges are still taken
CHALLENGE_BITS = 128
JITTER = 0.05  # part of the interval; agents of one link must not fall into step (RFC 1256 section 6.2.4)


@dataclass(slots=True)
class _Schedule:
    link: AccessLink
    sequence: int
    next_at: float | None  # None: the link is down
    sent_at: float = float("-inf")
    challenges: deque[bytes] = field(default_factory=lambda: deque(maxlen=CHALLENGE_WINDOW))


@dataclass(frozen=True, slots=True)
class Supported:
    """Services of the agent, and its demand, beyond forwarding and tunnels."""

    udp: bool = False  # UDP tunnels (RFC 3519 section 3.4)
    required: bool = False  # registration through it, also with a co-located care-of address (section 2.1.1)
    revocation: bool = False  # RFC 3543 section 3.1
    minimal: bool = False  # minimal encapsulation (RFC 2004)

    @property
    def flags(self) -> AgentFlag:
        """The bits of an advertisement."""
        udp = AgentFlag.U if self.udp else AgentFlag(0)
        required = AgentFlag.R if self.required else AgentFlag(0)
        minimal = AgentFlag.M if self.minimal else AgentFlag(0)
        return udp | required | minimal | (AgentFlag.X if self.revocation else AgentFlag(0))


NOTHING_MORE = Supported()


class Advertiser(Part):
    """Advertises one care-of address on several links; times in seconds."""

    def __init__(
        self,
        links: Sequence[AccessLink],
        care_of_address: IPv4Address,
        interval: float,
        registration_lifetime: int,
        challenge: bool,
        randomness: Randomness,
        visitors: VisitorList,
        supports: Supported = NOTHING_MORE,
        nai: str | None = None,
    ) -> None:
        self._nai, self._visitors = nai, visitors
        self._supports = supports.flags
        self._interval = interval
        self._care_of_address = care_of_address
        self._registration_lifetime = registration_lifetime
        self._challenge = challenge
        self._randomness = randomness
        self._schedules = {link.name: _Schedule(link, FIRST_SEQUENCE, None) for link in links}

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Begin to advertise; the visitor list has been restored before."""
        for schedule in self._schedules.values():
            schedule.sequence = SEQUENCE_AFTER_RESTART if len(self._visitors) else FIRST_SEQUENCE
            schedule.next_at = now
        return []

    def serves(self, link: str) -> bool:
        """True if this is an access link."""
        return link in self._schedules

    def link_up(self, link: str, now: float) -> None:
        """Advertise at once: a mobile node may be waiting."""
        if link in self._schedules:
            self._schedules[link].next_at = now

    def link_down(self, link: str) -> None:
        """Stop advertising on this link."""
        if link in self._schedules:
            self._schedules[link].next_at = None

    def solicited(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """Answer a solicitation: to its sender, or to all when it has no address yet. Raises WireError."""
        AgentSolicitation.decode(message)
        schedule = self._schedules.get(source.link)
        if schedule is None:
            return [Count("solicitation-elsewhere")]
        if now - schedule.sent_at < SOLICITED_GAP:
            return [Count("solicitation-too-soon")]
        if source.address.is_unspecified or source.link_layer is None:
            return [self._advertise(schedule, self._visitors.full, now)]
        advertisement = self._advertise(schedule, self._visitors.full, now)
        return [Advertise(source.link, advertisement.message, source.address, source.link_layer)]

    def disown(self, link: str, address: Addr, link_layer: bytes, *, busy: bool, now: float) -> list[Action]:
        """Tell one mobile node that its registration here is gone (RFC 3543 section 4.1).

        Sequence number 0, to it alone: it takes the agent for restarted and registers again (RFC 5944 section 2.3.2).
        """
        schedule = self._schedules.get(link)
        if schedule is None:
            return []
        sequence, schedule.sequence = schedule.sequence, FIRST_SEQUENCE
        advertisement = self._advertise(schedule, busy, now)
        schedule.sequence = sequence
        return [Advertise(link, advertisement.message, address, link_layer)]

    def timeout(self, *, now: float) -> list[Action]:
        """The advertisements that are due."""
        actions: list[Action] = []
        for schedule in self._schedules.values():
            if schedule.next_at is not None and schedule.next_at <= now:
                actions.append(self._advertise(schedule, self._visitors.full, now))
                schedule.next_at = now + self._interval * (1 - JITTER * self._randomness.random())
        return actions

    def deadline(self) -> float | None:
        """Steady seconds of the next advertisement."""
        return min(
            (schedule.next_at for schedule in self._schedules.values() if schedule.next_at is not None),
            default=None,
        )

    def current_challenges(self, link: str) -> tuple[bytes, ...]:
        """The challenges that a request on this link may repeat, the newest last."""
        return tuple(self._schedules[link].challenges) if link in self._schedules else ()

    def _advertise(self, schedule: _Schedule, busy: bool, now: float) -> Advertise:
        challenge = None
        if self._challenge:
            challenge = self._randomness.getrandbits(CHALLENGE_BITS).to_bytes(CHALLENGE_BITS // 8, "big")
            schedule.challenges.append(challenge)
        flags = AgentFlag.F | AgentFlag.G | AgentFlag.T | self._supports
        prefix_length = schedule.link.prefix_length
        message = AgentAdvertisement(
            lifetime=max(1, int(LIFETIME_INTERVALS * self._interval + 0.5)),
            addresses=((schedule.link.address, 0),),
            sequence=schedule.sequence,
            registration_lifetime=self._registration_lifetime,
            flags=flags | AgentFlag.B if busy else flags,
            care_of_addresses=(self._care_of_address,),
            prefix_lengths=() if prefix_length is None else (prefix_length,),
            challenge=challenge,
            nai=self._nai,
        )
        schedule.sequence = next_sequence(schedule.sequence)
        schedule.sent_at = now
        return Advertise(schedule.link.name, message.encode())
