"""The relay of registrations by a foreign agent, 601-602 and 603-604 (RFC 5944 section 3.7; source text 507).

It knows pending requests and refusals; the visitor list has the visitors and their forwarding. It must not know the keys between a mobile node and its home agent.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.registration import (
    NO_OPTIONS,
    Options,
    Registration,
    RevocationSupport,
    UdpTunnelAnswer,
)
from locum.roles.action_values.sessions import NotPerformed
from locum.roles.actions import Action, Count, Emit, Event, RegistrationUnreachable, Reply, SendRegistration
from locum.roles.foreign_agent.admission import Admission, Denied
from locum.roles.foreign_agent.under_way import PendingKey, Sender, UnderWay, Who
from locum.roles.foreign_agent.visitor_keys import VisitorKeys
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.mobile_ipv4.agent_keys import asks_for_key, given_key, proof_for_agent
from locum.roles.mobile_ipv4.agent_options import read_agent_options, write_agent_options
from locum.roles.mobile_ipv4.requests import registration
from locum.roles.mobile_ipv4.signing import authentic, signed
from locum.roles.mobile_ipv4.transfer_instructions import Instruction, instruction
from locum.roles.mobile_ipv4.unreachable import refusal_code
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.security.association import Association
from locum.security.replay import mobile_nonce
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import AuthKind, Ipv6PrefixReply, Nai, VendorCritical, VendorNormal
from locum.wire.mobile_ip.registration import (
    REGISTRATION_REQUEST,
    REQUEST_BYTES,
    Code,
    RegistrationReply,
    RegistrationRequest,
)
from locum.wire.mobile_ip.vendor import MnpsRole, decode_vendor

PENDING_TIMEOUT = 7.0  # seconds; RFC 5944 section 3.7.2.2
MAX_PENDING_PER_VISITOR = 4  # retransmissions within PENDING_TIMEOUT (section 3.6.3: at 1, 2, 4 s)
SENDERS_AT_ONCE = 8  # one link-layer address has no more than this part of the places of requests under way
AUTHENTICATION_HEAD = 6  # bytes of type, length and SPI (section 3.5.1)

# Actions before a registration goes to a home agent with an association
Herald = Callable[[Registration, Instruction | None, float], list[Action]]
Addition = Callable[[Options, Registration, float], Options]  # adds options for the home agent alone


@dataclass(frozen=True, slots=True)
class Pending:
    """A request on its way to the home agent (RFC 5944 section 3.7.2.2)."""

    request: RegistrationRequest
    source: Source
    size: int  # bytes of the request as it came
    forget_at: float  # steady seconds
    colocated: bool  # relayed only (R bit of the advertisement): no visitor follows
    agent_spi: int | None = None  # of messages to us, under the key that the request asks for (RFC 3957)
    doubt: Code = Code.FA_REGISTRATION_TIMEOUT  # sent without an answer

    @property
    def sender(self) -> Sender:
        """The link and the link-layer address that it came from."""
        return self.source.link, self.source.link_layer

    @property
    def brings_visitor(self) -> bool:
        """True if an acceptance makes the mobile node a visitor."""
        return not self.colocated and self.request.lifetime > 0


@dataclass(frozen=True, slots=True)
class Concluded:
    """The home agent has answered: `message` is its reply as it goes on to the mobile node."""

    pending: Pending
    reply: RegistrationReply
    message: bytes
    learnt: tuple[Action, ...] = ()  # a key with the mobile node is kept

    @property
    def accepted(self) -> bool:
        """True if the home agent accepted."""
        return isinstance(self.reply.code, Code) and self.reply.code.accepted

    @property
    def code(self) -> int:
        """Number of the answer, as events show it."""
        return int(self.reply.code)

    @property
    def lifetime(self) -> int:
        """The shorter lifetime of device and home agent, in seconds; 0 if the registration was withdrawn."""
        request = self.pending.request
        if request.care_of_address == request.home_address:
            return 0
        return min(self.reply.lifetime, request.lifetime)

    @property
    def home_address_v6(self) -> IPv6Address | None:
        """The IPv6 home address, if the home agent has bound it."""
        found = (reply for reply in self.reply.all(Ipv6PrefixReply) if reply.accepted)
        return next((reply.prefix for reply in found if reply.prefix_length == 128), None)

    @property
    def for_agent(self) -> tuple[UdpTunnelAnswer | None, RevocationSupport | None]:
        """The home agent's extensions for us alone."""
        return read_agent_options(self.reply)

    @property
    def stand_in(self) -> Addr | None:
        """Interface address of the stand-in that registered; None: the device itself did."""
        return stand_in_of(self.pending.request)

    @property
    def instruction(self) -> Instruction | None:
        """Instruction for the context (C4)."""
        return instruction(self.pending.request, self.reply)


