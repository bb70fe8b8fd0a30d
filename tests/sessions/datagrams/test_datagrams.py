"""UDP sockets of stock programs: held in another namespace under the same address, and given back in order."""

import errno
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.sessions.datagrams.live import LiveDatagrams, ParkedDatagrams
from locum.sessions.datagrams.record import DatagramRecord, Repeated
from locum.sessions.datagrams.spool import DatagramBounds, DatagramSpool
from locum.sessions.datagrams.stand_in import repeat, restore
from locum.sessions.search.find import Candidate, find
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.spool import Budget
from locum.wire.control import Flow
from tests.sessions.sleepworld import HOME4, HOME6, PEER4, PEER6, Network

# Connects, says hello, then prints the length and first byte of every datagram, or the error.
PROGRAM = """
import socket, sys
home, peer, size = sys.argv[1:4]
s = socket.socket(socket.AF_INET6 if ":" in peer else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(size))
s.bind((home, 4001)); s.connect((peer, 5001)); s.send(b"hello")
while True:
    try: d = s.recv(70000)
    except OSError as e: print("error", e.errno, flush=True); continue
    print(len(d), d[:1].decode(), flush=True)
    if d == b"end": break
"""


class Clock:
    """Milliseconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        return self.now


class Held:
    """A program on the device, its peer, and the two ends of one hand-over."""

    def __init__(self, network: Network, directory: Path, peer: str = PEER4, buffer: int = 212992) -> None:
        self.network, self.directory, self.clock = network, directory, Clock()
        self.bounds, self.budget = DatagramBounds(), Budget(0, 1 << 30)
        home = HOME4 if ip_address(peer).version == 4 else HOME6
        family = socket.AF_INET if home.version == 4 else socket.AF_INET6
        self.flow = Flow(17, home, 4001, ip_address(peer), 5001)
        network.route("device")
        with network.inside("peer"):
            self.peer = socket.socket(family, socket.SOCK_DGRAM)
            self.peer.bind((peer, 5001))
        self.peer.settimeout(10)
        self.process = network.start(
            "device",
            sys.executable,
            "-c",
            PROGRAM,
            str(home),
            peer,
            str(buffer),
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self.peer.recv(100) == b"hello"
        self.peer.connect((str(home), 4001))
        self.candidate = self._candidate()
        self.live = LiveDatagrams.open(self.candidate)
        self.record: DatagramRecord
        self.socket: socket.socket
        self.spool: DatagramSpool

    def _candidate(self) -> Candidate:
        with self.network.inside("device"):
            (found,), _ = find((self.flow.local,))
        assert found.flow == self.flow
        assert found.pids == (self.process.pid,)
        return found

    def sleep(self, repeated: Repeated | None = None) -> None:
        self.record = DatagramRecord.from_cbor(self.live.capture(repeated).to_cbor())
        self.network.route("standin")
        with self.network.inside("standin"):
            self.socket = restore(self.record)
        self.spool = self.new_spool()

    def new_spool(self) -> DatagramSpool:
        return DatagramSpool(
            "one",
            self.record,
            directory=self.directory,
            bounds=self.bounds,
            clock=self.clock,
            budget=self.budget,
        )

    def arrive(self, *datagrams: bytes) -> None:
        """The peer sends these, and the stand-in takes all of them."""
        for datagram in datagrams:
            self.peer.send(datagram)
            assert select.select([self.socket], [], [], 10)[0]
            self.spool.drain(self.socket)

    def wake(self, chunk: int = 1 << 20) -> None:
        final = self.spool.stop(self.socket)
        self.socket.close()
        self.network.route("device")
        deadline = time.monotonic() + 20
        while self.live.position() < final.received:
            assert time.monotonic() < deadline
            done = self.live.inject(self.spool.read(self.live.position(), chunk))
            self.network.deliver(done.packets)
            while self.live.unread() and not done.accepted:
                time.sleep(0.001)
        self.network.deliver(self.live.finish(final))
        assert self.live.parked.injected == final.received
        self.live.close()
        self.spool.remove()
        assert self.budget.total == 0

    def answer(self) -> str:
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], 10)[0], "the program says nothing"
        return self.process.stdout.readline().decode().strip()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.peer.close()
        self.live.close()
        if hasattr(self, "socket"):
            self.socket.close()
        self.network.route("device")


@pytest.fixture
def held(network: Network, tmp_path: Path) -> Iterator[Held]:
    made = Held(network, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("peer", [PEER4, PEER6])
def test_datagrams_of_any_size_come_back_in_order(network: Network, tmp_path: Path, peer: str) -> None:
    held = Held(network, tmp_path, peer)
    try:
        held.sleep()
        held.arrive(b"a", b"", b"b" * 1400, b"c" * 60000, b"d")
        assert held.spool.number == 5
        held.wake()
        assert [held.answer() for _ in range(5)] == ["1 a", "0", "1400 b", "60000 c", "1 d"]
        held.peer.send(b"end")
        assert held.answer() == "3 e", "the program's own socket goes on"
    finally:
        held.close()


def test_more_than_the_receive_buffer_comes_back_in_rounds(network: Network, tmp_path: Path) -> None:
    held = Held(network, tmp_path, buffer=8192)
    try:
        held.sleep()
        held.arrive(*(b"%c" % (97 + n % 26) * 1000 for n in range(60)))
        held.wake(chunk=2500)  # a chunk that cuts frames in two
        assert [held.answer() for _ in range(60)] == [f"1000 {chr(97 + n % 26)}" for n in range(60)]
    finally:
        held.close()


def test_the_oldest_go_first_past_the_bound_of_number(held: Held) -> None:
    held.bounds = DatagramBounds(number=3)
    held.sleep()
    held.arrive(*(b"%d" % n for n in range(8)))
    assert (held.spool.number, held.spool.dropped) == (3, 5)
    held.wake()
    assert [held.answer() for _ in range(3)] == ["1 5", "1 6", "1 7"]


def test_the_oldest_go_first_past_the_bound_of_bytes(held: Held) -> None:
    held.bounds = DatagramBounds(size=3000)
    held.sleep()
    held.arrive(*(b"%d" % n * 1000 for n in range(8)))
    assert (held.spool.number, held.spool.dropped) == (2, 6)
    assert held.spool.total <= 3000
    held.wake()
    assert [held.answer() for _ in range(2)] == ["1000 6", "1000 7"]


def test_datagrams_past_their_time_are_dropped(held: Held) -> None:
    held.bounds = DatagramBounds(seconds=10)
    held.sleep()
    held.arrive(b"old")
    held.clock.now += 9000
    held.arrive(b"new")
    held.clock.now += 2000
    held.wake()
    assert held.answer() == "3 n"


def test_positions_stand_still_once_the_device_reads(held: Held) -> None:
    held.bounds = DatagramBounds(number=2, seconds=10)
    held.sleep()
    held.arrive(b"1", b"2")
    first = held.spool.read(0, 1000)
    held.clock.now += 60_000
    held.arrive(b"3")
    assert held.spool.read(0, 1000) == first
    assert held.spool.dropped == 1, "the newcomer, since older ones may be on their way already"


def test_full_disk_keeps_a_reserve_and_returns_stored_data(held: Held) -> None:
    """The node's store is on the same file system by default."""
    held.directory = held.directory / "small"
    held.directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(held.directory)], check=True)
    try:
        held.sleep()
        with pytest.raises(OSError, match="No space"):
            for _ in range(10):
                held.arrive(bytes(60_000))
        free = os.statvfs(held.directory)
        assert free.f_bavail * free.f_frsize >= 32 << 10
        kept = held.spool.number
        assert kept >= 2
        with (
            (held.directory / "junk").open("wb", buffering=0) as junk,
            pytest.raises(OSError, match="No space"),
        ):
            while True:
                junk.write(bytes(4096))
        held.wake()
        assert [held.answer() for _ in range(kept)] == ["60000 \0"] * kept
    finally:
        subprocess.run(["umount", "-l", str(held.directory)], check=True)


