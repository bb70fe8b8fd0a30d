"""Binary traffic selectors of RFC 6088: each part alone, all together, and refusals."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.traffic_selector import (
    Ipv4Selector,
    Ipv6Selector,
    TrafficSelector,
    UnknownSelector,
    address_range,
    decode_selector,
    selector_format,
)
from tests.wire.strategies import selectors

FOUR, FOUR_LAST = address_range(IPv4Network("198.51.100.0/24"))
SIX, SIX_LAST = address_range(IPv6Network("2001:db8::/64"))

VECTORS: list[tuple[str, TrafficSelector]] = [
    ("00000000", Ipv4Selector()),
    ("80000000 c6336400", Ipv4Selector(source=(FOUR, FOUR))),
    ("c0000000 c6336400 c63364ff", Ipv4Selector(source=(FOUR, FOUR_LAST))),
    ("30000000 c6336400 c63364ff", Ipv4Selector(destination=(FOUR, FOUR_LAST))),
    ("0c000000 00000100 ffffffff", Ipv4Selector(spi=(256, 0xFFFFFFFF))),
    ("02000000 0050", Ipv4Selector(source_port=(80, 80))),
    ("03000000 0050 0051", Ipv4Selector(source_port=(80, 81))),
    ("00c00000 0400 07d0", Ipv4Selector(destination_port=(1024, 2000))),
    ("00300000 20 b8", Ipv4Selector(dscp=(8, 46))),
    ("000c0000 06 11", Ipv4Selector(protocol=(6, 17))),
    (
        "fffc0000 c6336400c63364ff c6336400c63364ff 0000000100000002 00010002 00030004 0408 0607",
        Ipv4Selector((FOUR, FOUR_LAST), (FOUR, FOUR_LAST), (1, 2), (1, 2), (3, 4), (1, 2), (6, 7)),
    ),
    ("00000000", Ipv6Selector()),
    ("80000000 20010db8000000000000000000000000", Ipv6Selector(source=(SIX, SIX))),
    (
        "30000000 20010db8000000000000000000000000 20010db800000000ffffffffffffffff",
        Ipv6Selector(destination=(SIX, SIX_LAST)),
    ),
    ("0c000000 00000100 ffffffff", Ipv6Selector(spi=(256, 0xFFFFFFFF))),
    ("03000000 00000001 000fffff", Ipv6Selector(flow_label=(1, 0xFFFFF))),
    ("00800000 0050", Ipv6Selector(source_port=(80, 80))),
    ("00300000 0400 07d0", Ipv6Selector(destination_port=(1024, 2000))),
    ("000c0000 20 b8", Ipv6Selector(dscp=(8, 46))),
    ("00030000 06 11", Ipv6Selector(next_header=(6, 17))),
    (
        "ffff0000"
        "20010db8000000000000000000000000 20010db800000000ffffffffffffffff"
        "20010db8000000000000000000000000 20010db800000000ffffffffffffffff"
        "0000000100000002 0000000300000004 00010002 00030004 0408 0607",
        Ipv6Selector((SIX, SIX_LAST), (SIX, SIX_LAST), (1, 2), (3, 4), (1, 2), (3, 4), (1, 2), (6, 7)),
    ),
    ("0102", UnknownSelector(3, b"\x01\x02")),
]


@pytest.mark.parametrize(("vector", "value"), VECTORS)
def test_vectors(vector: str, value: TrafficSelector) -> None:
    data = bytes.fromhex(vector)
    assert value.encode() == data
    assert decode_selector(selector_format(value), Cursor(data)) == value


@given(selectors)
def test_round_trip(selector: TrafficSelector) -> None:
    assert decode_selector(selector_format(selector), Cursor(selector.encode())) == selector


@given(st.integers(0, 3), st.binary(max_size=130))
def test_bytes_give_a_value_or_wire_error(number: int, data: bytes) -> None:
    with suppress(WireError):
        found = decode_selector(number, Cursor(data))
        assert decode_selector(number, Cursor(found.encode())) == found


@given(st.integers(1, 2), st.integers(0, 0xFFFF), st.binary(min_size=92, max_size=92))
def test_every_combination_of_flags_gives_a_value_or_wire_error(number: int, flags: int, data: bytes) -> None:
    with suppress(WireError):
        cursor = Cursor(flags.to_bytes(2, "big") + bytes(2) + data)
        found = (Ipv4Selector if number == 1 else Ipv6Selector).decode(cursor)
        assert decode_selector(number, Cursor(found.encode())) == found


@pytest.mark.parametrize(
    ("number", "vector", "field", "reason"),
    [
        (0, "00000000", "ts-format", "range"),
        (1, "", "selector-flags", "truncated"),
        (1, "80000000 c63364", "source-address", "truncated"),
        (1, "40000000 c6336400", "source-address", "end-without-start"),
        (1, "10000000 c6336400", "destination-address", "end-without-start"),
        (1, "04000000 00000001", "ipsec-spi", "end-without-start"),
        (1, "00040000 06", "protocol", "end-without-start"),
        (1, "c0000000 c63364ff c6336400", "source-address", "range"),
        (1, "03000000 0051 0050", "source-port", "range"),
        (1, "00000000 00", "traffic-selector", "trailing"),
        (2, "80000000 20010db8", "source-address", "truncated"),
        (2, "01000000 00000001", "flow-label", "end-without-start"),
        (2, "03000000 00000002 00000001", "flow-label", "range"),
        (2, "00010000 06", "next-header", "end-without-start"),
    ],
)
def test_refusals(number: int, vector: str, field: str, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_selector(number, Cursor(bytes.fromhex(vector)))
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_uncompared_bits_are_not_kept() -> None:
    """The bits of ECN, those before a flow label, and the reserved flags."""
    assert Ipv4Selector.decode(Cursor(bytes.fromhex("00300000 23 b9"))) == Ipv4Selector(dscp=(8, 46))
    assert Ipv4Selector.decode(Cursor(bytes.fromhex("00300000 23 20"))) == Ipv4Selector(dscp=(8, 8))
    assert Ipv6Selector.decode(Cursor(bytes.fromhex("02000000 ff000007"))) == Ipv6Selector(flow_label=(7, 7))
    assert Ipv4Selector.decode(Cursor(bytes.fromhex("0003ffff"))) == Ipv4Selector()
    assert Ipv6Selector.decode(Cursor(bytes.fromhex("0000ffff"))) == Ipv6Selector()


def test_range_with_equal_ends_is_one_value() -> None:
    assert Ipv4Selector.decode(Cursor(bytes.fromhex("000c0000 06 06"))) == Ipv4Selector(protocol=(6, 6))


@pytest.mark.parametrize(
    "selector",
    [
        Ipv4Selector(source_port=(2, 1)),
        Ipv4Selector(source_port=(0, 0x10000)),
        Ipv4Selector(dscp=(0, 64)),
        Ipv4Selector(protocol=(-1, 6)),
        Ipv4Selector(source=(FOUR_LAST, FOUR)),
        Ipv6Selector(flow_label=(0, 0x100000)),
        Ipv6Selector(source=(SIX_LAST, SIX)),
    ],
)
def test_invalid_range_raises_value_error(selector: TrafficSelector) -> None:
    with pytest.raises(ValueError, match="no range"):
        selector.encode()


def test_prefixes_are_ranges() -> None:
    assert address_range(IPv4Network("192.0.2.10/32")) == (IPv4Address("192.0.2.10"),) * 2
    assert (IPv4Address("198.51.100.0"), IPv4Address("198.51.100.255")) == (FOUR, FOUR_LAST)
    assert (IPv6Address("2001:db8::"), IPv6Address("2001:db8::ffff:ffff:ffff:ffff")) == (SIX, SIX_LAST)
