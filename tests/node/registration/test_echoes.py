"""Keepalives of UDP tunnels come from raw sockets: their checksums are verified here, and wrong ones are counted."""

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from locum.node.registration.echo_responder import EchoResponder
from locum.node.registration.echo_watch import EchoWatch
from locum.roles.actions import EchoAnswered
from locum.wire.ip.headers import ICMP
from locum.wire.ip.packet import build_ip
from locum.wire.ip.transport import IcmpMessage
from tests.dataplane.namespaces import Namespace

HOME_AGENT, HOME_ADDRESS, OTHER = (
    IPv4Address(address) for address in ("198.51.100.2", "203.0.113.4", "203.0.113.9")
)
REQUEST, REPLY = 8, 0
WRONG = "keepalive-bad-checksum"


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with the home agent's address, and without a route to home addresses."""
    made = Namespace("echoes")
    try:
        made.run(f"ip addr add {HOME_AGENT}/32 dev lo")
        yield made
    finally:
        made.remove()


def echo(kind: int, source: IPv4Address, destination: IPv4Address, sequence: int, *, damaged: bool) -> bytes:
    message = bytearray(IcmpMessage(kind, 0, b"\x12\x34" + sequence.to_bytes(2, "big"), b"keep").encode())
    message[-1] ^= damaged
    return build_ip(source, destination, ICMP, bytes(message))


def send(host: Namespace, destination: IPv4Address, *packets: bytes) -> None:
    with host.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in packets:
            raw.sendto(packet, (str(destination), 0))


def read_until(read: Callable[[], None], complete: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not complete() and time.monotonic() < deadline:
        read()
        time.sleep(0.01)


def test_damaged_requests_are_not_answered(host: Namespace) -> None:
    answers: list[bytes] = []
    counted: list[str] = []
    with host.inside():
        responder = EchoResponder(
            HOME_AGENT, lambda address: address == HOME_ADDRESS, answers.append, counted.append
        )
        try:
            requests = [
                (HOME_ADDRESS, 1, False),
                (HOME_ADDRESS, 2, True),
                (OTHER, 3, False),
                (HOME_ADDRESS, 4, False),
            ]
            send(
                host,
                HOME_AGENT,
                *(echo(REQUEST, source, HOME_AGENT, number, damaged=bad) for source, number, bad in requests),
            )
            read_until(responder.read, lambda: len(answers) == 2)
        finally:
            responder.close()
    assert answers == [echo(REPLY, HOME_AGENT, HOME_ADDRESS, number, damaged=False) for number in (1, 4)]
    assert counted == [WRONG]


@pytest.mark.parametrize("home_agent", [HOME_AGENT, None])
def test_damaged_replies_count_as_none(host: Namespace, home_agent: IPv4Address | None) -> None:
    heard: list[EchoAnswered] = []
    counted: list[str] = []
    host.run(f"ip addr add {HOME_ADDRESS}/32 dev lo")
    with host.inside():
        watch = EchoWatch(HOME_ADDRESS, home_agent, heard.append, counted.append)
    try:
        replies = [(1, False), (2, True), (3, False)]
        send(
            host,
            HOME_ADDRESS,
            *(echo(REPLY, HOME_AGENT, HOME_ADDRESS, number, damaged=bad) for number, bad in replies),
        )
        read_until(watch.read, lambda: len(heard) == 2)
    finally:
        watch.close()
    assert heard == [EchoAnswered(0x1234, number) for number in (1, 3)]
    assert counted == [WRONG]
