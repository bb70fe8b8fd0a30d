"""Traffic of the measurements: frames that other implementations read, bounded and checked registrations."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from bench.flood import FRAME_BYTES, frame
from bench.namespaces import CommandFailed, namespaces, run
from bench.registrar import OUTSTANDING, SPI, Crowd, check_accepted, exchange
from locum.security.association import Association, verify
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Code, RegistrationReply, RegistrationRequest

CROWD = Crowd(3, IPv4Address("198.18.8.1"), Association(SPI, bytes(32)))


def test_flood_frame_has_64_bytes_and_a_valid_checksum() -> None:
    sent = frame(bytes(6), b"\x02" + bytes(5), IPv4Address("198.18.1.2"), IPv4Address("198.19.0.1"), 1024)
    assert len(sent) == FRAME_BYTES == 64 - 4
    packet = Ether(sent)
    assert (packet[IP].src, packet[IP].dst, packet[IP].len) == ("198.18.1.2", "198.19.0.1", 46)
    assert (packet[UDP].sport, packet[UDP].dport, packet[UDP].len) == (1024, 9, 26)
    checksum = packet[IP].chksum
    del packet[IP].chksum
    assert Ether(bytes(packet))[IP].chksum == checksum


def test_crowd_signs_a_valid_registration_per_mobile_node() -> None:
    signed = CROWD.sign(0, 3, IPv4Address("198.18.8.2"), lifetime=300)
    requests = [RegistrationRequest.decode(data) for data in signed]
    assert [request.home_address for request in requests] == CROWD.home_addresses(0, 3)
    assert len({request.identification for request in requests}) == 3
    authentication = requests[0].authentication(AuthKind.MN_HA)
    assert authentication is not None
    assert verify(CROWD.association, authentication.covered, authentication.authenticator)


@contextlib.contextmanager
def echoing() -> Iterator[tuple[socket.socket, list[int]]]:
    """A client of a server that answers in bursts, and how many requests each burst found."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(0.1)
    bursts: list[int] = []

    def serve() -> None:
        while True:
            waiting = []
            try:
                while True:
                    data, peer = server.recvfrom(2048)
                    if data == b"end":
                        return
                    waiting.append((data, peer))
            except TimeoutError:
                bursts.append(len(waiting))
            for data, peer in waiting:
                server.sendto(data, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(server.getsockname())
    try:
        yield client, bursts
    finally:
        client.send(b"end")
        thread.join()
        client.close()
        server.close()


def test_the_client_never_has_more_outstanding_than_it_may() -> None:
    messages = [number.to_bytes(4, "big") for number in range(3 * OUTSTANDING)]
    with echoing() as (client, bursts):
        seconds, answers = exchange(client, messages)
    assert answers == messages
    assert seconds > 0
    assert max(bursts) == OUTSTANDING


def reply(home_address: IPv4Address, code: Code = Code.ACCEPTED) -> bytes:
    return RegistrationReply(code, 300, home_address, CROWD.home_agent, 1).encode()


def test_a_refusal_or_a_missing_mobile_node_spoils_the_sample() -> None:
    first, second = CROWD.home_addresses(0, 2)
    check_accepted([reply(second), reply(first)], [first, second])
    with pytest.raises(CommandFailed, match="IDENTIFICATION_MISMATCH"):
        check_accepted([reply(first), reply(second, Code.IDENTIFICATION_MISMATCH)], [first, second])
    with pytest.raises(CommandFailed, match="not those"):
        check_accepted([reply(first), reply(first)], [first, second])


def test_namespaces_are_removed_and_left_after_an_error() -> None:
    with pytest.raises(CommandFailed, match="no-such-program"), namespaces("t1") as (space,):
        with space.entered():
            names = [name for _, name in socket.if_nameindex()]
        assert names == ["lo"]
        assert space.name in run("ip", "netns", "list")
        space.run("no-such-program")
    assert "-t1" not in run("ip", "netns", "list")
