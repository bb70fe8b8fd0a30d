"""Keys between a mobile node and a foreign agent (RFC 3957) in the messages that this agent relays, as neutral values.

It must not know which keys are there.
"""

from dataclasses import dataclass, field

from locum.roles.action_values.registration import KeyGrant, Proof
from locum.roles.mobile_ipv4.agent_options import wrapped_agent_key
from locum.roles.mobile_ipv4.key_grants import asked_agent_spi, granted_agent_key
from locum.roles.mobile_ipv4.proofs import proof
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import RegistrationReply, RegistrationRequest


@dataclass(frozen=True, slots=True)
class GivenKey:
    """A key that an acceptance grants the mobile node, and that is sent to the foreign agent."""

    grant: KeyGrant
    to_mobile: int | None  # SPI of messages to the mobile node; None: it has not asked
    wrapped: bytes | None = field(repr=False)  # encrypted for the foreign agent; None: it was not sent


def asks_for_key(request: RegistrationRequest) -> bool:
    """True if the mobile node asks for a key with the foreign agent, under the proof for its home network."""
    return asked_agent_spi(request.said_to_home) is not None


def proof_for_agent(request: RegistrationRequest) -> Proof | None:
    """The mobile node's proof for the foreign agent; None without one."""
    return proof(request, AuthKind.MN_FA)


def given_key(request: RegistrationRequest, reply: RegistrationReply) -> GivenKey | None:
    """The key that this answer to the request gives; None without one. Both authentications of the reply hold, or none counts."""
    grant = granted_agent_key(reply.protected(AuthKind.MN_HA))
    if grant is None or not reply.accepted:
        return None
    return GivenKey(grant, asked_agent_spi(request.said_to_home), wrapped_agent_key(reply))
