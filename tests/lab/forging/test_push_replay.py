"""The lab's pushes are those that a node takes, and its packets are whole."""

from ipaddress import IPv4Address

from locum.lab.forging.push_replay import signed_push
from locum.lab.forging.radius_forgery import datagram_between
from locum.security.radius import message_authentic, request_authentic
from locum.wire.radius import decode_radius

SECRET = "0123456789abcdef0123456789abcdef"
RULE = 'id = 5, priority = 3, action = "page", protocol = "tcp"'


def test_a_signed_push_is_authentic() -> None:
    data = signed_push(1_790_000_000.0, "203.0.113.4", 6, [RULE, RULE], SECRET)
    assert request_authentic(data, SECRET.encode()) and message_authentic(data, SECRET.encode())
    packet = decode_radius(data)
    assert packet.all(55) == ((1_790_000_000).to_bytes(4, "big"),) and len(packet.all(26)) == 3


def test_a_datagram_has_the_ports_and_addresses_that_are_named() -> None:
    source, target = IPv4Address("10.10.5.2"), IPv4Address("10.10.1.2")
    packet = datagram_between(source, 40_799, target, 3799, b"push")
    assert packet[12:20] == source.packed + target.packed
    assert packet[20:24] == (40_799).to_bytes(2, "big") + (3799).to_bytes(2, "big")
    assert packet[24:26] == (12).to_bytes(2, "big") and packet[28:] == b"push"