class RegistrationRelay(Part):
    """Pending requests, bounded in number; `home_agents` and `mobiles` are associations by address."""

    def __init__(
        self,
        care_of_address: IPv4Address,
        visitors: VisitorList,
        admission: Admission,
        home_agents: Mapping[Addr, Association],
        mobiles: Mapping[Addr, Association],
        keys: VisitorKeys,
    ) -> None:
        self._care_of_address = care_of_address
        self._visitors = visitors
        self._admission = admission
        self._home_agents = home_agents
        self._mobiles = mobiles
        self._keys = keys
        self.additions: list[Addition] = []
        self.heralds: list[Herald] = []
        self._pending: UnderWay[Pending] = UnderWay()
        self._timers: Deadlines[PendingKey] = Deadlines()

    def deadline(self) -> float | None:
        """Steady seconds at which the next request is given up."""
        return self._timers.next()

    def timeout(self, *, now: float) -> list[Action]:
        """Code 78 for unanswered requests (section 3.7.2.2), or the reason that ICMP gave meanwhile."""
        actions: list[Action] = []
        for key in self._timers.due(now):
            pending = self._pending.pop(key)
            actions += self._refuse(pending, pending.doubt)
        return actions

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """A relayed request could not be sent or delivered."""
        match event:
            case NotPerformed(action=SendRegistration() as relayed):
                return self._unreachable(relayed.message)
            case RegistrationUnreachable():
                return self._icmp_error(event)
        return None

    # 601 -> 602 -------------------------------------------------------------------------------------------------

    def request(
        self, message: bytes, source: Source, challenges: Sequence[bytes], *, now: float
    ) -> list[Action]:
        """601 -> 602. `challenges` are those advertised last on the link the request came by."""
        try:
            request = self._admission.assigned(RegistrationRequest.decode(message))
        except WireError as error:
            return self._malformed(message, source, error)
        if not self._has_place(request):
            return self._deny(request, source, len(message), Code.FA_INSUFFICIENT_RESOURCES)
        colocated = request.care_of_address not in (self._care_of_address, request.home_address)
        if not colocated and not self._proved(request):
            code = Code.FA_MOBILE_NODE_FAILED_AUTHENTICATION
            return self._deny(request, source, len(message), code)
        try:
            relayed = self._admission.check(request, challenges)
        except Denied as denied:
            return self._deny(request, source, len(message), denied.code, lifetime=denied.lifetime)
        visitor = self._visitors.get(request.home_address)
        if visitor is not None and (visitor.next_hop is None) != (stand_in_of(request) is None):
            # A device and its stand-in under one care-of address: their packets could not be told apart.
            return self._deny(request, source, len(message), Code.FA_ADMINISTRATIVELY_PROHIBITED)
        if not self._visitors.undisputed(request.home_address, request.home_agent):
            return self._deny(request, source, len(message), Code.FA_ADMINISTRATIVELY_PROHIBITED)
        key = _pending_key(request)
        if key in self._pending and not _same_sender(self._pending[key].source, source):
            return [Count("request-repeated-by-another")]  # the answer is the first one's
        if not self._room(key, source):
            return self._deny(request, source, len(message), Code.FA_INSUFFICIENT_RESOURCES)
        forget_at = now + PENDING_TIMEOUT
        association = self._home_agents.get(request.home_agent)
        asked = registration(request)
        added = NO_OPTIONS if colocated else self._added(asked, now)
        relayed += write_agent_options(added)
        self._pending[key] = Pending(
            request, source, len(message), forget_at, colocated, agent_spi=added.agent_spi
        )
        self._timers.set(key, forget_at)
        heralded: list[Action] = []
        if association is not None:
            relayed = signed(relayed, AuthKind.FA_HA, association)
            for herald in self.heralds if not colocated else ():
                heralded += herald(asked, instruction(request), now)
        return [
            *heralded,
            SendRegistration(relayed, request.home_agent, source=self._care_of_address),
            Emit(
                "sent",
                "602",
                request.home_address,
                None,
                {"to": str(request.home_agent), "lifetime": request.lifetime},
            ),
        ]

    def _has_place(self, request: RegistrationRequest) -> bool:
        """True if it may become a visitor: every other one with an answer under way may take a place."""
        who, _ = _pending_key(request)
        coming = self._pending.coming(who, self._visitors.home_addresses)
        return self._visitors.has_room(request.home_address, coming)

    def _added(self, asked: Registration, now: float) -> Options:
        options = NO_OPTIONS
        for addition in self.additions:
            options = addition(options, asked, now)
        return options

    def _proved(self, request: RegistrationRequest) -> bool:
        """True unless a derived key with the mobile node is there, or required, and the request does not prove it."""
        if request.to_home is None or request.home_address in self._mobiles or stand_in_of(request):
            return True  # the other checks judge these
        home_address, asks = request.home_address, asks_for_key(request)
        return self._keys.admits(home_address, proof_for_agent(request), asks=asks)

    def _to_mobile(self, request: RegistrationRequest) -> Association | None:
        """The association with the mobile node under which it expects our answers, whoever has made them."""
        configured = self._mobiles.get(request.home_address)
        if configured is not None or stand_in_of(request):
            return configured
        return None if asks_for_key(request) else self._keys.get(request.home_address)

    def _room(self, key: PendingKey, source: Source) -> bool:
        """Bounds: a few per visitor, a share per sender, as many in all as there may be visitors.

        A flood stays small, and leaves room for others even if it invents home addresses.
        """
        if key in self._pending:
            return True
        own = self._pending.of(key[0])
        if len(own) >= MAX_PENDING_PER_VISITOR:
            self._drop_pending(own[0])
        of_sender = self._pending.of_sender((source.link, source.link_layer))
        share = max(MAX_PENDING_PER_VISITOR, self._visitors.most // SENDERS_AT_ONCE)
        return of_sender < share and len(self._pending) < self._visitors.most

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
            extensions=() if request.mobile_nai is None else (Nai(request.mobile_nai),),
        ).encode()
        association = self._to_mobile(request)
        if association is not None:
            reply = signed(reply, AuthKind.MN_FA, association)
        if len(reply) > bound:
            return [Count(f"refused-{int(code)}"), Count("reply-larger-than-request")]
        return [Count(f"refused-{int(code)}"), Reply(source, reply)]

    # 603 -> 604 -------------------------------------------------------------------------------------------------

    def reply(self, message: bytes, source: Source, *, now: float) -> Concluded | list[Action]:
        """Handle 603 (section 3.7.3): the concluded request, or the actions about an unmatched one."""
        try:
            reply = RegistrationReply.decode(message)
        except WireError as error:
            return self._malformed_reply(message, source, error)
        key = self._answered(reply, source)
        if key is None:
            return [Count("reply-unexpected")]
        pending = self._pending[key]
        self._drop_pending(key)
        association = self._home_agents.get(pending.request.home_agent)
        if association is not None and not authentic(reply, AuthKind.FA_HA, association):
            return self._refuse(pending, Code.FA_HOME_AGENT_FAILED_AUTHENTICATION)
        missing = _missing(pending.request, reply)
        if missing is not None:
            return self._refuse(pending, missing)
        pending = _assigned(pending, reply)
        if not self._visitors.undisputed(pending.request.home_address, pending.request.home_agent):
            # another one became the visitor meanwhile
            return self._refuse(pending, Code.FA_ADMINISTRATIVELY_PROHIBITED)
        given, home_agent = given_key(pending.request, reply), pending.request.home_agent
        learnt: list[Action] = []
        try:
            if given is not None:
                learnt = self._keys.learn(reply.home_address, home_agent, given, pending.agent_spi, now)
        except ValueError:
            return self._refuse(pending, Code.FA_POORLY_FORMED_REPLY)
        if reply.accepted and reply.lifetime and self._keyless(pending):
            return self._refuse(pending, Code.FA_MISSING_KEY_GENERATION_NONCE)
        association = self._keys.get(reply.home_address) if learnt else self._to_mobile(pending.request)
        return Concluded(pending, reply, self._relayed_reply(reply, message, association), tuple(learnt))

    def _keyless(self, pending: Pending) -> bool:
        """True if a key with this mobile node is required, and nothing has brought one."""
        request = pending.request
        if pending.colocated or request.home_address in self._mobiles or stand_in_of(request):
            return False
        return self._keys.lacks(request.home_address)

    def _answered(self, reply: RegistrationReply, source: Source) -> PendingKey | None:
        """The pending request that this reply answers, by home address and identification, or by NAI.

        The NAI counts where the request had no home address (RFC 2794 section 3). A reply without an NAI answers
        such a request of its identification.
        """
        nonce, nai = mobile_nonce(reply.identification), reply.find(Nai)
        keys: list[PendingKey] = [(reply.home_address, nonce)]
        if nai is not None:
            keys.append((nai.identifier, nonce))
        else:
            keys += [other for other in self._pending if other[1] == nonce and isinstance(other[0], str)]
        for key in keys:
            pending = self._pending.get(key)
            if pending is not None and source.address == pending.request.home_agent:
                return key
        return None

    def _malformed_reply(self, message: bytes, source: Source, error: WireError) -> list[Action]:
        """Code 71 to the device that an unreadable reply concerns.

        It is matched as a reply is, by sender, home address and the 32 bits that the mobile node drew: a host that can forge it
        could as well forge one that can be read, and have the request refused with code 68, or accepted where the home
        agent has no association. So it is believed as much. An unknown extension below 128 makes the whole message
        silence (section 1.8), and the request goes on waiting.
        """
        counted = Count(f"registration-{error.reason}")
        if error.reason == "unknown-extension":
            return [counted]
        try:
            key = self._answered(RegistrationReply.decode_fixed(message), source)
        except WireError:
            return [counted]
        if key is None:
            return [counted]
        return [counted, *self._give_up(key, Code.FA_POORLY_FORMED_REPLY)]

    def _relayed_reply(
        self, reply: RegistrationReply, message: bytes, association: Association | None
    ) -> bytes:
        """The home agent's reply, unchanged, without the extensions for us alone."""
        to_mobile = reply.authentication(AuthKind.MN_HA)
        to_us = reply.authentication(AuthKind.FA_HA)
        if to_mobile is not None:
            relayed = to_mobile.through
        elif to_us is not None:
            relayed = message[: len(to_us.covered) - AUTHENTICATION_HEAD]
        else:
            relayed = message
        return relayed if association is None else signed(relayed, AuthKind.MN_FA, association)

    def _unreachable(self, relayed: bytes) -> list[Action]:
        """The host has no route to that home agent (code 80). Other messages are repeated anyway."""
        if relayed[:1] != bytes((REGISTRATION_REQUEST,)):
            return []
        key = _pending_key(RegistrationRequest.decode(relayed))
        return [] if key not in self._pending else self._give_up(key, Code.FA_HOME_NETWORK_UNREACHABLE)

    def _icmp_error(self, event: RegistrationUnreachable) -> list[Action]:
        """Codes 80, 81, 82 and 88: a relayed request could not be delivered.

        Any host can send an ICMP error about port 434 of a home agent. One that repeats the whole identification of a
        pending request is by a host that saw it, and ends it. Without that it only sets the code
        sent in place of code 78 without an answer.
        """
        code = refusal_code(event.icmp_type, event.icmp_code)
        if code is None:
            return []
        if len(event.quoted) < REQUEST_BYTES:
            for key, pending in self._pending.items():
                if pending.request.home_agent == event.to:
                    self._pending[key] = replace(pending, doubt=code)
            return [Count("unreachable-unidentified")]
        try:
            quoted = RegistrationRequest.decode_fixed(event.quoted)
        except WireError:
            return [Count("unreachable-unexpected")]
        for key in self._quoted(quoted):
            pending = self._pending[key]
            same = pending.request.identification == quoted.identification
            if same and pending.request.home_agent == event.to:
                return self._give_up(key, code)
        return [Count("unreachable-unexpected")]

    def _quoted(self, request: RegistrationRequest) -> list[PendingKey]:
        """Place of a pending request, of which only the fixed part is known."""
        nonce = mobile_nonce(request.identification)
        if request.home_address.is_unspecified:
            return [other for other in self._pending if other[1] == nonce and isinstance(other[0], str)]
        key: PendingKey = (request.home_address, nonce)
        return [key] if key in self._pending else []

    def _give_up(self, key: PendingKey, code: Code) -> list[Action]:
        pending = self._pending[key]
        self._drop_pending(key)
        return self._refuse(pending, code)

    def _refuse(self, pending: Pending, code: Code) -> list[Action]:
        return self._deny(pending.request, pending.source, pending.size, code)

    def _drop_pending(self, key: PendingKey) -> None:
        del self._pending[key]
        self._timers.cancel(key)


