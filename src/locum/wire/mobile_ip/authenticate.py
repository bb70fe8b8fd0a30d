"""Adding an authentication extension to a message that is already bytes (RFC 5944 section 3.5.1). No key is known here."""

import struct
from collections.abc import Callable

from locum.wire.mobile_ip.extensions.authentication import AuthKind

Digest = Callable[[bytes], bytes]

_HEAD = struct.Struct("!BBI")  # type, length, SPI
MAX_AUTHENTICATOR = 251  # the length byte also counts the SPI


def append_authentication(
    message: bytes, kind: AuthKind, spi: int, digest: Digest, *, authenticator_bytes: int | None = None
) -> bytes:
    """`message` with the extension of `kind` at its end.

    `digest` maps the bytes that are covered (the message, then the extension's type, length and SPI) to the
    authenticator. The length is covered too, hence it must be known first: it is `authenticator_bytes`, or what `digest`
    gives for the message alone.
    """
    size = len(digest(message)) if authenticator_bytes is None else authenticator_bytes
    if size > MAX_AUTHENTICATOR:
        raise ValueError(f"an authenticator takes at most {MAX_AUTHENTICATOR} bytes, not {size}")
    covered = message + _HEAD.pack(kind, 4 + size, spi)
    return covered + _checked(digest(covered), size)


def _checked(authenticator: bytes, size: int) -> bytes:
    if len(authenticator) != size:
        raise ValueError(f"the digest gave {len(authenticator)} bytes, not {size}")
    return authenticator
