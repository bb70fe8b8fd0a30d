"""Measurements on captures written by hand, with known results."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.lab.captures import measure, pcap
from locum.lab.programs import stream

CN, HOME = IPv4Address("10.10.1.10"), IPv4Address("10.10.100.4")


class Recorder:
    """Writes a capture as tcpdump on "any" does (Linux cooked v2), at the correspondent."""

    def __init__(self) -> None:
        self.data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 320, pcap.COOKED_2)

    def frame(self, time: float, packet: bytes, outgoing: bool, interface: int = 2, snap: int = 320) -> None:
        cooked = struct.pack("!HHIHBB8s", 0x0800, 0, interface, 1, 4 if outgoing else 0, 6, b"") + packet
        seconds, part = int(time), round((time - int(time)) * 1e6)
        self.data += struct.pack("<IIII", seconds, part, min(len(cooked), snap), len(cooked)) + cooked[:snap]

    def ip(self, time: float, protocol: int, transport: bytes, *, out: bool) -> None:
        source, destination = (CN, HOME) if out else (HOME, CN)
        header = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            20 + len(transport),
            1,
            0,
            64,
            protocol,
            0,
            source.packed,
            destination.packed,
        )
        self.frame(time, header + transport, out)

    def data_out(self, time: float, sequence: int, length: int, flags: int = pcap.ACK) -> None:
        header = struct.pack("!HHIIBBHHH", 80, 5000, sequence & 0xFFFFFFFF, 1, 0x50, flags, 9, 0, 0)
        self.ip(time, pcap.TCP, header + bytes(length), out=True)

    def ack_in(self, time: float, acknowledgement: int, flags: int = pcap.ACK) -> None:
        header = struct.pack("!HHIIBBHHH", 5000, 80, 1, acknowledgement & 0xFFFFFFFF, 0x50, flags, 9, 0, 0)
        self.ip(time, pcap.TCP, header, out=False)

    def udp(self, time: float, ports: tuple[int, int], payload: bytes, *, out: bool) -> None:
        self.ip(time, pcap.UDP, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, out=out)

    def save(self, folder: Path) -> Path:
        file = folder / "cn.pcap"
        file.write_bytes(self.data)
        return file


def test_longest_wait_lies_between_two_steps_of_progress(tmp_path: Path) -> None:
    record = Recorder()
    record.data_out(10.0, 1000, 1000)
    record.ack_in(10.01, 2000)
    record.data_out(11.0, 2000, 1000)  # nothing was outstanding in the second before: no wait
    record.data_out(11.01, 3000, 1000)
    record.ack_in(11.02, 3000)
    record.ack_in(11.05, 3000)  # a duplicate is no progress
    record.ack_in(11.09, 4000)
    segments = list(pcap.segments(record.save(tmp_path)))
    assert measure.longest_wait(segments, 80, 10.5, 12) == pytest.approx(0.07, abs=1e-5)
    assert measure.longest_wait(segments, 80, 9, 10.5) == pytest.approx(0.01, abs=1e-5)
    assert measure.acknowledged_bytes(segments, 80, 11, 12) == 2000


def test_a_wait_that_never_ends_counts_to_the_end_of_the_capture(tmp_path: Path) -> None:
    record = Recorder()
    record.data_out(10.0, 1000, 1000)
    record.data_out(14.0, 1000, 1000)  # its retransmission
    segments = list(pcap.segments(record.save(tmp_path)))
    assert measure.longest_wait(segments, 80, 9, 12) == pytest.approx(4.0)


def test_sequence_numbers_wrap(tmp_path: Path) -> None:
    record = Recorder()
    record.data_out(10.0, 0xFFFFFF00, 0x200)
    record.ack_in(10.5, 0x100)
    segments = list(pcap.segments(record.save(tmp_path)))
    assert measure.acknowledged_bytes(segments, 80, 10, 11) == 0x200
    assert measure.longest_wait(segments, 80, 10, 11) == pytest.approx(0.5)


def test_lengths_of_snapped_frames_are_those_on_the_wire(tmp_path: Path) -> None:
    record = Recorder()
    record.data_out(10.0, 1000, 1460)
    (segment,) = pcap.segments(record.save(tmp_path))
    assert segment.length == 1460
    assert segment.outgoing


def test_resets_and_connections(tmp_path: Path) -> None:
    record = Recorder()
    record.ack_in(1.0, 0, pcap.SYN)
    record.ack_in(1.1, 0, pcap.SYN)  # retransmitted, the same connection
    record.data_out(2.0, 1, 0, pcap.RST)
    segments = list(pcap.segments(record.save(tmp_path)))
    assert measure.connections(segments, 80) == 1
    (reset,) = measure.resets(segments)
    assert f"{CN}:80 > " in reset
    assert not measure.resets(replace(segment, destination=IPv4Address("127.0.0.1")) for segment in segments)


def test_frames_between_and_the_stream(tmp_path: Path) -> None:
    record = Recorder()
    for number in range(5):
        record.udp(1.0 + number, (9999, 7000), stream.MAGIC + struct.pack("!I", number), out=True)
    record.udp(3.5, (7000, 9999), b"no number", out=False)
    file = record.save(tmp_path)
    assert measure.frames_between(file, 1.5, 4.5) == 4
    assert measure.frames_between(file, 1.5, 4.5, frozenset({7})) == 0
    assert stream.numbers(file, 7000, outgoing=True) == {0, 1, 2, 3, 4}
    assert stream.numbers(file, 7000, outgoing=False) == set()


def test_the_largest_excess_of_a_reply(tmp_path: Path) -> None:
    def excess() -> int:
        return measure.largest_excess(pcap.datagrams(record.save(tmp_path)), (CN,))

    record = Recorder()
    record.udp(1.0, (40000, 434), bytes(100), out=True)
    record.udp(1.1, (434, 40000), bytes(60), out=False)
    assert excess() == -40
    record.udp(1.2, (40001, 434), bytes(50), out=True)
    record.udp(1.3, (434, 40001), bytes(40), out=False)
    assert excess() == -10
    record.udp(1.4, (434, 40001), bytes(40), out=False)
    assert excess() == 30, "two replies to one request are counted together"
    assert measure.largest_excess(pcap.datagrams(record.save(tmp_path)), (HOME,)) < -1000, "in another's name"


def test_a_large_request_excuses_no_reply_to_a_small_one(tmp_path: Path) -> None:
    record = Recorder()
    for size in (10, 1400, 900):
        record.udp(1.0, (40000, 434), bytes(size), out=True)
    record.udp(1.1, (434, 40000), bytes(60), out=False)
    assert measure.largest_excess(pcap.datagrams(record.save(tmp_path)), (CN,)) == 50


def test_truncated_capture_is_read_to_its_last_whole_frame(tmp_path: Path) -> None:
    record = Recorder()
    record.data_out(10.0, 1000, 10)
    record.data_out(10.1, 1010, 10)
    file = record.save(tmp_path)
    file.write_bytes(file.read_bytes()[:-3])
    assert len(list(pcap.frames(file))) == 1


def test_tcp_counters() -> None:
    text = "Ip: Forwarding\nIp: 1\nTcp: RetransSegs InErrs\nTcp: 7 0\nTcpExt: TCPTimeouts\nTcpExt: 2\n"
    before = measure.tcp_counters(text)
    assert before == {"Ip.Forwarding": 1, "Tcp.RetransSegs": 7, "Tcp.InErrs": 0, "TcpExt.TCPTimeouts": 2}
    after = measure.tcp_counters(text.replace("7 0", "9 0"))
    assert measure.counted(before, after, "Tcp.RetransSegs") == 2


def test_other_file_is_no_pcap(tmp_path: Path) -> None:
    file = tmp_path / "x.pcap"
    file.write_bytes(b"GIF89a" + bytes(40))
    with pytest.raises(ValueError, match="not a pcap"):
        list(pcap.frames(file))
