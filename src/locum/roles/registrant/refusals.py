"""The next step after a refused registration (RFC 5944 section 3.6.2.2).

This module must not know discovery, nor how a request is sent.
"""

from dataclasses import dataclass

from locum.roles.registrant.attachment import Attachment, Registering, Waiting
from locum.roles.registrant.candidates import CareOfCandidates
from locum.roles.registrant.dialogue import CHALLENGE_CODES, UNREACHABLE_CODES, RegistrationDialogue
from locum.roles.registrant.timing import DENIED_FIRST, RETRY_MAX
from locum.wire.mobile_ip.registration import Code, RegistrationReply


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
    reply: RegistrationReply,
    state: Registering,
    dialogue: RegistrationDialogue,
    candidates: CareOfCandidates,
    in_use: Attachment | None,
    now: float,
) -> NextStep:
    """Return the next step. The dialogue and the candidates learn from the reply."""
    code, attachment = int(reply.code), state.attachment
    if code == Code.IDENTIFICATION_MISMATCH and not state.resynchronised:
        dialogue.resynchronise(reply, now)
        return SendAgain(resynchronised=True)
    if code == Code.FA_REQUESTED_LIFETIME_TOO_LONG and 0 < reply.lifetime < state.lifetime:
        candidates.bound(attachment, reply.lifetime)
        return SendAgain(state.resynchronised)
    if code in CHALLENGE_CODES:
        return AwaitChallenge(Waiting(now + DENIED_FIRST, DENIED_FIRST, code))
    if code in UNREACHABLE_CODES:
        # Another agent may know a way to the home network, but not to a home agent that is down.
        if code == Code.FA_HOME_NETWORK_UNREACHABLE and candidates.others(attachment, now):
            candidates.avoid(attachment, now + max(DENIED_FIRST, 2 * state.interval))
            return SendAgain()
        return AwaitRetransmission()
    interval = min(RETRY_MAX, max(DENIED_FIRST, 2 * state.interval))
    candidates.avoid(attachment, now + interval)
    return Refused(None if candidates.available(now, in_use) else Waiting(now + interval, interval, code))
