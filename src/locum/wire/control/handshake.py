"""Result of a TCP handshake at a stand-in, for the device's kernel to repeat, as CBOR by control.cddl.

Neither timestamps nor window scaling: the device's kernel chooses its own values for them, so the stand-in accepts none.
"""

from dataclasses import dataclass

from locum.wire import cbor
from locum.wire.errors import WireError

_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Handshake:
    """Both initial sequence numbers (RFC 9293 section 3.4) and the peer's options; `local` is our side."""

    local_isn: int
    peer_isn: int
    mss: int  # bytes of the largest segment that the peer takes
    sack: bool
    window: int  # bytes that the peer took at once when the stand-in accepted

    def to_cbor(self) -> list[object]:
        """The CDDL rule `handshake`."""
        return [self.local_isn, self.peer_isn, self.mss, self.sack, self.window]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Handshake":
        """Raises WireError for anything that does not fit."""
        items = cbor.array(value, field, 5)
        if len(items) != 5:
            raise WireError(field, 0, "truncated")
        sack = items[3]
        if not isinstance(sack, bool):
            raise WireError(f"{field}.sack", 0, "not-a-boolean")
        return cls(
            local_isn=cbor.integer(items[0], f"{field}.local-isn", 0, _U32),
            peer_isn=cbor.integer(items[1], f"{field}.peer-isn", 0, _U32),
            mss=cbor.integer(items[2], f"{field}.mss", 1, 0xFFFF),
            sack=sack,
            window=cbor.integer(items[4], f"{field}.window", 0, 0xFFFF),
        )
