"""Authenticators of dynamic authorisation by RADIUS (RFC 5176 sections 2.3 and 3.4): requests checked, answers signed.

MD5 and HMAC-MD5 are what the protocol has. It must not know clients, nor the meaning of an attribute.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from locum.wire.radius import (
    AUTHENTICATOR,
    AUTHENTICATOR_AT,
    HEADER,
    MESSAGE_AUTHENTICATOR,
    Attribute,
    RadiusPacket,
    encode_radius,
)

ZERO: Final = bytes(AUTHENTICATOR)


def request_authentic(data: bytes, secret: bytes) -> bool:
    """True if the Request Authenticator of these bytes, without padding, was made with the secret."""
    made = _hashed(_with_authenticator(data, ZERO), secret)
    return hmac.compare_digest(made, data[AUTHENTICATOR_AT:HEADER])


def message_authentic(data: bytes, secret: bytes, authenticator: bytes = ZERO) -> bool | None:
    """True if the one Message-Authenticator was made with the secret; None without one.

    `authenticator` is zero for a request of dynamic authorisation, and for an answer that of its request.
    """
    places = []
    at = HEADER
    while at < len(data):
        if data[at] == MESSAGE_AUTHENTICATOR:
            places.append(at)
        at += data[at + 1]
    if not places:
        return None
    if len(places) > 1 or data[places[0] + 1] != 2 + AUTHENTICATOR:
        return False
    at = places[0] + 2
    blank = _with_authenticator(data, authenticator)
    blank = blank[:at] + ZERO + blank[at + AUTHENTICATOR :]
    made = hmac.new(secret, blank, "md5").digest()
    return hmac.compare_digest(made, data[at : at + AUTHENTICATOR])


def signed_request(code: int, identifier: int, attributes: Sequence[Attribute], secret: bytes) -> bytes:
    """A request of dynamic authorisation, with a Message-Authenticator first."""
    return _signed(code, identifier, attributes, secret, ZERO)


def signed_answer(code: int, request: RadiusPacket, attributes: Sequence[Attribute], secret: bytes) -> bytes:
    """The answer to a request, with a Message-Authenticator first."""
    return _signed(code, request.identifier, attributes, secret, request.authenticator)


def answer_authentic(data: bytes, request: bytes, secret: bytes) -> bool:
    """True if an answer, without padding, is one to the request that was made with the secret."""
    asked = request[AUTHENTICATOR_AT:HEADER]
    if data[1] != request[1] or message_authentic(data, secret, asked) is False:
        return False
    made = _hashed(_with_authenticator(data, asked), secret)
    return hmac.compare_digest(made, data[AUTHENTICATOR_AT:HEADER])


def _signed(
    code: int, identifier: int, attributes: Sequence[Attribute], secret: bytes, authenticator: bytes
) -> bytes:
    listed = (Attribute(MESSAGE_AUTHENTICATOR, ZERO), *attributes)
    blank = encode_radius(RadiusPacket(code, identifier, authenticator, listed))
    proof = hmac.new(secret, blank, "md5").digest()
    at = HEADER + 2
    whole = blank[:at] + proof + blank[at + AUTHENTICATOR :]
    return _with_authenticator(whole, _hashed(whole, secret))


def _hashed(data: bytes, secret: bytes) -> bytes:
    return hashlib.md5(data + secret, usedforsecurity=False).digest()


def _with_authenticator(data: bytes, authenticator: bytes) -> bytes:
    return data[:AUTHENTICATOR_AT] + authenticator + data[HEADER:]
