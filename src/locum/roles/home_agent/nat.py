"""NAT traversal at the home agent (RFC 3519 section 4.6): its judgement of a request."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Source
from locum.roles.nat import Outer
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    InnerEncapsulation,
    UdpTunnelCode,
    UdpTunnelReply,
    UdpTunnelRequest,
)
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationRequest


@dataclass(frozen=True, slots=True)
class TraversalPolicy:
    """What a home agent does for nodes behind a NAT; `interval` 0 leaves keepalives to them, in seconds."""

    willing: bool = True
    forced: bool = True  # also without a NAT, for those who ask for it (firewalls)
    interval: int = 0


class TraversalRefused(Exception):
    """The registration is refused with this code (section 4.6.1)."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Traversal:
    """What follows from a request: the tunnel's other end, and what the reply says; both None without a request."""

    outer: Outer | None = None
    reply: UdpTunnelReply | None = None


_NONE = Traversal()


def traversal(
    request: RegistrationRequest, source: Source, policy: TraversalPolicy, *, agent_known: bool
) -> Traversal:
    """Section 4.6: a request that comes from elsewhere than its care-of address has come through a NAT.

    The mobile node's extension counts with a co-located care-of address, the foreign agent's only where its own
    authentication has been checked (`agent_known`). Raises TraversalRefused.
    """
    asked = _asked(request, agent_known)
    if asked is None or request.lifetime == 0:
        return _NONE
    if asked.encapsulation is not InnerEncapsulation.IP:
        raise TraversalRefused(Code.UDP_ENCAPSULATION_UNAVAILABLE)
    assert isinstance(source.address, IPv4Address)
    seen = source.address != request.care_of_address
    if not policy.willing:
        if seen:
            raise TraversalRefused(Code.ADMINISTRATIVELY_PROHIBITED)  # it would be registered and not reached
        return Traversal(None, UdpTunnelReply(UdpTunnelCode.DECLINED))
    if not seen and not (asked.force and policy.forced):
        return Traversal(None, UdpTunnelReply(UdpTunnelCode.DECLINED))
    reply = UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL, not seen, policy.interval)
    return Traversal(Outer(source.address, source.port, not seen), reply)


def _asked(request: RegistrationRequest, agent_known: bool) -> UdpTunnelRequest | None:
    said = request.protected(AuthKind.MN_HA)
    if not request.flags & Flag.D:
        said = request.protected(AuthKind.FA_HA)[len(said) :] if agent_known else ()
    return next((each for each in said if isinstance(each, UdpTunnelRequest)), None)
