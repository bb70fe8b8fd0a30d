"""Network access identifiers: the mobile node's, 131 (RFC 2794 section 2), and others', 136 (RFC 3846 section 3)."""

from dataclasses import dataclass

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, short, simple

NAI = 131
NAI_CARRYING = 136

HOME_AGENT_NAI = 1  # sub-types of the NAI carrying extension
AAA_NAI = 2
FOREIGN_AGENT_NAI = 3  # RFC 4857 section 8.2: also in agent advertisements


@dataclass(frozen=True, slots=True)
class Nai(Extension):
    """The mobile node's: `user@realm`, 1 to 255 bytes of UTF-8 (RFC 7542 allows more than ASCII)."""

    identifier: str

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(NAI, self.identifier.encode())


@dataclass(frozen=True, slots=True)
class NaiCarrying(Extension):
    """A NAI of another node, by the sub-type; 1 to 254 bytes of UTF-8."""

    subtype: int
    identifier: str

    def encode(self) -> bytes:
        """The whole extension."""
        return short(NAI_CARRYING, self.subtype, self.identifier.encode())


def decode_nai(frame: Frame) -> Nai:
    """Type 131."""
    return Nai(_text(frame.data, frame.data_start))


def decode_nai_carrying(frame: Frame) -> NaiCarrying:
    """Type 136."""
    cursor = frame.cursor()
    subtype = cursor.u8("nai.sub-type")
    start = cursor.offset
    return NaiCarrying(subtype, _text(cursor.rest(), start))


def _text(data: bytes, start: int) -> str:
    if not data:
        raise WireError("nai", start, "truncated")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WireError("nai", start + error.start, "not-utf-8") from error
