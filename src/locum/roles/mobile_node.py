"""The mobile node's registration (RFC 5944 section 3.6; source text 504): attachment, movement, requests, renewal.

What should be registered is a `Wish` of the machine above it (sleeping.py), which reads `outcomes`. It must not know
sessions, the stand-in, sockets or the kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.roles.actions import (
    JSON,
    Action,
    Addr,
    Count,
    Emit,
    Event,
    LeaveAgent,
    LinkDown,
    LinkUp,
    Persist,
    Randomness,
    SendRegistration,
    Source,
    UseAgent,
)
from locum.roles.attachment import (
    Attachment,
    AttachmentLost,
    Outcome,
    Registered,
    Registering,
    RegistrationAccepted,
    RegistrationDenied,
    Searching,
    Settled,
    State,
    Waiting,
    Wish,
    colocated_forwarding,
)
from locum.roles.discovery import AgentDiscovery, Hearing
from locum.roles.forwarding import changes
from locum.roles.signing import authentic, signed
from locum.security.association import Association, Replay
from locum.security.replay import (
    answers,
    difference,
    home_nonce,
    next_identification,
    nonce_identification,
    wall_of,
)
from locum.wire.discovery import ROUTER_ADVERTISEMENT, AgentAdvertisement
from locum.wire.errors import WireError
from locum.wire.extensions import (
    AuthKind,
    Extension,
    Ipv6PrefixReply,
    Ipv6PrefixRequest,
    Ipv6TunnelingMode,
    MobileFaChallenge,
)
from locum.wire.registration import Code, Flag, RegistrationReply, RegistrationRequest

TABLE = "registration"
RETRY_FIRST = 1.0  # seconds; RFC 5944 section 3.6.3: at least one second
RETRY_MAX = 32.0  # seconds; the same: doubled each time up to a maximum
DENIED_FIRST = 2.0  # seconds after a refusal
RENEW_PART = 2 / 3  # of the lifetime; section 3.6.1: before it expires, with room for retransmissions
BRIEF_LIFETIME = 10  # seconds asked for when the default CoA is to have the packets (R2)
AGENT_PATIENCE = 3.0  # seconds in which an agent used before a restart has to be heard again
RANDOM_BITS = 16  # of the low half of a timestamp: an attacker off the path must guess them (section 5.7.1)
CHALLENGE_CODES = frozenset((Code.FA_UNKNOWN_CHALLENGE, Code.FA_MISSING_CHALLENGE, Code.FA_STALE_CHALLENGE))
FA_CODES = range(64, 128)  # refusals that a foreign agent makes itself, without the home agent's signature


@dataclass(frozen=True, slots=True)
class MobileNodeConfiguration:
    """Times in seconds. With `colocated` the care-of address is `care_of_address`, or the link's own."""

    home_address: IPv4Address
    home_agent: IPv4Address
    links: tuple[str, ...]
    association: Association
    home_address_v6: IPv6Address | None = None
    colocated: bool = False
    care_of_address: IPv4Address | None = None
    lifetime: int = 300
    brief_lifetime: int = BRIEF_LIFETIME

    @property
    def home_addresses(self) -> tuple[Addr, ...]:
        """Of both families."""
        if self.home_address_v6 is None:
            return (self.home_address,)
        return (self.home_address, self.home_address_v6)


