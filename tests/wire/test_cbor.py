"""Bounded CBOR: accepted and refused bodies, and the low cost of refusing."""

import time
from contextlib import suppress

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire import cbor
from locum.wire.errors import WireError

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.binary(max_size=20)
    | st.text(max_size=20)
    | st.floats(allow_nan=False)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-100, 100000) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def depth(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(values.filter(lambda value: depth(value) <= cbor.MAX_DEPTH))
def test_round_trip(value: object) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data, limit=1 << 16, field="test") == value
    assert cbor.encode(value) == data


@given(st.binary(max_size=60))
def test_bytes_give_a_value_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        cbor.decode(data, limit=60, field="test")


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ("", "truncated"),
        ("18", "truncated"),
        ("1817", "not-deterministic"),
        ("190001", "not-deterministic"),
        ("1a0000ffff", "not-deterministic"),
        ("1b00000000ffffffff", "not-deterministic"),
        ("5801aa", "not-deterministic"),
        ("43aabb", "truncated"),
        ("9f01ff", "indefinite-length"),
        ("5f41aaff", "indefinite-length"),
        ("bf0001ff", "indefinite-length"),
        ("ff", "indefinite-length"),
        ("1c", "cbor"),
        ("c249010000000000000000", "tag"),
        ("c48220f6", "tag"),
        ("d8236128", "tag"),
        ("a14101f6", "key-type"),
        ("a1f5f6", "key-type"),
        ("a180f6", "key-type"),
        ("a20001" + "0002", "duplicate-key"),
        ("a2616101616102", "duplicate-key"),
        ("e0", "simple-value"),
        ("f7", "simple-value"),
        ("f820", "simple-value"),
        ("0000", "trailing"),
        ("8201", "truncated"),
        ("a100", "truncated"),
        ("9b7fffffffffffffff", "truncated"),
        ("bb7fffffffffffffff", "truncated"),
        ("5b7fffffffffffffff", "truncated"),
        ("62c328", "cbor"),
        ("81" * 13 + "00", "too-deep"),
    ],
)
def test_refusals(vector: str, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        cbor.decode(bytes.fromhex(vector), limit=1000, field="test")
    assert caught.value.reason == reason


def test_deepest_accepted_nesting() -> None:
    cbor.decode(b"\x81" * 12 + b"\x00", limit=1000, field="test")


def test_size_is_checked_first() -> None:
    with pytest.raises(WireError, match="too-large"):
        cbor.decode(bytes(11), limit=10, field="test")


@pytest.mark.parametrize(
    "data",
    [
        b"\x9a\x03\xff\xff\xf0" + bytes(0x3FFFFF0),
        b"\x81" * (64 << 20),
        b"\xba\x01\xff\xff\xf8" + b"\x60\x00" * 0x1FFFFF8,
        b"\xc1" * (64 << 20),
    ],
    ids=["many items", "deep", "many keys", "tags"],
)
def test_hostile_bodies_of_full_size_cost_little(data: bytes) -> None:
    start = time.process_time()
    with pytest.raises(WireError):
        cbor.decode(data, limit=len(data), field="test")
    assert time.process_time() - start < 2


def test_most_expensive_accepted_body() -> None:
    data = cbor.encode([0] * (cbor.MAX_ITEMS - 1))
    start = time.process_time()
    cbor.decode(data, limit=len(data), field="test")
    assert time.process_time() - start < 2
    with pytest.raises(WireError, match="too-many-items"):
        cbor.decode(cbor.encode([0] * cbor.MAX_ITEMS), limit=1 << 20, field="test")


def test_a_large_byte_string_is_not_walked() -> None:
    data = cbor2.dumps({0: bytes(32 << 20)})
    start = time.process_time()
    cbor.decode(data, limit=64 << 20, field="test")
    assert time.process_time() - start < 1
