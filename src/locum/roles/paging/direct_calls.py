"""Sealed calls between a stand-in and its sleeping device (P5): made to fit into one datagram, and read again. Pure functions.

It must not know whether a call is believed, nor how it gets to the device.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from locum.security.sealing import SEAL_BYTES, seal, unseal
from locum.wire.control.paging.cause import ApplicationEvent, carried
from locum.wire.control.paging.direct_message import HEADER_BYTES, MAX_MESSAGE, DirectKind, DirectMessage
from locum.wire.control.paging.direct_page import (
    DirectCall,
    DirectDecision,
    LeftOut,
    decode_call,
    decode_decision,
    encode_call,
    encode_decision,
)
from locum.wire.errors import WireError

ROOM: Final = MAX_MESSAGE - HEADER_BYTES - SEAL_BYTES
"""Bytes of the content of one message."""


class Unsealable(ValueError):
    """A message that its sender has not made with the key; the text is the reason under which it is counted."""


def fitted(event: ApplicationEvent, entry: int, count: int, state: Mapping[str, object] | None) -> DirectCall:
    """The content of a call as far as one datagram has room: without the state, or without the event's detail too.

    `state` None: there is one, but it is too long anyway.
    """
    whole = carried(event)
    if whole.detail == event.detail:
        left_out = LeftOut.STATE if state is None else LeftOut.NOTHING
        for call in (
            DirectCall(whole, entry, count, left_out, state or {}),
            DirectCall(whole, entry, count, LeftOut.STATE),
        ):
            if _fits(call):
                return call
    return DirectCall(ApplicationEvent(event.app, event.kind), entry, count, LeftOut.DETAIL)


def _fits(call: DirectCall) -> bool:
    try:
        body = encode_call(call)
        decode_call(body)
    except (WireError, RecursionError):
        return False
    return len(body) <= ROOM


def fits(decision: DirectDecision) -> bool:
    """True if one datagram has room for the answer."""
    return len(encode_decision(decision)) <= ROOM


def write_call(
    call: DirectCall, page: bytes, home_address: IPv4Address, identification: int, key: bytes, nonce: bytes
) -> bytes:
    """The message to the device; `key` is the stand-in's own."""
    return _sealed(DirectKind.CALL, page, home_address, identification, key, nonce, encode_call(call))


def read_call(message: DirectMessage, key: bytes) -> DirectCall:
    """The content of a call. Raises Unsealable, or WireError for content that the stand-in should not have made."""
    return decode_call(_opened(message, key))


def write_answer(decision: DirectDecision, call: DirectMessage, key: bytes, nonce: bytes) -> bytes:
    """The answer to that call; `key` is the device's own."""
    text = encode_decision(decision)
    page, home_address, identification = call.page, call.home_address, call.identification
    return _sealed(DirectKind.ANSWER, page, home_address, identification, key, nonce, text)


def read_answer(message: DirectMessage, key: bytes) -> DirectDecision:
    """The content of an answer. Raises Unsealable, or WireError for content that the device should not have made."""
    return decode_decision(_opened(message, key))


def _sealed(
    kind: DirectKind,
    page: bytes,
    home_address: IPv4Address,
    identification: int,
    key: bytes,
    nonce: bytes,
    text: bytes,
) -> bytes:
    header = DirectMessage(kind, page, home_address, identification, b"").header
    return header + seal(key, nonce, text, header)


def _opened(message: DirectMessage, key: bytes) -> bytes:
    try:
        return unseal(key, message.sealed, message.header)
    except ValueError as error:
        raise Unsealable("not-authentic") from error
