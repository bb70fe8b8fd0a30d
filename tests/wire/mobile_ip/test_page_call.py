"""Calls to a sleeping device, and their answers, as bytes (RFC 4064)."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import Authentication, AuthKind, VendorNormal
from locum.wire.mobile_ip.page_call import (
    MAX_DETAIL,
    CallAnswerCode,
    PageCall,
    PageCallAnswer,
    Reason,
    in_words,
)

HOA = IPv4Address("10.50.0.9")
PROOF = Authentication(AuthKind.MN_HA, 300, bytes(range(16)))
CALL = PageCall(b"page-one", HOA, 0x0102030405060708, Reason.PACKET, (PROOF,))
FAST = PageCall(b"page-one", HOA, 0x0102030405060708, Reason.PACKET, (PROOF,), True, (HOA, HOA + 1))
ANSWER = PageCallAnswer(b"page-one", HOA, 0x0102030405060708, CallAnswerCode.AWAKE, (PROOF,))
TAIL = "20140000012c000102030405060708090a0b0c0d0e0f"
pages, times = st.binary(min_size=8, max_size=8), st.integers(0, (1 << 64) - 1)


def test_hex_vectors() -> None:
    assert CALL.encode().hex() == f"ff010100{b'page-one'.hex()}0a3200090102030405060708{TAIL}"
    assert ANSWER.encode().hex() == f"ff020100{b'page-one'.hex()}0a3200090102030405060708{TAIL}"
    fast = f"ff010103{b'page-one'.hex()}0a32000901020304050607080a3200090a32000a{TAIL}"
    assert FAST.encode().hex() == fast and PageCall.decode(FAST.encode()) == FAST
    assert PageCall.decode(CALL.encode()) == CALL and PageCallAnswer.decode(ANSWER.encode()) == ANSWER


addresses = st.ip_addresses(v=4)


@given(
    st.builds(
        PageCall,
        pages,
        addresses,
        times,
        st.sampled_from(Reason),
        st.just(()),
        st.booleans(),
        st.none() | st.tuples(addresses, addresses),
    ),
    st.builds(PageCallAnswer, pages, addresses, times, st.sampled_from(CallAnswerCode)),
)
def test_round_trips(call: PageCall, answer: PageCallAnswer) -> None:
    assert PageCall.decode(call.encode()) == call and PageCallAnswer.decode(answer.encode()) == answer


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda data: b"\xff\x01\x01" + data)))
def test_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    for kind in (PageCall, PageCallAnswer):
        try:
            kind.decode(data)
        except WireError:
            continue


@pytest.mark.parametrize(
    ("place", "value", "field"), [(1, 2, "page-call.kind"), (2, 0, "page-call.reason"), (0, 1, "type")]
)
def test_other_messages_are_refused(place: int, value: int, field: str) -> None:
    data = bytearray(CALL.encode())
    data[place] = value
    with pytest.raises(WireError, match=field):
        PageCall.decode(bytes(data))


def test_identifiers_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        PageCall(b"short", HOA, 1, Reason.EVENT).encode()


def test_cause_in_words() -> None:
    told = PageCall(b"page-one", HOA, 1, Reason.EVENT, (*in_words("delivered of films"), PROOF))
    assert told.encode().hex() == (
        f"ff010200{b'page-one'.hex()}0a3200090000000000000001"
        f"861a000000007ed90008{b'delivered of films'.hex()}{TAIL}"
    )
    assert PageCall.decode(told.encode()).detail == "delivered of films" and CALL.detail == ""
    assert in_words("") == ()
    [cut] = in_words("\u00e9" * 150)
    assert len(cut.value) == MAX_DETAIL and set(cut.value.decode()) == {"\u00e9"}


@pytest.mark.parametrize("words", [b"\xff", b"a\nb", b"\x1b[2J", b"a" * (MAX_DETAIL + 1)])
def test_words_that_no_user_can_read_are_refused(words: bytes) -> None:
    said = PageCall(b"page-one", HOA, 1, Reason.EVENT, (VendorNormal(32473, 8, words),))
    with pytest.raises(WireError, match="detail"):
        _ = PageCall.decode(said.encode()).detail