def test_a_killed_stand_in_goes_on_where_it_was(held: Held) -> None:
    held.sleep()
    held.arrive(b"1", b"2")
    whole = held.spool.total
    held.spool.close()
    with (held.directory / "one.datagrams").open("ab") as file:
        file.write(b"\0" * 7)  # a frame that was cut off
    held.peer.send(b"3")  # waits in the kernel
    held.budget = Budget(0, 1 << 30)
    held.spool = held.new_spool()
    held.spool.recover(held.socket)
    assert held.spool.total == whole
    held.arrive(b"4")
    held.wake()
    assert [held.answer() for _ in range(4)] == ["1 1", "1 2", "1 3", "1 4"]


def test_a_killed_stand_in_keeps_positions_that_were_read(held: Held) -> None:
    held.bounds = DatagramBounds(number=2)
    held.sleep()
    held.arrive(b"1", b"2", b"3")
    before = held.spool.read(0, 1000)
    held.spool.close()
    held.budget = Budget(0, 1 << 30)
    held.spool = held.new_spool()
    held.spool.recover(held.socket)
    held.clock.now += 10**9
    assert held.spool.read(0, 1000) == before


def test_a_device_that_was_killed_repeats_rather_than_loses(held: Held) -> None:
    held.sleep()
    held.arrive(b"1", b"2" * 1000)
    done = held.live.inject(held.spool.read(0, 500))  # the second is cut
    held.network.deliver(done.packets)
    row = held.live.parked.to_json()
    held.live.close()
    held.live = LiveDatagrams.open(held.candidate, ParkedDatagrams.from_json(row))
    held.wake()
    assert [held.answer() for _ in range(2)] == ["1 1", "1000 2"]


