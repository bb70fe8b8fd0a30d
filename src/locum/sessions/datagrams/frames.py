"""The stream of frames in which received datagrams are kept and travel: arrival time, length, payload. No I/O."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("!QH")  # milliseconds of the stand-in's clock, payload bytes
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class Frame:
    """One datagram. `arrived` is in milliseconds of the stand-in's CLOCK_BOOTTIME and means nothing elsewhere."""

    arrived: int
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes in the stream."""
        return HEADER_BYTES + len(self.payload)

    def encode(self) -> bytes:
        """The frame's bytes."""
        return _HEADER.pack(self.arrived, len(self.payload)) + self.payload


def frames(data: bytes | memoryview) -> Iterator[Frame]:
    """The whole frames at the beginning of `data`, without an incomplete one at its end."""
    view = memoryview(data)
    at = 0
    while at + HEADER_BYTES <= len(view):
        arrived, length = _HEADER.unpack_from(view, at)
        end = at + HEADER_BYTES + length
        if end > len(view):
            return
        yield Frame(arrived, bytes(view[at + HEADER_BYTES : end]))
        at = end
