"""Revocation support, 137 (RFC 3543 section 3.2). The messages that it announces are in wire/mobile_ip/revocation.py."""

from dataclasses import dataclass

from locum.wire.mobile_ip.extensions.framing import Extension, Frame, simple

REVOCATION_SUPPORT = 137

_INFORM = 0x8000


@dataclass(frozen=True, slots=True)
class RevocationSupport(Extension):
    """The sender takes revocation messages for this binding; both sides must have sent it.

    An agent, or a mobile node without a foreign agent, says it under its own authentication extension.
    """

    timestamp: int  # 32 bits of the sender's clock, the clock of its revocation identifiers
    inform: bool = False  # I: the home agent may decide whether the mobile node is told of a revocation

    def encode(self) -> bytes:
        """The whole extension."""
        flags = _INFORM if self.inform else 0
        return simple(REVOCATION_SUPPORT, flags.to_bytes(2, "big") + self.timestamp.to_bytes(4, "big"))


def decode_revocation_support(frame: Frame) -> RevocationSupport:
    """Type 137; reserved bits and additional bytes of later versions are ignored."""
    cursor = frame.cursor()
    flags = cursor.u16("revocation-support.flags")
    return RevocationSupport(cursor.u32("timestamp"), bool(flags & _INFORM))
