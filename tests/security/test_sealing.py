"""Sealed messages: vectors made from the RFCs' primitives, both ends, and every damage is found."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from locum.security.sealing import NONCE_BYTES, SEAL_BYTES, seal, sealing_keys, unseal

SECRET, SALT = bytes(range(16)), b"salt"
NONCE = bytes(range(NONCE_BYTES))
STAND_IN = sealing_keys(SECRET, SALT, b"\x05\x36", b"\x05\x01")
DEVICE = sealing_keys(SECRET, SALT, b"\x05\x01", b"\x05\x36")
VECTOR = "000102030405060708090a0b5aa596d4e9511a0324145f7031960d059ed46eb835"


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes by RFC 5869 section 2."""
    extracted = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def test_keys_follow_from_the_secret_by_hkdf() -> None:
    assert STAND_IN.own == hkdf(SECRET, SALT, b"locum direct page \x05\x36")
    assert STAND_IN.peer == hkdf(SECRET, SALT, b"locum direct page \x05\x01")
    assert sealing_keys(SECRET, b"", b"\x01", b"\x02").own == hkdf(SECRET, b"", b"locum direct page \x01")


def test_ends_have_each_others_keys() -> None:
    assert (STAND_IN.own, STAND_IN.peer) == (DEVICE.peer, DEVICE.own)
    assert STAND_IN.own != STAND_IN.peer, "an end's own message cannot come back as its peer's"
    assert SECRET.hex() not in repr(STAND_IN) and STAND_IN.own.hex() not in repr(STAND_IN)


def test_hex_vector() -> None:
    sealed = seal(STAND_IN.own, NONCE, b"event", b"header")
    assert sealed.hex() == VECTOR


def test_bytes_are_those_of_gcm() -> None:
    sealed = seal(STAND_IN.own, NONCE, b"event", b"header")
    machine = Cipher(algorithms.AES256(STAND_IN.own), modes.GCM(NONCE)).encryptor()
    machine.authenticate_additional_data(b"header")
    assert sealed == NONCE + machine.update(b"event") + machine.finalize() + machine.tag
    assert len(sealed) == len(b"event") + SEAL_BYTES


def test_other_end_reads_it_and_no_damage_passes() -> None:
    sealed = seal(STAND_IN.own, NONCE, b"event", b"header")
    assert unseal(DEVICE.peer, sealed, b"header") == b"event"
    for place in range(len(sealed)):
        with pytest.raises(ValueError, match="not sealed"):
            unseal(DEVICE.peer, sealed[:place] + bytes((sealed[place] ^ 1,)) + sealed[place + 1 :], b"header")
    for key, covered in ((DEVICE.own, b"header"), (DEVICE.peer, b"Header"), (DEVICE.peer, b"")):
        with pytest.raises(ValueError, match="not sealed"):
            unseal(key, sealed, covered)
    with pytest.raises(ValueError, match="shorter"):
        unseal(DEVICE.peer, sealed[: SEAL_BYTES - 1], b"header")


def test_nonce_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        seal(STAND_IN.own, NONCE[:-1], b"event", b"")
