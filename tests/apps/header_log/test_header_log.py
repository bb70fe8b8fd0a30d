"""The `log` proxy on a virtual clock: files as tshark reads them, counts and events, bounded (A2)."""

import errno
import json
import subprocess
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from locum.apps.header_log import app as module
from locum.apps.header_log.app import HeaderLog
from locum.apps.header_log.headers import MOST, headers_of
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import MAX_DETAIL, Effect, Note, SettingError, Tell, checked_state
from locum.roles.app_network import Append, Capture, CapturedPacket, Failed, Files, Happening, Packets, Remove

SECRET = b"user data " * 20
V4, V6 = IP(src="192.0.2.9", dst="10.9.0.5"), IPv6(src="2001:db8::9", dst="2001:db8::5")
STARTED = 1_764_440_000 * 10**9


class World:
    """A log and its files, with room for so many bytes."""

    def __init__(self, room: int = 1 << 30, **table: JSON) -> None:
        self.files: dict[str, bytes] = {}
        self.room, self.now = room, 0.0
        self.told: list[Tell] = []
        self.notes: list[str] = []
        self.app = self.start(table)

    def start(self, table: dict[str, JSON]) -> HeaderLog:
        self.app = HeaderLog(HeaderLog.settings(table), Random(1))
        capture, _ = self.app.begin([], {}, now=self.now)
        assert isinstance(capture, Capture)
        self.happen(Files([(name, len(data)) for name, data in self.files.items()]))
        return self.app

    def happen(self, event: Happening) -> None:
        self.perform(self.app.happened(event, now=self.now))

    def perform(self, effects: Sequence[Effect]) -> None:
        failed: list[Failed] = []
        for effect in effects:
            match effect:
                case Append(file, data):
                    if sum(map(len, self.files.values())) + len(data) > self.room:
                        failed.append(Failed(file, errno.ENOSPC))
                    else:
                        self.files[file] = self.files.get(file, b"") + data
                case Remove(file):
                    self.files.pop(file, None)
                case Tell():
                    self.told.append(effect)
                case Note(text):
                    self.notes.append(text)
                case _:
                    raise AssertionError(effect)
        for event in failed:
            self.happen(event)

    def arrive(self, *packets: Packet, left_out: int = 0) -> None:
        """Packets in the order of time; a millisecond passes with each."""
        found: list[CapturedPacket] = []
        for packet in packets:
            self.now += 0.001
            data = bytes(packet)
            found.append(CapturedPacket(STARTED + int(self.now * 1e9), data[:MOST], len(data)))
        self.happen(Packets(found, left_out))

    def result(self) -> dict[str, object]:
        found = checked_state(self.app.end(now=self.now))["result"]
        assert isinstance(found, dict)
        return found


def tshark(data: bytes, folder: Path, *fields: str) -> list[list[str]]:
    """Fields of each packet of a file, as a stock tshark reads them."""
    file = folder / "log.pcapng"
    file.write_bytes(data)
    named = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-n", "-r", str(file), "-T", "fields", "-E", "separator=;", *named]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split(";") for line in done.stdout.splitlines()]


PACKETS = (
    V4 / TCP(sport=40000, dport=22, flags="S", options=[("MSS", 1460)]),
    V4 / UDP(sport=5000, dport=161) / Raw(SECRET),
    V6 / TCP(sport=40001, dport=443, flags="A") / Raw(SECRET),
    V6 / IPv6ExtHdrDestOpt() / UDP(sport=5001, dport=53) / Raw(SECRET),
    V4 / ICMP() / Raw(SECRET),
)


def test_tshark_reads_the_file(tmp_path: Path) -> None:
    one = World()
    one.arrive(*PACKETS)
    (data,) = one.files.values()
    assert b"user data" not in data
    found = tshark(
        data, tmp_path, "frame.time_epoch", "frame.len", "ip.src", "ipv6.src", "tcp.dstport", "udp.dstport"
    )
    assert [row[2:] for row in found] == [
        ["192.0.2.9", "", "22", ""],
        ["192.0.2.9", "", "", "161"],
        ["", "2001:db8::9", "443", ""],
        ["", "2001:db8::9", "", "53"],
        ["192.0.2.9", "", "", ""],
    ]
    assert [int(row[1]) for row in found] == [len(bytes(packet)) for packet in PACKETS]
    assert found[0][0].startswith("1764440000.001")


def test_loss_is_in_the_file(tmp_path: Path) -> None:
    one = World(file_bytes=4096)
    one.arrive(PACKETS[0], left_out=77)
    one.arrive(*PACKETS * 20)
    first, *_rest = one.files.values()
    assert (77).to_bytes(8, "little") in first
    command = ["capinfos", "-A", "-M", str(tmp_path / "log.pcapng")]
    tshark(first, tmp_path, "frame.len")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Raw IP" in said
    assert one.result()["left_out"] == 77


