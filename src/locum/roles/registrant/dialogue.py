"""A registrant's requests to its home agent, and checks of the answers (RFC 5944 sections 3.6 and 5.7).

Identifications, authentication and resynchronisation under one association, and the parts that others add to a request.
A mobile node and a stand-in (R4) speak alike. It must not know links, agents' discovery, retries or targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Protocol

from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.action_values.registration import (
    FLAG_OF,
    NO_OPTIONS,
    Options,
    Proof,
    ReceivedAnswer,
    Registration,
    RegistrationFlag,
)
from locum.roles.actions import Action
from locum.roles.mobile_ipv4.own_requests import write_request
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.home_agent_choice import HomeAgentChoice
from locum.roles.registrant.own_keys import AgentKeys, OwnKeys
from locum.security.association import Association, Replay
from locum.security.replay import (
    answers,
    difference,
    home_nonce,
    next_identification,
    nonce_identification,
    wall_of,
)

RANDOM_BITS = 16  # of the low half of a timestamp: an attacker off the path must guess them (section 5.7.1)


class RegistrationPart(Protocol):
    """Something that rides in requests and learns from authentic replies: a flow rule, an identity, a context."""

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """The options of a request with this part's values; `lifetime` 0 deregisters."""
        ...

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The reply to a request, accepted or not; a foreign agent's own refusals are not shown."""
        ...


class ReplyCheck(Enum):
    """Result of checking a reply."""

    UNEXPECTED = "reply-unexpected"
    NOT_AUTHENTIC = "reply-not-authentic"
    # RFC 3115 section 4: the receiver of such a reply discards it
    UNKNOWN_CRITICAL = "reply-unknown-critical"
    AGENT = "agent"  # a foreign agent's own refusal
    AUTHENTIC = "authentic"


