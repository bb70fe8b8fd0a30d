"""Packets that tshark marks; only its own known mistakes are excused."""

import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.lab.captures.dissection import control_packets, malformed
from locum.lab.captures.pcap import frames
from locum.wire.control.paging.direct_message import DirectKind, DirectMessage
from locum.wire.mobile_ip.page_call import CallAnswerCode, PageCall, PageCallAnswer, Reason
from locum.wire.mobile_ip.registration import RegistrationRequest

HOME, AGENT, CARE_OF = (IPv4Address(f"10.10.{part}.4") for part in (100, 4, 21))
MULTIPATH = bytes.fromhex("9a010004 01010100")
NAI = b"\x83\x04mn@h"
AUTHENTICATION = b"\x20\x14" + (1000).to_bytes(4, "big") + bytes(range(16))
REQUEST = RegistrationRequest(300, HOME, AGENT, CARE_OF, 7).encode()


def capture(folder: Path, *packets: tuple[str, bytes]) -> Path:
    """Registrations from these addresses in a pcap of bare IP packets."""
    file = folder / "some.pcap"
    data = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for source, message in packets:
        datagram = struct.pack("!HHHH", 434, 434, 8 + len(message), 0) + message
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0)
        packet = header + IPv4Address(source).packed + AGENT.packed + datagram
        data += struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet
    file.write_bytes(data)
    return file


def test_valid_long_format_is_not_counted_as_malformed(tmp_path: Path) -> None:
    plain = REQUEST + NAI + AUTHENTICATION
    multipath = REQUEST + MULTIPATH + NAI + MULTIPATH + AUTHENTICATION
    assert malformed(capture(tmp_path, ("10.10.21.1", plain), ("10.10.21.1", multipath))) == 0


@pytest.mark.parametrize(
    "extensions",
    [
        MULTIPATH + AUTHENTICATION[:-3],  # the last one is not whole
        MULTIPATH + NAI[:-1],
        MULTIPATH[:-1],
        MULTIPATH + AUTHENTICATION + b"\x83",  # a type without a length
    ],
)
def test_extension_154_excuses_no_other_error(tmp_path: Path, extensions: bytes) -> None:
    assert malformed(capture(tmp_path, ("10.10.21.1", REQUEST + extensions))) == 1


def test_only_whole_calls_are_excused(tmp_path: Path) -> None:
    call = PageCall(b"page-one", HOME, 7, Reason.PACKET).encode() + AUTHENTICATION
    answer = PageCallAnswer(b"page-one", HOME, 7, CallAnswerCode.WAKING).encode() + AUTHENTICATION
    assert malformed(capture(tmp_path, ("10.10.21.1", call), ("10.10.100.4", answer))) == 0
    others = (call[:-1], call[:1] + b"\x05" + call[2:], answer + b"\x83")
    assert malformed(capture(tmp_path, *(("10.10.21.1", other) for other in others))) == len(others)


def test_sealed_calls_are_excused(tmp_path: Path) -> None:
    sealed = [DirectMessage(kind, b"page-one", HOME, 7, bytes(99)).encode() for kind in DirectKind]
    assert malformed(capture(tmp_path, *(("10.10.21.1", message) for message in sealed))) == 0
    others = (sealed[0][:24], sealed[0][:2] + b"\x00\x01" + sealed[0][4:], sealed[0] + bytes(1200))
    assert malformed(capture(tmp_path, *(("10.10.21.1", other) for other in others))) == len(others)


def test_only_broken_messages_of_a_forger_are_excused(tmp_path: Path) -> None:
    cut = REQUEST + NAI[:-1]
    file = capture(tmp_path, ("10.10.66.102", cut), ("10.10.66.2", cut), ("10.10.4.2", cut))
    assert malformed(file) == 3
    assert malformed(file, ("10.10.66.102", "2001:db8:66::66")) == 2


def cooked(folder: Path, *packets: bytes) -> Path:
    """IPv4 and IPv6 packets in a Linux cooked capture, as the lab's tcpdump writes them."""
    file = folder / "cooked.pcap"
    data = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 276)
    for packet in packets:
        kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        frame = struct.pack("!HHIHBB8s", kind, 0, 2, 1, 0, 6, bytes(8)) + packet
        data += struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
    file.write_bytes(data)
    return file


def ipv4(protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head + HOME.packed + AGENT.packed + payload


def ipv6(next_header: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64) + bytes(31) + b"\x01" + payload


def udp(payload: bytes) -> bytes:
    return struct.pack("!HHHH", 434, 434, 8 + len(payload), 0) + payload


def tcp(flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 80, 4000, 1, 1, 0x50, flags, 1, 0, 0) + b"film"


def test_control_packets_leave_out_tcp_streams(tmp_path: Path) -> None:
    segment, opening, cut = tcp(0x10), tcp(0x02), udp(REQUEST + NAI[:-1])
    tunnel_data = struct.pack("!BBH", 4, 4, 0)
    kept = [ipv4(17, cut), ipv4(6, opening), ipv6(6, opening), ipv4(4, ipv4(17, cut))]
    left_out = [
        ipv4(6, segment),
        ipv6(6, segment),
        ipv4(4, ipv4(6, segment)),
        ipv4(41, ipv6(6, segment)),
        ipv6(4, ipv4(6, segment)),
        ipv6(41, ipv6(6, segment)),
        ipv4(17, udp(tunnel_data + ipv4(6, segment))),
        ipv4(17, udp(struct.pack("!BBH", 4, 41, 0) + ipv6(6, segment))),
    ]
    file = cooked(tmp_path, *left_out, *kept)
    with control_packets([file, file]) as control:
        assert [frame.packet for frame in frames(control)] == kept * 2
        assert malformed(control) == 2 * malformed(file) == 4
    assert not control.exists()


def test_control_packets_of_no_capture(tmp_path: Path) -> None:
    file = tmp_path / "x.pcap"
    file.write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(OSError, match="tcpdump cannot read"), control_packets([file]):
        pass


def test_file_that_is_no_capture_raises_an_error(tmp_path: Path) -> None:
    file = tmp_path / "x.pcap"
    file.write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(OSError, match="tshark cannot read"):
        malformed(file)
