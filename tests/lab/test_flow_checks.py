"""What a scenario with flows is judged by tells right from wrong, on captures made for it."""

import struct
from ipaddress import IPv4Address
from pathlib import Path

from locum.lab.checks import Checks
from locum.lab.flow_checks import delivered_twice, judge_counters, looped, takes
from locum.lab.pcap import COOKED_2, datagrams
from locum.wire.ip import build_ip

CN, HOME, HA, AN = (IPv4Address(each) for each in ("10.10.1.10", "10.10.100.4", "10.10.4.2", "10.10.21.1"))


def packet(payload: bytes, port: int = 7, ttl: int = 60) -> bytes:
    data = bytearray(build_ip(CN, HOME, 17, struct.pack("!HHHH", 5000, port, 8 + len(payload), 0) + payload))
    data[8] = ttl
    return bytes(data)


def in_tunnel(inner: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(inner), 0, 0, 64, 4, 0, HA.packed, AN.packed)
    return head + inner


def capture(file: Path, *packets: tuple[bytes, bool]) -> Path:
    """A capture of these packets, each with whether it left the node."""
    body = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, COOKED_2)
    for number, (data, outgoing) in enumerate(packets):
        frame = struct.pack("!HHIHBB8s", 0x0800, 0, 2, 1, 4 if outgoing else 0, 6, b"") + data
        body += struct.pack("<IIII", number, 0, len(frame), len(frame)) + frame
    file.write_bytes(body)
    return file


def test_a_packet_at_two_nodes_is_found(tmp_path: Path) -> None:
    mine = capture(tmp_path / "mn", (packet(b"one"), False), (packet(b"two"), False))
    other = capture(tmp_path / "mnps", (in_tunnel(packet(b"two", ttl=50)), False), (packet(b"three"), False))
    assert delivered_twice({"mn": mine, "mnps": other}, ("mn", "mnps")) == 1
    assert delivered_twice({"mn": mine, "mnps": other}, ("mn",)) == 0


def test_a_packet_that_comes_again_with_fewer_hops_has_looped(tmp_path: Path) -> None:
    again = capture(tmp_path / "ha", (packet(b"one"), False), (packet(b"one", ttl=56), False))
    assert looped({"ha": again}) == 1
    twice = capture(
        tmp_path / "ok", (packet(b"one"), False), (packet(b"one"), False), (in_tunnel(packet(b"one")), False)
    )
    assert looped({"ha": twice}) == 0


def test_counters_are_compared_with_what_left_in_tunnels(tmp_path: Path) -> None:
    file = capture(
        tmp_path / "ha",
        (packet(b"in", 7), False),
        (in_tunnel(packet(b"in", 7)), True),
        (in_tunnel(packet(b"other", 9)), True),
    )
    rule = {
        "id": 1,
        "action": "forward",
        "packets": 1,
        "selector": {"protocol": "udp", "destination_port": "1-8"},
    }
    checks = Checks()
    judge_counters(file, [rule], checks)
    assert checks.ok
    judge_counters(file, [{**rule, "packets": 2}], checks)
    assert not checks.ok


def test_selectors_are_read_as_people_write_them(tmp_path: Path) -> None:
    (one,) = datagrams(capture(tmp_path / "x", (packet(b"x", 53), False)))
    for selector, wanted in (
        ({}, True),
        ({"source": "10.10.1.0/24"}, True),
        ({"source": "10.10.1.1-10.10.1.9"}, False),
        ({"source": "2001:db8::/32"}, False),
        ({"destination_port": 53, "protocol": 17}, True),
        ({"protocol": "tcp"}, False),
        ({"source_port": "1-4999"}, False),
    ):
        assert takes({"selector": selector}, one) is wanted, selector
