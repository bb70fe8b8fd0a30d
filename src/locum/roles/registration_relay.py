"""The relay of registrations by a foreign agent, 601-602 and 603-604 (RFC 5944 section 3.7; source text 507).

It knows what is under way and what to refuse; who is a visitor and what the data plane does for him are the visitor
list's. It must not know the keys between a mobile node and its home agent.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.actions import (
    Action,
    Addr,
    Count,
    Emit,
    Reply,
    SendRegistration,
    Source,
)
from locum.roles.admission import Admission, Denied
from locum.roles.signing import authentic, signed
from locum.roles.timers import Deadlines
from locum.roles.visitor_list import VisitorList
from locum.security.association import Association
from locum.security.replay import mobile_nonce
from locum.wire.errors import WireError
from locum.wire.extensions import AuthKind, Nai, VendorNormal
from locum.wire.registration import REGISTRATION_REQUEST, Code, RegistrationReply, RegistrationRequest
from locum.wire.vendor import MnpsRole, decode_vendor

PENDING_TIMEOUT = 7.0  # seconds; RFC 5944 section 3.7.2.2
MAX_PENDING_PER_VISITOR = 4  # retransmissions within PENDING_TIMEOUT (section 3.6.3: at 1, 2, 4 s)
SENDERS_AT_ONCE = 8  # one link-layer address has no more than this part of the places of requests under way
_NO_SIMULTANEOUS = Code.ACCEPTED_NO_SIMULTANEOUS_BINDINGS
AUTHENTICATION_HEAD = 6  # bytes of type, length and SPI (section 3.5.1)

PendingKey = tuple[
    IPv4Address | str, int
]  # home address, or NAI of one without (RFC 2794 section 3); identification
Herald = Callable[
    [RegistrationRequest, float], list[Action]
]  # what is done before one goes to a home agent we know
Addition = Callable[[RegistrationRequest, float], bytes]  # extensions for the home agent alone


@dataclass(frozen=True, slots=True)
class Pending:
    """A request on its way to the home agent (RFC 5944 section 3.7.2.2)."""

    request: RegistrationRequest
    source: Source
    size: int  # bytes of the request as it came
    forget_at: float  # wall-clock seconds
    colocated: bool  # relayed only (R bit of the advertisement): no visitor follows


@dataclass(frozen=True, slots=True)
class Concluded:
    """The home agent has answered: `message` is its reply as it goes on to the mobile node."""

    pending: Pending
    reply: RegistrationReply
    message: bytes

    @property
    def accepted(self) -> bool:
        """Whether the home agent said yes."""
        return isinstance(self.reply.code, Code) and self.reply.code.accepted


class RegistrationRelay:
    """Requests under way, bounded in number; `home_agents` and `mobiles` are associations by address."""

    def __init__(
        self,
        care_of_address: IPv4Address,
        visitors: VisitorList,
        admission: Admission,
        home_agents: Mapping[Addr, Association],
        mobiles: Mapping[Addr, Association],
    ) -> None:
        self._care_of_address = care_of_address
        self._visitors = visitors
        self._admission = admission
        self._home_agents = home_agents
        self._mobiles = mobiles
        self.additions: list[Addition] = []
        self.heralds: list[Herald] = []
        self._pending: dict[PendingKey, Pending] = {}
        self._timers: Deadlines[PendingKey] = Deadlines()

    def deadline(self) -> float | None:
        """Wall-clock seconds at which the next request is given up."""
        return self._timers.next()

    def timeout(self, *, now: float) -> list[Action]:
        """Code 78 for requests that nobody answered (section 3.7.2.2)."""
        actions: list[Action] = []
        for key in self._timers.due(now):
            actions += self._refuse(self._pending.pop(key), Code.FA_REGISTRATION_TIMEOUT)
        return actions

    # 601 -> 602 -------------------------------------------------------------------------------------------------

    def request(
        self, message: bytes, source: Source, challenges: Sequence[bytes], *, now: float
    ) -> list[Action]:
        """601 -> 602. `challenges` are those advertised last on the link the request came by."""
        try:
            request = RegistrationRequest.decode(message)
        except WireError as error:
            return self._malformed(message, source, error)
        if not self._visitors.has_room(request.home_address):
            return self._deny(request, source, len(message), Code.FA_INSUFFICIENT_RESOURCES)
        try:
            relayed = self._admission.check(request, challenges)
        except Denied as denied:
            return self._deny(request, source, len(message), denied.code, lifetime=denied.lifetime)
        visitor = self._visitors.get(request.home_address)
        if visitor is not None and (visitor.next_hop is None) != (stand_in_of(request) is None):
            # A device and its stand-in under one care-of address: nobody could tell their packets apart.
            return self._deny(request, source, len(message), Code.FA_ADMINISTRATIVELY_PROHIBITED)
        if not self._visitors.undisputed(request.home_address, request.home_agent):
            return self._deny(request, source, len(message), Code.FA_ADMINISTRATIVELY_PROHIBITED)
        key = _pending_key(request)
        if key in self._pending and not _same_sender(self._pending[key].source, source):
            return [Count("request-repeated-by-another")]  # the answer is the first one's
        if not self._room(key, source):
            return self._deny(request, source, len(message), Code.FA_INSUFFICIENT_RESOURCES)
        forget_at = now + PENDING_TIMEOUT
        colocated = request.care_of_address not in (self._care_of_address, request.home_address)
        self._pending[key] = Pending(request, source, len(message), forget_at, colocated)
        self._timers.set(key, forget_at)
        association = self._home_agents.get(request.home_agent)
        if not colocated:
            relayed += b"".join(addition(request, now) for addition in self.additions)
        heralded: list[Action] = []
        if association is not None:
            relayed = signed(relayed, AuthKind.FA_HA, association)
            for each in self.heralds if not colocated else ():
                heralded += each(request, now)
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

    def _room(self, key: PendingKey, source: Source) -> bool:
        """Bounds: a few per visitor, a share per sender, as many in all as there may be visitors.

        A flood stays small, and leaves room for others even if it invents home addresses.
        """
        if key in self._pending:
            return True
        if sum(1 for home_address, _ in self._pending if home_address == key[0]) >= MAX_PENDING_PER_VISITOR:
            oldest = next(each for each in self._pending if each[0] == key[0])
            self._drop_pending(oldest)
        sender = (source.link, source.link_layer)
        of_sender = sum(
            1 for each in self._pending.values() if (each.source.link, each.source.link_layer) == sender
        )
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
        association = self._mobiles.get(request.home_address)
        if association is not None:
            reply = signed(reply, AuthKind.MN_FA, association)
        if len(reply) > bound:
            return [Count(f"refused-{int(code)}"), Count("reply-larger-than-request")]
        return [Count(f"refused-{int(code)}"), Reply(source, reply)]

    # 603 -> 604 -------------------------------------------------------------------------------------------------

    def reply(self, reply: RegistrationReply, message: bytes, source: Source) -> Concluded | list[Action]:
        """603 (section 3.7.3): what it concludes, or what is done about one that fits nothing."""
        key: PendingKey = (reply.home_address, mobile_nonce(reply.identification))
        nai = reply.find(Nai)
        pending = self._pending.get(key)
        if pending is None and nai is not None:
            key = (nai.identifier, key[1])
            pending = self._pending.get(key)
        if pending is None or source.address != pending.request.home_agent:
            return [Count("reply-unexpected")]
        self._drop_pending(key)
        association = self._home_agents.get(pending.request.home_agent)
        if association is not None and not authentic(reply, AuthKind.FA_HA, association):
            return self._refuse(pending, Code.FA_HOME_AGENT_FAILED_AUTHENTICATION)
        pending = _assigned(pending, reply)
        if pending.request.home_address.is_unspecified and reply.code in (Code.ACCEPTED, _NO_SIMULTANEOUS):
            return self._refuse(pending, Code.FA_MISSING_HOME_ADDRESS)
        if not self._visitors.undisputed(pending.request.home_address, pending.request.home_agent):
            # another one became the visitor meanwhile
            return self._refuse(pending, Code.FA_ADMINISTRATIVELY_PROHIBITED)
        return Concluded(pending, reply, self._relayed_reply(reply, message))

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

    def unreachable(self, relayed: bytes) -> list[Action]:
        """The host has no way to that home agent (code 80). What is no request of a visitor is repeated anyway."""
        if relayed[:1] != bytes((REGISTRATION_REQUEST,)):
            return []
        key = _pending_key(RegistrationRequest.decode(relayed))
        pending = self._pending.get(key)
        if pending is None:
            return []
        self._drop_pending(key)
        return self._refuse(pending, Code.FA_HOME_NETWORK_UNREACHABLE)

    def _refuse(self, pending: Pending, code: Code) -> list[Action]:
        return self._deny(pending.request, pending.source, pending.size, code)

    def _drop_pending(self, key: PendingKey) -> None:
        del self._pending[key]
        self._timers.cancel(key)


def _pending_key(request: RegistrationRequest) -> PendingKey:
    """A mobile node without a home address is known by its NAI until the reply (RFC 2794 section 3)."""
    who: IPv4Address | str = request.home_address
    if request.home_address.is_unspecified and request.mobile_nai is not None:
        who = request.mobile_nai
    return who, mobile_nonce(request.identification)


def _assigned(pending: Pending, reply: RegistrationReply) -> Pending:
    """The request as if it had been made with the home address that the reply assigns."""
    if not pending.request.home_address.is_unspecified:
        return pending
    return replace(pending, request=replace(pending.request, home_address=reply.home_address))


def _same_sender(first: Source, second: Source) -> bool:
    """Whether two messages came from one host on one link."""
    return (first.link, first.link_layer, first.address) == (second.link, second.link_layer, second.address)


def stand_in_of(request: RegistrationRequest) -> Addr | None:
    """The interface address of the stand-in that made the request (R4); None: the device itself did."""
    for each in request.all(VendorNormal):
        with suppress(WireError):
            if isinstance(role := decode_vendor(each), MnpsRole):
                return role.interface_address
    return None
