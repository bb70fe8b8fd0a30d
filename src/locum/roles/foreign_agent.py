"""The foreign agent of an access node (RFC 5944 section 3.7; source text 507): visitors and the relay of 601-604.

It must not know sockets, the store or the kernel, nor the keys between a mobile node and its home agent.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.roles.actions import (
    JSON,
    Action,
    Addr,
    Answered,
    Ask,
    Count,
    DeliveryMoved,
    Emit,
    Event,
    Forget,
    LinkDown,
    LinkUp,
    LocalEndpoint,
    NoAnswer,
    NotPerformed,
    Persist,
    Randomness,
    Reply,
    SendRegistration,
    Source,
)
from locum.roles.admission import Admission, Denied
from locum.roles.advertising import AccessLink, Advertiser
from locum.roles.forwarding import NOTHING, Forwarding, changes
from locum.roles.signing import authentic, signed
from locum.roles.timers import Deadlines
from locum.roles.visitor import (
    Pending,
    StaticVisitor,
    Visitor,
    static_forwarding,
    visitor_forwarding,
)
from locum.security.association import Association
from locum.security.replay import mobile_nonce
from locum.wire.control import Notice618, encode_618
from locum.wire.discovery import ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, AgentSolicitation
from locum.wire.errors import WireError
from locum.wire.extensions import AuthKind, Ipv6PrefixReply
from locum.wire.registration import (
    REGISTRATION_REPLY,
    Code,
    RegistrationReply,
    RegistrationRequest,
)

TABLE = "visitor"
PENDING_TIMEOUT = 7.0  # seconds; RFC 5944 section 3.7.2.2
MAX_PENDING_PER_VISITOR = 4  # retransmissions within PENDING_TIMEOUT (section 3.6.3: at 1, 2, 4 s)
NOTICE_TIMEOUT = 3.0  # seconds for a 618
AUTHENTICATION_HEAD = 6  # bytes of type, length and SPI (section 3.5.1)

PendingKey = tuple[IPv4Address, int]


@dataclass(frozen=True, slots=True)
class ForeignAgentConfiguration:
    """Times in seconds. `notified` are the addresses of nodes that share an association for 618 with this one."""

    care_of_address: IPv4Address
    links: tuple[AccessLink, ...]
    advertise_interval: float = 1.0
    registration_lifetime: int = 1800
    max_visitors: int = 1024
    challenge: bool = False
    short_lifetime: int = 10
    notified: frozenset[Addr] = frozenset()


class ForeignAgent:
    """One foreign agent, its pending registrations and its visitors."""

    def __init__(
        self,
        configuration: ForeignAgentConfiguration,
        home_agents: Mapping[Addr, Association],
        mobiles: Mapping[Addr, Association],
        static: Iterable[StaticVisitor],
        randomness: Randomness,
    ) -> None:
        self.configuration = configuration
        self._home_agents = dict(home_agents)
        self._mobiles = dict(mobiles)
        self._static = {each.home_address: each for each in static}
        self._advertiser = Advertiser(
            configuration.links,
            configuration.care_of_address,
            configuration.advertise_interval,
            configuration.registration_lifetime,
            configuration.challenge,
            randomness,
        )
        self._admission = Admission(
            configuration.care_of_address,
            configuration.registration_lifetime,
            configuration.challenge,
            mobiles,
        )
        self._visitors: dict[IPv4Address, Visitor] = {}
        self._pending: dict[PendingKey, Pending] = {}
        self._timers: Deadlines[IPv4Address | PendingKey] = Deadlines()
        self._next_request = 1

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the visitors of an earlier run, and advertise."""
        actions: list[Action] = [LocalEndpoint(self.configuration.care_of_address)]
        remembered = False
        for row in rows:
            if row.table != TABLE:
                continue
            try:
                visitor = Visitor.from_row(row.key, row.value)
            except (ValueError, KeyError, TypeError):
                actions += [Count("unreadable-row"), Forget(row.table, row.key)]
                continue
            if visitor.expires_at <= now or not self._advertiser.serves(visitor.link):
                actions.append(Forget(row.table, row.key))
                continue
            remembered = True
            self._visitors[visitor.home_address] = visitor
            self._timers.set(visitor.home_address, visitor.expires_at)
        for home_address in dict.fromkeys((*self._static, *self._visitors)):
            actions += changes(NOTHING, self._wanted(home_address))
        self._advertiser.start(remembered=remembered, now=now)
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration message (UDP) or an ICMP message of agent discovery."""
        kind = message[0] if message else None
        if kind == ROUTER_ADVERTISEMENT:
            return []  # another agent on the link
        try:
            if kind == ROUTER_SOLICITATION:
                AgentSolicitation.decode(message)
                return self._advertiser.solicited(source, busy=self._busy(), now=now)
            if kind == REGISTRATION_REPLY:
                return self._reply(RegistrationReply.decode(message), message, source, now)
        except WireError as error:
            return [Count(f"registration-{error.reason}")]
        return self._request(message, source, now)

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Links, counters of preconfigured home addresses (618''), and the answers to 618."""
        match event:
            case LinkUp():
                self._advertiser.link_up(event.link, now)
            case LinkDown():
                self._advertiser.link_down(event.link)
            case DeliveryMoved():
                static = self._static.get(event.home_address) if event.home_address.version == 4 else None
                if static is not None and static.home_address not in self._visitors:
                    return self._notice(static.next_hop, static.home_address, event.active)
            case NoAnswer():
                return [Count("notice-unanswered")]
            case NotPerformed(action=SendRegistration() as relayed):
                return self._unreachable(relayed.message)
            case Answered():
                return []
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Advertisements, pending registrations that nobody answered (code 78), visitors that expired."""
        actions: list[Action] = []
        for key in self._timers.due(now):
            actions += self._abandon(key) if isinstance(key, tuple) else self._expire(key)
        return actions + self._advertiser.timeout(busy=self._busy(), now=now)

    def deadline(self) -> float | None:
        """Wall-clock seconds of whatever comes first."""
        return min(
            (at for at in (self._timers.next(), self._advertiser.deadline()) if at is not None), default=None
        )

    def visitors(self) -> Collection[Visitor]:
        """The visitor list (R1), for people; preconfigured ones are `static_visitors`."""
        return self._visitors.values()

    def static_visitors(self) -> Collection[StaticVisitor]:
        """Home addresses bound in advance (R11)."""
        return self._static.values()

    # 601 -> 602 --------------------------------------------------------------------------------------------------

    def _request(self, message: bytes, source: Source, now: float) -> list[Action]:
        if not self._advertiser.serves(source.link):
            return [Count("request-elsewhere")]
        try:
            request = RegistrationRequest.decode(message)
        except WireError as error:
            return self._malformed(message, source, error)
        known = request.home_address in self._visitors
        if not known and len(self._visitors) >= self.configuration.max_visitors:
            return self._deny(request, source, len(message), Code.FA_INSUFFICIENT_RESOURCES)
        try:
            relayed = self._admission.check(request, self._advertiser.current_challenges(source.link))
        except Denied as denied:
            return self._deny(request, source, len(message), denied.code, lifetime=denied.lifetime)
        if not self._undisputed(request):
            return self._deny(request, source, len(message), Code.FA_ADMINISTRATIVELY_PROHIBITED)
        key = (request.home_address, mobile_nonce(request.identification))
        if key in self._pending and not _same_sender(self._pending[key].source, source):
            return [Count("request-repeated-by-another")]  # the answer is the first one's
        if not self._room(key):
            return self._deny(request, source, len(message), Code.FA_INSUFFICIENT_RESOURCES)
        forget_at = now + PENDING_TIMEOUT
        colocated = request.care_of_address not in (self.configuration.care_of_address, request.home_address)
        self._pending[key] = Pending(request, source, len(message), forget_at, colocated)
        self._timers.set(key, forget_at)
        association = self._home_agents.get(request.home_agent)
        if association is not None:
            relayed = signed(relayed, AuthKind.FA_HA, association)
        return [
            SendRegistration(relayed, request.home_agent, source=self.configuration.care_of_address),
            Emit(
                "sent",
                "602",
                request.home_address,
                None,
                {"to": str(request.home_agent), "lifetime": request.lifetime},
            ),
        ]

    def _undisputed(self, request: RegistrationRequest) -> bool:
        """Nobody else's home address: an agent that we cannot verify must not take over what another one answers for."""
        home_address = request.home_address
        visitor, static = self._visitors.get(home_address), self._static.get(home_address)
        ours = self.configuration.care_of_address
        if home_address in (ours, request.home_agent) or home_address in self._home_agents:
            return False
        agents = {each.home_agent for each in self._visitors.values()}
        if home_address in agents or any(home_address == each.home_agent for each in self._static.values()):
            return False
        if static is not None and static.home_agent != request.home_agent:
            return False
        if visitor is None or visitor.home_agent == request.home_agent:
            return True
        return request.home_agent in self._home_agents and visitor.home_agent not in self._home_agents

    def _room(self, key: PendingKey) -> bool:
        """Bounds: a few per visitor, as many in all as there may be visitors, so that a flood stays small."""
        if key in self._pending:
            return True
        if sum(1 for home_address, _ in self._pending if home_address == key[0]) >= MAX_PENDING_PER_VISITOR:
            oldest = next(each for each in self._pending if each[0] == key[0])
            self._drop_pending(oldest)
        return len(self._pending) < self.configuration.max_visitors

    def _malformed(self, message: bytes, source: Source, error: WireError) -> list[Action]:
        """Code 70 where the fixed part can be read; an unknown extension below 128 is silence (section 1.8)."""
        counted = Count(f"registration-{error.reason}")
        if error.reason == "unknown-extension":
            return [counted]
        try:
            request = RegistrationRequest.decode_fixed(message)
        except WireError:
            return [counted]
        return [counted, *self._deny(request, source, len(message), Code.FA_POORLY_FORMED_REQUEST)]

    def _deny(
        self, request: RegistrationRequest, source: Source, bound: int, code: Code, *, lifetime: int = 0
    ) -> list[Action]:
        """Section 3.7.2.3; never larger than the request."""
        reply = RegistrationReply(
            code=code,
            lifetime=lifetime,
            home_address=request.home_address,
            home_agent=request.home_agent,
            identification=request.identification,
        ).encode()
        association = self._mobiles.get(request.home_address)
        if association is not None:
            reply = signed(reply, AuthKind.MN_FA, association)
        if len(reply) > bound:
            return [Count(f"refused-{int(code)}"), Count("reply-larger-than-request")]
        return [Count(f"refused-{int(code)}"), Reply(source, reply)]

    # 603 -> 604 --------------------------------------------------------------------------------------------------

    def _reply(self, reply: RegistrationReply, message: bytes, source: Source, now: float) -> list[Action]:
        """Section 3.7.3. Home agents are not on access links: what says so there was made by a visitor."""
        if self._advertiser.serves(source.link):
            return [Count("reply-from-access-link")]
        key = (reply.home_address, mobile_nonce(reply.identification))
        pending = self._pending.get(key)
        if pending is None or source.address != pending.request.home_agent:
            return [Count("reply-unexpected")]
        association = self._home_agents.get(pending.request.home_agent)
        if association is not None and not authentic(reply, AuthKind.FA_HA, association):
            self._drop_pending(key)
            code = Code.FA_HOME_AGENT_FAILED_AUTHENTICATION
            return self._deny(pending.request, pending.source, pending.size, code)
        self._drop_pending(key)
        if not self._undisputed(pending.request):  # another one became the visitor meanwhile
            code = Code.FA_ADMINISTRATIVELY_PROHIBITED
            return self._deny(pending.request, pending.source, pending.size, code)
        relayed = self._relayed_reply(reply, message)
        actions: list[Action] = []
        if isinstance(reply.code, Code) and reply.code.accepted and not pending.colocated:
            actions += self._admit(reply, pending, now)
        actions.append(Reply(pending.source, relayed))
        detail: dict[str, JSON] = {
            "to": str(reply.home_address),
            "link": pending.source.link,
            "code": int(reply.code),
            "lifetime": reply.lifetime,
        }
        actions.append(Emit("sent", "604", reply.home_address, None, detail))
        if isinstance(reply.code, Code) and reply.code.accepted:
            responsible = min(reply.lifetime, pending.request.lifetime) > self.configuration.short_lifetime
            actions += self._notice(reply.home_address, reply.home_address, responsible)
        return actions

    def _relayed_reply(self, reply: RegistrationReply, message: bytes) -> bytes:
        """What the home agent said, unchanged, without what it said to us alone."""
        to_mobile = reply.authentication(AuthKind.MN_HA)
        to_us = reply.authentication(AuthKind.FA_HA)
        if to_mobile is not None:
            relayed = to_mobile.through
        elif to_us is not None:
            relayed = message[: len(to_us.covered) - AUTHENTICATION_HEAD]
        else:
            relayed = message
        association = self._mobiles.get(reply.home_address)
        return relayed if association is None else signed(relayed, AuthKind.MN_FA, association)

    def _admit(self, reply: RegistrationReply, pending: Pending, now: float) -> list[Action]:
        """The visitor list after an accepted registration; the data plane follows before the reply goes out."""
        request = pending.request
        granted = min(reply.lifetime, request.lifetime)
        if granted == 0 or request.care_of_address == request.home_address:
            return self._dismiss(request.home_address)
        before = self._wanted(request.home_address)
        visitor = Visitor(
            home_address=request.home_address,
            home_agent=request.home_agent,
            link=pending.source.link,
            link_layer=pending.source.link_layer,
            lifetime=granted,
            expires_at=now + granted,
            flags=int(request.flags),
            home_address_v6=next(
                (
                    each.prefix
                    for each in reply.all(Ipv6PrefixReply)
                    if each.accepted and each.prefix_length == 128
                ),
                None,
            ),
        )
        self._visitors[visitor.home_address] = visitor
        self._timers.set(visitor.home_address, visitor.expires_at)
        after = self._wanted(visitor.home_address)
        return [Persist(TABLE, str(visitor.home_address), visitor.to_row()), *changes(before, after)]

    # State -------------------------------------------------------------------------------------------------------

    def _dismiss(self, home_address: IPv4Address) -> list[Action]:
        if home_address not in self._visitors:
            return []
        before = self._wanted(home_address)
        del self._visitors[home_address]
        self._timers.cancel(home_address)
        return [Forget(TABLE, str(home_address)), *changes(before, self._wanted(home_address))]

    def _expire(self, home_address: IPv4Address) -> list[Action]:
        return [*self._dismiss(home_address), Emit("visitor-expired", None, home_address)]

    def _abandon(self, key: PendingKey) -> list[Action]:
        """Nobody answered (code 78, section 3.7.2.2)."""
        pending = self._pending.pop(key)
        code = Code.FA_REGISTRATION_TIMEOUT
        return self._deny(pending.request, pending.source, pending.size, code)

    def _unreachable(self, relayed: bytes) -> list[Action]:
        """The host has no way to that home agent (code 80)."""
        request = RegistrationRequest.decode_fixed(relayed)
        key = (request.home_address, mobile_nonce(request.identification))
        pending = self._pending.get(key)
        if pending is None:
            return []
        self._drop_pending(key)
        code = Code.FA_HOME_NETWORK_UNREACHABLE
        return self._deny(pending.request, pending.source, pending.size, code)

    def _drop_pending(self, key: PendingKey) -> None:
        del self._pending[key]
        self._timers.cancel(key)

    def _wanted(self, home_address: IPv4Address) -> Forwarding:
        visitor = self._visitors.get(home_address)
        if visitor is not None:
            return visitor_forwarding(visitor, self.configuration.care_of_address)
        static = self._static.get(home_address)
        return NOTHING if static is None else static_forwarding(static, self.configuration.care_of_address)

    def _busy(self) -> bool:
        """The B bit (section 2.1.1)."""
        return len(self._visitors) >= self.configuration.max_visitors

    def _notice(self, peer: IPv4Address, home_address: IPv4Address, responsible: bool) -> list[Action]:
        """618 and 618'' (C6), to nodes that share an association with this one."""
        if peer not in self.configuration.notified:
            return []
        body = encode_618(Notice618(home_address, responsible, self.configuration.care_of_address))
        number, self._next_request = self._next_request, self._next_request + 1
        detail: dict[str, JSON] = {"to": str(peer), "responsible": responsible}
        return [
            Ask(number, peer, "618", body, NOTICE_TIMEOUT),
            Emit("sent", "618", home_address, None, detail),
        ]


def _same_sender(first: Source, second: Source) -> bool:
    """Whether two messages came from one host on one link."""
    return (first.link, first.link_layer, first.address) == (second.link, second.link_layer, second.address)
