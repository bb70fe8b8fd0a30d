"""Registration Request and Reply: vectors, round trips, refusals (RFC 5944 sections 1.8, 3.3, 3.4, 3.6.1.3)."""

import time
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import (
    MAX_EXTENSIONS,
    MAX_MESSAGE,
    Authentication,
    AuthKind,
    EncapsulatingDelivery,
    Extension,
    FlowAction,
    FlowBinding,
    Ipv6PrefixRequest,
    MobileFaChallenge,
    Multipath,
    Nai,
    Padding,
    Unknown,
    encode_extensions,
)
from locum.wire.mobile_ip.registration import (
    LIFETIME_INFINITE,
    NO_FLAGS,
    Code,
    Flag,
    RegistrationReply,
    RegistrationRequest,
)
from locum.wire.mobile_ip.vendor import FlowOperation, FlowRule, encode_vendor
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, address_range
from tests.wire.strategies import damaged, replies, requests

HOME = IPv4Address("192.0.2.10")
AGENT = IPv4Address("192.0.2.1")
CARE_OF = IPv4Address("203.0.113.5")
IDENTIFICATION = 0xE8A1B2C300000001
DROP = FlowBinding(FlowAction.DROP, (), Ipv4Selector())

REQUEST = bytes.fromhex(
    "0182012c c000020a c0000201 cb007105 e8a1b2c300000001 9812018020010db8000000000000000000000010"
)
REPLY = bytes.fromhex("0301012c c000020a c0000201 e8a1b2c300000001")
FIXED = REQUEST[:24]

MN_HA = Authentication(AuthKind.MN_HA, 256, bytes(16))
MN_FA = Authentication(AuthKind.MN_FA, 257, bytes(16))
FA_HA = Authentication(AuthKind.FA_HA, 258, bytes(16))


def test_request_vector() -> None:
    request = RegistrationRequest(
        lifetime=300,
        home_address=HOME,
        home_agent=AGENT,
        care_of_address=CARE_OF,
        identification=IDENTIFICATION,
        flags=Flag.S | Flag.T,
        extensions=(Ipv6PrefixRequest(IPv6Address("2001:db8::10")),),
    )
    assert request.encode() == REQUEST
    assert RegistrationRequest.decode(REQUEST) == request


def test_reply_vector() -> None:
    reply = RegistrationReply(Code.ACCEPTED_NO_SIMULTANEOUS_BINDINGS, 300, HOME, AGENT, IDENTIFICATION)
    assert reply.encode() == REPLY
    assert RegistrationReply.decode(REPLY) == reply
    assert reply.accepted


@pytest.mark.parametrize("flag", list(Flag))
def test_every_flag_has_its_bit(flag: Flag) -> None:
    request = RegistrationRequest(LIFETIME_INFINITE, HOME, AGENT, CARE_OF, 1, flag)
    data = request.encode()
    assert data[1] == flag and data[2:4] == b"\xff\xff"
    assert RegistrationRequest.decode(data).flags == flag
    assert NO_FLAGS not in (flag,)


@pytest.mark.parametrize("code", list(Code))
def test_every_code(code: Code) -> None:
    reply = RegistrationReply.decode(RegistrationReply(code, 0, HOME, AGENT, 1).encode())
    assert reply.code is code
    assert reply.accepted == code.accepted == (code < 2)


def test_an_unknown_code_is_kept_and_is_a_refusal() -> None:
    reply = RegistrationReply.decode(b"\x03\xfa" + REPLY[2:])
    assert reply.code == 250 and not reply.accepted


@given(requests)
def test_request_round_trip(request: RegistrationRequest) -> None:
    assert RegistrationRequest.decode(request.encode()) == request


@given(replies)
def test_reply_round_trip(reply: RegistrationReply) -> None:
    assert RegistrationReply.decode(reply.encode()) == reply


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda tail: FIXED + tail))
def test_bytes_give_a_request_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = RegistrationRequest.decode(data)
        assert RegistrationRequest.decode(message.encode()) == message


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda tail: REPLY + tail))
def test_bytes_give_a_reply_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = RegistrationReply.decode(data)
        assert RegistrationReply.decode(message.encode()) == message


@given(damaged(requests.map(RegistrationRequest.encode)))
def test_damaged_requests_give_a_value_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = RegistrationRequest.decode(data)
        assert RegistrationRequest.decode(message.encode()) == message


@given(damaged(replies.map(RegistrationReply.encode)))
def test_damaged_replies_give_a_value_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = RegistrationReply.decode(data)
        assert RegistrationReply.decode(message.encode()) == message


@pytest.mark.parametrize("size", range(24))
def test_a_truncated_fixed_part_names_the_field(size: int) -> None:
    with pytest.raises(WireError) as caught:
        RegistrationRequest.decode(FIXED[:size])
    assert caught.value.reason == "truncated" and caught.value.offset <= size


def test_the_fixed_part_can_be_read_alone() -> None:
    broken = FIXED + b"\x05\x00"
    with pytest.raises(WireError):
        RegistrationRequest.decode(broken)
    request = RegistrationRequest.decode_fixed(broken)
    assert request.home_address == HOME and request.extensions == ()


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 16, 255])
def test_another_message_type_is_refused(first: int) -> None:
    for decode, own in ((RegistrationRequest.decode, 1), (RegistrationReply.decode, 3)):
        if first != own:
            with pytest.raises(WireError) as caught:
                decode(bytes((first,)) + FIXED[1:])
            assert caught.value.reason == "unknown-message"


