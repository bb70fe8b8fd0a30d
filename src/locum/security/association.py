"""Mobility security associations (RFC 5944 section 1.6) and their authenticators (section 3.5.1).

Keys and bytes only: the roles choose associations, and handle failures.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac

FIRST_SPI = 256  # section 3.5.1: 0 to 255 are reserved
LAST_SPI = 0xFFFFFFFF
MIN_KEY_BYTES = 16  # section 5.1: keys of 128 bits are to be supported; less would only weaken the digest


class Algorithm(Enum):
    """Algorithm of the authenticator; the value is the configuration's spelling."""

    __hash__ = object.__hash__  # a key for every message; Enum would hash the name each time

    HMAC_MD5 = "hmac-md5"  # the RFC's default, for interoperability
    HMAC_SHA_256 = "hmac-sha-256"

    @property
    def authenticator_bytes(self) -> int:
        """Length of the authenticator; it is not truncated."""
        return 16 if self is Algorithm.HMAC_MD5 else 32


class Replay(Enum):
    """Replay protection (section 5.7); the value is the configuration's spelling."""

    TIMESTAMP = "timestamp"
    NONCE = "nonce"


@dataclass(frozen=True, slots=True)
class Association:
    """Shared keys and parameters, named by `spi`. ValueError for a reserved SPI or a key under 128 bits."""

    spi: int
    key: bytes = field(repr=False)
    algorithm: Algorithm = Algorithm.HMAC_SHA_256
    replay: Replay = Replay.TIMESTAMP

    def __post_init__(self) -> None:
        if not FIRST_SPI <= self.spi <= LAST_SPI:
            raise ValueError(f"an SPI lies between {FIRST_SPI} and {LAST_SPI}, not {self.spi}")
        if len(self.key) < MIN_KEY_BYTES:
            raise ValueError(
                f"the key of SPI {self.spi} has {len(self.key)} bytes; {MIN_KEY_BYTES} are the least"
            )

    def digest(self, data: bytes) -> bytes:
        """The authenticator over `data`; fits append_authentication of the wire package."""
        return digest(self, data)

    def verify(self, data: bytes, authenticator: bytes) -> bool:
        """True if `authenticator` belongs to `data`, in constant time."""
        return verify(self, data, authenticator)


_HASHES: dict[Algorithm, Callable[[], hashes.HashAlgorithm]] = {
    Algorithm.HMAC_MD5: hashes.MD5,
    Algorithm.HMAC_SHA_256: hashes.SHA256,
}


def digest(association: Association, data: bytes) -> bytes:
    """The authenticator of `association` over `data`."""
    return _keyed(association, data).finalize()


def verify(association: Association, data: bytes, authenticator: bytes) -> bool:
    """True if `authenticator` is that of `data`; the time taken does not depend on where they differ."""
    try:
        _keyed(association, data).verify(authenticator)
    except InvalidSignature:
        return False
    return True


def _keyed(association: Association, data: bytes) -> hmac.HMAC:
    keyed = _ready(association.key, association.algorithm).copy()
    keyed.update(data)
    return keyed


@lru_cache(1024)
def _ready(key: bytes, algorithm: Algorithm) -> hmac.HMAC:
    """A prepared HMAC, cached: a checked message is mostly answered with the same key."""
    return hmac.HMAC(key, _HASHES[algorithm]())
