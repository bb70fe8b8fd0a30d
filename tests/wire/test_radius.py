"""RADIUS packets: a vector, a round trip, and errors for all other bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.radius import (
    LONGEST,
    MOST_VALUE,
    VENDOR_SPECIFIC,
    Attribute,
    Code,
    RadiusPacket,
    decode_radius,
    decode_vendor,
    encode_radius,
    encode_vendor,
)

PACKET = RadiusPacket(
    Code.COA_REQUEST,
    7,
    bytes(range(16)),
    (Attribute(1, b"alice"), Attribute(33, b"one"), Attribute(33, b""), Attribute(8, b"\xcb\0\x71\4")),
)
HEX = "2b07002c000102030405060708090a0b0c0d0e0f0107616c69636521056f6e6521020806cb007104"

attributes = st.builds(Attribute, st.integers(1, 255), st.binary(max_size=60))
packets = st.builds(
    RadiusPacket,
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(min_size=16, max_size=16),
    st.lists(attributes, max_size=20).map(tuple),
)


def test_vector() -> None:
    data = bytes.fromhex(HEX)
    data = data[:2] + len(data).to_bytes(2, "big") + data[4:]
    assert encode_radius(PACKET) == data
    assert decode_radius(data) == PACKET
    assert PACKET.all(33) == (b"one", b"")


@given(packets, st.binary(max_size=9))
def test_round_trip_with_padding(packet: RadiusPacket, padding: bytes) -> None:
    assert decode_radius(encode_radius(packet) + padding) == packet


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda body: b"\x2b\1\0" + body))
def test_bytes_give_a_packet_or_an_error(data: bytes) -> None:
    try:
        packet = decode_radius(data)
    except WireError:
        return
    assert encode_radius(packet) == data[: int.from_bytes(data[2:4], "big")]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "header"),
        (bytes(19), "header"),
        (bytes((43, 1, 0, 19)) + bytes(16), "length"),
        (bytes((43, 1, 0, 21)) + bytes(16), "length"),
        (bytes((43, 1)) + (LONGEST + 1).to_bytes(2, "big") + bytes(LONGEST), "length"),
        (bytes((43, 1, 0, 21)) + bytes(17), "attribute"),
        (bytes((43, 1, 0, 22)) + bytes(16) + b"\1\1", "attribute length"),
        (bytes((43, 1, 0, 22)) + bytes(16) + b"\0\2", "attribute"),
        (bytes((43, 1, 0, 23)) + bytes(16) + b"\1\4x", "attribute"),
    ],
)
def test_malformed_packets_are_described(data: bytes, field: str) -> None:
    with pytest.raises(WireError) as problem:
        decode_radius(data)
    assert problem.value.field == field


def test_long_attributes_and_packets_are_not_encoded() -> None:
    with pytest.raises(ValueError, match="254 bytes"):
        encode_radius(RadiusPacket(43, 1, bytes(16), (Attribute(1, bytes(MOST_VALUE + 1)),)))
    many = (Attribute(1, bytes(MOST_VALUE)),) * 17
    with pytest.raises(ValueError, match="4096"):
        encode_radius(RadiusPacket(43, 1, bytes(16), many))


@given(st.integers(0, 2**32 - 1), st.lists(attributes, min_size=1, max_size=3))
def test_vendor_round_trip(vendor: int, inner: list[Attribute]) -> None:
    made = encode_vendor(vendor, inner)
    assert made.kind == VENDOR_SPECIFIC
    assert decode_vendor(made.value) == (vendor, tuple(inner))


@given(st.binary(max_size=20))
def test_bytes_give_vendor_attributes_or_an_error(data: bytes) -> None:
    try:
        vendor, inner = decode_vendor(data)
    except WireError:
        return
    assert inner and encode_vendor(vendor, inner).value == data


@pytest.mark.parametrize("data", [b"\0\0\0", b"\0\0\0\1", b"\0\0\0\1\1", b"\0\0\0\1\1\1", b"\0\0\0\1\1\4x"])
def test_malformed_vendor_attributes(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_vendor(data)
