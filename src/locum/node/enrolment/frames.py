"""Frames of the enrolment's connection: each message stands after its length in two bytes."""

import asyncio

from locum.wire.enrolment.messages import MOST_BYTES

_LENGTH = 2


class FrameError(ValueError):
    """A frame that holds no message. `reason` is a short fixed word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def framed(message: bytes) -> bytes:
    """The message after its length."""
    return len(message).to_bytes(_LENGTH, "big") + message


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next message. Raises FrameError (`closed`, `truncated`, `empty`, `oversized`) and OSError.

    The length is judged before any more is read.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
        if not 0 < length <= MOST_BYTES:
            raise FrameError("oversized" if length else "empty")
    except asyncio.IncompleteReadError as error:
        raise FrameError("truncated" if error.partial else "closed") from None
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise FrameError("truncated") from None
