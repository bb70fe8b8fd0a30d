"""Proof of a short code without sending it, and the keys of a joined device: SPAKE2, then HKDF and AES-GCM.

An exchange with a wrong code tells nothing about the right one but that it is another: the secret cannot be guessed off
line, as it could with EDHOC and a short pre-shared key. Bytes only: the caller gives the randomness.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError
from spake2.ed25519_basic import NotOnCurve

from locum.security.sealing import SealingKeys

Entropy = Callable[[int], bytes]

_DEVICE, _SERVER = b"locum device", b"locum server"
_PURPOSE = b"locum enrolment "
_ELEMENT_BYTES = 33  # a letter for the side, and a point of Ed25519


@dataclass(frozen=True, slots=True)
class JoinedKeys:
    """Secrets that both ends derive; none of them is ever sent."""

    preshared: bytes = field(repr=False)  # of WireGuard, 32 bytes
    registration: bytes = field(repr=False)  # of the mobile-home authentication extension, 32 bytes
    control: bytes = field(repr=False)  # OSCORE master secret, 16 bytes


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The result of an exchange; with different secrets the two ends have different keys."""

    sealing: SealingKeys
    joined: JoinedKeys


class Exchange:
    """One end of one exchange: an object answers one peer once."""

    def __init__(self, secret: bytes, number: int, *, is_server: bool, entropy: Entropy) -> None:
        side = SPAKE2_B if is_server else SPAKE2_A
        password = number.to_bytes(2, "big") + secret
        self._is_server = is_server
        self._end = side(password, idA=_DEVICE, idB=_SERVER, entropy_f=entropy)
        self.element: bytes = self._end.start()

    def finish(self, peer_element: bytes, hello: bytes, answer: bytes) -> Exchanged:
        """Keys bound to both whole messages as they were sent: with the server's name, the number and both elements.

        Raises ValueError for an element that is no point of the group, is of order 1, or is our own.
        """
        if len(peer_element) != _ELEMENT_BYTES:
            raise ValueError(f"an element of SPAKE2 has {_ELEMENT_BYTES} bytes, not {len(peer_element)}")
        try:
            shared: bytes = self._end.finish(peer_element)
        except (SPAKEError, NotOnCurve, ValueError) as error:
            raise ValueError("the peer's element of SPAKE2 is not valid") from error
        transcript = hashes.Hash(hashes.SHA256())
        for message in (hello, answer):
            transcript.update(len(message).to_bytes(4, "big") + message)
        salt = transcript.finalize()
        device, server = _derive(shared, salt, b"from device"), _derive(shared, salt, b"from server")
        sealing = SealingKeys(server, device) if self._is_server else SealingKeys(device, server)
        joined = JoinedKeys(
            _derive(shared, salt, b"wireguard"),
            _derive(shared, salt, b"registration"),
            _derive(shared, salt, b"control", 16),
        )
        return Exchanged(sealing, joined)


def _derive(shared: bytes, salt: bytes, purpose: bytes, length: int = 32) -> bytes:
    return HKDF(hashes.SHA256(), length, salt=salt, info=_PURPOSE + purpose).derive(shared)
