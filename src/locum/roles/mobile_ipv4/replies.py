"""Answers as registration replies (RFC 5944 section 3.4), signed.

It must not know why a registration is accepted or refused.
"""

from ipaddress import IPv4Address

from locum.roles.action_values.registration import (
    PrefixAnswer,
    Registration,
    RegistrationAnswer,
    RegistrationFlag,
)
from locum.roles.mobile_ipv4.key_grants import write_agent_grant, write_grant
from locum.roles.mobile_ipv4.signing import signed
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    DynamicHomeAgent,
    Extension,
    HomeAgentUse,
    Ipv6PrefixReply,
    Nai,
    PrefixCode,
    RevocationSupport,
    UdpTunnelCode,
    UdpTunnelReply,
)
from locum.wire.mobile_ip.registration import Code, RegistrationReply
from locum.wire.mobile_ip.vendor import AgentKey, TransferContext, encode_vendor

_CO_LOCATED = int(RegistrationFlag.CO_LOCATED)


def write_reply(
    registration: Registration,
    answer: RegistrationAnswer,
    home_agent: IPv4Address,
    *,
    mobile: Association | None,
    agent: Association | None,
) -> bytes:
    """The reply's bytes, signed for the registrant, then for the foreign agent.

    Extensions for a foreign agent alone stand between the two authentications. None: unsigned.
    """
    to_mobile: tuple[Extension, ...] = ()
    to_agent: tuple[Extension, ...] = ()
    nai = registration.options.nai
    if answer.prefixes or answer.device_at is not None:
        to_mobile = tuple([_prefix_reply(prefix) for prefix in answer.prefixes])
        if answer.device_at is not None:
            to_mobile += (encode_vendor(TransferContext(answer.device_at)),)
    if answer.udp is not None or answer.revocations is not None:
        if int(registration.flags) & _CO_LOCATED:
            to_mobile += _to_end(answer)
        else:
            to_agent = _to_end(answer)
    if answer.redirect is not None:
        to_mobile += (DynamicHomeAgent(HomeAgentUse.REDIRECTED, answer.redirect),)
    if answer.key is not None:
        to_mobile += (write_grant(answer.key),)
    if answer.agent_key is not None:
        to_mobile += (write_agent_grant(answer.agent_key),)
        to_agent += (encode_vendor(AgentKey(answer.agent_key_wrapped)),)
    if nai is not None:  # agents and a mobile node without a home address know the reply by it (RFC 2794)
        to_mobile += (Nai(nai),)
    message = RegistrationReply(
        Code.ACCEPTED if answer.refused is None else answer.refused,  # which has the number of the code
        answer.lifetime,
        registration.home_address,
        home_agent,
        answer.identification,
        to_mobile,
    ).encode()
    if mobile is not None:
        message = signed(message, AuthKind.MN_HA, mobile)
    if agent is None:
        return message
    return signed(message + b"".join([extension.encode() for extension in to_agent]), AuthKind.FA_HA, agent)


def _prefix_reply(answer: PrefixAnswer) -> Ipv6PrefixReply:
    code = PrefixCode.TUNNELED_TO_CARE_OF_ADDRESS if answer.bound else PrefixCode.ADMINISTRATIVELY_PROHIBITED
    return Ipv6PrefixReply(code, answer.prefix.prefix, answer.prefix.length)


def _to_end(answer: RegistrationAnswer) -> tuple[Extension, ...]:
    """Answers for the tunnel end about UDP (RFC 3519) and revocations (RFC 3543)."""
    told: list[Extension] = []
    if answer.udp is not None:
        code = UdpTunnelCode.WILL_TUNNEL if answer.udp.accepted else UdpTunnelCode.DECLINED
        told.append(UdpTunnelReply(code, answer.udp.forced, answer.udp.interval))
    if answer.revocations is not None:
        told.append(RevocationSupport(answer.revocations.timestamp, answer.revocations.inform))
    return tuple(told)
