"""Agent advertisements and solicitations (RFC 1256, RFC 5944 sections 2.1 and 2.2, RFC 4721, RFC 4857)."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.ip import checksum
from locum.wire.mobile_ip.discovery import (
    AgentAdvertisement,
    AgentFlag,
    AgentSolicitation,
    next_sequence,
)
from locum.wire.mobile_ip.extensions import MAX_EXTENSIONS, MAX_MESSAGE, Unknown
from tests.wire.strategies import advertisements, damaged

NODE = IPv4Address("203.0.113.5")
FULL = AgentAdvertisement(
    lifetime=3,
    addresses=((NODE, -2),),
    sequence=1,
    registration_lifetime=600,
    flags=AgentFlag.F | AgentFlag.T | AgentFlag.R,
    care_of_addresses=(NODE,),
    prefix_lengths=(24,),
    challenge=b"\xcc" * 4,
    nai="an1.example",
)
VECTOR = bytes.fromhex(
    "0900 d65e 01 02 0003 cb007105 fffffffe"
    "10 0a 0001 0258 9100 cb007105"
    "13 01 18"
    "18 04 cccccccc"
    "88 0c 03 616e312e6578616d706c65"
    "00"
)
HOME_ONLY = AgentAdvertisement(3, (), 0, 600, AgentFlag.H, ())


def summed(data: bytes) -> bytes:
    """The message with its checksum set right."""
    data = data[:2] + bytes(2) + data[4:]
    return data[:2] + checksum(data).to_bytes(2, "big") + data[4:]


def test_advertisement_vector() -> None:
    assert FULL.encode() == VECTOR
    assert AgentAdvertisement.decode(VECTOR) == FULL


def test_solicitation_vector() -> None:
    data = bytes.fromhex("0a00f5ff00000000")
    assert AgentSolicitation().encode() == data
    assert AgentSolicitation.decode(data) == AgentSolicitation()
    assert AgentSolicitation.decode(summed(data + b"options")) == AgentSolicitation()


@given(advertisements())
def test_round_trip(advertisement: AgentAdvertisement) -> None:
    data = advertisement.encode()
    assert len(data) % 2 == 0 and checksum(data) == 0
    assert AgentAdvertisement.decode(data) == advertisement


@given(
    st.binary(max_size=80).map(summed) | damaged(advertisements().map(AgentAdvertisement.encode)).map(summed)
)
def test_bytes_give_a_value_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        message = AgentAdvertisement.decode(data)
        assert AgentAdvertisement.decode(message.encode()) == message


@given(st.binary(max_size=80))
def test_plain_bytes_give_a_value_or_wire_error(data: bytes) -> None:
    for decode in (AgentAdvertisement.decode, AgentSolicitation.decode):
        with suppress(WireError):
            decode(data)


@given(st.binary(max_size=40).map(lambda tail: summed(b"\x0a" + tail)))
def test_bytes_give_a_solicitation_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        assert AgentSolicitation.decode(data) == AgentSolicitation()


@pytest.mark.parametrize("flag", list(AgentFlag))
def test_every_flag(flag: AgentFlag) -> None:
    advertisement = replace(FULL, flags=flag | AgentFlag.F)
    assert AgentAdvertisement.decode(advertisement.encode()) == advertisement


def test_code_16_routes_no_common_traffic() -> None:
    data = replace(HOME_ONLY, routes_common_traffic=False).encode()
    assert data[1] == 16
    found = AgentAdvertisement.decode(data)
    assert not found.routes_common_traffic


@pytest.mark.parametrize(
    "flags", [AgentFlag(0), AgentFlag.T, AgentFlag.H | AgentFlag.R, AgentFlag.H | AgentFlag.B]
)
def test_forbidden_flags(flags: AgentFlag) -> None:
    """Section 2.1.1: F or H; R and B only with F. They are neither sent nor taken."""
    with pytest.raises(WireError):
        replace(HOME_ONLY, flags=flags).encode()
    data = bytearray(HOME_ONLY.encode())
    data[14:16] = int(flags).to_bytes(2, "big")
    with pytest.raises(WireError):
        AgentAdvertisement.decode(summed(bytes(data)))


def test_a_foreign_agent_has_a_care_of_address() -> None:
    with pytest.raises(WireError) as caught:
        replace(FULL, care_of_addresses=()).encode()
    assert (caught.value.field, caught.value.reason) == ("care-of-address", "missing")


def test_reserved_bits_are_ignored() -> None:
    data = bytearray(HOME_ONLY.encode())
    data[15] |= 0x1F
    assert AgentAdvertisement.decode(summed(bytes(data))) == HOME_ONLY


def test_larger_address_entries_are_understood() -> None:
    """RFC 1256 section 3: fields past the preference are for later versions."""
    data = bytes.fromhex("0900 0000 01 03 0003 cb007105 00000005 deadbeef 10060001 0258 2000")
    found = AgentAdvertisement.decode(summed(data))
    assert found.addresses == ((NODE, 5),)


def test_skippable_and_other_extensions() -> None:
    base = HOME_ONLY.encode()
    assert AgentAdvertisement.decode(summed(base + b"\xc9\x02ab")) == replace(
        HOME_ONLY, extensions=(Unknown(201, b"ab"),)
    )
    with pytest.raises(WireError) as caught:
        AgentAdvertisement.decode(summed(base + b"\x20\x02ab"))
    assert (caught.value.reason, caught.value.number) == ("unknown-extension", 32)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (VECTOR[:2] + b"\x00\x00" + VECTOR[4:], "checksum"),
        (summed(VECTOR[:16]), "not-an-agent"),
        (summed(VECTOR[:10]), "truncated"),
        (VECTOR[:7], "truncated"),
        (b"", "truncated"),
        (summed(b"\x08" + VECTOR[1:]), "unknown-message"),
        (summed(b"\x09\x01" + VECTOR[2:]), "range"),
        (summed(VECTOR[:5] + b"\x01" + VECTOR[6:]), "range"),
        (summed(VECTOR[:-1] + bytes.fromhex("13021818")), "repeated"),
        (summed(HOME_ONLY.encode() + bytes.fromhex("13021818")), "count"),
        (summed(HOME_ONLY.encode() + bytes.fromhex("130121")), "range"),
        (summed(HOME_ONLY.encode() + bytes.fromhex("10050000000020")), "truncated"),
        (summed(HOME_ONLY.encode() + bytes(MAX_EXTENSIONS + 1)), "too-many-extensions"),
        (bytes(MAX_MESSAGE + 1), "too-large"),
    ],
)
def test_refusals(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        AgentAdvertisement.decode(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (summed(b"\x0a\x00" + bytes(4)), "truncated"),
        (b"\x0a" + bytes(7), "checksum"),
        (VECTOR, "unknown-message"),
        (summed(b"\x0a\x01" + bytes(6)), "range"),
        (bytes(MAX_MESSAGE + 1), "too-large"),
    ],
)
def test_refused_solicitations(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        AgentSolicitation.decode(data)
    assert caught.value.reason == reason


def test_sequence_numbers_skip_those_of_a_restart() -> None:
    assert [next_sequence(number) for number in (0, 255, 0xFFFE, 0xFFFF)] == [1, 256, 0xFFFF, 256]
