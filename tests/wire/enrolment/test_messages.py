"""Messages of the enrolment: vectors, round trips by the CDDL, and bytes give a value or WireError."""

from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address, ip_network

import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire import cbor
from locum.wire.enrolment.messages import (
    MOST_BYTES,
    Answer,
    Denial,
    Denied,
    Grant,
    Hello,
    Message,
    Proof,
    Refusal,
    Refused,
    Sealed,
    Text,
    decode_message,
    decode_text,
)
from locum.wire.errors import WireError

_RULES = files("locum.wire.enrolment").joinpath("enrolment.cddl").read_text()
MESSAGE, TEXT = (pycddl.Schema(f"start = {rule}\n{_RULES}") for rule in ("message", "sealed-text"))

ELEMENT, KEY = bytes(range(33)), bytes(range(32))
MESSAGES: list[tuple[Message, str]] = [
    (Hello(7, ELEMENT, "server"), "a5 0001 0101 0207 03 5821" + ELEMENT.hex() + "04 66736572766572"),
    (Answer(ELEMENT), "a2 0002 01 5821" + ELEMENT.hex()),
    (Sealed(bytes(28)), "a2 0003 01 581c" + bytes(28).hex()),
    (Refusal(Refused.CODE), "a2 0004 0101"),
]
V4, V6 = IPv4Address("10.20.0.2"), IPv6Address("fd00::2")
TEXTS: list[tuple[Text, str]] = [
    (
        Proof(KEY, 5, (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))),
        "a4 0005 01 5820" + KEY.hex() + "0205 03 82 82440a00000008 825020010db8" + "00" * 12 + "1820",
    ),
    (
        Grant("laptop", V4, V6, V4 + 256, 24, IPv4Address("10.20.1.1"), KEY, 51820, 256, 5),
        "ab 0006 01 666c6170746f70 02 440a140002 03 50fd00" + "00" * 13 + "02 04 440a140102 051818"
        "06 440a140101 07 5820" + KEY.hex() + "08 19ca6c 09 190100 0a 05",
    ),
    (Denial(Denied.USED), "a2 0007 0101"),
]

names = st.text(min_size=1, max_size=63)
octets = st.binary(min_size=32, max_size=32)
elements = st.binary(min_size=33, max_size=33)
v4, u64 = st.ip_addresses(v=4), st.integers(0, (1 << 64) - 1)
networks = st.builds(
    lambda address, length: ip_network((address, length), strict=False), st.ip_addresses(), st.integers(0, 32)
)
servers = st.text("abc.:", min_size=1, max_size=253)
messages = st.one_of(
    st.builds(Hello, st.integers(0, 0x7FFF), elements, servers),
    st.builds(Answer, elements),
    st.builds(Sealed, st.binary(min_size=28, max_size=900)),
    st.builds(Refusal, st.sampled_from(Refused)),
)
texts = st.one_of(
    st.builds(Proof, octets, u64, st.lists(networks, max_size=32).map(tuple)),
    st.builds(
        Grant,
        names,
        v4,
        st.none() | st.ip_addresses(v=6),
        v4,
        st.integers(1, 30),
        v4,
        octets,
        st.integers(1, 0xFFFF),
        st.integers(256, 0xFFFFFFFF),
        u64,
    ),
    st.builds(Denial, st.sampled_from(Denied)),
)


@pytest.mark.parametrize(("value", "vector"), MESSAGES, ids=lambda value: type(value).__name__)
def test_vectors_of_messages(value: Message, vector: str) -> None:
    data = bytes.fromhex(vector)
    assert value.encode() == data
    assert decode_message(data) == value
    MESSAGE.validate_cbor(data)


@pytest.mark.parametrize(("value", "vector"), TEXTS, ids=lambda value: type(value).__name__)
def test_vectors_of_texts(value: Text, vector: str) -> None:
    data = bytes.fromhex(vector)
    assert value.encode() == data
    assert decode_text(data) == value
    TEXT.validate_cbor(data)


@given(messages)
def test_messages_are_read_again(value: Message) -> None:
    MESSAGE.validate_cbor(value.encode())
    assert decode_message(value.encode()) == value


@given(texts)
def test_texts_are_read_again(value: Text) -> None:
    TEXT.validate_cbor(value.encode())
    assert decode_text(value.encode()) == value


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({0: 5}, "message.kind", "unknown-kind"),
        ({0: 1, 1: 2}, "message.version", "range"),
        ({0: 1, 1: 1, 2: 1 << 15}, "message.number", "range"),
        ({0: 1, 1: 1, 2: 1, 3: bytes(32)}, "message.element", "range"),
        ({0: 1, 1: 1, 2: 1, 3: bytes(33), 4: "é"}, "message.server", "not-ascii"),
        ({0: 1, 1: 1, 2: 1, 3: bytes(33), 4: "a", 5: 1}, "message.5", "unknown-key"),
        ({0: 2}, "message.element", "missing"),
        ({0: 3, 1: bytes(27)}, "message.sealed", "range"),
        ({0: 4, 1: 4}, "message.reason", "range"),
        ([], "message", "not-a-map"),
    ],
    ids=str,
)
def test_wrong_messages_name_the_field(fields: object, field: str, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_message(cbor.encode(fields))
    assert (caught.value.field, caught.value.reason) == (field, reason)


@pytest.mark.parametrize(
    ("networks", "reason"),
    [
        ([[b"\x0a\x00\x00\x01", 8]], "host-bits"),
        ([[b"\x0a\x00\x00\x00", 33]], "range"),
        ([[b"\x0a", 8]], "not-an-address"),
        ([[b"\x0a\x00\x00\x00"]], "truncated"),
        ([[b"\x0a\x00\x00\x00", 8]] * 33, "too-many-items"),
    ],
)
def test_wrong_networks_are_refused(networks: object, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_text(cbor.encode({0: 5, 1: KEY, 2: 0, 3: networks}))
    assert caught.value.reason == reason


def test_oversized_message_is_refused() -> None:
    with pytest.raises(WireError) as caught:
        decode_message(bytes(MOST_BYTES + 1))
    assert caught.value.reason == "too-large"


@given(st.one_of(st.binary(max_size=200), messages.map(lambda value: value.encode()[:-1])))
def test_any_bytes_give_a_value_or_an_error(data: bytes) -> None:
    for decode in (decode_message, decode_text):
        try:
            value = decode(data)
        except WireError:
            continue
        assert value.encode() == data
