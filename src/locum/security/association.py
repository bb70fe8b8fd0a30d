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
    HMAC_SHA_1 = "hmac-sha-1"  # the default of keys by RFC 3957
    HMAC_SHA_256 = "hmac-sha-256"

    @property
    def authenticator_bytes(self) -> int:
        """Length of the authenticator; it is not truncated."""
        return _BYTES[self]


_BYTES = {Algorithm.HMAC_MD5: 16, Algorithm.HMAC_SHA_1: 20, Algorithm.HMAC_SHA_256: 32}


class Replay(Enum):
    """Replay protection (section 5.7); the value is the configuration's spelling."""

    TIMESTAMP = "timestamp"
    NONCE = "nonce"


@dataclass(frozen=True, slots=True)
class Association:
    """Shared keys and parameters, named by `spi`. ValueError for a reserved SPI or a key under 128 bits.

    Section 1.6: each end may have chosen an SPI of its own. `spi` is then that of the other end's messages to us, and
    `sent_spi` that of ours. `short_key`: the operator insists on a key under 128 bits.
    """

    spi: int
    key: bytes = field(repr=False)
    algorithm: Algorithm = Algorithm.HMAC_SHA_256
    replay: Replay = Replay.TIMESTAMP
    sent_spi: int | None = None  # None: the same
    short_key: bool = False

    def __post_init__(self) -> None:
        for spi in (self.spi, self.outgoing_spi):
            if not FIRST_SPI <= spi <= LAST_SPI:
                raise ValueError(f"an SPI lies between {FIRST_SPI} and {LAST_SPI}, not {spi}")
        least = 1 if self.short_key else MIN_KEY_BYTES
        if len(self.key) < least:
            raise ValueError(f"the key of SPI {self.spi} has {len(self.key)} bytes; {least} are the least")

    @property
    def outgoing_spi(self) -> int:
        """The SPI of messages that we sign."""
        return self.spi if self.sent_spi is None else self.sent_spi

    def digest(self, data: bytes) -> bytes:
        """The authenticator over `data`; fits append_authentication of the wire package."""
        return digest(self, data)

    def verify(self, data: bytes, authenticator: bytes) -> bool:
        """True if `authenticator` belongs to `data`, in constant time."""
        return verify(self, data, authenticator)


@dataclass(frozen=True, slots=True)
class AaaAssociation(Association):
    """A mobile node's association with its AAA server: that with its home agent is derived from it (RFC 3957)."""


@dataclass(frozen=True, slots=True)
class DerivedAssociation(Association):
    """An association that is derived from `source`. It holds until then, in the seconds of its owner's clock."""

    source: AaaAssociation | None = None
    until: float = 0.0


_HASHES: dict[Algorithm, Callable[[], hashes.HashAlgorithm]] = {
    Algorithm.HMAC_MD5: hashes.MD5,
    Algorithm.HMAC_SHA_1: hashes.SHA1,
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
