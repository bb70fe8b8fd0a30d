"""Checks of a foreign agent before it relays a registration request (RFC 5944 section 3.7.2.1, RFC 4721).

It keeps only which challenges were used; it must not know visitors, links or forwarding.
"""

from collections.abc import Container, Mapping, Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.mobile_ipv4.signing import authentic
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    EncapsulatingDelivery,
    MobileFaChallenge,
    UdpTunnelRequest,
    VendorCritical,
)
from locum.wire.mobile_ip.registration import LIFETIME_INFINITE, Code, Flag, RegistrationRequest

MAX_USED_CHALLENGES = 4096  # visitors whose last challenge is remembered; the oldest are forgotten


class Denied(Exception):
    """The foreign agent's own refusal; `lifetime` is the longest it accepts (code 69)."""

    def __init__(self, code: Code, lifetime: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.lifetime = lifetime


class Admission:
    """The checks of one foreign agent."""

    def __init__(
        self,
        care_of_address: IPv4Address,
        registration_lifetime: int,
        challenge: bool,
        mobiles: Mapping[Addr, Association],
        *,
        home_agents: Container[Addr] | None = None,
    ) -> None:
        """`home_agents` are those that are served; None: all. While `closed` none is."""
        self.closed = False
        self._home_agents = home_agents
        self._care_of_address = care_of_address
        self._registration_lifetime = registration_lifetime
        self._challenge = challenge
        self._mobiles = mobiles
        self._used: dict[IPv4Address | str, bytes] = {}  # by home address, or NAI of one without

    def check(self, request: RegistrationRequest, challenges: Sequence[bytes]) -> bytes:
        """The bytes to relay: the request through its MN-HA authentication. Raises Denied.

        `challenges` are those advertised last on the link.
        """
        self._check_addresses(request)
        to_home = request.authentication(AuthKind.MN_HA)
        if to_home is None:
            raise Denied(Code.FA_POORLY_FORMED_REQUEST)
        if self.closed:
            raise Denied(Code.FA_INSUFFICIENT_RESOURCES)
        association = self._mobiles.get(request.home_address)
        if association is not None and not authentic(request, AuthKind.MN_FA, association):
            raise Denied(Code.FA_MOBILE_NODE_FAILED_AUTHENTICATION)
        if self._home_agents is not None and request.home_agent not in self._home_agents:
            raise Denied(Code.FA_ADMINISTRATIVELY_PROHIBITED)
        if self._challenge:
            self._check_challenge(request, challenges)
        self._check_service(request)
        return to_home.through

    def _check_addresses(self, request: RegistrationRequest) -> None:
        if request.home_address.is_unspecified and request.mobile_nai is None:
            raise Denied(Code.FA_NON_ZERO_HOME_ADDRESS_REQUIRED)
        if request.home_agent.is_unspecified:
            raise Denied(Code.FA_NON_ZERO_HOME_AGENT_REQUIRED)
        for address in (request.home_address, request.home_agent):
            if address.is_multicast or address.is_loopback or address.is_reserved:
                raise Denied(Code.FA_POORLY_FORMED_REQUEST)
        care_of = request.care_of_address
        if care_of == self._care_of_address:
            if Flag.D in request.flags:
                raise Denied(Code.FA_INVALID_CARE_OF_ADDRESS)
        elif care_of != request.home_address and Flag.D not in request.flags:
            raise Denied(Code.FA_INVALID_CARE_OF_ADDRESS)

    def _check_service(self, request: RegistrationRequest) -> None:
        if any(isinstance(extension, VendorCritical) for extension in request.extensions):
            raise Denied(Code.FA_UNKNOWN_CRITICAL_FROM_MOBILE_NODE)
        if request.lifetime == 0:
            return
        if (
            request.lifetime > self._registration_lifetime
            and self._registration_lifetime != LIFETIME_INFINITE
        ):
            raise Denied(Code.FA_REQUESTED_LIFETIME_TOO_LONG, self._registration_lifetime)
        if Flag.M in request.flags:
            raise Denied(Code.FA_REQUESTED_ENCAPSULATION_UNAVAILABLE)
        if request.flags & Flag.D and request.find(UdpTunnelRequest) is not None:
            # RFC 3519 section 4.11: the home agent would see us, and tunnel to us, not to the mobile node
            raise Denied(Code.FA_REQUESTED_ENCAPSULATION_UNAVAILABLE)
        if request.find(EncapsulatingDelivery) is not None:
            raise Denied(Code.FA_DELIVERY_STYLE_NOT_SUPPORTED)

    def _check_challenge(self, request: RegistrationRequest, challenges: Sequence[bytes]) -> None:
        """RFC 4721 section 3.2: a challenge of ours, and each used once by a mobile node."""
        found = request.find(MobileFaChallenge)
        if found is None:
            raise Denied(Code.FA_MISSING_CHALLENGE)
        who: IPv4Address | str = request.home_address
        if request.home_address.is_unspecified and request.mobile_nai is not None:
            who = request.mobile_nai
        if self._used.get(who) == found.value:
            raise Denied(Code.FA_STALE_CHALLENGE)
        if found.value not in challenges:
            raise Denied(Code.FA_UNKNOWN_CHALLENGE)
        self._used.pop(who, None)
        self._used[who] = found.value
        if len(self._used) > MAX_USED_CHALLENGES:
            del self._used[next(iter(self._used))]
