"""Messages that two ends of a secret seal for each other: AES-GCM under keys by HKDF (RFC 5116, RFC 5869).

Keys and bytes only: the caller gives the nonce, and decides about repetitions.
"""

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
SEAL_BYTES = NONCE_BYTES + 16  # nonce and tag: more than the text has
_KEY_BYTES = 32  # AES-256
_PURPOSE = b"locum direct page "  # no other use of the secret has this text


@dataclass(frozen=True, slots=True)
class SealingKeys:
    """Keys of one end: for its own messages, and for those of the other end."""

    own: bytes = field(repr=False)
    peer: bytes = field(repr=False)


def sealing_keys(secret: bytes, salt: bytes, sender_id: bytes, recipient_id: bytes) -> SealingKeys:
    """The keys of the end with this sender_id; at the other end the two identifiers are exchanged."""
    return SealingKeys(_key(secret, salt, sender_id), _key(secret, salt, recipient_id))


def seal(key: bytes, nonce: bytes, text: bytes, covered: bytes) -> bytes:
    """Nonce, encrypted text and tag. The tag covers `covered` too. A nonce is for one text only: take a random one."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    return nonce + AESGCM(key).encrypt(nonce, text, covered)


def unseal(key: bytes, sealed: bytes, covered: bytes) -> bytes:
    """The text. Raises ValueError for bytes that the owner of the key has not sealed with `covered`."""
    if len(sealed) < SEAL_BYTES:
        raise ValueError("it is shorter than a seal")
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], covered)
    except InvalidTag as error:
        raise ValueError("it was not sealed with this key") from error


def _key(secret: bytes, salt: bytes, sender_id: bytes) -> bytes:
    derivation = HKDF(hashes.SHA256(), _KEY_BYTES, salt=salt or None, info=_PURPOSE + sender_id)
    return derivation.derive(secret)
