"""What a home agent answers to registrations: signed acceptances and refusals, never larger than what they answer.

It must not know bindings, rules or forwarding.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Randomness, Source
from locum.roles.actions import Action, Count, Reply
from locum.roles.signing import authentic, signed
from locum.security.association import Association, Replay
from locum.security.replay import mobile_nonce, nonce_identification
from locum.wire.mobile_ip.extensions import AuthKind, Nai
from locum.wire.mobile_ip.registration import Code, RegistrationReply, RegistrationRequest


class Replies:
    """The answers of the home agent at `address`; `agents` are its associations with foreign agents."""

    def __init__(
        self, address: IPv4Address, agents: Mapping[Addr, Association], randomness: Randomness
    ) -> None:
        self._address, self._agents, self._randomness = address, dict(agents), randomness

    def agent_fails(self, request: RegistrationRequest, source: Source) -> bool:
        """Section 3.8.2.1: with an association, the foreign agent must authenticate itself, and does not."""
        agent = self._agent(source)
        return agent is not None and not authentic(request, AuthKind.FA_HA, agent)

    def sign(
        self, reply: RegistrationReply, association: Association, source: Source, to_agent: bytes = b""
    ) -> bytes:
        """The reply's bytes, signed for the registrant, and for the foreign agent that sent the request.

        `to_agent` are extensions that are for that one alone.
        """
        message = signed(reply.encode(), AuthKind.MN_HA, association)
        agent = self._agent(source)
        return message if agent is None else signed(message + to_agent, AuthKind.FA_HA, agent)

    def refuse(
        self,
        request: RegistrationRequest,
        association: Association,
        code: Code,
        source: Source,
        bound: int,
        *,
        nonce: int | None,
        identification: int | None = None,
    ) -> list[Action]:
        """A signed refusal. Under nonces it carries the one that is expected already, unless `identification` is given."""
        if identification is None and association.replay is Replay.NONCE:
            identification = nonce_identification(nonce or 0, mobile_nonce(request.identification))
        message = self.sign(self._refusal(request, code, identification), association, source)
        return [Count(f"refused-{int(code)}"), *_bounded(Reply(source, message), bound)]

    def unsigned(self, request: RegistrationRequest, code: Code, source: Source, bound: int) -> list[Action]:
        """A refusal to somebody who has not shown who he is: shorter than the request, and not signed for him."""
        message = self._refusal(request, code, None).encode()
        return [Count(f"refused-{int(code)}"), *_bounded(Reply(source, message), bound)]

    def new_nonce(self, last: int | None) -> int:
        """32 random bits that are not those of the last reply."""
        nonce = self._randomness.getrandbits(32)
        return nonce ^ 1 if nonce == last else nonce

    def knows(self, source: Source) -> bool:
        """Whether the request came from a foreign agent that has an association with the home agent."""
        return self._agent(source) is not None

    def _agent(self, source: Source) -> Association | None:
        """The association with the foreign agent that sent this, if there is one."""
        return self._agents.get(source.address) if self._agents else None

    def _refusal(
        self, request: RegistrationRequest, code: Code, identification: int | None
    ) -> RegistrationReply:
        return RegistrationReply(
            code=code,
            lifetime=0,
            home_address=request.home_address,
            home_agent=self._address,
            identification=request.identification if identification is None else identification,
            extensions=nai_again(request),
        )


def nai_again(request: RegistrationRequest) -> tuple[Nai, ...]:
    """The NAI of the request: agents and a mobile node without a home address know the reply by it (RFC 2794)."""
    nai = request.mobile_nai
    return () if nai is None else (Nai(nai),)


def _bounded(reply: Reply, bound: int) -> list[Action]:
    """A refusal is never larger than what caused it: nobody is worth more as a reflector than as a sender."""
    if len(reply.message) > bound:
        return [Count("reply-larger-than-request")]
    return [reply]
