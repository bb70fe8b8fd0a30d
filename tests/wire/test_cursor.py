"""The cursor: exact consumption, and errors that say where."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError


def test_reads_in_order_and_is_consumed_exactly() -> None:
    cursor = Cursor(bytes(range(1, 36)))
    assert (cursor.u8("a"), cursor.u16("b"), cursor.u32("c")) == (1, 0x0203, 0x04050607)
    assert cursor.take(8, "d") == bytes(range(8, 16))
    assert cursor.address4("e") == IPv4Address("16.17.18.19")
    assert cursor.address6("f") == IPv6Address("1415:1617:1819:1a1b:1c1d:1e1f:2021:2223")
    cursor.done("end")
    assert cursor.rest() == b""


def test_errors_name_field_offset_and_reason() -> None:
    cursor = Cursor(b"abc", base=10)
    cursor.u8("first")
    with pytest.raises(WireError) as caught:
        cursor.u32("second")
    assert (caught.value.field, caught.value.offset, caught.value.reason) == ("second", 11, "truncated")
    assert str(caught.value) == "second at byte 11: truncated"
    with pytest.raises(WireError, match="third at byte 11: trailing"):
        cursor.done("third")
    assert cursor.rest() == b"bc"


def test_an_unknown_extension_is_named_by_its_number() -> None:
    error = WireError("extension", 24, "unknown-extension", number=45)
    assert error.number == 45 and str(error) == "extension at byte 24: unknown-extension 45"
    assert isinstance(error, ValueError)
