"""The judgement of flow scenarios tells right from wrong, on captures made for it."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from locum.lab.captures.pcap import COOKED_2, datagrams
from locum.lab.report.checks import Checks
from locum.lab.steps.flow_checks import Stint, delivered_twice, judge_counters, looped, stints, takes
from locum.lab.timeline import Event
from locum.wire.ip import build_ip

CN, HOME, HA, AN = (IPv4Address(name) for name in ("10.10.1.10", "10.10.100.4", "10.10.4.2", "10.10.21.1"))


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


SELECTOR = {"protocol": "udp", "destination_port": "1-8"}
STANDS = Stint(1, "forward", SELECTOR, {str(HOME): 0.0}, float("inf"), 1)


def right(file: Path, *rules: Stint, own: tuple[IPv4Address, ...] = ()) -> bool:
    checks = Checks()
    judge_counters(file, rules, checks, own=own)
    return checks.ok


def test_counters_are_compared_with_tunnelled_packets(tmp_path: Path) -> None:
    file = capture(
        tmp_path / "ha",
        (packet(b"in", 7), False),
        (in_tunnel(packet(b"in", 7)), True),
        (in_tunnel(packet(b"other", 9)), True),
    )
    assert right(file, STANDS)
    assert not right(file, replace(STANDS, packets=2))
    assert not right(file), "no rule at all is no evidence"
    assert not right(file, replace(STANDS, selector={"protocol": "tcp"}, packets=0)), (
        "nor one without packets"
    )


def test_ended_rule_is_compared_in_its_time_and_tunnel(tmp_path: Path) -> None:
    """The captures' times are the packets' places: 0 to 3."""
    file = capture(tmp_path / "ha", *((in_tunnel(packet(bytes((n,)), 7)), True) for n in range(4)))
    ended = replace(STANDS, since={str(HOME): 0.5}, until=2.5, packets=2, tunnels=frozenset((str(AN),)))
    assert right(file, ended)
    assert not right(file, replace(ended, until=1.5)) and not right(file, replace(ended, packets=3))
    elsewhere = replace(ended, tunnels=frozenset(("10.10.22.1",)))
    assert not right(file, elsewhere)
    assert right(file, ended, replace(STANDS, packets=2)), "what comes before and after is another's"


def test_local_packets_arrived_and_did_not_leave(tmp_path: Path) -> None:
    file = capture(
        tmp_path / "ha",
        (packet(b"stays", 7), False),
        (packet(b"goes", 8), False),
        (in_tunnel(packet(b"goes", 8)), True),
    )
    assert right(file, replace(STANDS, tunnels=frozenset((str(HA),))), own=(HA,))
    assert not right(file, replace(STANDS, packets=2, tunnels=frozenset((str(HA),))), own=(HA,))


def test_dropped_packets_came_in(tmp_path: Path) -> None:
    file = capture(tmp_path / "ha", (packet(b"in", 7), False), (packet(b"other", 9), False))
    assert right(file, replace(STANDS, action="drop"))


def test_rule_times_are_read_from_events() -> None:
    selector = {"protocol": "udp"}

    def ended(time: float, packets: int) -> Event:
        detail = {"id": 257, "action": "forward", "selector": selector, "tunnels": [str(AN)],
                  "packets": packets, "bytes": 0}  # fmt: skip
        return Event(time, "ha", "rule-ended", None, str(HOME), None, detail)

    def begun(time: float) -> Event:
        return Event(
            time, "ha", "rules-changed", None, str(HOME), None, {"set": [257], "removed": [], "rules": 1}
        )

    row = {"id": 257, "action": "forward", "selector": selector, "home_address": str(HOME),
           "home_address_v6": "2001:db8::4", "live": [4], "packets": 3}  # fmt: skip
    first, second, third = stints([begun(1.0), ended(2.0, 5), begun(3.0), ended(4.0, 6)], [row])
    assert (first.since, first.until, first.packets) == ({str(HOME): 1.0}, 2.0, 5)
    assert (second.since, second.until, second.packets) == ({str(HOME): 3.0}, 4.0, 6)
    assert (third.since, third.until, third.tunnels) == ({str(HOME): 4.0}, float("inf"), None)


def test_written_selectors_are_read(tmp_path: Path) -> None:
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
