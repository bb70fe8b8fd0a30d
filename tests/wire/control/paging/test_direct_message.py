"""Sealed calls to a sleeping device, and their answers, as bytes (RFC 4064)."""

from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.control.paging.direct_message import (
    HEADER_BYTES,
    MAX_MESSAGE,
    DirectKind,
    DirectMessage,
    is_direct,
)
from locum.wire.errors import WireError
from locum.wire.mobile_ip.page_call import PageCall, Reason

HOA = IPv4Address("10.50.0.9")
CALL = DirectMessage(DirectKind.CALL, b"page-one", HOA, 0x0102030405060708, b"sealed")
ANSWER = DirectMessage(DirectKind.ANSWER, b"page-one", HOA, 0x0102030405060708, b"sealed")


def test_hex_vectors() -> None:
    tail = f"{b'page-one'.hex()}0a3200090102030405060708{b'sealed'.hex()}"
    assert CALL.encode().hex() == f"ff030000{tail}"
    assert ANSWER.encode().hex() == f"ff040000{tail}"
    assert CALL.header == CALL.encode()[:HEADER_BYTES]


@given(
    st.sampled_from(DirectKind),
    st.binary(min_size=8, max_size=8),
    st.ip_addresses(v=4),
    st.integers(0, (1 << 64) - 1),
    st.binary(min_size=1, max_size=MAX_MESSAGE - HEADER_BYTES),
)
def test_round_trips(kind: DirectKind, page: bytes, home: IPv4Address, at: int, sealed: bytes) -> None:
    message = DirectMessage(kind, page, home, at, sealed)
    assert DirectMessage.decode(message.encode()) == message and is_direct(message.encode())


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda data: b"\xff\x03\x00\x00" + data)))
def test_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    with suppress(WireError):
        assert DirectMessage.decode(data).encode() == data


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [(0, 1, "type"), (1, 2, "kind"), (1, 5, "kind"), (2, 1, "reserved"), (3, 255, "reserved")],
)
def test_other_messages_are_refused(place: int, value: int, field: str) -> None:
    data = bytearray(CALL.encode())
    data[place] = value
    with pytest.raises(WireError, match=field):
        DirectMessage.decode(bytes(data))


def test_lengths_are_bounded() -> None:
    with pytest.raises(WireError, match="truncated"):
        DirectMessage.decode(CALL.header)
    with pytest.raises(WireError, match="too-large"):
        DirectMessage.decode(CALL.header + bytes(MAX_MESSAGE))
    with pytest.raises(ValueError, match="8 bytes"):
        DirectMessage(DirectKind.CALL, b"short", HOA, 1, b"x").encode()


def test_calls_of_a_home_agent_are_told_apart() -> None:
    assert not is_direct(PageCall(b"page-one", HOA, 1, Reason.EVENT).encode())
    assert not is_direct(b"\xff") and not is_direct(b"")
