"""The foreign agent's challenge: 24 in an advertisement, 132 in a registration (RFC 4721 sections 2 and 3)."""

from dataclasses import dataclass

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, simple

CHALLENGE = 24
MOBILE_FA_CHALLENGE = 132
MIN_CHALLENGE = 4  # section 2: a sender should use at least 32 random bits; a receiver takes less


@dataclass(frozen=True, slots=True)
class Challenge(Extension):
    """The challenge that a foreign agent advertises; 1 to 255 bytes."""

    value: bytes

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(CHALLENGE, self.value)


@dataclass(frozen=True, slots=True)
class MobileFaChallenge(Extension):
    """The challenge that a mobile node repeats, or that a reply hands out next; 1 to 255 bytes."""

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
    if not frame.data:
        raise WireError("challenge", frame.data_start, "truncated")
    return frame.data
