"""One vector for each extension, and what each refuses."""

from contextlib import suppress
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.extensions import (
    Authentication,
    AuthKind,
    EncapsulatingDelivery,
    Extension,
    GeneralizedAuthentication,
    Ipv6PrefixReply,
    Ipv6PrefixRequest,
    Ipv6TunnelingMode,
    MobileFaChallenge,
    Nai,
    NaiCarrying,
    Padding,
    PrefixCode,
    Unknown,
    VendorCritical,
    VendorNormal,
    decode_extensions,
    encode_extensions,
)
from tests.wire.strategies import ordered_extensions

SIX = IPv6Address("2001:db8::10")

VECTORS: list[tuple[str, Extension]] = [
    ("00", Padding()),
    (
        "20 14 00000100 000102030405060708090a0b0c0d0e0f",
        Authentication(AuthKind.MN_HA, 256, bytes(range(16))),
    ),
    ("21 06 00000101 abcd", Authentication(AuthKind.MN_FA, 257, b"\xab\xcd")),
    ("22 04 ffffffff", Authentication(AuthKind.FA_HA, 0xFFFFFFFF, b"")),
    ("24 01 0008 00000102 01020304", GeneralizedAuthentication(1, 258, b"\x01\x02\x03\x04")),
    ("26 00 0009 00007ed9 0007 616263", VendorCritical(32473, 7, b"abc")),
    ("82 00", EncapsulatingDelivery()),
    ("83 0f 6d6e40686f6d652e6578616d706c65", Nai("mn@home.example")),
    ("84 04 aaaaaaaa", MobileFaChallenge(b"\xaa\xaa\xaa\xaa")),
    ("86 0c 0000 00007ed9 0001 c000020a", VendorNormal(32473, 1, b"\xc0\x00\x02\x0a")),
    ("88 0b 03 66612e6578616d706c65", NaiCarrying(3, "fa.example")),
    ("98 12 01 80 20010db8000000000000000000000010", Ipv6PrefixRequest(SIX)),
    ("98 12 01 40 20010db8000100000000000000000000", Ipv6PrefixRequest(IPv6Address("2001:db8:1::"), 64)),
    (
        "98 14 02 01 80 00 20010db8000000000000000000000010",
        Ipv6PrefixReply(PrefixCode.TUNNELED_TO_CARE_OF_ADDRESS, SIX),
    ),
    ("98 14 02 4d 80 00 20010db8000000000000000000000010", Ipv6PrefixReply(77, SIX)),
    ("98 02 03 00", Ipv6TunnelingMode()),
    ("98 02 09 2a", Unknown(152, b"\x09\x2a")),
    ("c8 03 78797a", Unknown(200, b"xyz")),
]


def decode_one(data: bytes) -> Extension:
    (found,) = decode_extensions(Cursor(data))
    return found


@pytest.mark.parametrize(("vector", "value"), VECTORS, ids=lambda each: str(each)[:30])
def test_vectors(vector: str, value: Extension) -> None:
    data = bytes.fromhex(vector)
    assert value.encode() == data
    assert decode_one(data) == value


@given(ordered_extensions())
def test_round_trip(extensions: tuple[Extension, ...]) -> None:
    assert decode_extensions(Cursor(encode_extensions(extensions))) == extensions


@given(st.binary(max_size=80))
def test_bytes_give_values_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        found = decode_extensions(Cursor(data))
        assert decode_extensions(Cursor(encode_extensions(found))) == found


@pytest.mark.parametrize("number", [32, 33, 34, 36, 38, 130, 131, 132, 134, 136, 152])
@given(content=st.binary(max_size=40))
def test_content_of_a_known_type_gives_a_value_or_wire_error(number: int, content: bytes) -> None:
    long = number in (36, 38)
    head = bytes((number, 0)) + len(content).to_bytes(2, "big") if long else bytes((number, len(content)))
    with suppress(WireError):
        value = decode_one(head + content)
        assert decode_one(value.encode()) == value


@pytest.mark.parametrize(
    ("vector", "field", "reason"),
    [
        ("20 03 000001", "authentication.spi", "truncated"),
        ("24 01 0003 000001", "authentication.spi", "truncated"),
        ("26 00 0005 00007ed900", "vendor-type", "truncated"),
        ("82 01 00", "encapsulating-delivery", "trailing"),
        ("83 00", "nai", "truncated"),
        ("83 02 c328", "nai", "not-utf-8"),
        ("84 00", "challenge", "truncated"),
        ("86 07 0000 00007ed9 00", "vendor-type", "truncated"),
        ("88 00", "nai.sub-type", "truncated"),
        ("88 01 03", "nai", "truncated"),
        ("98 00", "dual-stack.subtype", "truncated"),
        ("98 11 01 80 20010db80000000000000000000000", "prefix", "truncated"),
        ("98 13 01 80 20010db8000000000000000000000010 00", "dual-stack", "trailing"),
        ("98 12 01 81 20010db8000000000000000000000010", "prefix-length", "range"),
        ("98 03 03 00 00", "dual-stack", "trailing"),
    ],
)
def test_refusals(vector: str, field: str, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_one(bytes.fromhex(vector))
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_bits_beyond_the_prefix_are_ignored() -> None:
    data = bytes.fromhex("98 12 01 40 20010db8000100000000000000000010")
    assert decode_one(data) == Ipv6PrefixRequest(IPv6Address("2001:db8:1::"), 64)


def test_reserved_bytes_are_ignored() -> None:
    assert decode_one(bytes.fromhex("98 02 03 ff")) == Ipv6TunnelingMode()
    assert decode_one(bytes.fromhex("86 08 beef 00000001 0002")) == VendorNormal(1, 2, b"")
    assert decode_one(bytes.fromhex("26 ff 0006 00000001 0002")) == VendorCritical(1, 2, b"")


@pytest.mark.parametrize("code", list(PrefixCode))
def test_prefix_codes(code: PrefixCode) -> None:
    assert Ipv6PrefixReply(code, SIX).accepted == code.accepted == (code < 8)


def test_what_does_not_fit_is_our_own_misuse() -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        Unknown(200, bytes(256)).encode()
