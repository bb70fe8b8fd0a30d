"""Congestion that one fragment of a tunnel packet met is in the packet that is put together (RFC 3168 section 5.3)."""

import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Raw

from locum.dataplane.kernel.reassembly import Reassembly, udp_packet
from locum.node.registration.udp_434 import RegistrationSocket
from tests.dataplane.namespaces import Namespace

ECT_0, CE = 2, 3
INNER4 = bytes(IP(src="10.1.0.2", dst="10.9.0.5") / UDP(sport=1, dport=2) / Raw(bytes(1000)))
INNER6 = bytes(IPv6(src="fd01::2", dst="fd09::5") / UDP(sport=1, dport=2) / Raw(bytes(1000)))


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace("ecn")
    try:
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("second", [ECT_0, CE])
def test_of_an_ipv6_tunnel(space: Namespace, second: int) -> None:
    taken: list[bytes] = []
    with space.inside():
        whole = Reassembly(lambda packet, _index: taken.append(packet))
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    pieces = [INNER6[:512], INNER6[512:]]
    try:
        for number, piece in enumerate(pieces):
            header = IPv6ExtHdrFragment(nh=41, offset=64 * number, m=1 - number, id=7)
            outer = IPv6(src="::1", dst="::1", tc=second if number else ECT_0) / header
            sender.sendto(bytes(outer / Raw(piece)), ("::1", 0))
        while not taken:
            ready, _, _ = select.select(whole.filenos(), [], [], 20)
            assert ready, "nothing was put together"
            for fileno in ready:
                whole.read(fileno)
    finally:
        sender.close()
        whole.close()
    assert taken == [bytes(IPv6(src="::1", dst="::1", tc=second, nh=41) / Raw(INNER6))]


@pytest.mark.parametrize("second", [ECT_0, CE])
def test_of_a_udp_tunnel(space: Namespace, second: int) -> None:
    taken: list[bytes] = []

    def receive(
        message: bytes, source: str, port: int, local: bytes, _index: int, traffic_class: int
    ) -> None:
        taken.append(udp_packet(source, port, local, message, traffic_class))

    with space.inside():
        ours = RegistrationSocket(receive, lambda: None)
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    message = bytes((4, 4, 0, 0)) + INNER4
    sent = IP(src="127.0.0.1", dst="127.0.0.1", id=7) / UDP(sport=434, dport=434) / Raw(message)
    try:
        for number, piece in enumerate(fragment(IP(bytes(sent)), 512)):  # type: ignore[no-untyped-call]
            piece.tos = second if number else ECT_0
            del piece.chksum
            sender.sendto(bytes(piece), ("127.0.0.1", 0))
        ready, _, _ = select.select([ours], [], [], 20)
        assert ready, "nothing was put together"
        ours.read()
    finally:
        sender.close()
        ours.close()
    assert [packet[1] for packet in taken] == [second]
    assert taken[0][12:20] == ip_address("127.0.0.1").packed * 2 and taken[0][28:] == message
