"""Replies of a home agent: signed acceptances and refusals, never larger than their requests.

It must not know bindings, rules or forwarding, nor how an answer is spelled.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Randomness, Source
from locum.roles.action_values.registration import Received, RefusalReason, Registration, RegistrationAnswer
from locum.roles.actions import Action, Count, Reply
from locum.security.association import Association, Replay
from locum.security.replay import mobile_nonce, nonce_identification


class Replies:
    """The answers of the home agent with these addresses; `agents` are its associations with foreign agents."""

    def __init__(
        self, addresses: Sequence[IPv4Address], agents: Mapping[Addr, Association], randomness: Randomness
    ) -> None:
        """A reply has the address that the request named, if it is one of `addresses`; else the first."""
        self._addresses, self._agents, self._randomness = tuple(addresses), dict(agents), randomness

    def agent_fails(self, registration: Registration, source: Source) -> bool:
        """True if a foreign agent with an association is not authentic (RFC 5944 section 3.8.2.1)."""
        agent = self._agent(source)
        if agent is None:
            return False
        return registration.agent_proof is None or not registration.agent_proof.holds(agent)

    def sign(self, received: Received, association: Association, answer: RegistrationAnswer) -> Reply:
        """The answer, signed for the registrant, and for the foreign agent that sent the registration."""
        source = received.source
        message = received.write(
            received.registration,
            answer,
            self._named(received.registration),
            mobile=association,
            agent=self._agent(source),
        )
        return Reply(source, message)

    def refuse(
        self,
        received: Received,
        association: Association,
        reason: RefusalReason,
        *,
        nonce: int | None,
        identification: int | None = None,
        redirect: IPv4Address | None = None,
    ) -> list[Action]:
        """A signed refusal. Under nonces it carries the one that is expected already, unless `identification` is given."""
        asked = received.registration.identification
        if identification is None:
            identification = asked
            if association.replay is Replay.NONCE:
                identification = nonce_identification(nonce or 0, mobile_nonce(asked))
        answer = RegistrationAnswer(reason, 0, identification, redirect=redirect)
        reply = self.sign(received, association, answer)
        return [Count(f"refused-{int(reason)}"), *_bounded(reply, received.size)]

    def unsigned(self, received: Received, reason: RefusalReason) -> list[Action]:
        """A refusal to an unauthenticated sender: shorter than the request, and unsigned."""
        registration = received.registration
        answer = RegistrationAnswer(reason, 0, registration.identification)
        message = received.write(registration, answer, self._named(registration), mobile=None, agent=None)
        return [Count(f"refused-{int(reason)}"), *_bounded(Reply(received.source, message), received.size)]

    def new_nonce(self, last: int | None) -> int:
        """32 random bits that are not those of the last reply."""
        nonce = self._randomness.getrandbits(32)
        return nonce ^ 1 if nonce == last else nonce

    def knows(self, source: Source) -> bool:
        """True if the request came from a foreign agent that has an association with the home agent."""
        return self._agent(source) is not None

    def _named(self, registration: Registration) -> IPv4Address:
        return registration.home_agent if registration.home_agent in self._addresses else self._addresses[0]

    def _agent(self, source: Source) -> Association | None:
        """The association with the foreign agent that sent this, if there is one."""
        return self._agents.get(source.address) if self._agents else None


def _bounded(reply: Reply, bound: int) -> list[Action]:
    """Limit a refusal to the size of its request, so that it is no use as a reflector."""
    if len(reply.message) > bound:
        return [Count("reply-larger-than-request")]
    return [reply]
