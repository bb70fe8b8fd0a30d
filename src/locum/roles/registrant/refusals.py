"""The next step after a refused registration (RFC 5944 section 3.6.2.2).

This module must not know discovery, nor how a request is sent.
"""

from dataclasses import dataclass

from locum.roles.action_values.flows import Encapsulation
from locum.roles.action_values.registration import AgentRefusal, ReceivedAnswer, RefusalReason
from locum.roles.registrant.attachment import Attachment, Registering, State, Waiting
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
    """Return the next step after a refusal, or an acceptance that `holds_nothing`. Dialogue and candidates learn from it."""
    code, attachment, by_agent = reply.code, state.attachment, reply.by_agent
    if reply.accepted:  # and nothing granted: every agent leads to the same home agent
        return Refused(_wait_longer(state, code, now))
    if reply.answer.refused is RefusalReason.NOT_FRESH:
        dialogue.resynchronise(reply, now)
        if (
            not state.resynchronised
        ):  # else the refusal goes on though we have followed the home agent's clock
            return SendAgain(resynchronised=True)
    if by_agent is AgentRefusal.LIFETIME_TOO_LONG and 0 < reply.lifetime < state.lifetime:
        candidates.bound(attachment, reply.lifetime)
        return SendAgain(state.resynchronised)
    no_such_tunnels = reply.answer.refused is RefusalReason.ENCAPSULATION_UNAVAILABLE
    if attachment.encapsulation is not Encapsulation.IPIP and (
        no_such_tunnels or by_agent is AgentRefusal.ENCAPSULATION
    ):
        candidates.go_plain(attachment)
        return SendAgain(state.resynchronised)
    if by_agent is AgentRefusal.CHALLENGE:
        return AwaitChallenge(Waiting(now + DENIED_FIRST, DENIED_FIRST, code, challenge=True))
    if by_agent in (AgentRefusal.NETWORK_UNREACHABLE, AgentRefusal.HOME_AGENT_UNREACHABLE):
        # Another agent may know a way to the home network, but not to a home agent that is down.
        if by_agent is AgentRefusal.NETWORK_UNREACHABLE and candidates.others(attachment, now):
            candidates.avoid(attachment, now + max(DENIED_FIRST, 2 * state.interval))
            return SendAgain()
        return AwaitRetransmission()
    waiting = _wait_longer(state, code, now)
    candidates.avoid(attachment, waiting.retry_at)
    return Refused(None if candidates.available(now, in_use) else waiting)


def _wait_longer(state: Registering, code: int, now: float) -> Waiting:
    """Wait for twice the time that was waited after the last refusal, at most RETRY_MAX seconds."""
    interval = min(RETRY_MAX, max(DENIED_FIRST, 2 * state.interval, 2 * state.denied))
    return Waiting(now + interval, interval, code)


def so_far(state: State, *, resynchronised: bool) -> tuple[bool, float]:
    """Refusals before the next request: whether code 133 was among them, and the seconds waited after the last."""
    match state:
        case Waiting():
            return resynchronised or state.code == RefusalReason.NOT_FRESH, state.interval
        case Registering():
            return resynchronised or state.resynchronised, state.denied
    return resynchronised, 0.0


def holds_nothing(reply: ReceivedAnswer, state: Registering, now: float) -> bool:
    """True if an acceptance leaves no registration: lifetime 0 (section 3.4), or one that is over when the reply comes."""
    return state.lifetime > 0 and state.sent_at + reply.lifetime <= now
