"""NAT traversal at the home agent (RFC 3519 section 4.6): its judgement of a request."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Source
from locum.roles.action_values.registration import (
    Refusal,
    RefusalReason,
    Registration,
    RegistrationFlag,
    UdpTunnelAnswer,
)
from locum.roles.home_agent.configuration import TraversalPolicy
from locum.roles.nat import Outer


@dataclass(frozen=True, slots=True)
class Traversal:
    """Result of a request: the tunnel's other end, and the answer; both None without a request."""

    outer: Outer | None = None
    answer: UdpTunnelAnswer | None = None


_NONE = Traversal()


_DECLINED = Traversal(None, UdpTunnelAnswer(accepted=False))


def traversal(
    registration: Registration, source: Source, policy: TraversalPolicy, *, agent_known: bool
) -> Traversal:
    """Section 4.6: a registration that comes from elsewhere than its care-of address has come through a NAT.

    A mobile node asks for itself with a co-located care-of address. A foreign agent's request counts only where its own
    proof has been checked (`agent_known`). Raises Refusal.
    """
    asked = registration.options.udp
    if asked is None or registration.lifetime == 0:
        return _NONE
    if not agent_known and not registration.flags & RegistrationFlag.CO_LOCATED:
        return _NONE
    if not asked.plain_ip:
        raise Refusal(RefusalReason.UDP_UNAVAILABLE)
    assert isinstance(source.address, IPv4Address)
    seen = source.address != registration.care_of
    if not policy.willing:
        if seen:
            raise Refusal(RefusalReason.PROHIBITED)  # it would be registered and not reached
        return _DECLINED
    if not seen and not (asked.forced and policy.forced):
        return _DECLINED
    answer = UdpTunnelAnswer(True, not seen, policy.interval)
    return Traversal(Outer(source.address, source.port, not seen), answer)