def test_the_file_does_not_grow_for_ever(held: Held) -> None:
    held.bounds = DatagramBounds(number=2, size=4000)
    held.sleep()
    for _ in range(40):
        held.arrive(b"x" * 1000)
    assert (held.directory / "one.datagrams").stat().st_size <= 4 * 4000
    held.wake()
    assert [held.answer() for _ in range(2)] == ["1000 x", "1000 x"]


@pytest.mark.parametrize("peer", [PEER4, PEER6])
def test_an_icmp_error_reaches_the_program(network: Network, tmp_path: Path, peer: str) -> None:
    held = Held(network, tmp_path, peer)
    try:
        held.sleep(Repeated(b"ping", 10))
        held.peer.close()
        with network.inside("standin"):
            repeat(held.socket, held.record)
        deadline = time.monotonic() + 10
        while not held.spool.last_error:
            assert time.monotonic() < deadline
            held.spool.drain(held.socket)
        assert held.spool.last_error == errno.ECONNREFUSED
        held.wake()
        assert held.answer() == f"error {errno.ECONNREFUSED}"
    finally:
        held.close()


def test_a_keep_alive_goes_to_the_peer_and_its_answer_is_dropped(held: Held) -> None:
    held.sleep(Repeated(b"ping", 10, discard_answers=True))
    repeat(held.socket, held.record)
    held.spool.repeated()
    assert held.peer.recv(100) == b"ping"
    held.arrive(b"pong")
    held.clock.now += 5000
    held.arrive(b"news")
    held.wake()
    assert held.answer() == "4 n"


def test_sockets_without_a_fixed_peer_stay_and_are_named(network: Network) -> None:
    with network.inside("device"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
        connected.bind((str(HOME4), 4444))
        connected.connect((PEER4, 9))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((str(HOME4), 4445))
            candidates, left = find((HOME4,))
    assert [candidate.flow.local_port for candidate in candidates] == [4444]
    (alone,) = (session for session in left if session.flow.local_port == 4445)
    assert "without a fixed peer" in alone.reason


def test_a_flow_is_held_once(held: Held) -> None:
    held.sleep()
    with (
        held.network.inside("standin"),
        pytest.raises(SessionError, match="cannot be held: Address already in use"),
    ):
        restore(held.record)


def test_unsuitable_datagram_sockets_are_refused_by_name(held: Held) -> None:
    held.live.flow = replace(held.flow, peer=ip_address("224.0.0.1"))
    with pytest.raises(SessionError, match="its peer is no single host"):
        held.live.capture()
    held.live.flow = held.flow
    held.live.socket.setsockopt(socket.IPPROTO_UDP, 100, 2)  # UDP_ENCAP_ESPINUDP
    with pytest.raises(SessionError, match="UDP_ENCAP"):
        held.live.capture()
