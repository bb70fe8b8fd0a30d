"""Captures without half segments: the parts that are cut and kept, and lengths on the wire."""

import struct
from pathlib import Path

import pytest

from locum.lab.captures import pcap
from locum.lab.captures.trim import trim

HEAD = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 320, pcap.COOKED_2)
COOKED = struct.pack("!HHIHBB8s", 0x0800, 0, 2, 1, 0, 6, b"")


def ip(protocol: int, body: bytes) -> bytes:
    return struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, bytes(8)) + body


def tcp(port: int, size: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 1, 1, 0x80, 0x18, 9, 0, 0) + bytes(12) + bytes(size)


def capture(folder: Path, packets: list[bytes], snap: int = 320) -> Path:
    file = folder / "x.pcap"
    frames = [COOKED + packet for packet in packets]
    file.write_bytes(
        HEAD + b"".join(struct.pack("<IIII", 1, 0, min(len(f), snap), len(f)) + f[:snap] for f in frames)
    )
    return file


def test_half_segments_and_bulk_are_cut_to_their_headers(tmp_path: Path) -> None:
    quote = ip(1, b"\x03\x04" + bytes(6) + ip(6, tcp(5683, 80)))
    packets = [
        ip(6, tcp(80, 1000)),  # snapped: cut
        ip(6, tcp(80, 100)),  # whole: kept
        ip(6, tcp(5683, 50)),  # bulk: cut
        ip(4, ip(6, tcp(5683, 50))),  # bulk in a tunnel: cut
        quote,  # bulk in an ICMP error: cut
        ip(17, struct.pack("!HHHH", 5683, 5683, 60, 0) + bytes(52)),  # CoAP over UDP: kept
        ip(17, struct.pack("!HHHH", 9, 9, 1008, 0) + bytes(1000)),  # snapped, but no TCP: kept as it is
        ip(
            17, struct.pack("!HHHHBBH", 20000, 434, 0, 0, 4, 4, 0) + ip(6, tcp(5683, 50))
        ),  # in a UDP tunnel: cut
    ]
    packets.append(ip(4, ip(17, bytes(60)))[: 40 + 5])  # a stranger cut the UDP header inside: kept as it is
    file = capture(tmp_path, packets)
    before = list(pcap.frames(file))
    assert trim(file) == 5
    after = list(pcap.frames(file))
    assert [frame.wire_length for frame in after] == [frame.wire_length for frame in before]
    sizes = [len(frame.packet) for frame in after]
    assert sizes == [52, len(packets[1]), 52, 72, 80, len(packets[5]), 300, 84, 45]
    assert trim(file) == 0, "twice is as good as once"
    assert [segment.length for segment in pcap.segments(file)] == [1000, 100, 50]


def test_other_file_type_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pcap"
    file.write_bytes(HEAD[:20] + struct.pack("<I", 1) + bytes(40))
    with pytest.raises(ValueError, match="not a little-endian Linux cooked capture"):
        trim(file)
