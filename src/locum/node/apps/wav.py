"""The header of a WAV file that a program has written into a stream."""

import struct

HEAD = 4096
"""Bytes of a WAV file in which its samples begin."""
_LARGEST = 0xFFFFFFFF


def wav_lengths(head: bytes, size: int) -> list[tuple[int, bytes]]:
    """Places and bytes of the lengths in the header of a WAV file of `size` bytes, which begins with `head`.

    A program that writes into a stream does not know them when it begins. Raises ValueError for bytes that are no WAV file.
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise ValueError("it is no WAV file")
    at = 12
    while at + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, at)
        if kind == b"data":
            return [(4, _length(size - 8)), (at + 4, _length(size - at - 8))]
        at += 8 + length + length % 2
    raise ValueError("it has no samples")


def _length(count: int) -> bytes:
    return min(max(count, 0), _LARGEST).to_bytes(4, "little")
