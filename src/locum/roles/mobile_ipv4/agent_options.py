"""Options between a foreign agent and a home agent alone, behind the mobile-home authentication of a message.

They are of UDP tunnels (RFC 3519), revocations (RFC 3543) and keys between the foreign agent and the mobile node (RFC
3957). It must not know which of them are wanted.
"""

from collections.abc import Iterable
from contextlib import suppress

from locum.roles.action_values.registration import Options, RevocationSupport, UdpTunnelAnswer
from locum.wire.errors import WireError
from locum.wire.mobile_ip import extensions as wire
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    Extension,
    InnerEncapsulation,
    VendorNormal,
    encode_extensions,
)
from locum.wire.mobile_ip.registration import RegistrationReply
from locum.wire.mobile_ip.vendor import AgentKey, AgentKeyRequest, VendorValue, decode_vendor, encode_vendor


def write_agent_options(options: Options) -> bytes:
    """The extensions that a foreign agent adds to a request before its own authentication."""
    added: list[Extension] = []
    if options.udp is not None:
        inner = InnerEncapsulation.IP if options.udp.plain_ip else InnerEncapsulation.GRE
        added.append(wire.UdpTunnelRequest(inner, force=options.udp.forced))
    if options.revocations is not None:
        added.append(wire.RevocationSupport(options.revocations.timestamp, options.revocations.inform))
    if options.agent_spi is not None:
        added.append(encode_vendor(AgentKeyRequest(options.agent_spi)))
    return encode_extensions(added)


def read_agent_options(
    reply: RegistrationReply,
) -> tuple[UdpTunnelAnswer | None, RevocationSupport | None]:
    """The answers of a home agent to these options, which its foreign-home authentication covers."""
    said = _said_to_agent(reply)
    return udp_answer(said), revocation_support(said)


def agent_spi(said: Iterable[Extension]) -> int | None:
    """The SPI of messages to a foreign agent that takes the key which the mobile node asks for; None: it takes none."""
    return next((value.spi for value in _own(said) if isinstance(value, AgentKeyRequest)), None)


def wrapped_agent_key(reply: RegistrationReply) -> bytes | None:
    """The encrypted key with the mobile node, which the foreign-home authentication covers; None without one."""
    values = _own(_said_to_agent(reply))
    return next((value.wrapped for value in values if isinstance(value, AgentKey)), None)


def _said_to_agent(reply: RegistrationReply) -> tuple[Extension, ...]:
    return reply.protected(AuthKind.FA_HA)[len(reply.protected(AuthKind.MN_HA)) :]


def _own(said: Iterable[Extension]) -> Iterable[VendorValue | None]:
    for extension in said:
        if isinstance(extension, VendorNormal):
            with suppress(WireError):
                yield decode_vendor(extension)


def udp_answer(said: tuple[Extension, ...]) -> UdpTunnelAnswer | None:
    """The first acceptance of a UDP tunnel, else a refusal where there is one."""
    found = [extension for extension in said if isinstance(extension, wire.UdpTunnelReply)]
    if not found:
        return None
    best = next((extension for extension in found if extension.accepted), found[0])
    return UdpTunnelAnswer(best.accepted, best.forced, best.keepalive)


def revocation_support(said: tuple[Extension, ...]) -> RevocationSupport | None:
    """The first revocation support of these."""
    for extension in said:
        if isinstance(extension, wire.RevocationSupport):
            return RevocationSupport(extension.timestamp, extension.inform)
    return None
