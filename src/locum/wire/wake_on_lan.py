"""The magic packet of Wake-on-LAN (AMD publication 20213): bytes that wake the machine with one card."""

from typing import Final

ETHERTYPE: Final = 0x0842
PORT: Final = 9  # of UDP, the discard service
CARD_BYTES: Final = 6
PASSWORDS: Final = (0, 4, 6)  # bytes of SecureOn
_SYNCHRONISATION = b"\xff" * 6
_REPETITIONS = 16


def magic_packet(card: bytes, password: bytes = b"") -> bytes:
    """The payload of a frame of type 0x0842, or of a UDP message, for the card with this link-layer address.

    Raises ValueError for an address that is not 6 bytes long, and for a password that SecureOn does not have.
    """
    if len(card) != CARD_BYTES:
        raise ValueError(f"a card's address has {CARD_BYTES} bytes")
    if len(password) not in PASSWORDS:
        raise ValueError("SecureOn has passwords of 4 or 6 bytes")
    return _SYNCHRONISATION + card * _REPETITIONS + password
