"""The socket of port 434 reports ICMP errors about its messages, and survives a flood of them."""

import select
import socket
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from locum.node.registration.udp_434 import RegistrationSocket
from tests.dataplane.namespaces import Namespace

Error = tuple[bytes, str, int, int, int]
CLOSED = 4999  # a closed port
OPEN = 4998


class Ends:
    """A registration socket on the loopback link of a namespace of its own, and a peer."""

    def __init__(self, space: Namespace, *, hears: bool) -> None:
        self.errors: list[Error] = []
        self.messages: list[bytes] = []

        def heard(message: bytes, *_: object) -> None:
            self.messages.append(message)

        def unreachable(*error: object) -> None:
            self.errors.append(error)  # type: ignore[arg-type]

        with space.inside():
            self.ours = RegistrationSocket(heard, lambda: None, unreachable=unreachable if hears else None)
            self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.other.bind(("127.0.0.1", OPEN))
            self.other.settimeout(20)

    def wait(self, enough: int) -> None:
        end = time.monotonic() + 10
        while len(self.errors) < enough and time.monotonic() < end:
            select.select([self.ours], [], [], 0.1)
            self.ours.read()

    def close(self) -> None:
        self.ours.close()
        self.other.close()


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace("registration-socket")
    try:
        made.run("ip link set lo up")
        yield made
    finally:
        made.remove()


def test_errors_are_reported_with_the_quoted_packet(space: Namespace) -> None:
    ends = Ends(space, hears=True)
    try:
        message = b"\x01" + bytes(range(200))
        ends.ours.send(message, "127.0.0.1", CLOSED)
        ends.wait(1)
        assert ends.errors == [(message, "127.0.0.1", CLOSED, 3, 3)]
        ends.ours.send(b"\x03another", "127.0.0.1", CLOSED)
        ends.ours.send(b"\x01good", "127.0.0.1", OPEN)  # the error that waits is not taken for its own
        assert ends.other.recv(100) == b"\x01good"
        ends.other.sendto(b"\x01asked", ("127.0.0.1", 434))
        ends.wait(2)
        assert ends.messages == [b"\x01asked"] and len(ends.errors) == 2
    finally:
        ends.close()


def test_flood_of_errors_is_bounded(space: Namespace) -> None:
    ends = Ends(space, hears=True)
    try:
        space.run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000")
        for number in range(500):
            ends.ours.send(number.to_bytes(2, "big"), "127.0.0.1", CLOSED)
            ends.ours.send(number.to_bytes(2, "big"), "127.0.0.1", OPEN)
            assert ends.other.recv(100) == number.to_bytes(2, "big")
            if number % 100 == 99:
                before = len(ends.errors)
                ends.ours.read()  # bounded at a time
                assert len(ends.errors) - before <= 64
        ends.wait(500)
        end = time.monotonic() + 5
        while select.select([ends.ours], [], [], 0.1)[0] and time.monotonic() < end:
            ends.ours.read()
        assert not select.select([ends.ours], [], [], 0)[
            0
        ]  # nothing is left that would wake the daemon for ever
        assert 100 < len(ends.errors) <= 500
    finally:
        ends.close()


def test_sockets_without_error_reports_keep_working(space: Namespace) -> None:
    ends = Ends(space, hears=False)
    try:
        for _ in range(3):
            ends.ours.send(b"\x01", "127.0.0.1", CLOSED)
            ends.ours.read()
        ends.ours.send(b"\x01good", "127.0.0.1", OPEN)
        assert ends.other.recv(100) == b"\x01good" and not ends.errors
    finally:
        ends.close()


@pytest.mark.parametrize("hears", [True, False])
def test_path_mtu_is_not_learnt_from_errors(space: Namespace, hears: bool) -> None:
    """A forged "fragmentation needed" about a message leaves the route as it is; a socket that believes it is the control."""
    ends = Ends(space, hears=hears)
    try:
        space.run("ip addr add 192.0.2.1/24 dev lo")
        space.run("ip link add far type veth peer name near")
        space.run("ip link set far up")
        space.run("ip link set near up")
        space.run("ip addr add 198.51.100.1/24 dev near")
        peer = "198.51.100.2"
        with space.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as believing:
            believing.bind(("198.51.100.1", OPEN))
            for port, told in ((434, False), (OPEN, True)):
                quoted = IP(src="198.51.100.1", dst=peer) / UDP(sport=port, dport=434) / bytes(8)
                error = ICMP(type=3, code=4, nexthopmtu=600) / quoted
                with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as forger:
                    forger.bind(("198.51.100.1", 0))
                    forger.sendto(bytes(error), ("198.51.100.1", 0))
                end = time.monotonic() + (10 if told else 0.3)
                while (
                    "mtu 600" not in (route := space.run(f"ip route get {peer}")) and time.monotonic() < end
                ):
                    time.sleep(0.05)
                assert ("mtu 600" in route) is told, route
    finally:
        ends.close()
