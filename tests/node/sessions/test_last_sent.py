"""Keep-alives by rule: the last datagram of a program is seen, bare or in a tunnel, and no other packet is."""

import ctypes
import os
import select
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from locum.node.sessions.last_sent import LastSent
from locum.sessions.datagrams.keep_alive import KeepAliveRule
from locum.sessions.datagrams.record import MAX_REPEATED, Repeated
from locum.wire.control import Flow
from locum.wire.ip import IPV4_IN_IP, IPV6_IN_IP, Ipv4Header, build_ip, build_udp, decode_ip, fragment
from locum.wire.ip.transport import UdpDatagram
from locum.wire.mobile_ip.tunnel_data import TunnelData
from tests.sessions.sleepworld import run

HOME, HOME6 = IPv4Address("10.9.0.5"), IPv6Address("fd09::5")
CARE_OF, AGENT = IPv4Address("192.0.2.7"), IPv4Address("192.0.2.8")
FLOW = Flow(17, HOME, 4000, IPv4Address("198.51.100.1"), 3478)
FLOW6 = Flow(17, HOME6, 4000, IPv6Address("2001:db8::1"), 3478)
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def link() -> Iterator[str]:
    """A veth pair in a namespace of its own; this thread is in it."""
    name = f"ls{os.getpid()}"
    run("ip", "netns", "add", name)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    try:
        assert not _libc.setns(there, 0)
        run("ip", "link", "add", "name", "near0", "type", "veth", "peer", "name", "far0")
        # An interface that comes up after its peer has its queue at once. The queue of the other one comes later, by
        # the kernel's link watch, and until then everything that is sent there is dropped.
        for interface in ("far0", "near0"):
            run("ip", "link", "set", interface, "up")
        yield "near0"
    finally:
        _libc.setns(before, 0)
        os.close(there)
        os.close(before)
        run("ip", "netns", "del", name)


def send(link: str, *packets: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
        for packet in packets:
            kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
            raw.sendto(packet, (link, kind, 0, 0, b"\xff" * 6))


def in_udp(packet: bytes) -> bytes:
    data = TunnelData(IPV4_IN_IP, packet).encode()
    return build_ip(CARE_OF, AGENT, 17, UdpDatagram(434, 434, data).encode(CARE_OF, AGENT))


RULE = KeepAliveRule(3478, 25, discard_answers=True)


@pytest.mark.parametrize(
    ("flow", "wrap"),
    [
        (FLOW, lambda packet: packet),
        (FLOW6, lambda packet: packet),
        (FLOW, lambda packet: build_ip(CARE_OF, AGENT, IPV4_IN_IP, packet)),
        (FLOW6, lambda packet: build_ip(CARE_OF, AGENT, IPV6_IN_IP, packet)),
        (FLOW, in_udp),
    ],
    ids=["bare", "bare6", "in-ip", "in-ip6", "in-udp"],
)
def test_the_last_datagram_counts(link: str, flow: Flow, wrap: object) -> None:
    seen = LastSent([RULE])
    try:
        assert seen.repeated(flow) is None
        for payload in (b"first", b"last"):
            send(link, wrap(build_udp(flow, payload, from_peer=False)))  # type: ignore[operator]
        assert seen.repeated(flow) == Repeated(b"last", 25, True)
    finally:
        seen.close()


def test_unmatched_packets_do_not_reach_the_process(link: str) -> None:
    seen = LastSent([KeepAliveRule(3478, 25, IPv4Address("203.0.113.9")), KeepAliveRule(9, 5)])
    other = Flow(17, HOME, 4000, FLOW.peer, 53)
    foreign = Flow(17, CARE_OF, 4000, FLOW.peer, 3478)
    try:
        for packet in (
            build_udp(other, b"dns", from_peer=False),
            build_udp(foreign, b"not home", from_peer=False),
            build_udp(FLOW, b"another peer", from_peer=False),
            build_udp(FLOW, b"what comes in"),
            build_ip(CARE_OF, AGENT, IPV4_IN_IP, build_udp(other, b"dns", from_peer=False)),
            build_ip(CARE_OF, AGENT, 6, bytes(40)),
        ):
            send(link, packet)
        assert [seen.repeated(flow) for flow in (other, foreign, FLOW)] == [None] * 3
    finally:
        seen.close()


def test_only_ports_of_rules_pass_the_filter(link: str) -> None:
    seen = LastSent([RULE])
    try:
        flows = (Flow(17, HOME, 1, FLOW.peer, port) for port in range(3000, 3400))
        send(link, *(build_udp(flow, b"x", from_peer=False) for flow in flows))
        assert not select.select([seen], [], [], 0)[0]
        send(link, build_udp(FLOW, b"x", from_peer=False))
        assert select.select([seen], [], [], 10)[0]
    finally:
        seen.close()


def test_too_large_a_datagram_and_a_fragment_are_no_keep_alive(link: str) -> None:
    seen = LastSent([RULE])
    try:
        send(link, build_udp(FLOW, b"small", from_peer=False))
        header, payload = decode_ip(build_udp(FLOW, b"y" * 1400, from_peer=False))
        assert isinstance(header, Ipv4Header)
        for part in fragment(replace(header, dont_fragment=False).encode(payload), 600):
            send(link, part)
        assert seen.repeated(FLOW) == Repeated(b"small", 25, True)
        for interface in ("near0", "far0"):
            run("ip", "link", "set", interface, "mtu", "3000")
        send(link, build_udp(FLOW, b"z" * (MAX_REPEATED + 1), from_peer=False))
        assert seen.repeated(FLOW) is None
    finally:
        seen.close()
