"""The three extension formats of Mobile IP (RFC 5944 sections 1.9 to 1.11). It must not know any extension."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError

# The longest registration that makes sense has 64 flow rules of 100 bytes, each announced by a vendor extension. What
# every authentication extension covers is kept beside it, so both bounds together bound the memory of one message at
# 1.25 MiB, for as long as it is looked at.
MAX_MESSAGE = 8192
MAX_EXTENSIONS = 160

FIRST_SKIPPABLE = 128  # section 1.8: below, an unknown extension condemns the message
PADDING = 0  # section 1.8: encoded with neither length nor data
LONG_TYPES = frozenset(
    (36, 38, 40, 41, 42, 43, 154)
)  # section 1.10; 154 although it is past 127 (RFC 7629 section 4)


class Extension(ABC):
    """An extension of a Mobile IP message, as a value."""

    __slots__ = ()

    @abstractmethod
    def encode(self) -> bytes:
        """The whole extension, type and length included."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An extension as it was found, before its content is understood."""

    type: int
    subtype: int  # of the long format only; 0 otherwise
    data: bytes  # after type and length (and subtype, of the long format)
    message: bytes  # the whole message
    start: int  # offset of the type byte in the message
    data_start: int  # offset of `data` in the message

    def cursor(self) -> Cursor:
        """A cursor over `data` whose errors name offsets in the message."""
        return Cursor(self.data, self.data_start)


@dataclass(frozen=True, slots=True)
class Unknown(Extension):
    """A skippable extension that is not known here; kept so that it can be relayed."""

    type: int  # 128 to 255
    value: bytes

    def encode(self) -> bytes:
        """Type, length and the value as it came."""
        return simple(self.type, self.value)


def simple(number: int, data: bytes) -> bytes:
    """Type, length, data (section 1.9)."""
    if len(data) > 0xFF:
        raise ValueError(f"extension {number} takes at most 255 bytes, not {len(data)}")
    return bytes((number, len(data))) + data


def long(number: int, subtype: int, data: bytes) -> bytes:
    """Type, sub-type, 16-bit length of the data (section 1.10)."""
    return bytes((number, subtype)) + len(data).to_bytes(2, "big") + data


def short(number: int, subtype: int, data: bytes) -> bytes:
    """Type, length that counts the sub-type, sub-type, data (section 1.11)."""
    return simple(number, bytes((subtype,)) + data)


def next_frame(cursor: Cursor, *, long_types: frozenset[int] = LONG_TYPES) -> Frame:
    """The extension at the cursor; raises WireError when it does not fit. Advertisements have no long types."""
    start = cursor.offset
    number = cursor.u8("extension.type")
    if number == PADDING:
        return Frame(number, 0, b"", cursor.data, start, cursor.offset)
    subtype = 0
    if number in long_types:
        subtype = cursor.u8("extension.sub-type")
        length = cursor.u16("extension.length")
    else:
        length = cursor.u8("extension.length")
    data_start = cursor.offset
    data = cursor.take(length, "extension.data")
    return Frame(number, subtype, data, cursor.data, start, data_start)


def unknown(frame: Frame) -> Unknown:
    """Handle an unknown type by section 1.8: raise WireError below 128, else return the value unchanged."""
    if frame.type < FIRST_SKIPPABLE:
        raise WireError("extension", frame.start, "unknown-extension", number=frame.type)
    return Unknown(frame.type, frame.data)
