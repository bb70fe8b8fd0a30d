"""Authentication extensions 32, 33, 34 (RFC 5944 section 3.5) and 36 (RFC 4721 section 6). No key is known here."""

from dataclasses import dataclass, field
from enum import IntEnum

from locum.wire.cursor import Cursor
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, long, simple
from locum.wire.values import value

GENERALIZED_AUTHENTICATION = 36
MN_AAA = 1  # sub-type of the generalized extension


class AuthKind(IntEnum):
    """Pair of nodes that an extension authenticates; the value is the extension's type."""

    MN_HA = 32
    MN_FA = 33
    FA_HA = 34


_KINDS = {int(kind): kind for kind in AuthKind}


@value
class Authentication(Extension):
    """`spi` names the association; `covered` is what the authenticator protects: payload through SPI.

    `covered` is filled by decoding and is no part of the value.
    """

    kind: AuthKind
    spi: int  # 32 bits; 0 to 255 are reserved
    authenticator: bytes  # at most 251 bytes
    covered: bytes = field(default=b"", compare=False, repr=False)

    @property
    def through(self) -> bytes:
        """The message up to the end of this extension: the part relayed unchanged (section 3.7.2)."""
        return self.covered + self.authenticator

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(self.kind, self.spi.to_bytes(4, "big") + self.authenticator)


@dataclass(frozen=True, slots=True)
class GeneralizedAuthentication(Extension):
    """Like Authentication, in the long format; sub-type 1 is the mobile node's to its AAA server."""

    subtype: int
    spi: int
    authenticator: bytes  # at most 65,531 bytes
    covered: bytes = field(default=b"", compare=False, repr=False)

    @property
    def through(self) -> bytes:
        """The message up to the end of this extension."""
        return self.covered + self.authenticator

    def encode(self) -> bytes:
        """The whole extension."""
        data = self.spi.to_bytes(4, "big") + self.authenticator
        return long(GENERALIZED_AUTHENTICATION, self.subtype, data)


def decode_authentication(frame: Frame) -> Authentication:
    """Types 32, 33 and 34."""
    cursor = frame.cursor()
    spi = cursor.u32("authentication.spi")
    covered = frame.message[: cursor.offset]
    return Authentication(AuthKind(frame.type), spi, cursor.rest(), covered)


def lone_authentication(cursor: Cursor) -> Authentication | None:
    """Result of decode_authentication if it is the only extension left, the common case; else None."""
    data, start = cursor.data, cursor.position
    through_spi = start + 6  # type, length, SPI
    if len(data) < through_spi or data[start + 1] != len(data) - start - 2:
        return None
    kind = _KINDS.get(data[start])
    if kind is None or cursor.base:
        return None
    cursor.position = len(data)
    spi = int.from_bytes(data[start + 2 : through_spi], "big")
    return Authentication(kind, spi, data[through_spi:], data[:through_spi])


def decode_generalized(frame: Frame) -> GeneralizedAuthentication:
    """Type 36."""
    cursor = frame.cursor()
    spi = cursor.u32("authentication.spi")
    covered = frame.message[: cursor.offset]
    return GeneralizedAuthentication(frame.subtype, spi, cursor.rest(), covered)
