"""One vector for each extension, and the refusals of each."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import (
    AccessTechnology,
    AgentNonceReply,
    Authentication,
    AuthKind,
    DynamicHomeAgent,
    EncapsulatingDelivery,
    Extension,
    FlowAction,
    FlowBinding,
    GeneralizedAuthentication,
    HomeAgentUse,
    HomeNonceReply,
    InnerEncapsulation,
    Ipv6PrefixReply,
    Ipv6PrefixRequest,
    Ipv6TunnelingMode,
    MobileFaChallenge,
    Multipath,
    Nai,
    NaiCarrying,
    NonceRequest,
    Padding,
    PrefixCode,
    RevocationSupport,
    UdpTunnelCode,
    UdpTunnelReply,
    UdpTunnelRequest,
    Unknown,
    VendorCritical,
    VendorNormal,
    decode_extensions,
    encode_extensions,
)
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, UnknownSelector
from tests.wire.strategies import ordered_extensions

FOUR = IPv4Address("192.0.2.10")
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
    ("28 01 0004 00000100", NonceRequest(40, 256)),
    ("2a 01 0004 0000abcd", NonceRequest(42, 0xABCD)),
    (
        "29 01 001e 00000e10 00000102 00000103 0002 000102030405060708090a0b0c0d0e0f",
        AgentNonceReply(3600, 258, 259, 2, bytes(range(16))),
    ),
    (
        "2b 01 0020 00000e10 00000102 00000103 0002 0003 000102030405060708090a0b0c0d0e0f",
        HomeNonceReply(3600, 258, 259, 2, 3, bytes(range(16))),
    ),
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
    ("8b 05 01 c000020a", DynamicHomeAgent(HomeAgentUse.REQUESTED, FOUR)),
    ("8b 05 02 c000020a", DynamicHomeAgent(HomeAgentUse.REDIRECTED, FOUR)),
    ("8b 05 09 c000020a", Unknown(139, b"\x09\xc0\x00\x02\x0a")),
    ("98 02 03 00", Ipv6TunnelingMode()),
    ("98 02 09 2a", Unknown(152, b"\x09\x2a")),
    ("c8 03 78797a", Unknown(200, b"xyz")),
    ("9a 01 0004 01 01 07 00", Multipath(7)),
    ("9a 01 0004 04 ff fe 80", Multipath(254, AccessTechnology.IEEE_802_11, 255, bulk=True)),
    ("9a 01 0004 4d 02 01 40", Multipath(1, 77, 2, overwrite=True)),
    ("9a 02 0008 00 01 ff 01 00000000", FlowBinding(FlowAction.DROP, (), Ipv4Selector())),
    (
        "9a 02 0013 01 02 0301 01 22c00000 c000020a 0050 0400 07d0",
        FlowBinding(
            FlowAction.FORWARD,
            (3, 1),
            Ipv4Selector(destination=(FOUR, FOUR), source_port=(80, 80), destination_port=(1024, 2000)),
        ),
    ),
    (
        "9a 02 0019 01 01 02 02 20020000 20010db8000000000000000000000010 06",
        FlowBinding(FlowAction.FORWARD, (2,), Ipv6Selector(destination=(SIX, SIX), next_header=(6, 6))),
    ),
    (
        "9a 02 0007 01 01 02 09 aabbcc",
        FlowBinding(FlowAction.FORWARD, (2,), UnknownSelector(9, b"\xaa\xbb\xcc")),
    ),
    ("89 06 0000 0000012c", RevocationSupport(300)),
    ("89 06 8000 ffffffff", RevocationSupport(0xFFFFFFFF, inform=True)),
    ("90 06 00 00 00 04 0000", UdpTunnelRequest()),
    (
        "90 06 00 00 c0 2f 0000",
        UdpTunnelRequest(InnerEncapsulation.GRE, force=True, foreign_agent_required=True),
    ),
    ("90 06 00 00 40 37 0000", UdpTunnelRequest(InnerEncapsulation.MINIMAL, foreign_agent_required=True)),
    ("90 02 01 2a", Unknown(144, b"\x01\x2a")),
    ("2c 06 00 00 8000 001e", UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL, forced=True, keepalive=30)),
    ("2c 06 00 40 0000 0000", UdpTunnelReply(UdpTunnelCode.DECLINED)),
    ("2c 06 00 45 0000 ffff", UdpTunnelReply(69, keepalive=0xFFFF)),
]


def decode_one(data: bytes) -> Extension:
    (found,) = decode_extensions(Cursor(data))
    return found


@pytest.mark.parametrize(("vector", "value"), VECTORS, ids=lambda value: str(value)[:30])
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


@pytest.mark.parametrize("number", [32, 33, 34, 36, 38, 44, 130, 131, 132, 134, 136, 137, 144, 152])
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
        ("2a 02 0004 00000100", "key-generation.subtype", "unknown-subtype"),
        ("2a 01 0003 000001", "key-generation.spi", "truncated"),
        ("2a 01 0005 0000010000", "key-generation", "trailing"),
        ("2b 01 0010 00000e10 00000102 00000103 0002 0003", "key-generation.nonce", "truncated"),
        ("29 01 000e 00000e10 00000102 00000103 0002", "key-generation.nonce", "truncated"),
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
        ("9a 03 0000", "extension", "unknown-extension"),
        ("9a 01 0003 010107", "multipath.flags", "truncated"),
        ("9a 01 0005 0101070000", "multipath", "trailing"),
        ("9a 01 0004 01000700", "if-label", "range"),
        ("9a 01 0004 01010000", "binding-id", "range"),
        ("9a 01 0004 0101ff00", "binding-id", "range"),
        ("9a 01 0004 010107c0", "multipath.flags", "bulk-and-overwrite"),
        ("9a 02 0000", "action", "truncated"),
        ("9a 02 0008 02 01 01 01 00000000", "action", "range"),
        ("9a 02 0007 01 00 01 00000000", "bid-count", "range"),
        ("9a 02 0010 01 09 010203040506070809 01 00000000", "bid-count", "range"),
        ("9a 02 0009 00 02 0102 01 00000000", "bid-count", "range"),
        ("9a 02 0008 01 01 00 01 00000000", "binding-id", "range"),
        ("9a 02 0008 01 01 ff 01 00000000", "binding-id", "range"),
        ("9a 02 0008 01 01 01 00 00000000", "ts-format", "range"),
        ("9a 02 0007 01 01 01 01 000000", "selector-flags", "truncated"),
        ("9a 02 0009 01 01 01 01 00000000 00", "traffic-selector", "trailing"),
        ("9a 02 0003 01 01 01", "ts-format", "truncated"),
        ("89 05 0000 000001", "timestamp", "truncated"),
        ("90 00", "udp-tunnel-request.sub-type", "truncated"),
        ("90 05 00 00 00 04 00", "reserved", "truncated"),
        ("90 07 00 00 00 04 000000", "udp-tunnel-request", "trailing"),
        ("2c 06 01 00 0000 0000", "extension", "unknown-extension"),
        ("2c 05 00 00 0000 00", "keepalive-interval", "truncated"),
        ("2c 07 00 00 0000 000000", "udp-tunnel-reply", "trailing"),
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
    assert decode_one(bytes.fromhex("9a 01 0004 0101073f")) == Multipath(7)
    assert decode_one(bytes.fromhex("89 06 7fff 0000012c")) == RevocationSupport(300)
    assert decode_one(bytes.fromhex("90 06 00 ff 3f 04 ffff")) == UdpTunnelRequest()
    assert decode_one(bytes.fromhex("2c 06 00 00 7fff 0000")) == UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL)


def test_the_binding_of_a_rule_that_drops_is_ignored() -> None:
    data = bytes.fromhex("9a 02 0008 00 01 03 01 00000000")
    assert decode_one(data) == FlowBinding(FlowAction.DROP, (), Ipv4Selector())


def test_a_longer_revocation_support_of_the_future_is_understood() -> None:
    assert decode_one(bytes.fromhex("89 08 8000 0000012c abcd")) == RevocationSupport(300, inform=True)


def test_a_udp_tunnel_reply_says_when_a_keepalive_is_due() -> None:
    assert UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL, keepalive=30).interval == 30
    assert UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL).interval == 110
    assert UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL).accepted
    assert not UdpTunnelReply(UdpTunnelCode.DECLINED).accepted and not UdpTunnelReply(65).accepted


@pytest.mark.parametrize("code", list(PrefixCode))
def test_prefix_codes(code: PrefixCode) -> None:
    assert Ipv6PrefixReply(code, SIX).accepted == code.accepted == (code < 8)


def test_oversized_values_raise_value_error() -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        Unknown(200, bytes(256)).encode()
    with pytest.raises(ValueError, match="1 to 8 bindings"):
        FlowBinding(FlowAction.FORWARD, (), Ipv4Selector()).encode()
    with pytest.raises(ValueError, match="1 to 8 bindings"):
        FlowBinding(FlowAction.FORWARD, tuple(range(1, 10)), Ipv4Selector()).encode()
