"""Packets that the kernel passes to a daemon on an access link: registrations and revocations, no tunnels."""

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from locum.node.registration.access_link import LinkSocket
from locum.wire.ip.checksum import checksum, transport_checksum
from tests.dataplane.namespaces import Namespace, join

OURS, THEIRS = "10.77.0.1", "10.77.0.2"


@pytest.fixture
def link() -> Iterator[tuple[Namespace, Namespace]]:
    ours, theirs = Namespace("ls-ours"), Namespace("ls-theirs")
    try:
        join(ours, "air0", theirs, "air1")
        ours.run(f"ip addr add {OURS}/24 dev air0")
        theirs.run(f"ip addr add {THEIRS}/24 dev air1")
        yield ours, theirs
    finally:
        ours.remove()
        theirs.remove()


def test_tunnel_data_stays_with_the_data_plane(link: tuple[Namespace, Namespace]) -> None:
    ours, theirs = link
    heard: list[tuple[bytes, IPv4Address, int]] = []
    with ours.inside():
        channel = LinkSocket(
            "air0", lambda message, source, port, *_: heard.append((message, source, port)), lambda *_: None
        )
    try:
        with theirs.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((THEIRS, 434))
            for message in (b"\x04\x04\x00\x00tunnel", b"\x01request", b"\x07revocation", b"\x0fanswer", b""):
                sender.sendto(message, (OURS, 434))
            sender.sendto(b"\x01elsewhere", (OURS, 435))
        deadline = time.monotonic() + 10
        while len(heard) < 3 and time.monotonic() < deadline:
            channel.read()
            time.sleep(0.01)
    finally:
        channel.close()
    wanted = [b"\x01request", b"\x07revocation", b"\x0fanswer"]
    assert heard == [(message, IPv4Address(THEIRS), 434) for message in wanted]


REQUEST = b"\x01" + bytes(50)


def raw_udp(message: bytes, *, spoil: int = 0, none: bool = False, head: int = 0) -> bytes:
    """An IPv4 packet with a datagram from THEIRS to OURS, port 434; `spoil` and `head` change its checksums."""
    length = 8 + len(message)
    udp = struct.pack(">HHHH", 434, 434, length, 0) + message
    source, destination = IPv4Address(THEIRS), IPv4Address(OURS)
    check = (
        0 if none else (transport_checksum(source, destination, socket.IPPROTO_UDP, udp) or 0xFFFF) ^ spoil
    )
    udp = udp[:6] + check.to_bytes(2, "big") + udp[8:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0)
    ip += source.packed + destination.packed
    return ip[:10] + (checksum(ip) ^ head).to_bytes(2, "big") + ip[12:] + udp


def test_wrong_checksums_are_dropped_and_counted(link: tuple[Namespace, Namespace]) -> None:
    """A packet socket gets packets before the kernel looks at checksums. None (0), and one that is not made yet, are right."""
    ours, theirs = link
    heard: list[bytes] = []
    counted: list[str] = []
    with ours.inside():
        channel = LinkSocket(
            "air0", lambda message, *_: heard.append(message[-4:]), lambda *_: None, counted.append
        )
    packets = (
        raw_udp(REQUEST + b"good"),
        raw_udp(REQUEST + b"bad.", spoil=0x1234),
        raw_udp(REQUEST + b"none", none=True),
        raw_udp(REQUEST + b"head", head=0x4321),
    )
    try:
        with theirs.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
            for packet in packets:
                wire.sendto(packet, ("air1", 0x0800, 0, 0, channel.link_layer))
            with socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM
            ) as sender:  # the kernel leaves it to the card
                sender.bind((THEIRS, 434))
                sender.sendto(REQUEST + b"last", (OURS, 434))
        deadline = time.monotonic() + 10
        while not (heard and heard[-1] == b"last") and time.monotonic() < deadline:
            channel.read()
            time.sleep(0.01)
    finally:
        channel.close()
    assert heard == [b"good", b"none", b"last"]
    assert counted == ["registration-bad-checksum"] * 2


ADVERTISEMENT, SOLICITATION = b"\x09", b"\x0a"
GROUP, ALL = "224.0.0.1", "255.255.255.255"


def test_agent_discovery_from_other_networks_is_ignored(link: tuple[Namespace, Namespace]) -> None:
    """Its TTL is 1, and its destination is reported."""
    ours, theirs = link
    heard: list[tuple[bytes, str]] = []
    with ours.inside():
        channel = LinkSocket(
            "air0", lambda *_: None, lambda message, _source, _layer, to: heard.append((message[8:], str(to)))
        )
    with theirs.inside():
        speaker = LinkSocket("air1", lambda *_: None, lambda *_: None)
    try:
        for kind, name, to, ttl in (
            (ADVERTISEMENT, b"for all", GROUP, 1),
            (ADVERTISEMENT, b"for really all", ALL, 1),
            (ADVERTISEMENT, b"from afar", OURS, 60),
            (ADVERTISEMENT, b"for all, from afar", GROUP, 2),
            (SOLICITATION, b"asked from afar", OURS, 2),
            (ADVERTISEMENT, b"for us", OURS, 1),
            (SOLICITATION, b"end", OURS, 1),
        ):
            message, source = kind + bytes(7) + name, IPv4Address(THEIRS)
            speaker._send(message, socket.IPPROTO_ICMP, source, IPv4Address(to), channel.link_layer, ttl)
        deadline = time.monotonic() + 10
        while not (heard and heard[-1][0] == b"end") and time.monotonic() < deadline:
            channel.read()
            time.sleep(0.01)
    finally:
        channel.close()
        speaker.close()
    assert heard == [(b"for all", GROUP), (b"for really all", ALL), (b"for us", OURS), (b"end", OURS)]
