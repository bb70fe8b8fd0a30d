"""IGMP and MLD reports: vectors, messages that count as joins, refusals; and our queries."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum, transport_checksum
from locum.wire.ip.membership import (
    QUERIED_V6,
    Membership,
    decode_igmp,
    decode_mld,
    igmp_query,
    mld_query,
)

GROUP, GROUP_V6 = IPv4Address("239.1.2.3"), IPv6Address("ff15::1234")
SENDER, ALL_ROUTERS = IPv6Address("fe80::2"), IPv6Address("ff02::16")


def igmp(text: str) -> bytes:
    data = bytes.fromhex(text)
    return data[:2] + checksum(data).to_bytes(2, "big") + data[4:]


def mld(text: str) -> bytes:
    data = bytes.fromhex(text)
    return data[:2] + transport_checksum(SENDER, ALL_ROUTERS, 58, data).to_bytes(2, "big") + data[4:]


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("12 00 0000 ef010203", True),
        ("16 00 0000 ef010203", True),
        ("17 00 0000 ef010203", False),
        ("22 00 0000 0000 0001 04 00 0000 ef010203", True),
        ("22 00 0000 0000 0001 03 00 0000 ef010203", False),
        ("22 00 0000 0000 0001 02 00 0000 ef010203", True),
        ("22 00 0000 0000 0001 01 00 0001 ef010203 0a010002", True),
        ("22 00 0000 0000 0001 05 01 0001 ef010203 0a010002 00000000", True),
    ],
)
def test_igmp(text: str, joined: bool) -> None:
    assert decode_igmp(igmp(text)) == (Membership(GROUP, joined),)


GROUP_HEX = GROUP_V6.packed.hex()


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        (f"83 00 0000 0000 0000 {GROUP_HEX}", True),
        (f"84 00 0000 0000 0000 {GROUP_HEX}", False),
        (f"8f 00 0000 0000 0001 04 00 0000 {GROUP_HEX}", True),
        (f"8f 00 0000 0000 0001 03 00 0000 {GROUP_HEX}", False),
    ],
)
def test_mld(text: str, joined: bool) -> None:
    assert decode_mld(mld(text), SENDER, ALL_ROUTERS) == (Membership(GROUP_V6, joined),)


@pytest.mark.parametrize(
    "text",
    [
        "16 00 0000 e00000fb",
        "22 00 0000 0000 0000",
        "11 14 0000 00000000",
        "22 00 0000 0000 0001 06 00 0000 ef010203",
    ],
)
def test_irrelevant_igmp_messages_give_no_memberships(text: str) -> None:
    assert decode_igmp(igmp(text)) == ()


@pytest.mark.parametrize(
    "text",
    [
        "16 00 0000 ef0102",
        "16 00 0000 0a010203",
        "22 00 0000 0000 0002 04 00 0000 ef010203",
        "22 00 0000 0000 0001 04 00 0001 ef010203",
        "22 00 0000 0000 ffff",
        "22 00 0000 0000 0001 04 00 0000 0a010203",
    ],
)
def test_refusals(text: str) -> None:
    with pytest.raises(WireError):
        decode_igmp(igmp(text))


def test_a_wrong_checksum_is_refused() -> None:
    with pytest.raises(WireError):
        decode_igmp(bytes.fromhex("16 00 0001 ef010203"))
    with pytest.raises(WireError):
        decode_mld(mld(f"83 00 0000 0000 0000 {GROUP_HEX}"), SENDER, QUERIED_V6)


def test_queries() -> None:
    """General queries: no group, answers within two seconds, sent again every 125 s."""
    query = igmp_query()
    assert query[:2] == b"\x11\x14" and query[4:] == bytes.fromhex("00000000 027d0000")
    assert checksum(query) == 0 and decode_igmp(query) == ()
    query = mld_query(SENDER)
    assert query[:2] == b"\x82\0" and query[4:] == bytes.fromhex("07d00000" + "00" * 16 + "027d0000")
    assert transport_checksum(SENDER, QUERIED_V6, 58, query) == 0


@given(st.binary(max_size=60))
def test_bytes_give_memberships_or_wire_error(data: bytes) -> None:
    padded = data.ljust(4, b"\0")
    message = padded[:2] + b"\0\0" + padded[4:]
    igmp_message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
    check = transport_checksum(SENDER, ALL_ROUTERS, 58, message)
    mld_message = message[:2] + check.to_bytes(2, "big") + message[4:]
    with suppress(WireError):
        assert all(membership.group.is_multicast for membership in decode_igmp(igmp_message))
    with suppress(WireError):
        assert all(
            membership.group.is_multicast for membership in decode_mld(mld_message, SENDER, ALL_ROUTERS)
        )