class RegistrationDialogue:
    """One home address under one association; `foreign_agents` has those with the agents that relay.

    `one_of_many`: others register the same home address, so deregistration names the one care-of address (section 3.6.1.2).
    """

    def __init__(
        self,
        home_address: IPv4Address,
        home_agent: HomeAgentChoice,
        keys: OwnKeys,
        foreign_agents: AgentKeys,
        randomness: Randomness,
        *,
        one_of_many: bool = False,
    ) -> None:
        self._one_of_many = one_of_many
        self.parts: list[RegistrationPart] = []
        self.home_address = home_address  # in requests; 0.0.0.0: whichever the home agent gives (RFC 2794)
        self._home_agent = home_agent
        self._keys = keys
        self._foreign_agents = foreign_agents
        self._randomness = randomness
        self._identification: int | None = None
        self.wall_ahead = 0.0  # seconds that our wall clock is ahead of `now`
        # The same of the home agent's clock; None: it has not told us
        self._clock_offset: float | None = None
        self._nonce: int | None = None

    @property
    def association(self) -> Association:
        """The association with the home agent."""
        return self._keys.association

    @property
    def last_timestamp(self) -> int | None:
        """The identification of the last request, if it is a time."""
        return self._identification if self.association.replay is Replay.TIMESTAMP else None

    # Requests ----------------------------------------------------------------------------------------------------

    def next_identification(self, now: float) -> int:
        """For a new request; retransmissions are new requests too (section 3.6.3)."""
        self._keys.begin(now)
        self._foreign_agents.begin(now)
        if self._keys.association.replay is Replay.NONCE:
            own = self._randomness.getrandbits(32)
            self._identification = nonce_identification(self._nonce or 0, own)
            return self._identification
        ahead = self.wall_ahead if self._clock_offset is None else self._clock_offset
        fresh = next_identification(now + ahead, self._identification)
        mixed = fresh ^ self._randomness.getrandbits(RANDOM_BITS)
        later = self._identification is None or difference(mixed, self._identification) > 0
        self._identification = mixed if later else fresh
        return self._identification

    def request(
        self, attachment: Attachment, lifetime: int, identification: int, challenge: bytes | None
    ) -> bytes:
        """601, signed for the home agent, and for the foreign agent where there is an association with it."""
        options = NO_OPTIONS
        for part in self.parts:
            options = part.fill(options, attachment, lifetime)
        if self._keys.asked is not None:
            options = replace(options, key_spi=self._keys.asked)
        agent = self._foreign_agents.proving(attachment, lifetime)
        if self._foreign_agents.asked is not None:
            options = replace(options, agent_key_spi=self._foreign_agents.asked)
        flags = RegistrationFlag.REVERSE_TUNNEL
        flags |= FLAG_OF.get(attachment.encapsulation, RegistrationFlag(0))
        if attachment.broadcasts:
            flags |= RegistrationFlag.BROADCAST
        registration = Registration(
            home_address=self.home_address,
            home_agent=self._home_agent.named,
            care_of=attachment.care_of if lifetime or self._one_of_many else self.home_address,
            lifetime=lifetime,
            identification=identification,
            flags=flags | RegistrationFlag.CO_LOCATED if attachment.colocated else flags,
            options=options,
        )
        return write_request(registration, self._keys.proving, agent, challenge)

    # Replies -----------------------------------------------------------------------------------------------------

    def check_reply(self, reply: ReceivedAnswer, attachment: Attachment, identification: int) -> ReplyCheck:
        """Section 3.6.2, for the request with this identification."""
        if not self.home_address.is_unspecified and reply.home_address != self.home_address:
            return ReplyCheck.UNEXPECTED
        if not answers(identification, reply.answer.identification):
            return ReplyCheck.UNEXPECTED
        from_agent = reply.by_agent is not None and not attachment.direct
        signer = self._keys.signer(reply.answer.key, reply.home_address)
        if not from_agent and (signer is None or not _holds(reply.proof, signer)):
            return ReplyCheck.NOT_AUTHENTIC
        association = self._foreign_agents.signer(reply.answer.agent_key, attachment, reply.home_address)
        if association is not None and not _holds(reply.agent_proof, association):
            return ReplyCheck.NOT_AUTHENTIC
        if reply.critical:
            return ReplyCheck.UNKNOWN_CRITICAL
        if from_agent:
            return ReplyCheck.AGENT
        if signer is not None:
            self._keys.answered(signer, reply.answer.key, accepted=reply.accepted)
        grant = reply.answer.agent_key
        self._foreign_agents.answered(association, grant, attachment, accepted=reply.accepted)
        if self._keys.association.replay is Replay.NONCE:
            self._nonce = home_nonce(reply.answer.identification)
        return ReplyCheck.AUTHENTIC

    def tell_parts(self, reply: ReceivedAnswer, attachment: Attachment) -> list[Action]:
        """Give an authentic reply to the parts."""
        return [action for part in self.parts for action in part.replied(reply, attachment)]

    def resynchronise(self, reply: ReceivedAnswer, now: float) -> None:
        """Section 5.7.1: the high half is the home agent's clock. Under nonces it has been taken already.

        From here on setting our own wall clock changes nothing: its distance from `now` is kept.
        """
        if self._keys.association.replay is Replay.TIMESTAMP:
            self._clock_offset = wall_of(reply.answer.identification, near=now) - now
            self._identification = None

    # Rows --------------------------------------------------------------------------------------------------------

    def to_row(self) -> dict[str, JSON]:
        """The part of a row."""
        return {
            "identification": self._identification,
            "clock_offset": self._clock_offset,
            "nonce": self._nonce,
        }

    def from_row(self, row: Mapping[str, JSON]) -> None:
        """From part of a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        identification, nonce, offset = row["identification"], row["nonce"], row["clock_offset"]
        if not isinstance(identification, int | None) or not isinstance(nonce, int | None):
            raise ValueError("identification and nonce are whole numbers")
        if not isinstance(offset, int | float | None):
            raise ValueError("clock_offset is a number")
        self._identification, self._nonce = identification, nonce
        self._clock_offset = None if offset is None else float(offset)


def _holds(proof: Proof | None, association: Association) -> bool:
    return proof is not None and proof.holds(association)
