"""The next step after a refused registration (RFC 5944 section 3.6.2.2).

This module must not know discovery, nor how a request is sent.
"""

from dataclasses import dataclass

from locum.roles.action_values.registration import AgentRefusal, ReceivedAnswer, RefusalReason
from locum.roles.registrant.attachment import Attachment, Registering, Waiting
from locum.roles.registrant.candidates import CareOfCandidates
from locum.roles.registrant.dialogue import RegistrationDialogue
from locum.roles.registrant.timing import DENIED_FIRST, RETRY_MAX


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Send another request at once. `resynchronised`: code 133 has come once already."""

    resynchronised: bool = False


@dataclass(frozen=True, slots=True)
class AwaitChallenge:
    """Ask the agent for a new challenge; its advertisement ends the waiting."""

    waiting: Waiting


@dataclass(frozen=True, slots=True)
class AwaitRetransmission:
    """Go on as if no reply had come (section 3.6.3)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Avoid this attachment. `waiting` is None while another one can be tried at once."""

    waiting: Waiting | None


NextStep = SendAgain | AwaitChallenge | AwaitRetransmission | Refused


def after_refusal(
    reply: ReceivedAnswer,
    state: Registering,
    dialogue: RegistrationDialogue,
    candidates: CareOfCandidates,
    in_use: Attachment | None,
    now: float,
) -> NextStep:
    """Return the next step. The dialogue and the candidates learn from the reply."""
    code, attachment, by_agent = reply.code, state.attachment, reply.by_agent
    if reply.answer.refused is RefusalReason.NOT_FRESH and not state.resynchronised:
        dialogue.resynchronise(reply, now)
        return SendAgain(resynchronised=True)
    if by_agent is AgentRefusal.LIFETIME_TOO_LONG and 0 < reply.lifetime < state.lifetime:
        candidates.bound(attachment, reply.lifetime)
        return SendAgain(state.resynchronised)
    if by_agent is AgentRefusal.CHALLENGE:
        return AwaitChallenge(Waiting(now + DENIED_FIRST, DENIED_FIRST, code, challenge=True))
    if by_agent in (AgentRefusal.NETWORK_UNREACHABLE, AgentRefusal.HOME_AGENT_UNREACHABLE):
        # Another agent may know a way to the home network, but not to a home agent that is down.
        if by_agent is AgentRefusal.NETWORK_UNREACHABLE and candidates.others(attachment, now):
            candidates.avoid(attachment, now + max(DENIED_FIRST, 2 * state.interval))
            return SendAgain()
        return AwaitRetransmission()
    interval = min(RETRY_MAX, max(DENIED_FIRST, 2 * state.interval))
    candidates.avoid(attachment, now + interval)
    return Refused(None if candidates.available(now, in_use) else Waiting(now + interval, interval, code))