@pytest.mark.parametrize(
    "packet, length",
    [
        (V4 / TCP(), 40),
        (V4 / TCP(options=[("Timestamp", (1, 2))]), 52),
        (V4 / UDP() / Raw(SECRET), 28),
        (V6 / UDP() / Raw(SECRET), 48),
        (V6 / IPv6ExtHdrDestOpt() / TCP() / Raw(SECRET), 68),
        (V4 / ICMP() / Raw(SECRET), 28),
        (IP(src="192.0.2.9", dst="10.9.0.5", frag=100, proto=17) / Raw(SECRET), 20),
        (V6 / IPv6ExtHdrFragment(offset=5, nh=17) / Raw(SECRET), 48),
        (IP(src="192.0.2.9", dst="10.9.0.5", proto=99) / Raw(SECRET), 20),
    ],
)
def test_nothing_behind_the_transport_header(packet: Packet, length: int) -> None:
    assert headers_of(bytes(packet)[:MOST]).length == length


@given(st.binary(max_size=140), st.sampled_from([b"", b"\x45", b"\x4f", b"\x60"]))
def test_any_bytes_have_headers(data: bytes, first: bytes) -> None:
    found = headers_of(first + data)
    assert 0 <= found.length <= min(len(first + data), MOST)


def test_files_rotate() -> None:
    one = World(file_bytes=4096, files=3)
    for _ in range(300):
        one.arrive(PACKETS[0])
    assert len(one.files) == 3 and min(one.files) > "headers-000003.pcapng"
    assert all(len(data) <= 4096 + 64 for data in one.files.values())
    listed = one.result()["files"]
    assert listed == [[name, len(data), ""] for name, data in one.files.items()]


def test_another_process_begins_a_new_file(tmp_path: Path) -> None:
    one = World()
    one.arrive(PACKETS[0])
    one.files["notes"] = b""
    one.start({})
    one.arrive(PACKETS[1])
    assert list(one.files) == ["headers-000001.pcapng", "notes", "headers-000002.pcapng"]
    assert len(tshark(one.files["headers-000002.pcapng"], tmp_path, "frame.len")) == 1


def test_full_disk_costs_the_oldest_headers() -> None:
    one = World(room=20_000, file_bytes=8192, files=10)
    for _ in range(500):
        one.arrive(PACKETS[0])
    found = one.result()
    assert found["packets"] == 500 and isinstance(found["unstored"], int) and 0 < found["unstored"] < 20
    assert "headers-000001.pcapng" not in one.files and one.files


def test_no_room_at_all_leaves_the_counts() -> None:
    one = World(room=0)
    for _ in range(50):
        one.arrive(*PACKETS)
    found = one.result()
    assert found["packets"] == found["unstored"] == 250 and one.files == {}
    assert [tell.kind for tell in one.told].count("not_stored") == 1


def test_events_tell_each_peer_and_port_once() -> None:
    one = World(events=20)
    one.arrive(*PACKETS, *PACKETS)
    assert [tell.detail.get("port") for tell in one.told] == [22, 161, 443, 53, None]
    assert one.told[0].detail == {
        "from": "192.0.2.9",
        "protocol": "tcp",
        "bytes": len(bytes(PACKETS[0])),
        "from_port": 40000,
        "port": 22,
    }


def test_scan_makes_few_events_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 100)
    one = World(events=6)
    for port in range(1, 3000):
        one.arrive(V4 / TCP(dport=port))
    assert len(one.told) == 6
    one.now += 60.0
    one.arrive(V4 / TCP(dport=5000))
    assert one.told[-1].detail["untold"] == 2999 - 6
    assert all(len(json.dumps(dict(tell.detail))) < MAX_DETAIL for tell in one.told)
    found = one.result()
    ports = found["ports"]
    assert isinstance(ports, dict) and len(ports) == 50 and found["others"] == 2950


def test_no_events_are_wanted() -> None:
    one = World(events=0)
    one.arrive(*PACKETS)
    assert one.told == []


def test_wants_no_session() -> None:
    from locum.wire.control import Flow

    flow = Flow(6, ip_address("10.9.0.5"), 40000, ip_address("192.0.2.9"), 80)
    assert not HeaderLog.wants(HeaderLog.settings({}), flow)


@pytest.mark.parametrize(
    "table, key",
    [
        ({"per_second": 0}, "per_second"),
        ({"per_second": 100_000}, "per_second"),
        ({"file_bytes": "1M"}, "file_bytes"),
        ({"files": True}, "files"),
        ({"events": -1}, "events"),
        ({"rate": 1}, "rate"),
    ],
)
def test_wrong_settings_name_their_key(table: dict[str, JSON], key: str) -> None:
    with pytest.raises(SettingError) as found:
        HeaderLog.settings(table)
    assert found.value.key == key


def test_packets_that_find_no_room_together_cost_one_file() -> None:
    one = World()
    old = {f"headers-{number:06d}.pcapng": bytes(5000) for number in (1, 2, 3)}
    one.files, one.room = dict(old), 15_000
    one.start({})
    one.arrive(*[V4 / UDP(dport=9)] * 10)
    assert list(one.files) == list(old)[1:] and len(one.notes) == 1
    one.arrive(V4 / UDP(dport=9))
    assert list(one.files)[:2] == list(old)[1:] and len(one.files) == 3
