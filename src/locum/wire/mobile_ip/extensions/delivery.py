"""Encapsulating delivery style, 130 (RFC 3024 section 3.3): the mobile node tunnels to the foreign agent."""

from dataclasses import dataclass

from locum.wire.mobile_ip.extensions.framing import Extension, Frame, simple

ENCAPSULATING_DELIVERY = 130


@dataclass(frozen=True, slots=True)
class EncapsulatingDelivery(Extension):
    """It has no content; it stands after the mobile-home authentication extension, with the T bit set."""

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(ENCAPSULATING_DELIVERY, b"")


def decode_encapsulating_delivery(frame: Frame) -> EncapsulatingDelivery:
    """Type 130."""
    frame.cursor().done("encapsulating-delivery")
    return EncapsulatingDelivery()
