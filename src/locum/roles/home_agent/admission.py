"""What a home agent grants to a registration, and what it refuses (RFC 5944 section 3.8.2; features R3 to R8).

Decides over requests, registrants and their rules; it keeps nothing, and does not know replies, the store or forwarding.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Source
from locum.roles.home_agent.binding import Binding, CareOf, Mobile
from locum.roles.home_agent.forwarding_choice import most_rules
from locum.roles.home_agent.nat import TraversalPolicy
from locum.roles.home_agent.registry import Home, Registrant
from locum.roles.home_agent.request_extensions import (
    PLAIN,
    Refusal,
    Wishes,
    cancelled,
    changed_rules,
    rules_without,
    together,
    usable,
    wishes,
)
from locum.roles.rules import KeptRule
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    Ipv6PrefixReply,
    Ipv6PrefixRequest,
    PrefixCode,
    VendorCritical,
)
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationRequest
from locum.wire.mobile_ip.vendor import Takes

MAX_LIFETIME = 1800  # seconds granted at most; RFC 5944 leaves it to the home agent (section 3.8.2.2)
SHORT_LIFETIME = 10  # seconds; up to this a registration is "very short" (R2)
MAX_SIMULTANEOUS = 4  # section 3.8.3.1, code 135: what the data plane has room for
_S, _M, _G, _T = int(Flag.S), int(Flag.M), int(Flag.G), int(Flag.T)
_unusable = lru_cache(4096)(lambda address: not usable(address))


@dataclass(frozen=True, slots=True)
class HomeAgentConfiguration:
    """Times in seconds."""

    address: IPv4Address
    max_lifetime: int = MAX_LIFETIME
    short_lifetime: int = SHORT_LIFETIME
    max_simultaneous: int = MAX_SIMULTANEOUS  # care-of addresses of one registrant
    reverse_tunnel_required: bool = True
    multipath: bool = True  # EnableMultipathSupport of RFC 7629
    traversal: TraversalPolicy = field(default_factory=TraversalPolicy)  # RFC 3519
    revocation: bool = True  # RFC 3543
    trigger_on_expiry: bool = (
        False  # stand-ins are asked to take over when a device's registration has run out (C8)
    )


class HomeAdmission:
    """The decisions of one home agent; `served` are the home addresses that it serves."""

    def __init__(self, configuration: HomeAgentConfiguration, served: Container[IPv4Address]) -> None:
        self._configuration, self._served = configuration, served

    def decide(
        self,
        request: RegistrationRequest,
        held: Binding,
        registrant: Registrant,
        source: Source,
        now: float,
        seen: tuple[int | None, int | None],
    ) -> tuple[Binding, int, tuple[KeptRule, ...], tuple[Ipv6PrefixReply, ...]]:
        """The registrant's binding after the request, the lifetime granted, the rules of the home address, and what is
        answered about IPv6. `seen` is the replay state from now on. Raises Refusal, and then nothing changes.
        """
        home = registrant.home
        if request.home_agent != self._configuration.address:
            raise Refusal(Code.UNKNOWN_HOME_AGENT)
        replies: tuple[Ipv6PrefixReply, ...] = ()
        asked = PLAIN
        if len(request.extensions) > 1:  # the first that there must be is the authentication
            _check_critical(request)
            asked = wishes(request)
            replies = _prefix_replies(request, home.mobile)
        if asked is not PLAIN or registrant is not home:
            self._check_wishes(asked, registrant, now)
        over = request.lifetime == 0 or request.care_of_address == request.home_address
        if over:
            granted, left = 0, held.keeping(cancelled(request, held, asked.multipath))
            care_of, ipv6 = left.care_of, left.ipv6
        else:
            granted = min(request.lifetime, self._configuration.max_lifetime)
            care_of = self._registered(request, held, registrant, asked, source, now + granted, granted)
            ipv6 = any(reply.accepted for reply in replies) if replies else False
        default = held.default if asked.default is None else self._default(asked, held, home)
        after = Binding(held.home_address, care_of, *seen, ipv6, default)
        rules = home.rules
        if asked.rules or (rules and over):
            rules = self._rules(asked, registrant, after, over, now)
        return after, granted, rules, replies

    def _registered(
        self,
        request: RegistrationRequest,
        held: Binding,
        registrant: Registrant,
        asked: Wishes,
        source: Source,
        expires_at: float,
        granted: int,
    ) -> tuple[CareOf, ...]:
        """The care-of addresses after a registration (section 3.8.2.1). Raises Refusal."""
        flags = int(request.flags)
        own = registrant.stand_in is None
        self._check_care_of(request.care_of_address, flags, own)
        multipath, role = asked.multipath, asked.role
        care_of = CareOf(
            request.care_of_address,
            granted,
            expires_at,
            flags,
            source.address,
            own and granted <= self._configuration.short_lifetime,
            bool(flags & _G),
            None if multipath is None else multipath.binding,
            asked.weight,
            role is not None and role.takes is Takes.RULED,
        )
        most = self._configuration.max_simultaneous
        return together(held, care_of, multipath, simultaneous=bool(flags & _S), most=most)

    def _check_wishes(self, asked: Wishes, registrant: Registrant, now: float) -> None:
        """Who may ask for what (R3, R4). Raises Refusal."""
        stand_in, role = registrant.stand_in, asked.role
        if stand_in is None:
            if role is not None:
                raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)
        elif role is None:
            raise Refusal(Code.POORLY_FORMED_REQUEST)
        elif asked.default is not None or role.interface_address not in (
            stand_in.address,
            stand_in.address_v6,
        ):
            raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)
        if asked.multipath is not None:
            taken = any(
                each.bid == asked.multipath.binding
                for other in (registrant.home, *registrant.home.stand_ins)
                if other is not registrant
                for each in other.binding.without_expired(now).care_of
            )
            if taken or not self._configuration.multipath:
                raise Refusal(Code.MULTIPATH_NOT_ALLOWED)

    def _check_care_of(self, care_of: IPv4Address, flags: int, own: bool) -> None:
        """A stand-in may live on this very host (R17); a mobile node that says so would be a loop."""
        if _unusable(care_of) or (own and care_of == self._configuration.address):
            raise Refusal(Code.POORLY_FORMED_REQUEST)
        if care_of in self._served:
            raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)  # a tunnel into another home address would loop
        if flags & _M:
            raise Refusal(Code.REQUESTED_ENCAPSULATION_UNAVAILABLE)
        if self._configuration.reverse_tunnel_required and not flags & _T:
            raise Refusal(Code.REVERSE_TUNNEL_MANDATORY)

    def _default(self, asked: Wishes, held: Binding, home: Home) -> IPv4Address | None:
        """The default CoA that the mobile node says (R3); the unspecified address takes it back. Raises Refusal."""
        if asked.default is None or not home.mobile.default_by_registration:
            return held.default
        address = asked.default.address
        if address.is_unspecified:
            return None
        if not isinstance(address, IPv4Address) or _unusable(address):
            raise Refusal(Code.POORLY_FORMED_REQUEST)
        here = address == self._configuration.address
        if address in self._served or (here and not _lives_here(home.mobile, address)):
            raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)
        return address

    def _rules(
        self, asked: Wishes, registrant: Registrant, accepted: Binding, over: bool, now: float
    ) -> tuple[KeptRule, ...]:
        """The rules after a request. Who cancels all that he registered takes his rules with him. Raises Refusal."""
        home, rules = registrant.home, registrant.home.rules
        if over:
            if any(each.binding is not None for each in asked.rules):
                raise Refusal(Code.POORLY_FORMED_REQUEST)
            if not accepted.care_of:
                return rules_without(rules, registrant.name)
        bids = {each.bid for each in accepted.care_of if each.bid is not None}
        for other in (home, *home.stand_ins):
            if other is not registrant:
                current = other.binding.without_expired(now).care_of
                bids.update(each.bid for each in current if each.bid is not None)
        return changed_rules(rules, asked.rules, registrant.name, bids, most_rules(home.mobile))


def _check_critical(request: RegistrationRequest) -> None:
    """RFC 3115: a critical vendor extension that nobody here knows; raises Refusal."""
    if any(isinstance(each, VendorCritical) for each in request.protected(AuthKind.MN_HA)):
        raise Refusal(Code.UNKNOWN_CRITICAL_FROM_MOBILE_NODE)
    if any(isinstance(each, VendorCritical) for each in request.extensions):
        raise Refusal(Code.UNKNOWN_CRITICAL_FROM_FOREIGN_AGENT)


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


def _lives_here(mobile: Mobile, address: IPv4Address) -> bool:
    """Whether a stand-in of the mobile node has this address of the home agent's host (R17)."""
    return address == mobile.stand_in or any(each.address == address for each in mobile.stand_ins)
