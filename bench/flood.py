"""A sender of 64-byte frames that is not the bottleneck: raw frames, sendmmsg(2), past the queueing discipline.

Run inside the source namespace as `python -m bench.flood LINK DESTINATION_MAC SOURCE DESTINATION`; sends until its standard input
closes, then prints how many frames it sent. Knows nothing of Locum.
"""

import ctypes
import os
import select
import socket
import struct
import sys
from ipaddress import IPv4Address

FRAME_BYTES = 60
"""A 64-byte Ethernet frame without its check sequence, which a veth pair does not carry."""
BATCH = 128
"""Frames for each system call."""
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


def ones_complement_sum(data: bytes) -> int:
    """The internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def frame(
    hardware_to: bytes, hardware_from: bytes, source: IPv4Address, destination: IPv4Address, port: int
) -> bytes:
    """One UDP packet over IPv4 in an Ethernet frame of FRAME_BYTES, from `port` to the discard port."""
    size = FRAME_BYTES - 14
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, 17, 0, source.packed, destination.packed)
    header = header[:10] + struct.pack("!H", ones_complement_sum(header)) + header[12:]
    datagram = struct.pack("!HHHH", port, 9, size - 20, 0).ljust(size - 20, b"\0")
    return hardware_to + hardware_from + b"\x08\x00" + header + datagram


def flood(link: str, frames: list[bytes]) -> int:
    """Send `frames` over and over on `link` until standard input is closed; the number sent."""
    buffers = [ctypes.create_string_buffer(data, len(data)) for data in frames]
    vectors = [_Vector(ctypes.cast(data, ctypes.c_void_p), len(data)) for data in buffers]
    messages = (_Message * len(frames))()
    for message, vector in zip(messages, vectors, strict=True):
        message.header.vectors = ctypes.pointer(vector)
        message.header.vector_count = 1
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((link, 0))
        raw.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        number = raw.fileno()
        while not select.select([sys.stdin], [], [], 0)[0]:
            for _ in range(16):
                sent += max(send(number, messages, len(frames), 0), 0)
    return sent


def main() -> None:
    """Send with the command line's addresses."""
    link, hardware_to, source, destination = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((link, 0))
        hardware_from = raw.getsockname()[4]
    frames = [
        frame(
            bytes.fromhex(hardware_to.replace(":", "")),
            hardware_from,
            IPv4Address(source),
            IPv4Address(destination),
            1024 + n,
        )
        for n in range(BATCH)
    ]
    print("ready", flush=True)
    print(flood(link, frames), flush=True)


if __name__ == "__main__":
    os.sched_setaffinity(0, {0})
    main()
