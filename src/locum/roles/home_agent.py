"""The home agent (RFC 5944 section 3.8; source text 532): who may register what, and where packets go.

Requests in, replies and differences of forwarding out. It must not know sockets, the store or the kernel, nor what
becomes of packets at the default care-of address.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.actions import (
    JSON,
    Action,
    Addr,
    Count,
    Emit,
    Event,
    LocalEndpoint,
    Persist,
    Randomness,
    Reply,
    Source,
)
from locum.roles.binding import (
    Binding,
    CareOf,
    Mobile,
    VisitorListEntry,
    in_force,
    wanted_forwarding,
)
from locum.roles.forwarding import NOTHING, changes
from locum.roles.signing import authentic, signed
from locum.roles.timers import Deadlines
from locum.security.association import Association, Replay
from locum.security.replay import (
    NonceWindow,
    TimestampWindow,
    Verdict,
    mismatch_identification,
    mobile_nonce,
    nonce_identification,
)
from locum.wire.errors import WireError
from locum.wire.extensions import AuthKind, Ipv6PrefixReply, Ipv6PrefixRequest, PrefixCode, VendorCritical
from locum.wire.registration import Code, Flag, RegistrationReply, RegistrationRequest

TABLE = "binding"
MAX_LIFETIME = 1800  # seconds granted at most; RFC 5944 leaves it to the home agent (section 3.8.2.2)
SHORT_LIFETIME = 10  # seconds; up to this a registration is "very short" (R2)
MAX_SIMULTANEOUS = 4  # section 3.8.3.1, code 135: what the data plane has room for


@dataclass(frozen=True, slots=True)
class HomeAgentConfiguration:
    """Times in seconds."""

    address: IPv4Address
    max_lifetime: int = MAX_LIFETIME
    short_lifetime: int = SHORT_LIFETIME
    max_simultaneous: int = MAX_SIMULTANEOUS
    reverse_tunnel_required: bool = True


class _Refusal(Exception):
    """A request that is answered with a code and changes nothing."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


