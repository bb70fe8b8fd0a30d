"""Registration replies as a registrant receives them (RFC 5944 section 3.4).

It must not know a registrant's use of them, nor any key.
"""

from locum.roles.action_values.registration import (
    AgentRefusal,
    HomePrefix,
    PrefixAnswer,
    ReceivedAnswer,
    RefusalReason,
    RegistrationAnswer,
)
from locum.roles.mobile_ipv4.agent_options import revocation_support, udp_answer
from locum.roles.mobile_ipv4.key_grants import granted_agent_key, granted_key
from locum.roles.mobile_ipv4.proofs import proof, proofs
from locum.roles.mobile_ipv4.transfer_instructions import device_at
from locum.wire.mobile_ip import extensions as wire
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Code, RegistrationReply

_REASONS = {int(reason): reason for reason in RefusalReason}
_BY_AGENT: dict[int, AgentRefusal] = {
    Code.FA_REQUESTED_LIFETIME_TOO_LONG: AgentRefusal.LIFETIME_TOO_LONG,
    Code.FA_UNKNOWN_CHALLENGE: AgentRefusal.CHALLENGE,
    Code.FA_MISSING_CHALLENGE: AgentRefusal.CHALLENGE,
    Code.FA_STALE_CHALLENGE: AgentRefusal.CHALLENGE,
    Code.FA_REQUESTED_ENCAPSULATION_UNAVAILABLE: AgentRefusal.ENCAPSULATION,
    Code.FA_HOME_NETWORK_UNREACHABLE: AgentRefusal.NETWORK_UNREACHABLE,
    Code.FA_HOME_AGENT_HOST_UNREACHABLE: AgentRefusal.HOME_AGENT_UNREACHABLE,
    Code.FA_HOME_AGENT_PORT_UNREACHABLE: AgentRefusal.HOME_AGENT_UNREACHABLE,
    Code.FA_HOME_AGENT_UNREACHABLE: AgentRefusal.HOME_AGENT_UNREACHABLE,
}
_FA_CODES = range(64, 128)  # refusals that a foreign agent makes itself, without the home agent's signature


def read_answer(message: bytes) -> ReceivedAnswer:
    """The answer in the payload of a UDP datagram. Raises WireError."""
    return received_answer(RegistrationReply.decode(message))


def received_answer(reply: RegistrationReply) -> ReceivedAnswer:
    """The reply as a neutral answer. UDP, revocations, redirection and the context count only under the home agent's signature."""
    code = int(reply.code)
    by_agent = _BY_AGENT.get(code, AgentRefusal.OTHER) if code in _FA_CODES else None
    said = reply.protected(AuthKind.MN_HA)
    agents = (extension for extension in said if isinstance(extension, wire.DynamicHomeAgent))
    answer = RegistrationAnswer(
        None if reply.accepted else _REASONS.get(code, RefusalReason.UNSPECIFIED),
        reply.lifetime,
        reply.identification,
        tuple(
            [
                PrefixAnswer(HomePrefix(prefix.prefix, prefix.prefix_length), prefix.accepted)
                for prefix in reply.all(wire.Ipv6PrefixReply)
            ]
        ),
        device_at(reply),
        udp_answer(said),
        revocation_support(said),
        next((agent.address for agent in agents if agent.use is wire.HomeAgentUse.REDIRECTED), None),
        granted_key(said),
        granted_agent_key(said),
    )
    return ReceivedAnswer(
        reply.home_address,
        answer,
        code,
        by_agent,
        proofs(reply)[0],
        proof(reply, AuthKind.MN_FA),
        reply.find(wire.VendorCritical) is not None,
        reply.home_agent,
    )
