"""Revocation and its acknowledgment (RFC 3543 sections 3.3 and 3.4): vectors, round trips, refusals."""

from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extensions import MAX_MESSAGE, Authentication, AuthKind, Nai
from locum.wire.mobile_ip.revocation import RegistrationRevocation, RevocationAcknowledgment
from tests.wire.strategies import acknowledgments, damaged, revocations

HOME, AGENT, CARE_OF = IPv4Address("192.0.2.10"), IPv4Address("192.0.2.1"), IPv4Address("203.0.113.5")
REVOCATION = bytes.fromhex("07 00 c000 c000020a c0000201 cb007105 e8a1b2c3 22 06 00000100 abcd")
ACKNOWLEDGMENT = bytes.fromhex("0f 00 8000 c000020a e8a1b2c3 22 06 00000100 abcd")
SIGNED = (Authentication(AuthKind.FA_HA, 256, b"\xab\xcd"),)


def test_revocation_vector() -> None:
    value = RegistrationRevocation(HOME, AGENT, CARE_OF, 0xE8A1B2C3, True, True, SIGNED)
    assert value.encode() == REVOCATION
    assert RegistrationRevocation.decode(REVOCATION) == value


def test_acknowledgment_vector() -> None:
    value = RevocationAcknowledgment(HOME, 0xE8A1B2C3, True, SIGNED)
    assert value.encode() == ACKNOWLEDGMENT
    assert RevocationAcknowledgment.decode(ACKNOWLEDGMENT) == value


@pytest.mark.parametrize(("flags", "agent", "inform"), [(0, 0, 0), (0x80, 1, 0), (0x40, 0, 1)])
def test_flags(flags: int, agent: int, inform: int) -> None:
    data = REVOCATION[:2] + bytes((flags, 0)) + REVOCATION[4:]
    value = RegistrationRevocation.decode(data)
    assert (value.from_home_agent, value.inform) == (agent, inform)
    assert value.encode() == data


def test_reserved_parts_are_ignored() -> None:
    data = b"\x07\xff\xff\xff" + REVOCATION[4:]
    assert RegistrationRevocation.decode(data) == RegistrationRevocation.decode(REVOCATION)
    data = b"\x0f\xff\xff\xff" + ACKNOWLEDGMENT[4:]
    assert RevocationAcknowledgment.decode(data) == RevocationAcknowledgment.decode(ACKNOWLEDGMENT)


@pytest.mark.parametrize("kind", [AuthKind.FA_HA, AuthKind.MN_HA])
def test_the_authenticator_covers_the_message(kind: AuthKind) -> None:
    covered: list[bytes] = []
    plain = RegistrationRevocation(
        HOME, AGENT, CARE_OF, 7, False, extensions=(Nai("mn@home.example"),)
    ).encode()
    signed = append_authentication(plain, kind, 256, lambda data: covered.append(data) or bytes(16))  # type: ignore[func-returns-value]
    found = RegistrationRevocation.decode(signed)
    authentication = found.authentication(kind)
    assert authentication is not None and authentication.covered == covered[-1]
    assert found.protected(kind) == (Nai("mn@home.example"),)


@given(revocations)
def test_revocation_round_trip(revocation: RegistrationRevocation) -> None:
    assert RegistrationRevocation.decode(revocation.encode()) == revocation


@given(acknowledgments)
def test_acknowledgment_round_trip(acknowledgment: RevocationAcknowledgment) -> None:
    assert RevocationAcknowledgment.decode(acknowledgment.encode()) == acknowledgment


@given(st.binary(max_size=60) | damaged(revocations.map(lambda message: message.encode())))
def test_bytes_give_a_revocation_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = RegistrationRevocation.decode(data)
        assert RegistrationRevocation.decode(message.encode()) == message


@given(st.binary(max_size=60) | damaged(acknowledgments.map(lambda message: message.encode())))
def test_bytes_give_an_acknowledgment_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = RevocationAcknowledgment.decode(data)
        assert RevocationAcknowledgment.decode(message.encode()) == message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (REVOCATION[:19], "truncated"),
        (ACKNOWLEDGMENT, "unknown-message"),
        (REVOCATION[:-1], "truncated"),
        (REVOCATION + b"\x2d\x01\x00", "unknown-extension"),
        (REVOCATION + bytes(MAX_MESSAGE), "too-large"),
    ],
)
def test_refused_revocations(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        RegistrationRevocation.decode(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"), [(ACKNOWLEDGMENT[:11], "truncated"), (REVOCATION, "unknown-message")]
)
def test_refused_acknowledgments(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        RevocationAcknowledgment.decode(data)
    assert caught.value.reason == reason
