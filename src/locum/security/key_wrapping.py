"""Keys that travel encrypted under an association (RFC 5649). Keys and bytes only."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from locum.security.association import Association

_PURPOSE = b"locum key of a visitor "  # no other use of an association's key has this text
_WRAPPING_BYTES = 32  # AES-256


def wrap_key(association: Association, key: bytes, nonce: bytes) -> bytes:
    """`key`, readable by the other end of the association alone; `nonce` is the one from which it was derived."""
    return aes_key_wrap_with_padding(_wrapping_key(association, nonce), key)


def unwrap_key(association: Association, wrapped: bytes, nonce: bytes) -> bytes:
    """The key in `wrapped`. Raises ValueError for bytes that the other end has not wrapped with that nonce."""
    try:
        return aes_key_unwrap_with_padding(_wrapping_key(association, nonce), wrapped)
    except InvalidUnwrap as error:
        raise ValueError("the key was not wrapped under this association") from error


def _wrapping_key(association: Association, nonce: bytes) -> bytes:
    derivation = HKDF(hashes.SHA256(), _WRAPPING_BYTES, salt=None, info=_PURPOSE + nonce)
    return derivation.derive(association.key)
