"""Adding authentication extensions: covered bytes (RFC 5944 section 3.5.1)."""

from hashlib import sha256
from ipaddress import IPv4Address

import pytest

from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extensions import Authentication, AuthKind
from locum.wire.mobile_ip.registration import RegistrationRequest

HOME = IPv4Address("192.0.2.10")
MESSAGE = RegistrationRequest(300, HOME, HOME, HOME, 1).encode()


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


@pytest.mark.parametrize("kind", list(AuthKind))
def test_the_digest_covers_message_type_length_and_spi(kind: AuthKind) -> None:
    covered = MESSAGE + bytes((kind, 36)) + bytes.fromhex("00000abc")
    signed = append_authentication(MESSAGE, kind, 0xABC, digest)
    assert signed == covered + digest(covered)
    found = RegistrationRequest.decode(signed).authentication(kind)
    assert found == Authentication(kind, 0xABC, digest(covered))
    assert found.covered == covered and found.through == signed


def test_the_second_covers_the_first() -> None:
    first = append_authentication(MESSAGE, AuthKind.MN_HA, 256, digest)
    second = append_authentication(first, AuthKind.FA_HA, 257, digest)
    found = RegistrationRequest.decode(second).authentication(AuthKind.FA_HA)
    assert found is not None and found.covered.startswith(first)


def test_a_given_length_saves_one_digest() -> None:
    calls: list[bytes] = []

    def counting(data: bytes) -> bytes:
        calls.append(data)
        return digest(data)

    signed = append_authentication(MESSAGE, AuthKind.MN_HA, 256, counting, authenticator_bytes=32)
    assert signed == append_authentication(MESSAGE, AuthKind.MN_HA, 256, digest)
    assert len(calls) == 1


def test_misuse() -> None:
    with pytest.raises(ValueError, match="251"):
        append_authentication(MESSAGE, AuthKind.MN_HA, 256, lambda data: bytes(252))
    with pytest.raises(ValueError, match="not 16"):
        append_authentication(MESSAGE, AuthKind.MN_HA, 256, digest, authenticator_bytes=16)