class HomeAgent:
    """One home agent and all its bindings."""

    def __init__(
        self,
        configuration: HomeAgentConfiguration,
        mobiles: Iterable[Mobile],
        foreign_agents: Mapping[Addr, Association],
        randomness: Randomness,
    ) -> None:
        self.configuration = configuration
        self._mobiles = {each.home_address: each for each in mobiles}
        self._foreign_agents = dict(foreign_agents)
        self._randomness = randomness
        self._bindings: dict[IPv4Address, Binding] = {}
        self._expiries: Deadlines[IPv4Address] = Deadlines()

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; every home address with a default CoA is bound to it from the first moment (R2)."""
        actions: list[Action] = [LocalEndpoint(self.configuration.address)]
        for row in rows:
            if row.table != TABLE:
                continue
            try:
                binding = Binding.from_row(row.key, row.value)
            except (ValueError, KeyError, TypeError):
                actions.append(Count("unreadable-row"))
                continue
            if binding.home_address in self._mobiles:
                self._bindings[binding.home_address] = binding
        for home_address, mobile in self._mobiles.items():
            held = self._bindings.get(home_address, Binding(home_address))
            current = held.without_expired(now)
            self._keep(current)
            if current != held:
                actions.append(Persist(TABLE, str(home_address), current.to_row()))
            actions += changes(NOTHING, wanted_forwarding(current, mobile, self.configuration.address))
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration request (602, or 601 of a mobile node with a co-located care-of address)."""
        try:
            request = RegistrationRequest.decode(message)
        except WireError as error:
            return [Count(f"registration-{error.reason}")]
        mobile = self._mobiles.get(request.home_address)
        if mobile is None:
            return self._unsigned(request, Code.MOBILE_NODE_FAILED_AUTHENTICATION, source, len(message))
        if not authentic(request, AuthKind.MN_HA, mobile.association):
            return self._unsigned(request, Code.MOBILE_NODE_FAILED_AUTHENTICATION, source, len(message))
        held = self._binding(request.home_address).without_expired(now)
        if not self._fresh(request, held, mobile.association, now):
            return self._mismatch(request, held, mobile, source, len(message), now)
        try:
            accepted, granted, code = self._decide(request, held, mobile, source, now)
        except _Refusal as refusal:
            return self._refuse(request, held, mobile, refusal.code, source, len(message))
        return self._accept(request, accepted, mobile, granted, code, source)

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """The home agent waits for no result."""
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Expiry of care-of addresses: the default CoA takes over where there is one (R2)."""
        actions: list[Action] = []
        for home_address in self._expiries.due(now):
            held = self._binding(home_address)
            current = held.without_expired(now)
            lost: list[JSON] = [str(each.address) for each in held.care_of if each not in current.care_of]
            actions += self._change(current, self._mobiles[home_address])
            actions.append(self._event("expired", None, current, {"care_of": lost}))
        return actions

    def deadline(self) -> float | None:
        """Wall-clock seconds of the next expiry."""
        return self._expiries.next()

    def visitor_list(self, *, now: float) -> tuple[VisitorListEntry, ...]:
        """What is registered (R1), for people."""
        return tuple(self._line(mobile, now) for mobile in self._mobiles.values())

    # Decisions ---------------------------------------------------------------------------------------------------

    def _fresh(
        self, request: RegistrationRequest, held: Binding, association: Association, now: float
    ) -> bool:
        """Section 5.7."""
        if association.replay is Replay.NONCE:
            return NonceWindow().check(request.identification, held.nonce) is Verdict.OK
        return TimestampWindow().check(request.identification, now, held.identification) is Verdict.OK

    def _decide(
        self, request: RegistrationRequest, held: Binding, mobile: Mobile, source: Source, now: float
    ) -> tuple[Binding, int, Code]:
        """The binding after the request, the lifetime granted and the code; raises _Refusal (section 3.8.2.1)."""
        self._check_agent(request, source)
        if request.home_agent != self.configuration.address:
            raise _Refusal(Code.UNKNOWN_HOME_AGENT)
        if any(isinstance(each, VendorCritical) for each in request.protected(AuthKind.MN_HA)):
            raise _Refusal(Code.UNKNOWN_CRITICAL_FROM_MOBILE_NODE)
        if any(isinstance(each, VendorCritical) for each in request.extensions):
            raise _Refusal(Code.UNKNOWN_CRITICAL_FROM_FOREIGN_AGENT)
        if request.care_of_address == request.home_address:
            return held.keeping(()), 0, Code.ACCEPTED
        if request.lifetime == 0:
            rest = tuple(each for each in held.care_of if each.address != request.care_of_address)
            return held.keeping(rest), 0, Code.ACCEPTED
        self._check_care_of(request)
        granted = min(request.lifetime, self.configuration.max_lifetime)
        care_of = self._care_of(request, granted, source, now)
        others = tuple(each for each in held.care_of if each.address != care_of.address)
        kept = others if Flag.S in request.flags else ()
        if len(kept) >= self.configuration.max_simultaneous:
            raise _Refusal(Code.TOO_MANY_SIMULTANEOUS_BINDINGS)
        ipv6 = any(reply.accepted for reply in _prefix_replies(request, mobile))
        return replace(held, care_of=(*kept, care_of), ipv6=ipv6), granted, Code.ACCEPTED

    def _check_agent(self, request: RegistrationRequest, source: Source) -> None:
        """Section 3.8.2.1: with an association, the foreign agent must authenticate itself."""
        association = self._foreign_agents.get(source.address)
        if association is not None and not authentic(request, AuthKind.FA_HA, association):
            raise _Refusal(Code.FOREIGN_AGENT_FAILED_AUTHENTICATION)

    def _check_care_of(self, request: RegistrationRequest) -> None:
        care_of = request.care_of_address
        unusable = (
            care_of.is_multicast or care_of.is_unspecified or care_of.is_loopback or care_of.is_reserved
        )
        if unusable or care_of == self.configuration.address:
            raise _Refusal(Code.POORLY_FORMED_REQUEST)
        if care_of in self._mobiles:
            raise _Refusal(Code.ADMINISTRATIVELY_PROHIBITED)  # a tunnel into another home address would loop
        if Flag.M in request.flags:
            raise _Refusal(Code.REQUESTED_ENCAPSULATION_UNAVAILABLE)
        if self.configuration.reverse_tunnel_required and Flag.T not in request.flags:
            raise _Refusal(Code.REVERSE_TUNNEL_MANDATORY)

    def _care_of(self, request: RegistrationRequest, granted: int, source: Source, now: float) -> CareOf:
        return CareOf(
            address=request.care_of_address,
            lifetime=granted,
            expires_at=now + granted,
            flags=int(request.flags),
            agent=source.address,
            brief=granted <= self.configuration.short_lifetime,
            gre=Flag.G in request.flags,
        )

    # Answers -----------------------------------------------------------------------------------------------------

    def _accept(
        self,
        request: RegistrationRequest,
        accepted: Binding,
        mobile: Mobile,
        granted: int,
        code: Code,
        source: Source,
    ) -> list[Action]:
        if mobile.association.replay is Replay.NONCE:
            accepted = replace(accepted, nonce=self._new_nonce(accepted.nonce))
            identification = nonce_identification(accepted.nonce or 0, mobile_nonce(request.identification))
        else:
            accepted = replace(accepted, identification=request.identification)
            identification = request.identification
        reply = RegistrationReply(
            code=code,
            lifetime=granted,
            home_address=request.home_address,
            home_agent=self.configuration.address,
            identification=identification,
            extensions=_prefix_replies(request, mobile),
        )
        detail: dict[str, JSON] = {
            "to": str(source.address),
            "code": int(code),
            "lifetime": granted,
            "care_of": [str(each.address) for each in accepted.care_of],
            "in_force": [str(each) for each in in_force(accepted, mobile)],
        }
        return [
            *self._change(accepted, mobile),
            Reply(source, self._sign(reply, mobile.association, source)),
            Emit("sent", "603", request.home_address, None, detail),
        ]

    def _mismatch(
        self,
        request: RegistrationRequest,
        held: Binding,
        mobile: Mobile,
        source: Source,
        bound: int,
        now: float,
    ) -> list[Action]:
        """Code 133 with what the mobile node needs to come into step again; a replay learns no more than that."""
        actions: list[Action] = []
        if mobile.association.replay is Replay.TIMESTAMP:
            identification = mismatch_identification(request.identification, now)
        else:
            if held.nonce is None:
                held = replace(held, nonce=self._new_nonce(None))
                actions += self._change(held, mobile)
            identification = nonce_identification(held.nonce or 0, mobile_nonce(request.identification))
        code = Code.IDENTIFICATION_MISMATCH
        return actions + self._refuse(
            request, held, mobile, code, source, bound, identification=identification
        )

    def _refuse(
        self,
        request: RegistrationRequest,
        held: Binding,
        mobile: Mobile,
        code: Code,
        source: Source,
        bound: int,
        *,
        identification: int | None = None,
    ) -> list[Action]:
        """A signed refusal. Under nonces it carries the nonce that is expected already."""
        if identification is None and mobile.association.replay is Replay.NONCE:
            identification = nonce_identification(held.nonce or 0, mobile_nonce(request.identification))
        reply = self._refusal(request, code, identification)
        message = self._sign(reply, mobile.association, source)
        return [Count(f"refused-{int(code)}"), *_bounded(Reply(source, message), bound)]

    def _unsigned(self, request: RegistrationRequest, code: Code, source: Source, bound: int) -> list[Action]:
        """A refusal to somebody who has not shown who he is: shorter than the request, and not signed for him."""
        message = self._refusal(request, code, None).encode()
        return [Count(f"refused-{int(code)}"), *_bounded(Reply(source, message), bound)]

    def _refusal(
        self, request: RegistrationRequest, code: Code, identification: int | None
    ) -> RegistrationReply:
        return RegistrationReply(
            code=code,
            lifetime=0,
            home_address=request.home_address,
            home_agent=self.configuration.address,
            identification=request.identification if identification is None else identification,
        )

    def _sign(self, reply: RegistrationReply, association: Association, source: Source) -> bytes:
        message = signed(reply.encode(), AuthKind.MN_HA, association)
        agent = self._foreign_agents.get(source.address)
        return message if agent is None else signed(message, AuthKind.FA_HA, agent)

    def _new_nonce(self, last: int | None) -> int:
        """32 random bits that are not those of the last reply."""
        nonce = self._randomness.getrandbits(32)
        return nonce ^ 1 if nonce == last else nonce

    # State -------------------------------------------------------------------------------------------------------

    def _binding(self, home_address: IPv4Address) -> Binding:
        return self._bindings.get(home_address) or Binding(home_address)

    def _keep(self, binding: Binding) -> None:
        self._bindings[binding.home_address] = binding
        expiry = binding.next_expiry()
        if expiry is None:
            self._expiries.cancel(binding.home_address)
        else:
            self._expiries.set(binding.home_address, expiry)

    def _change(self, after: Binding, mobile: Mobile) -> list[Action]:
        """Keep, persist, and let the data plane follow."""
        before = self._binding(after.home_address)
        self._keep(after)
        persist = Persist(TABLE, str(after.home_address), after.to_row())
        if before.shape == after.shape:
            return [persist]
        home_agent = self.configuration.address
        wanted = wanted_forwarding(after, mobile, home_agent)
        return [persist, *changes(wanted_forwarding(before, mobile, home_agent), wanted)]

    def _event(self, kind: str, number: str | None, binding: Binding, detail: Mapping[str, JSON]) -> Emit:
        force = [str(each) for each in in_force(binding, self._mobiles[binding.home_address])]
        return Emit(kind, number, binding.home_address, None, {**detail, "in_force": force})

    def _line(self, mobile: Mobile, now: float) -> VisitorListEntry:
        binding = self._binding(mobile.home_address).without_expired(now)
        return VisitorListEntry(
            home_address=mobile.home_address,
            home_agent=self.configuration.address,
            home_address_v6=mobile.home_address_v6,
            care_of=binding.care_of,
            default_care_of=mobile.default_care_of,
            in_force=in_force(binding, mobile),
            spi=mobile.association.spi,
            ipv6=binding.ipv6,
        )


def _prefix_replies(request: RegistrationRequest, mobile: Mobile) -> tuple[Ipv6PrefixReply, ...]:
    """RFC 5454 section 3.2: the IPv6 home address follows the binding if it is this mobile node's."""
    replies: list[Ipv6PrefixReply] = []
    for each in request.protected(AuthKind.MN_HA):
        if not isinstance(each, Ipv6PrefixRequest):
            continue
        ours = each.prefix_length == 128 and each.prefix == mobile.home_address_v6
        code = PrefixCode.TUNNELED_TO_CARE_OF_ADDRESS if ours else PrefixCode.ADMINISTRATIVELY_PROHIBITED
        replies.append(Ipv6PrefixReply(code, each.prefix, each.prefix_length))
    return tuple(replies)


def _bounded(reply: Reply, bound: int) -> list[Action]:
    """A refusal is never larger than what caused it: nobody is worth more as a reflector than as a sender."""
    if len(reply.message) > bound:
        return [Count("reply-larger-than-request")]
    return [reply]
