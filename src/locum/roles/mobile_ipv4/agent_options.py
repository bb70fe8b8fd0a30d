"""Options between a foreign agent and a home agent alone, behind the mobile-home authentication of a message.

They are of UDP tunnels (RFC 3519) and revocations (RFC 3543). It must not know which of them are wanted.
"""

from locum.roles.action_values.registration import Options, RevocationSupport, UdpTunnelAnswer
from locum.wire.mobile_ip import extensions as wire
from locum.wire.mobile_ip.extensions import AuthKind, Extension, InnerEncapsulation, encode_extensions
from locum.wire.mobile_ip.registration import RegistrationReply


def write_agent_options(options: Options) -> bytes:
    """The extensions that a foreign agent adds to a request before its own authentication."""
    added: list[Extension] = []
    if options.udp is not None:
        inner = InnerEncapsulation.IP if options.udp.plain_ip else InnerEncapsulation.GRE
        added.append(wire.UdpTunnelRequest(inner, force=options.udp.forced))
    if options.revocations is not None:
        added.append(wire.RevocationSupport(options.revocations.timestamp, options.revocations.inform))
    return encode_extensions(added)


def read_agent_options(
    reply: RegistrationReply,
) -> tuple[UdpTunnelAnswer | None, RevocationSupport | None]:
    """The answers of a home agent to these options, which its foreign-home authentication covers."""
    said = reply.protected(AuthKind.FA_HA)[len(reply.protected(AuthKind.MN_HA)) :]
    return udp_answer(said), revocation_support(said)


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
