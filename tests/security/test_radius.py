"""Authenticators of dynamic authorisation, compared with those of another implementation (RFC 5176)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.packet import CoAACK, CoAPacket, CoARequest, DisconnectRequest

from locum.node.policy.profile_attributes import dictionary
from locum.security.radius import (
    answer_authentic,
    message_authentic,
    request_authentic,
    signed_answer,
    signed_request,
)
from locum.wire.radius import MESSAGE_AUTHENTICATOR, Attribute, Code, decode_radius

SECRET = b"replace-this-by-32-random-letters"
NAMED = (Attribute(1, b"alice@example.org"), Attribute(33, b"one"), Attribute(33, b"two"))
REQUEST = signed_request(Code.COA_REQUEST, 7, NAMED, SECRET)


def test_a_request_of_another_implementation_is_authentic() -> None:
    for code in (CoARequest, DisconnectRequest):
        other = CoAPacket(code, 9, SECRET, dict=dictionary(None))
        other["User-Name"] = "alice@example.org"
        other.add_message_authenticator()
        data = other.RequestPacket()
        assert request_authentic(data, SECRET) and message_authentic(data, SECRET)
        assert not request_authentic(data, b"x" + SECRET) and not message_authentic(data, b"x" + SECRET)


def test_our_request_is_authentic_for_another_implementation() -> None:
    theirs = CoAPacket(packet=REQUEST, secret=SECRET, dict=dictionary(None))
    assert theirs.VerifyCoARequest() and theirs.verify_message_authenticator()


def test_our_answer_is_authentic_for_another_implementation() -> None:
    asking = CoAPacket(CoARequest, 9, SECRET, dict=dictionary(None))
    asking["User-Name"] = "alice@example.org"
    asking.add_message_authenticator()
    request = decode_radius(asking.RequestPacket())
    data = signed_answer(Code.COA_ACK, request, (Attribute(33, b"one"),), SECRET)
    answer = asking.CreateReply(packet=data)
    assert answer.code == CoAACK and asking.VerifyReply(answer, enforce_ma=True)


def test_an_answer_belongs_to_its_request() -> None:
    other = signed_request(Code.COA_REQUEST, 8, NAMED, SECRET)
    data = signed_answer(Code.COA_ACK, decode_radius(REQUEST), (), SECRET)
    assert answer_authentic(data, REQUEST, SECRET)
    assert not answer_authentic(data, other, SECRET) and not answer_authentic(data, REQUEST, b"x" * 16)


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_each_changed_byte_is_noticed(place: int, change: int) -> None:
    if place in (2, 3):
        return  # the length: what it cuts off is the codec's
    changed = REQUEST[:place] + bytes((REQUEST[place] ^ change,)) + REQUEST[place + 1 :]
    assert not request_authentic(changed, SECRET)


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ((), None),
        ((Attribute(MESSAGE_AUTHENTICATOR, bytes(16)),), False),
        ((Attribute(MESSAGE_AUTHENTICATOR, bytes(15)),), False),
        ((Attribute(MESSAGE_AUTHENTICATOR, bytes(16)),) * 2, False),
    ],
)
def test_message_authenticators_that_do_not_count(
    attributes: tuple[Attribute, ...], found: bool | None
) -> None:
    signed = signed_request(Code.COA_REQUEST, 7, attributes, SECRET)
    own = signed[20:38]
    without = signed[:2] + (len(signed) - len(own)).to_bytes(2, "big") + signed[4:20] + signed[38:]
    assert message_authentic(without, SECRET) is found
