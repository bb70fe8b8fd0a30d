"""Tunnel data and keepalives (RFC 3519)."""

from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.ip import ICMP, IcmpMessage, checksum, decode_ip
from locum.wire.mobile_ip.extensions import InnerEncapsulation
from locum.wire.mobile_ip.tunnel_data import TUNNEL_DATA_HEADER_BYTES, TunnelData, keepalive
from tests.wire.strategies import damaged, u8

HOME, AGENT = IPv4Address("192.0.2.10"), IPv4Address("192.0.2.1")
tunnel_data = st.builds(TunnelData, st.sampled_from(InnerEncapsulation) | u8, st.binary(max_size=60))


@pytest.mark.parametrize(
    ("vector", "value"),
    [
        ("04 04 0000 4500", TunnelData(InnerEncapsulation.IP, b"\x45\x00")),
        ("04 2f 0000 0000 0800", TunnelData(InnerEncapsulation.GRE, b"\x00\x00\x08\x00")),
        ("04 37 0000", TunnelData(InnerEncapsulation.MINIMAL, b"")),
        ("04 29 0000 60", TunnelData(41, b"\x60")),
    ],
)
def test_vectors(vector: str, value: TunnelData) -> None:
    data = bytes.fromhex(vector)
    assert value.encode() == data
    assert TunnelData.decode(data) == value
    assert len(data) - len(value.payload) == TUNNEL_DATA_HEADER_BYTES


def test_reserved_bytes_are_ignored() -> None:
    assert TunnelData.decode(b"\x04\x04\xbe\xefx") == TunnelData(InnerEncapsulation.IP, b"x")


@pytest.mark.parametrize(("data", "reason"), [(b"", "truncated"), (b"\x04\x04\x00", "truncated")])
def test_refusals(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        TunnelData.decode(data)


def test_another_message_is_no_tunnel_data() -> None:
    with pytest.raises(WireError, match="unknown-message"):
        TunnelData.decode(b"\x01\x04\x00\x00")


def test_a_keepalive_is_an_echo_request_through_the_tunnel() -> None:
    message = keepalive(HOME, AGENT, 0x1234, 7)
    assert message.next_header is InnerEncapsulation.IP
    header, payload = decode_ip(message.payload)
    assert (header.source, header.destination) == (HOME, AGENT)
    assert message.payload[9] == ICMP and checksum(payload) == 0
    assert IcmpMessage.decode(payload) == IcmpMessage(8, 0, bytes.fromhex("12340007"))


@given(tunnel_data)
def test_round_trip(message: TunnelData) -> None:
    assert TunnelData.decode(message.encode()) == message


@given(st.binary(max_size=80) | damaged(tunnel_data.map(TunnelData.encode)))
def test_bytes_give_a_message_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = TunnelData.decode(data)
        assert TunnelData.decode(message.encode()) == message
