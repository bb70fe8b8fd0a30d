"""Authenticators: published vectors, agreement with the standard library, refusals."""

import hmac
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.security.association import Algorithm, Association, digest, verify
from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import RegistrationRequest

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("algorithm", "key", "data", "expected"),
    [
        # RFC 2202 section 2, cases 1 and 3
        (Algorithm.HMAC_MD5, b"\x0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
        (Algorithm.HMAC_MD5, b"\xaa" * 16, b"\xdd" * 50, "56be34521d144c88dbb8c733f0e8b3f6"),
        # RFC 4231 sections 4.2 and 4.4
        (
            Algorithm.HMAC_SHA_256,
            b"\x0b" * 20,
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            Algorithm.HMAC_SHA_256,
            b"\xaa" * 20,
            b"\xdd" * 50,
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
    ],
)
def test_vectors(algorithm: Algorithm, key: bytes, data: bytes, expected: str) -> None:
    association = Association(256, key, algorithm)
    assert digest(association, data).hex() == expected
    assert len(association.digest(data)) == algorithm.authenticator_bytes
    assert association.verify(data, bytes.fromhex(expected))


@pytest.mark.parametrize("algorithm", list(Algorithm))
@given(key=st.binary(min_size=16, max_size=200), data=st.binary(max_size=200))
def test_agrees_with_the_standard_library(algorithm: Algorithm, key: bytes, data: bytes) -> None:
    name = algorithm.value.removeprefix("hmac-").replace("-", "")
    assert digest(Association(256, key, algorithm), data) == hmac.digest(key, data, name)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_one_flipped_bit_is_refused(algorithm: Algorithm) -> None:
    association = Association(256, KEY, algorithm)
    right = digest(association, b"message")
    for bit in range(len(right) * 8):
        wrong = bytearray(right)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not verify(association, b"message", bytes(wrong))
    for size in range(len(right)):
        assert not verify(association, b"message", right[:size])
    assert not verify(association, b"message", right + b"\x00")
    assert not verify(association, b"messagf", right)
    assert not verify(Association(256, KEY[::-1], algorithm), b"message", right)


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_any_authenticator_gives_a_plain_answer(data: bytes, authenticator: bytes) -> None:
    association = Association(256, KEY)
    assert association.verify(data, authenticator) == (authenticator == association.digest(data))


@pytest.mark.parametrize("spi", [-1, 0, 255, 1 << 32])
def test_reserved_spi(spi: int) -> None:
    with pytest.raises(ValueError, match="SPI"):
        Association(spi, KEY)


def test_short_key_is_refused_and_repr_hides_keys() -> None:
    with pytest.raises(ValueError, match="16"):
        Association(256, b"fifteen bytes..")
    assert " key=" not in repr(Association(256, KEY)) and repr(KEY) not in repr(Association(256, KEY))
    assert Association(256, b"short", short_key=True).verify(
        b"", digest(Association(256, b"short", short_key=True), b"")
    )
    with pytest.raises(ValueError, match="1 are the least"):
        Association(256, b"", short_key=True)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_signed_registration(algorithm: Algorithm) -> None:
    association = Association(0x1234, KEY, algorithm)
    home = IPv4Address("192.0.2.10")
    message = RegistrationRequest(300, home, home, home, 1).encode()
    signed = append_authentication(message, AuthKind.MN_HA, association.spi, association.digest)
    found = RegistrationRequest.decode(signed).authentication(AuthKind.MN_HA)
    assert found is not None and found.spi == 0x1234
    assert verify(association, found.covered, found.authenticator)
    for place in range(len(message)):
        if place == 0:
            continue  # another message type is refused before
        forged = bytearray(signed)
        forged[place] ^= 0x01
        found = RegistrationRequest.decode(bytes(forged)).authentication(AuthKind.MN_HA)
        assert found is not None and not verify(association, found.covered, found.authenticator)