def _pending_key(request: RegistrationRequest) -> PendingKey:
    """A mobile node without a home address is known by its NAI until the reply (RFC 2794 section 3)."""
    who: Who = request.home_address
    if request.home_address.is_unspecified and request.mobile_nai is not None:
        who = request.mobile_nai
    return who, mobile_nonce(request.identification)


def _missing(request: RegistrationRequest, reply: RegistrationReply) -> Code | None:
    """Indispensable part of a reply that is missing, or one that is unknown; None: the reply is complete.

    A critical vendor extension may stand anywhere: a relaying agent refuses in the receiver's place (RFC 3115 section 4).
    """
    if any(isinstance(extension, VendorCritical) for extension in reply.extensions):
        return Code.FA_UNKNOWN_CRITICAL_FROM_HOME_AGENT
    if not reply.accepted:
        return None
    if reply.home_agent.is_unspecified:
        return Code.FA_MISSING_HOME_AGENT
    if not request.home_address.is_unspecified:
        return None
    if reply.home_address.is_unspecified:
        return Code.FA_MISSING_HOME_ADDRESS
    return None if reply.find(Nai) is not None else Code.FA_MISSING_NAI


def _assigned(pending: Pending, reply: RegistrationReply) -> Pending:
    """The request as if it had been made with the home address that the reply assigns."""
    if not pending.request.home_address.is_unspecified:
        return pending
    return replace(pending, request=replace(pending.request, home_address=reply.home_address))


def _same_sender(first: Source, second: Source) -> bool:
    """True if two messages came from one host on one link."""
    return (first.link, first.link_layer, first.address) == (second.link, second.link_layer, second.address)


def stand_in_of(request: RegistrationRequest) -> Addr | None:
    """The interface address of the stand-in that made the request (R4); None: the device itself did."""
    for extension in request.all(VendorNormal):
        with suppress(WireError):
            if isinstance(role := decode_vendor(extension), MnpsRole):
                return role.interface_address
    return None
