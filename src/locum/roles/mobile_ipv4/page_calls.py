"""Calls to sleeping devices and their answers, as experimental messages (RFC 4064), read with proofs and written signed.

This file must not know whether a call is believed.
"""

from locum.roles.action_values.page_calls import CallDecision, CallReason, PageCall, PageCallAnswer
from locum.roles.mobile_ipv4.proofs import proof
from locum.roles.mobile_ipv4.signing import signed
from locum.security.association import Association
from locum.wire.mobile_ip import page_call as wire
from locum.wire.mobile_ip.extensions import AuthKind

_REASONS = {
    CallReason.PACKET: wire.Reason.PACKET,
    CallReason.EVENT: wire.Reason.EVENT,
    CallReason.COMMAND: wire.Reason.COMMAND,
}
_CODES = {
    CallDecision.WAKING: wire.CallAnswerCode.WAKING,
    CallDecision.AWAKE: wire.CallAnswerCode.AWAKE,
    CallDecision.REFUSED: wire.CallAnswerCode.REFUSED,
}
_REASON_OF = {number: reason for reason, number in _REASONS.items()}
_DECISION_OF = {number: decision for decision, number in _CODES.items()}


def is_experimental(message: bytes) -> bool:
    """True if a message to port 434 may be a call or the answer to one."""
    return message[:1] == bytes((wire.EXPERIMENTAL,))


def write_call(call: PageCall, association: Association) -> bytes:
    """The message, signed for the device."""
    reason = _REASONS[call.reason]
    said = wire.PageCall(
        call.page,
        call.home_address,
        call.identification,
        reason,
        wire.in_words(call.detail),
        forwarded=call.forwarded,
        allocation=call.allocation,
    )
    return signed(said.encode(), AuthKind.MN_HA, association)


def read_call(message: bytes) -> PageCall:
    """The call in the payload of a UDP datagram. Raises WireError."""
    said = wire.PageCall.decode(message)
    reason, found = _REASON_OF[said.reason], proof(said, AuthKind.MN_HA)
    page, home_address, identification = said.page, said.home_address, said.identification
    return PageCall(
        page, home_address, identification, reason, found, said.forwarded, said.allocation, said.detail
    )


def write_call_answer(answer: PageCallAnswer, association: Association) -> bytes:
    """The message, signed for the home agent."""
    code = _CODES[answer.decision]
    said = wire.PageCallAnswer(answer.page, answer.home_address, answer.identification, code)
    return signed(said.encode(), AuthKind.MN_HA, association)


def read_call_answer(message: bytes) -> PageCallAnswer:
    """The answer in the payload of a UDP datagram. Raises WireError."""
    said = wire.PageCallAnswer.decode(message)
    decision, found = _DECISION_OF[said.code], proof(said, AuthKind.MN_HA)
    return PageCallAnswer(said.page, said.home_address, said.identification, decision, found)
