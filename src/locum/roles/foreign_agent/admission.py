"""Checks of a foreign agent before it relays a registration request (RFC 5944 section 3.7.2.1, RFC 4721).

It keeps only which challenges were used; it must not know visitors, links or forwarding.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.registration import ANY_HOME_AGENT
from locum.roles.mobile_ipv4.signing import authentic
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    DynamicHomeAgent,
    EncapsulatingDelivery,
    HomeAgentUse,
    MobileFaChallenge,
    UdpTunnelRequest,
    VendorCritical,
)
from locum.wire.mobile_ip.registration import LIFETIME_INFINITE, Code, Flag, RegistrationRequest

MAX_USED_CHALLENGES = 4096  # visitors whose last challenge is remembered; the oldest are forgotten


def _is_host(address: IPv4Address) -> bool:
    wrong = address.is_multicast or address.is_loopback or address.is_reserved or address.is_unspecified
    return not wrong


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
        assigns: IPv4Address | None = None,
        minimal: bool = True,
    ) -> None:
        """`home_agents` are those that are served; None: all. While `closed` none is.

        `assigns` is the home agent of mobile nodes that name none (RFC 4433); None: only the one that they propose.
        `minimal`: tunnels may have minimal encapsulation.
        """
        self._assigns, self._minimal = assigns, minimal
        self.closed = False
        self._home_agents = home_agents
        self._care_of_address = care_of_address
        self._registration_lifetime = registration_lifetime
        self._challenge = challenge
        self._mobiles = mobiles
        self._used: dict[IPv4Address | str, bytes] = {}  # by home address, or NAI of one without

    def assigned(self, request: RegistrationRequest) -> RegistrationRequest:
        """The request as if it had named its home agent; one that leaves the choice to us names none (RFC 4433)."""
        if request.home_agent not in ANY_HOME_AGENT:
            return request
        said = request.find(DynamicHomeAgent)
        chosen = self._assigns
        proposed = said is not None and said.use is HomeAgentUse.REQUESTED and _is_host(said.address)
        if said is not None and proposed and self._serves(said.address):
            chosen = said.address
        return request if chosen is None else replace(request, home_agent=chosen)

    def check(self, request: RegistrationRequest, challenges: Sequence[bytes]) -> bytes:
        """The bytes to relay: the request through the mobile node's authentication for its home network. Raises Denied.

        `challenges` are those advertised last on the link.
        """
        self._check_addresses(request)
        to_home = request.to_home
        if to_home is None:
            raise Denied(Code.FA_POORLY_FORMED_REQUEST)
        if self.closed:
            raise Denied(Code.FA_INSUFFICIENT_RESOURCES)
        association = self._mobiles.get(request.home_address)
        if association is not None and not authentic(request, AuthKind.MN_FA, association):
            raise Denied(Code.FA_MOBILE_NODE_FAILED_AUTHENTICATION)
        if not self._serves(request.home_agent):
            raise Denied(Code.FA_ADMINISTRATIVELY_PROHIBITED)
        if self._challenge:
            self._check_challenge(request, challenges)
        self._check_service(request)
        return to_home.through

    def _serves(self, home_agent: IPv4Address) -> bool:
        return self._home_agents is None or home_agent in self._home_agents

    def _check_addresses(self, request: RegistrationRequest) -> None:
        if request.home_address.is_unspecified and request.mobile_nai is None:
            raise Denied(Code.FA_NON_ZERO_HOME_ADDRESS_REQUIRED)
        if request.home_agent in ANY_HOME_AGENT:
            raise Denied(Code.FA_NON_ZERO_HOME_AGENT_REQUIRED)
        if not (_is_host(request.home_address) or request.home_address.is_unspecified):
            raise Denied(Code.FA_POORLY_FORMED_REQUEST)
        if not _is_host(request.home_agent):
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
        if Flag.M in request.flags and not self._minimal:
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
