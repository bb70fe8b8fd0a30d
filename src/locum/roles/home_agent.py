"""The home agent (RFC 5944 section 3.8; source text 532): who may register what, and where packets go.

Requests in, replies and differences of forwarding out. It must not know sockets, the store or the kernel, nor what
becomes of packets at the default care-of address.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    forwarding_changes,
    in_force,
    text,
)
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
_TIMESTAMPS = TimestampWindow()
_NONCES = NonceWindow()
_S, _M, _G, _T = int(Flag.S), int(Flag.M), int(Flag.G), int(Flag.T)


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


class _Served:
    """A mobile node that the home agent serves, and its binding. Found once for a message; a key by what it is."""

    __slots__ = ("binding", "key", "mobile")

    def __init__(self, mobile: Mobile) -> None:
        self.mobile = mobile
        self.key = str(mobile.home_address)  # of its row
        self.binding = Binding(mobile.home_address)


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
        self._served = {each.home_address: _Served(each) for each in mobiles}
        self._foreign_agents = dict(foreign_agents)
        self._randomness = randomness
        self._expiries: Deadlines[_Served] = Deadlines()

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
            if (found := self._served.get(binding.home_address)) is not None:
                found.binding = binding
        for served in self._served.values():
            held = served.binding
            current = held.without_expired(now)
            self._keep(served, current)
            if current != held:
                actions.append(Persist(TABLE, served.key, current.to_row()))
            actions += forwarding_changes(None, current, served.mobile, self.configuration.address)
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration request (602, or 601 of a mobile node with a co-located care-of address)."""
        try:
            request = RegistrationRequest.decode(message)
        except WireError as error:
            return [Count(f"registration-{error.reason}")]
        served = self._served.get(request.home_address)
        if served is None or not authentic(request, AuthKind.MN_HA, served.mobile.association):
            return self._unsigned(request, Code.MOBILE_NODE_FAILED_AUTHENTICATION, source, len(message))
        held = served.binding.without_expired(now)
        if not self._fresh(request, held, served.mobile.association, now):
            return self._mismatch(request, held, served, source, len(message), now)
        try:
            return self._accept(request, held, served, source, now)
        except _Refusal as refusal:
            return self._refuse(request, held, served.mobile, refusal.code, source, len(message))

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """The home agent waits for no result."""
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Expiry of care-of addresses: the default CoA takes over where there is one (R2)."""
        actions: list[Action] = []
        for served in self._expiries.due(now):
            held = served.binding
            current = held.without_expired(now)
            lost: list[JSON] = [str(each.address) for each in held.care_of if each not in current.care_of]
            actions += self._change(served, current)
            detail: dict[str, JSON] = {
                "care_of": lost,
                "in_force": [str(each) for each in in_force(current, served.mobile)],
            }
            actions.append(Emit("expired", None, current.home_address, None, detail))
        return actions

    def deadline(self) -> float | None:
        """Wall-clock seconds of the next expiry."""
        return self._expiries.next()

    def visitor_list(self, *, now: float) -> tuple[VisitorListEntry, ...]:
        """What is registered (R1), for people."""
        return tuple(self._line(served, now) for served in self._served.values())

    # Decisions ---------------------------------------------------------------------------------------------------

    def _fresh(
        self, request: RegistrationRequest, held: Binding, association: Association, now: float
    ) -> bool:
        """Section 5.7."""
        if association.replay is Replay.NONCE:
            return _NONCES.check(request.identification, held.nonce) is Verdict.OK
        return _TIMESTAMPS.check(request.identification, now, held.identification) is Verdict.OK

    def _decide(
        self, request: RegistrationRequest, held: Binding, ipv6: bool, source: Source, now: float
    ) -> tuple[tuple[CareOf, ...], bool, int]:
        """The care-of addresses after the request, whether IPv6 follows them, and the lifetime granted.

        `ipv6`: the request asks for it, and may. Raises _Refusal (section 3.8.2.1).
        """
        self._check_agent(request, source)
        if request.home_agent != self.configuration.address:
            raise _Refusal(Code.UNKNOWN_HOME_AGENT)
        if len(request.extensions) > 1:  # the first that there must be is the authentication
            _check_critical(request)
        if request.lifetime == 0 or request.care_of_address == request.home_address:
            rest: tuple[CareOf, ...] = ()
            if request.care_of_address != request.home_address:
                rest = tuple(each for each in held.care_of if each.address != request.care_of_address)
            left = held.keeping(rest)
            return left.care_of, left.ipv6, 0
        flags = int(request.flags)
        self._check_care_of(request.care_of_address, flags)
        granted = min(request.lifetime, self.configuration.max_lifetime)
        care_of = CareOf(
            request.care_of_address,
            granted,
            now + granted,
            flags,
            source.address,
            granted <= self.configuration.short_lifetime,
            bool(flags & _G),
        )
        if not flags & _S:
            return (care_of,), ipv6, granted
        kept = tuple(each for each in held.care_of if each.address != care_of.address)
        if len(kept) >= self.configuration.max_simultaneous:
            raise _Refusal(Code.TOO_MANY_SIMULTANEOUS_BINDINGS)
        return (*kept, care_of), ipv6, granted

    def _agent(self, source: Source) -> Association | None:
        """The association with the foreign agent that sent this, if there is one."""
        return self._foreign_agents.get(source.address) if self._foreign_agents else None

    def _check_agent(self, request: RegistrationRequest, source: Source) -> None:
        """Section 3.8.2.1: with an association, the foreign agent must authenticate itself."""
        association = self._agent(source)
        if association is not None and not authentic(request, AuthKind.FA_HA, association):
            raise _Refusal(Code.FOREIGN_AGENT_FAILED_AUTHENTICATION)

    def _check_care_of(self, care_of: IPv4Address, flags: int) -> None:
        if _unusable(care_of) or care_of == self.configuration.address:
            raise _Refusal(Code.POORLY_FORMED_REQUEST)
        if care_of in self._served:
            raise _Refusal(Code.ADMINISTRATIVELY_PROHIBITED)  # a tunnel into another home address would loop
        if flags & _M:
            raise _Refusal(Code.REQUESTED_ENCAPSULATION_UNAVAILABLE)
        if self.configuration.reverse_tunnel_required and not flags & _T:
            raise _Refusal(Code.REVERSE_TUNNEL_MANDATORY)

    # Answers -----------------------------------------------------------------------------------------------------

    def _accept(
        self, request: RegistrationRequest, held: Binding, served: _Served, source: Source, now: float
    ) -> list[Action]:
        """Raises _Refusal."""
        mobile = served.mobile
        replies = _prefix_replies(request, mobile) if len(request.extensions) > 1 else ()
        asked = any(reply.accepted for reply in replies) if replies else False
        care_of, ipv6, granted = self._decide(request, held, asked, source, now)
        identification, nonce = request.identification, held.nonce
        if mobile.association.replay is Replay.NONCE:
            nonce = self._new_nonce(nonce)
            identification = nonce_identification(nonce, mobile_nonce(identification))
            accepted = Binding(held.home_address, care_of, held.identification, nonce, ipv6)
        else:
            accepted = Binding(held.home_address, care_of, identification, nonce, ipv6)
        reply = RegistrationReply(
            Code.ACCEPTED,
            granted,
            request.home_address,
            self.configuration.address,
            identification,
            replies,
        )
        detail: dict[str, JSON] = {
            "to": text(source.address),
            "code": 0,
            "lifetime": granted,
            "care_of": [text(each.address) for each in care_of],
            "in_force": [text(each) for each in in_force(accepted, mobile)],
        }
        actions = self._change(served, accepted)
        actions.append(Reply(source, self._sign(reply, mobile.association, source)))
        actions.append(Emit("sent", "603", request.home_address, None, detail))
        return actions

    def _mismatch(
        self,
        request: RegistrationRequest,
        held: Binding,
        served: _Served,
        source: Source,
        bound: int,
        now: float,
    ) -> list[Action]:
        """Code 133 with what the mobile node needs to come into step again; a replay learns no more than that."""
        actions: list[Action] = []
        mobile = served.mobile
        if mobile.association.replay is Replay.TIMESTAMP:
            identification = mismatch_identification(request.identification, now)
        else:
            if held.nonce is None:
                nonce = self._new_nonce(None)
                held = Binding(held.home_address, held.care_of, held.identification, nonce, held.ipv6)
                actions += self._change(served, held)
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
        agent = self._agent(source)
        return message if agent is None else signed(message, AuthKind.FA_HA, agent)

    def _new_nonce(self, last: int | None) -> int:
        """32 random bits that are not those of the last reply."""
        nonce = self._randomness.getrandbits(32)
        return nonce ^ 1 if nonce == last else nonce

    # State -------------------------------------------------------------------------------------------------------

    def _keep(self, served: _Served, binding: Binding) -> None:
        served.binding = binding
        expiry = binding.next_expiry()
        if expiry is None:
            self._expiries.cancel(served)
        else:
            self._expiries.set(served, expiry)

    def _change(self, served: _Served, after: Binding) -> list[Action]:
        """Keep, persist, and let the data plane follow."""
        before = served.binding
        self._keep(served, after)
        actions: list[Action] = [Persist(TABLE, served.key, after.to_row())]
        if not before.forwards_as(after):
            actions += forwarding_changes(before, after, served.mobile, self.configuration.address)
        return actions

    def _line(self, served: _Served, now: float) -> VisitorListEntry:
        binding, mobile = served.binding.without_expired(now), served.mobile
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


@lru_cache(4096)
def _unusable(care_of: IPv4Address) -> bool:
    """No host can have this address."""
    return care_of.is_multicast or care_of.is_unspecified or care_of.is_loopback or care_of.is_reserved


def _check_critical(request: RegistrationRequest) -> None:
    """RFC 3115: a critical vendor extension that nobody here knows; raises _Refusal."""
    if any(isinstance(each, VendorCritical) for each in request.protected(AuthKind.MN_HA)):
        raise _Refusal(Code.UNKNOWN_CRITICAL_FROM_MOBILE_NODE)
    if any(isinstance(each, VendorCritical) for each in request.extensions):
        raise _Refusal(Code.UNKNOWN_CRITICAL_FROM_FOREIGN_AGENT)


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
