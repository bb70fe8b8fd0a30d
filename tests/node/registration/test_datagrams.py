"""Many datagrams in one system call: received ones are separate, and a failed one loses no other."""

import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from locum.node.registration.datagrams import ANY, IP_PKTINFO, Inbox, Outbox
from locum.node.registration.udp_434 import RegistrationSocket

HERE, THERE = "127.0.0.1", "127.0.0.2"
TOO_LONG = bytes(70_000)
LOOPBACK = 1  # its interface index in every network namespace


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """One at every address of the host with IP_PKTINFO, and one at THERE."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wild,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        wild.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        wild.bind(("", 0))
        peer.bind((THERE, 0))
        peer.settimeout(20)
        yield wild, peer


def test_received_datagram_has_addresses_and_link(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    wild, peer = sockets
    inbox = Inbox(3, 100)
    for round_ in range(2):  # the second meets memory that has been used
        sent = [bytes((round_, number)) * (50 - number) for number in range(4)] + [b""]
        for message in sent:
            peer.sendto(message, (HERE, wild.getsockname()[1]))
        first, _ = inbox.receive(wild.fileno())
        second, _ = inbox.receive(wild.fileno())
        assert [datagram[0] for datagram in (*first, *second)] == sent and len(first) == 3
        around = {datagram[1:] for datagram in (*first, *second)}
        assert around == {(THERE, peer.getsockname()[1], IPv4Address(HERE).packed, LOOPBACK, 0)}
    with pytest.raises(BlockingIOError):
        inbox.receive(wild.fileno())


def test_oversized_datagrams_are_skipped_and_counted(sockets: tuple[socket.socket, socket.socket]) -> None:
    wild, peer = sockets
    for size in (100, 101, 5):
        peer.sendto(bytes(size), (HERE, wild.getsockname()[1]))
    arrived, oversized = Inbox(8, 100).receive(wild.fileno())
    assert [len(datagram[0]) for datagram in arrived] == [100, 5] and oversized == 1


def test_datagrams_leave_in_order_from_the_chosen_address(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    wild, peer = sockets
    port = peer.getsockname()[1]
    outbox = Outbox(4)
    messages = [b"%d\0tail" % number for number in range(10)]
    sources = [ANY, IPv4Address("127.0.0.3").packed]
    datagrams = [(message, THERE, port, sources[number % 2], 0) for number, message in enumerate(messages)]
    assert outbox.send(wild.fileno(), datagrams) == []
    arrived = [peer.recvfrom(100) for _ in messages]
    assert [message for message, _ in arrived] == messages
    assert {sender[0] for _, sender in arrived[1::2]} == {"127.0.0.3"}


def test_unsendable_datagram_loses_no_other(sockets: tuple[socket.socket, socket.socket]) -> None:
    wild, peer = sockets
    port = peer.getsockname()[1]
    datagrams = [
        (TOO_LONG if number in (0, 3, 4, 9) else b"%d" % number, THERE, port, ANY, 0) for number in range(10)
    ]
    failed = Outbox(4).send(wild.fileno(), datagrams)
    assert [place for place, _ in failed] == [0, 3, 4, 9]
    assert all(problem.errno == errno.EMSGSIZE for _, problem in failed)
    assert [peer.recv(10) for _ in range(6)] == [b"1", b"2", b"5", b"6", b"7", b"8"]


def test_failing_handler_loses_no_other_message(
    sockets: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    _, peer = sockets
    taken: list[bytes] = []

    def receive(message: bytes, *_: object) -> None:
        if message == b"bad":
            raise RuntimeError("a fault of ours")
        taken.append(message)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    served = RegistrationSocket(receive, lambda: None, port)
    try:
        for message in (b"one", b"bad", b"two"):
            peer.sendto(message, (HERE, port))
        served.read()
        assert taken == [b"one", b"two"] and "127.0.0.2" in caplog.text
        with pytest.raises(OSError, match="too long"):
            served.send(TOO_LONG, THERE, peer.getsockname()[1])
    finally:
        served.close()
