"""The foreign agent's challenge: 24 in an advertisement, 132 in a registration (RFC 4721 sections 2 and 3)."""

from dataclasses import dataclass

from locum.wire.errors import WireError
from locum.wire.extensions.framing import Extension, Frame, simple

CHALLENGE = 24
MOBILE_FA_CHALLENGE = 132
MIN_CHALLENGE = 4  # section 2: a random value of at least 32 bits


@dataclass(frozen=True, slots=True)
class Challenge(Extension):
    """The challenge that a foreign agent advertises; 4 to 255 bytes."""

    value: bytes

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(CHALLENGE, self.value)


@dataclass(frozen=True, slots=True)
class MobileFaChallenge(Extension):
    """The challenge that a mobile node repeats, or that a reply hands out next; 4 to 255 bytes."""

    value: bytes

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(MOBILE_FA_CHALLENGE, self.value)


def decode_challenge(frame: Frame) -> Challenge:
    """Type 24."""
    return Challenge(_value(frame))


def decode_mobile_fa_challenge(frame: Frame) -> MobileFaChallenge:
    """Type 132."""
    return MobileFaChallenge(_value(frame))


def _value(frame: Frame) -> bytes:
    if len(frame.data) < MIN_CHALLENGE:
        raise WireError("challenge", frame.data_start, "truncated")
    return frame.data