class MobileNode:
    """One mobile node; `foreign_agents` are associations with agents by their address (MN-FA)."""

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        foreign_agents: Mapping[Addr, Association],
        randomness: Randomness,
    ) -> None:
        self.configuration = configuration
        self.outcomes: list[Outcome] = []
        self.state: State = Searching()
        self.registered: Registered | None = None
        self._foreign_agents = dict(foreign_agents)
        self._randomness = randomness
        self._discovery = AgentDiscovery(configuration.links, randomness)
        self._link_addresses: dict[str, tuple[Addr, ...]] = {}
        self._wish = Wish.ORDINARY
        self._lasting: Wish | None = None  # the wish of the next run, while this one leaves
        self._in_use: Attachment | None = None
        self._avoid: dict[tuple[str, Addr], float] = {}
        self._longest: dict[tuple[str, Addr], int] = {}  # lifetimes that code 69 left (section 3.7.2.3)
        self._identification: int | None = None
        self._clock_offset = 0.0  # seconds that the home agent's clock is ahead of ours
        self._nonce: int | None = None
        self._patient_until = float("-inf")  # wall-clock seconds

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; a registration that still holds is used without asking again."""
        actions: list[Action] = []
        for row in rows:
            if row.table == TABLE and row.key == str(self.configuration.home_address):
                try:
                    self._from_row(row.value, now)
                except (ValueError, KeyError, TypeError):
                    actions.append(Count("unreadable-row"))
        if self.registered is not None:
            self.state = Settled()
            actions += self._use(self.registered.attachment)
        if self._wish is not Wish.NOTHING:
            self._discovery.search(now)
        return actions + self._pursue(now)

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration reply (604, or 603 with a co-located care-of address) or an Agent Advertisement."""
        try:
            if message[:1] == bytes((ROUTER_ADVERTISEMENT,)):
                return self._advertised(AgentAdvertisement.decode(message), source, now)
            return self._replied(RegistrationReply.decode(message), source, now)
        except WireError as error:
            return [Count(f"registration-{error.reason}")]

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Links come and go."""
        match event:
            case LinkUp() if event.link in self.configuration.links:
                self._discovery.link_up(event.link)
                self._link_addresses[event.link] = event.addresses
                if self.registered is None and not isinstance(self.state, Settled):
                    self._discovery.settle()
                    self._discovery.search(now)
                return self._pursue(now) + self._discovery.timeout(now)
            case LinkDown() if event.link in self.configuration.links:
                self._discovery.link_down(event.link)
                self._link_addresses.pop(event.link, None)
                return self._moved(now)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Retransmission, renewal, expiry, silence of an agent, solicitation."""
        self._discovery.forget_silent(now)
        actions = self._moved(now)
        if self.registered is not None and self.registered.expires_at <= now:
            actions += self._expired(now)
        return actions + self._pursue(now) + self._discovery.timeout(now)

    def deadline(self) -> float | None:
        """Wall-clock seconds of whatever comes first."""
        times = [self._discovery.deadline()]
        if self._in_use is not None and not self._in_reach(self._in_use):
            times.append(self._patient_until)
        if isinstance(self.state, Registering | Waiting):
            times.append(self.state.retry_at)
        if self.registered is not None:
            times.append(self.registered.expires_at)
            if isinstance(self.state, Settled) and self._renews():
                times.append(self.registered.renew_at)
        return min((at for at in times if at is not None), default=None)

    def wish(self, wish: Wish, *, now: float) -> list[Action]:
        """What is to be registered from now on; it is asked for even if it holds already."""
        self._wish = wish
        self._avoid.clear()
        self.state = Settled() if wish is Wish.NOTHING else Searching()
        if wish is Wish.NOTHING:
            self._discovery.settle()
            return [self._persist()]
        return [self._persist(), *self._pursue(now), *self._discovery.timeout(now)]

    def leave(self, *, now: float) -> list[Action]:
        """The last words of a run (section 3.6.1.2): deregister by the way in use. The next run registers again.

        Nothing when there is nothing to take back or no way to say it; over when `leaving` is false.
        """
        asked = self.state.attachment if isinstance(self.state, Registering) else None
        way = self._in_use or asked  # what was asked for may have been granted already
        if way is None or not self._in_reach(way) or self._wish is not Wish.ORDINARY:
            return []
        self._lasting, self._wish = self._wish, Wish.WITHDRAWN
        return self._register(now, RETRY_FIRST)

    @property
    def leaving(self) -> bool:
        """`leave` has been called and not been answered."""
        return self._lasting is not None and isinstance(self.state, Registering)

    @property
    def wished(self) -> Wish:
        """What is being pursued."""
        return self._wish

    @property
    def attachment(self) -> Attachment | None:
        """The way in use."""
        return self._in_use

    # Attachment and movement -------------------------------------------------------------------------------------

    def _advertised(self, advertisement: AgentAdvertisement, source: Source, now: float) -> list[Action]:
        hearing = self._discovery.heard(advertisement, source, now)
        if hearing is Hearing.UNUSABLE or self.configuration.colocated:
            return []
        address = advertisement.addresses[0][0] if advertisement.addresses else source.address
        actions: list[Action] = []
        ours = self._in_use is not None and (self._in_use.link, self._in_use.agent) == (source.link, address)
        if hearing is Hearing.REBOOTED and ours and self._renews():
            actions.append(
                Emit("agent-rebooted", None, self.configuration.home_address, None, {"agent": str(address)})
            )
            self.state = Searching()
        if isinstance(self.state, Waiting) and self.state.code in CHALLENGE_CODES:
            self.state = Searching()
        return actions + self._pursue(now)

    def _available(self, now: float) -> list[Attachment]:
        """Ways to the home agent, the best first; the one in use stays the best while it works."""
        if self.configuration.colocated:
            found = [each for link in self.configuration.links if (each := self._colocated(link)) is not None]
        else:
            found = [
                Attachment(each.link, each.address, each.care_of, False, each.link_layer)
                for each in self._discovery.agents(now)
                if not each.busy or (self._in_use is not None and self._in_use.agent == each.address)
            ]
        usable = [each for each in found if self._avoid.get((each.link, each.agent), now) <= now]
        return sorted(usable, key=lambda each: each != self._in_use)

    def _colocated(self, link: str) -> Attachment | None:
        if not self._discovery.is_up(link):
            return None
        own = [each for each in self._link_addresses.get(link, ()) if isinstance(each, IPv4Address)]
        others = [each for each in own if each != self.configuration.home_address]
        care_of = self.configuration.care_of_address or next(iter(others), None)
        if care_of is None:
            return None
        return Attachment(link, self.configuration.home_agent, care_of, True)

    def _in_reach(self, attachment: Attachment) -> bool:
        if attachment.colocated:
            return self._colocated(attachment.link) == attachment
        return self._discovery.find(attachment.link, attachment.agent) is not None

    def _moved(self, now: float) -> list[Action]:
        """If the way in use is gone, take another (section 2.4.2.1)."""
        attempted = self.state.attachment if isinstance(self.state, Registering) else None
        if attempted is not None and not self._in_reach(attempted):
            self.state = Searching()
        gone = self._in_use
        if gone is None or self._in_reach(gone) or self._awaiting_first_advertisement(gone, now):
            return self._pursue(now) if isinstance(self.state, Searching) else []
        self.outcomes.append(AttachmentLost(gone))
        actions = self._use(None)
        actions.append(
            Emit("attachment-lost", None, self.configuration.home_address, None, {"link": gone.link})
        )
        if self._wish is not Wish.NOTHING:
            self.state = Searching()
            self._discovery.search(now)
        return actions + self._pursue(now)

    def _awaiting_first_advertisement(self, attachment: Attachment, now: float) -> bool:
        """After a restart the agent in use has not been heard yet: it is given the time to advertise."""
        return self._discovery.is_up(attachment.link) and now < self._patient_until

    def _use(self, attachment: Attachment | None, *, ipv6: bool = True) -> list[Action]:
        before, self._in_use = self._in_use, attachment
        home_agent, homes = self.configuration.home_agent, self.configuration.home_addresses
        actions = changes(
            colocated_forwarding(before, home_agent, homes),
            colocated_forwarding(attachment, home_agent, homes),
        )
        if before is not None and (attachment is None or attachment.link != before.link):
            actions.append(LeaveAgent(before.link))
        if attachment is not None and attachment != before:
            usable = homes if ipv6 else homes[:1]
            actions.append(
                UseAgent(
                    attachment.link,
                    attachment.agent,
                    attachment.link_layer,
                    usable,
                    attachment.care_of,
                    attachment.colocated,
                )
            )
        return actions

    # 601 ---------------------------------------------------------------------------------------------------------

    def _pursue(self, now: float) -> list[Action]:
        """Do what the state says is next."""
        if self._wish is Wish.NOTHING:
            return []
        match self.state:
            case Settled():
                if self._renews() and self.registered is not None and self.registered.renew_at <= now:
                    return self._register(now, RETRY_FIRST)
            case Searching():
                return self._register(now, RETRY_FIRST)
            case Waiting() if self.state.retry_at <= now:
                return self._register(now, RETRY_FIRST)
            case Registering() if self.state.retry_at <= now:
                return self._register(now, min(RETRY_MAX, 2 * self.state.interval))
        return []

    def _renews(self) -> bool:
        return self._wish in (Wish.ORDINARY, Wish.BRIEF)

    def _register(self, now: float, interval: float, *, resynchronised: bool = False) -> list[Action]:
        available = self._available(now)
        if not available:
            self.state = Searching()
            self._discovery.search(now)
            return []
        self._discovery.settle()
        attachment = available[0]
        lifetime = self._lifetime(attachment)
        identification = self._next_identification(now)
        self.state = Registering(
            attachment, lifetime, identification, now, now + interval, interval, resynchronised
        )
        message = self._message(attachment, lifetime, identification)
        detail: dict[str, JSON] = {
            "to": str(attachment.agent),
            "lifetime": lifetime,
            "care_of": str(attachment.care_of),
            "wish": self._wish.value,
        }
        return [
            self._persist(),
            SendRegistration(
                message,
                attachment.agent,
                link=attachment.link,
                source=attachment.care_of if attachment.colocated else self.configuration.home_address,
                link_layer=attachment.link_layer,
            ),
            Emit("sent", "601", self.configuration.home_address, None, detail),
        ]

    def _lifetime(self, attachment: Attachment) -> int:
        if self._wish is Wish.WITHDRAWN:
            return 0
        wanted = self.configuration.lifetime
        if self._wish is Wish.BRIEF:
            wanted = min(wanted, self.configuration.brief_lifetime)
        agent = None if attachment.colocated else self._discovery.find(attachment.link, attachment.agent)
        if agent is not None:
            wanted = min(wanted, agent.registration_lifetime)
        return min(wanted, self._longest.get((attachment.link, attachment.agent), wanted))

    def _next_identification(self, now: float) -> int:
        if self.configuration.association.replay is Replay.NONCE:
            own = self._randomness.getrandbits(32)
            self._identification = nonce_identification(self._nonce or 0, own)
            return self._identification
        fresh = next_identification(now + self._clock_offset, self._identification)
        mixed = fresh ^ self._randomness.getrandbits(RANDOM_BITS)
        ahead = self._identification is None or difference(mixed, self._identification) > 0
        self._identification = mixed if ahead else fresh
        return self._identification

    def _message(self, attachment: Attachment, lifetime: int, identification: int) -> bytes:
        extensions: list[Extension] = []
        if self.configuration.home_address_v6 is not None and lifetime:
            extensions.append(Ipv6PrefixRequest(self.configuration.home_address_v6))
            if attachment.colocated:
                extensions.append(Ipv6TunnelingMode())
        request = RegistrationRequest(
            lifetime=lifetime,
            home_address=self.configuration.home_address,
            home_agent=self.configuration.home_agent,
            care_of_address=attachment.care_of if lifetime else self.configuration.home_address,
            identification=identification,
            flags=Flag.T | Flag.D if attachment.colocated else Flag.T,
            extensions=tuple(extensions),
        )
        message = signed(request.encode(), AuthKind.MN_HA, self.configuration.association)
        agent = None if attachment.colocated else self._discovery.find(attachment.link, attachment.agent)
        if agent is not None and agent.challenge is not None:
            message += MobileFaChallenge(agent.challenge).encode()
        association = None if attachment.colocated else self._foreign_agents.get(attachment.agent)
        return message if association is None else signed(message, AuthKind.MN_FA, association)

    # 604 ---------------------------------------------------------------------------------------------------------

    def _replied(self, reply: RegistrationReply, source: Source, now: float) -> list[Action]:
        """Section 3.6.2."""
        state = self.state
        if not isinstance(state, Registering) or source.link != state.attachment.link:
            return [Count("reply-unexpected")]
        if reply.home_address != self.configuration.home_address or not answers(
            state.identification, reply.identification
        ):
            return [Count("reply-unexpected")]
        from_agent = int(reply.code) in FA_CODES and not state.attachment.colocated
        if not from_agent and not authentic(reply, AuthKind.MN_HA, self.configuration.association):
            return [Count("reply-not-authentic")]
        association = None if state.attachment.colocated else self._foreign_agents.get(state.attachment.agent)
        if association is not None and not authentic(reply, AuthKind.MN_FA, association):
            return [Count("reply-not-authentic")]
        if not from_agent and self.configuration.association.replay is Replay.NONCE:
            self._nonce = home_nonce(reply.identification)
        if isinstance(reply.code, Code) and reply.code.accepted:
            return self._accepted(reply, state, now)
        return self._denied(reply, state, now)

    def _accepted(self, reply: RegistrationReply, state: Registering, now: float) -> list[Action]:
        granted = min(reply.lifetime, state.lifetime)
        wish = self._wish
        self.state = Settled()
        actions: list[Action] = []
        if granted:
            self.registered = Registered(
                state.attachment,
                self._wish,
                granted,
                state.sent_at + granted,
                state.sent_at + granted * RENEW_PART,
            )
            ipv6 = any(each.accepted for each in reply.all(Ipv6PrefixReply))
            actions += self._use(state.attachment, ipv6=ipv6)
        else:
            self.registered = None
            self._wish = Wish.NOTHING
            actions += self._use(None)
        self.outcomes.append(RegistrationAccepted(wish, granted))
        detail: dict[str, JSON] = {
            "agent": str(state.attachment.agent),
            "lifetime": granted,
            "care_of": str(state.attachment.care_of),
        }
        return [
            self._persist(),
            *actions,
            Emit("registered", "604", self.configuration.home_address, None, detail),
        ]

    def _denied(self, reply: RegistrationReply, state: Registering, now: float) -> list[Action]:
        code, attachment = int(reply.code), state.attachment
        key = (attachment.link, attachment.agent)
        detail: dict[str, JSON] = {"code": code, "agent": str(attachment.agent)}
        actions: list[Action] = [
            Count(f"denied-{code}"),
            Emit("registration-denied", "604", self.configuration.home_address, None, detail),
        ]
        if code == Code.IDENTIFICATION_MISMATCH and not state.resynchronised:
            self._resynchronise(reply, now)
            return actions + self._register(now, RETRY_FIRST, resynchronised=True)
        if code == Code.FA_REQUESTED_LIFETIME_TOO_LONG and 0 < reply.lifetime < state.lifetime:
            self._longest[key] = reply.lifetime
            return actions + self._register(now, RETRY_FIRST, resynchronised=state.resynchronised)
        if code in CHALLENGE_CODES:
            # Ask the agent for a new challenge; its advertisement ends the waiting.
            self.state = Waiting(now + DENIED_FIRST, DENIED_FIRST, code)
            self._discovery.search(now)
            return actions + self._discovery.timeout(now)
        self.outcomes.append(RegistrationDenied(self._wish, code))
        interval = min(RETRY_MAX, max(DENIED_FIRST, 2 * state.interval))
        self._avoid[key] = now + interval
        if self._available(now):
            return actions + self._register(now, RETRY_FIRST)
        self.state = Waiting(now + interval, interval, code)
        return actions

    def _resynchronise(self, reply: RegistrationReply, now: float) -> None:
        """Section 5.7.1: the high half is the home agent's clock. Under nonces it has been taken already."""
        if self.configuration.association.replay is Replay.TIMESTAMP:
            self._clock_offset = wall_of(reply.identification, near=now) - now
            self._identification = None

    def _expired(self, now: float) -> list[Action]:
        self.registered = None
        actions: list[Action] = [
            self._persist(),
            Emit("registration-expired", None, self.configuration.home_address),
        ]
        if self._renews() and not isinstance(self.state, Registering | Waiting):
            self.state = Searching()
        return actions

    # Rows --------------------------------------------------------------------------------------------------------

    def _persist(self) -> Persist:
        held = self.registered if self._lasting is None else None
        value: dict[str, JSON] = {
            "identification": self._identification,
            "clock_offset": self._clock_offset,
            "nonce": self._nonce,
            "wish": (self._lasting or self._wish).value,
            "registered": None
            if held is None
            else {
                "attachment": held.attachment.to_row(),
                "wish": held.wish.value,
                "lifetime": held.lifetime,
                "expires_at": held.expires_at,
                "renew_at": held.renew_at,
            },
        }
        return Persist(TABLE, str(self.configuration.home_address), value)

    def _from_row(self, row: Mapping[str, JSON], now: float) -> None:
        identification, nonce, offset = row["identification"], row["nonce"], row["clock_offset"]
        if not isinstance(identification, int | None) or not isinstance(nonce, int | None):
            raise ValueError("identification and nonce are whole numbers")
        if not isinstance(offset, int | float):
            raise ValueError("clock_offset is a number")
        self._wish = Wish(row["wish"])
        self._identification, self._nonce, self._clock_offset = identification, nonce, float(offset)
        held = row["registered"]
        if not isinstance(held, Mapping):
            return
        attachment, lifetime = held["attachment"], held["lifetime"]
        expires_at, renew_at = held["expires_at"], held["renew_at"]
        if not isinstance(attachment, Mapping) or not isinstance(lifetime, int):
            raise ValueError("a registration needs attachment and lifetime")
        if not isinstance(expires_at, int | float) or not isinstance(renew_at, int | float):
            raise ValueError("times are numbers")
        if expires_at > now:
            self.registered = Registered(
                Attachment.from_row(attachment),
                Wish(held["wish"]),
                lifetime,
                float(expires_at),
                float(renew_at),
            )
            self._patient_until = now + AGENT_PATIENCE
