"""The mobile node's network access identifier, 131 (RFC 2794 section 2)."""

from dataclasses import dataclass

from locum.wire.errors import WireError
from locum.wire.extensions.framing import Extension, Frame, simple

NAI = 131


@dataclass(frozen=True, slots=True)
class Nai(Extension):
    """`user@realm`, 1 to 255 bytes of UTF-8 (RFC 7542 allows more than ASCII)."""

    identifier: str

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(NAI, self.identifier.encode())


def decode_nai(frame: Frame) -> Nai:
    """Type 131."""
    if not frame.data:
        raise WireError("nai", frame.data_start, "truncated")
    try:
        return Nai(frame.data.decode())
    except UnicodeDecodeError as error:
        raise WireError("nai", frame.data_start + error.start, "not-utf-8") from error
