"""One-byte padding, 0 (RFC 5944 section 2.1.3): a single byte, with neither length nor data, in both kinds of message."""

from dataclasses import dataclass

from locum.wire.mobile_ip.extensions.framing import PADDING, Extension, Frame


@dataclass(frozen=True, slots=True)
class Padding(Extension):
    """It has no content."""

    def encode(self) -> bytes:
        """The one byte."""
        return bytes((PADDING,))


def decode_padding(_frame: Frame) -> Padding:
    """Type 0."""
    return Padding()