@pytest.mark.parametrize("number", [1, 31, 35, 37, 39, 45, 127])
def test_an_unknown_extension_below_128_condemns_the_message(number: int) -> None:
    with pytest.raises(WireError) as caught:
        RegistrationRequest.decode(FIXED + bytes((number, 1, 0)))
    assert (caught.value.reason, caught.value.number, caught.value.offset) == (
        "unknown-extension",
        number,
        24,
    )


@pytest.mark.parametrize("number", [128, 133, 135, 144, 153, 255])
def test_an_unknown_extension_from_128_on_is_skipped(number: int) -> None:
    message = RegistrationRequest.decode(FIXED + bytes((number, 2, 7, 8)) + Nai("a@b").encode())
    assert message.extensions == (Unknown(number, b"\x07\x08"), Nai("a@b"))


def test_padding_has_no_length() -> None:
    message = RegistrationRequest.decode(FIXED + b"\x00" + Nai("a@b").encode() + b"\x00")
    assert message.extensions == (Padding(), Nai("a@b"), Padding())


def test_an_extension_longer_than_the_message() -> None:
    with pytest.raises(WireError) as caught:
        RegistrationRequest.decode(FIXED + b"\x83\x05ab")
    assert (caught.value.field, caught.value.reason) == ("extension.data", "truncated")


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        ((MN_HA, MN_HA), "repeated-authentication"),
        ((MN_HA, MN_FA, MN_FA), "repeated-authentication"),
        ((MN_FA, MN_HA), "extension-order"),
        ((FA_HA, MN_HA), "extension-order"),
        ((EncapsulatingDelivery(), MN_HA), "extension-order"),
        ((MobileFaChallenge(bytes(4)), MN_HA), "extension-order"),
        ((MN_HA, FA_HA, MobileFaChallenge(bytes(4))), "extension-order"),
        ((MN_HA, MN_FA, EncapsulatingDelivery()), "extension-order"),
        ((MN_HA, Multipath(1)), "extension-order"),
        ((MN_HA, DROP), "extension-order"),
        ((EncapsulatingDelivery(), DROP), "extension-order"),
        ((Multipath(1), DROP, Multipath(2)), "repeated-multipath"),
    ],
)
def test_forbidden_orders(extensions: tuple[Extension, ...], reason: str) -> None:
    with pytest.raises(WireError) as caught:
        RegistrationRequest.decode(FIXED + encode_extensions(extensions))
    assert caught.value.reason == reason


def test_authentication_protects_the_parts_before_it() -> None:
    before, between, after = Nai("before@x"), Unknown(200, b"between"), Unknown(201, b"after")
    data = FIXED + encode_extensions((before, MN_HA, between, FA_HA, after))
    message = RegistrationRequest.decode(data)
    assert message.protected(AuthKind.MN_HA) == (before,)
    assert message.protected(AuthKind.FA_HA) == (before, MN_HA, between)
    assert message.protected(AuthKind.MN_FA) == ()
    found = message.authentication(AuthKind.FA_HA)
    assert found == FA_HA and found.covered == data[: data.index(FA_HA.encode()) + 6]
    assert found.through + after.encode() == data
    assert message.find(Nai) == before and message.all(Unknown) == (between, after)
    assert message.authentication(AuthKind.MN_FA) is None


def test_bounds() -> None:
    fits = FIXED + b"\x00" * MAX_EXTENSIONS
    assert len(RegistrationRequest.decode(fits).extensions) == MAX_EXTENSIONS
    with pytest.raises(WireError, match="too-many-extensions"):
        RegistrationRequest.decode(fits + b"\x00")
    with pytest.raises(WireError, match="too-large"):
        RegistrationRequest.decode(FIXED + bytes(MAX_MESSAGE))


def test_sixty_four_of_the_longest_rules_fit() -> None:
    ends = address_range(IPv6Network("2001:db8::/64"))
    rule = Ipv6Selector(ends, ends, (1, 2), (3, 4), (1, 2), (3, 4), (1, 2), (6, 7))
    extensions: list[Extension] = [Multipath(1)]
    for number in range(1, 65):
        extensions.append(encode_vendor(FlowRule(FlowOperation.ADD, number, number)))
        extensions.append(FlowBinding(FlowAction.FORWARD, (1, 2), rule))
    extensions.append(Authentication(AuthKind.MN_HA, 256, bytes(32)))
    message = RegistrationRequest(300, HOME, AGENT, CARE_OF, IDENTIFICATION, extensions=tuple(extensions))
    assert RegistrationRequest.decode(message.encode()) == message


def test_cost_is_bounded() -> None:
    """The most expensive message: as many authentications as fit, each with a copy of its covered bytes."""
    data = FIXED + (b"\x24\x01\x00\x2c" + bytes(44)) * MAX_EXTENSIONS
    start = time.process_time()
    for _ in range(20):
        RegistrationRequest.decode(data)
    assert (time.process_time() - start) / 20 < 0.05
