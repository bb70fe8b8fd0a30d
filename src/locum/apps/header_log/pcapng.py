"""Blocks of a pcapng file (draft-ietf-opsawg-pcapng): a section, one interface of bare IP packets, packets, losses."""

import struct

RAW = 101
"""LINKTYPE_RAW: a packet begins with its IP header, and its version tells the family."""
_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_MAGIC = 0x1A2B3C4D
_END = struct.pack("<HH", 0, 0)
_USER_APPLICATION, _NAME, _RESOLUTION, _DROPPED, _RECEIVED, _DROPS = 4, 2, 9, 4, 4, 5


def start(name: str, snap: int) -> bytes:
    """The beginning of a file: little-endian, times in nanoseconds, at most `snap` bytes of a packet."""
    section = struct.pack("<IHHq", _MAGIC, 1, 0, -1) + _option(_USER_APPLICATION, b"locum") + _END
    interface = (
        struct.pack("<HHI", RAW, 0, snap) + _option(_NAME, name.encode()) + _option(_RESOLUTION, b"\x09")
    )
    return _block(_SECTION, section) + _block(_INTERFACE, interface + _END)


def packet(time: int, data: bytes, length: int, dropped: int = 0) -> bytes:
    """A packet: nanoseconds since 1970, its first bytes, its whole length, and how many were left out before it."""
    options = _option(_DROPPED, struct.pack("<Q", dropped)) + _END if dropped else b""
    head = struct.pack(
        "<IIIII", 0, time >> 32 & 0xFFFFFFFF, time & 0xFFFFFFFF, len(data), max(length, len(data))
    )
    return _block(_PACKET, head + _padded(data) + options)


def statistics(time: int, received: int, dropped: int) -> bytes:
    """Packets that were there up to this time, and those of them that are not in the file."""
    options = (
        _option(_RECEIVED, struct.pack("<Q", received)) + _option(_DROPS, struct.pack("<Q", dropped)) + _END
    )
    return _block(_STATISTICS, struct.pack("<III", 0, time >> 32 & 0xFFFFFFFF, time & 0xFFFFFFFF) + options)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
