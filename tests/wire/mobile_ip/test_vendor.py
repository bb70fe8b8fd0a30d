"""Locum's own values in vendor extensions."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import VendorNormal
from locum.wire.mobile_ip.vendor import (
    ENTERPRISE,
    AgentKey,
    AgentKeyRequest,
    DefaultCareOfAddress,
    FlowOperation,
    FlowRule,
    MnpsRole,
    TransferContext,
    VendorValue,
    Weight,
    decode_vendor,
    encode_vendor,
)
from locum.wire.takes import Takes
from tests.wire.strategies import addresses, u16, u32

FOUR, SIX = IPv4Address("203.0.113.9"), IPv6Address("2001:db8::9")
values = st.one_of(
    st.builds(DefaultCareOfAddress, addresses),
    st.builds(MnpsRole, addresses, st.sampled_from(Takes)),
    st.builds(Weight, u16),
    st.builds(TransferContext, addresses, st.booleans()),
    st.builds(FlowRule, st.sampled_from(FlowOperation), st.integers(1, 0xFFFF), u16, st.booleans()),
    st.builds(AgentKeyRequest, u32),
    st.builds(AgentKey, st.binary(max_size=64)),
)


@pytest.mark.parametrize(
    ("vector", "value"),
    [
        ("86 0c 0000 00007ed9 0001 cb007109", DefaultCareOfAddress(FOUR)),
        ("86 19 0000 00007ed9 0002 00 20010db8000000000000000000000009", MnpsRole(SIX)),
        ("86 0d 0000 00007ed9 0002 01 cb007109", MnpsRole(FOUR, Takes.RULED)),
        ("86 0a 0000 00007ed9 0003 0102", Weight(258)),
        ("86 0c 0000 00007ed9 0004 cb007109", TransferContext(FOUR)),
        ("86 0c 0000 00007ed9 0004 00000000", TransferContext(IPv4Address(0))),
        ("86 0d 0000 00007ed9 0004 cb007109 01", TransferContext(FOUR, towards=True)),
        ("86 0e 0000 00007ed9 0005 02 0003 0102 00", FlowRule(FlowOperation.REPLACE, 3, 258)),
        ("86 0e 0000 00007ed9 0005 01 0003 0000 80", FlowRule(FlowOperation.ADD, 3, share=True)),
        ("86 0c 0000 00007ed9 0006 00000102", AgentKeyRequest(258)),
        ("86 0b 0000 00007ed9 0007 010203", AgentKey(b"\x01\x02\x03")),
    ],
)
def test_vectors(vector: str, value: VendorValue) -> None:
    extension = encode_vendor(value)
    assert extension.encode() == bytes.fromhex(vector)
    assert decode_vendor(extension) == value


@given(values)
def test_round_trip(value: VendorValue) -> None:
    assert decode_vendor(encode_vendor(value)) == value


@given(st.builds(VendorNormal, st.just(ENTERPRISE) | u32, st.integers(0, 8), st.binary(max_size=20)))
def test_anything_gives_a_value_none_or_wire_error(extension: VendorNormal) -> None:
    with suppress(WireError):
        value = decode_vendor(extension)
        assert value is None or encode_vendor(value) == extension


def test_vendor_extensions_of_others_are_ignored() -> None:
    assert decode_vendor(VendorNormal(9, 1, FOUR.packed)) is None
    assert decode_vendor(VendorNormal(ENTERPRISE, 99, b"")) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (1, b"abc"),
        (2, b""),
        (2, FOUR.packed),
        (2, b"\x02" + FOUR.packed),
        (3, b"\x01"),
        (3, b"\x01\x02\x03"),
        (4, bytes(5)),
        (5, b"\x01\x00\x01\x00"),
        (5, b"\x01\x00\x01\x00\x00"),
        (5, b"\x04\x00\x01\x00\x00\x00"),
        (5, b"\x01\x00\x00\x00\x00\x00"),
        (5, b"\x01\x00\x01\x00\x00\x01"),
        (5, b"\x01\x00\x01\x00\x00\x00\x00"),
        (6, b"\x01\x02\x03"),
        (6, b"\x01\x02\x03\x04\x05"),
    ],
)
def test_refusals(kind: int, value: bytes) -> None:
    with pytest.raises(WireError):
        decode_vendor(VendorNormal(ENTERPRISE, kind, value))
