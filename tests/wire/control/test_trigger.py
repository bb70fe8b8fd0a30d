"""The trigger: vectors, round trips, the CDDL, and refusals."""

from contextlib import suppress
from importlib.resources import files
from ipaddress import IPv4Network, ip_address

import cbor2
import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.control import cddl
from locum.wire.control.answer import Status
from locum.wire.control.trigger import (
    MAX_TRIGGER,
    Operation,
    Reason,
    Trigger,
    decode_trigger,
    decode_trigger_answer,
    encode_trigger,
    encode_trigger_answer,
)
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector, UnknownSelector, address_range
from tests.wire.strategies import addresses, damaged, selectors

HOME, SIX = ip_address("192.0.2.10"), ip_address("2001:db8::10")
WEB = Ipv4Selector(
    source=address_range(IPv4Network("198.51.100.0/24")), destination_port=(80, 80), protocol=(6, 6)
)
# The first rule is the validated one. The validator mistakes some maps of a choice of maps, so each has its turn.
RULES = cddl() + "\n" + files("locum.sessions").joinpath("session.cddl").read_text()
SCHEMA = pycddl.Schema("tried = trigger\n" + RULES)
ANSWER = pycddl.Schema("tried = answer-632\n" + RULES)

triggers = st.builds(
    Trigger,
    st.sampled_from(Operation),
    st.lists(addresses, min_size=1, max_size=4).map(tuple),
    st.lists(selectors, max_size=4).map(tuple),
    st.sampled_from(Reason),
    st.none() | addresses,
)


@pytest.mark.parametrize(
    ("vector", "value"),
    [
        ("a2 0001 01 81 44c000020a", Trigger(Operation.TAKE, (HOME,))),
        (
            "a3 0002 01 82 44c000020a 5020010db8000000000000000000000010 0303",
            Trigger(Operation.RELEASE, (HOME, SIX), reason=Reason.BACK),
        ),
        (
            "a4 0001 01 81 44c000020a 02 81 82 01 4f c0880000 c6336400 c63364ff 0050 06 0302",
            Trigger(Operation.TAKE, (HOME,), (WEB,), Reason.LOST),
        ),
        (
            "a4 0001 01 81 44c000020a 0304 04 44c0000201",
            Trigger(Operation.TAKE, (HOME,), reason=Reason.EXPIRED, access_node=ip_address("192.0.2.1")),
        ),
    ],
)
def test_vectors(vector: str, value: Trigger) -> None:
    data = bytes.fromhex(vector)
    assert encode_trigger(value) == data
    assert decode_trigger(data) == value
    SCHEMA.validate_cbor(data)


@pytest.mark.parametrize("status", list(Status))
def test_answers(status: Status) -> None:
    data = encode_trigger_answer(status)
    assert data == bytes((0xA1, 0, status))
    assert decode_trigger_answer(data) is status
    ANSWER.validate_cbor(data)


@given(triggers)
def test_round_trip_and_cddl(value: Trigger) -> None:
    data = encode_trigger(value)
    assert decode_trigger(data) == value
    SCHEMA.validate_cbor(data)


@given(st.binary(max_size=60) | damaged(triggers.map(encode_trigger)))
def test_bytes_give_a_value_or_wire_error(data: bytes) -> None:
    with suppress(WireError):
        value = decode_trigger(data)
        assert decode_trigger(encode_trigger(value)) == value
        SCHEMA.validate_cbor(data)
    with suppress(WireError):
        assert encode_trigger_answer(decode_trigger_answer(data)) == data


def changed(**keys: object) -> bytes:
    body = {0: 1, 1: [HOME.packed]} | {int(name[1:]): value for name, value in keys.items()}
    return cbor2.dumps(body, canonical=True)


@pytest.mark.parametrize(
    ("data", "field", "reason"),
    [
        (changed(k0=0), "trigger.operation", "range"),
        (changed(k0=3), "trigger.operation", "range"),
        (changed(k1=[]), "trigger.home-addresses", "range"),
        (changed(k1=[bytes(4)] * 65), "trigger.home-addresses", "too-many-items"),
        (changed(k1=[bytes(3)]), "trigger.home-address", "not-an-address"),
        (changed(k2=[]), "trigger.selectors", "range"),
        (changed(k2=[[1, bytes(4)]] * 65), "trigger.selectors", "too-many-items"),
        (changed(k2=[[1]]), "trigger.selector", "truncated"),
        (changed(k2=[[1, bytes(3)]]), "selector-flags", "truncated"),
        (changed(k2=[[1, bytes(5)]]), "traffic-selector", "trailing"),
        (changed(k2=[[0, bytes(4)]]), "ts-format", "range"),
        (changed(k2=[[9, bytes(97)]]), "trigger.selector", "not-octets"),
        (changed(k2=[[1, "text"]]), "trigger.selector", "not-octets"),
        (changed(k3=0), "trigger.reason", "range"),
        (changed(k3=5), "trigger.reason", "range"),
        (changed(k4=1), "trigger.access-node", "not-an-address"),
        (changed(k4=bytes(5)), "trigger.access-node", "not-an-address"),
        (changed(k5=1), "trigger.5", "unknown-key"),
        (cbor2.dumps({1: [HOME.packed]}), "trigger.operation", "missing"),
        (bytes(MAX_TRIGGER + 1), "trigger", "too-large"),
    ],
)
def test_malformed_triggers_are_refused(data: bytes, field: str, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        decode_trigger(data)
    assert (refused.value.field, refused.value.reason) == (field, reason)


def test_unknown_selector_is_kept_for_the_receiver() -> None:
    asked = Trigger(Operation.TAKE, (HOME,), (UnknownSelector(77, b"\x01"),))
    assert decode_trigger(encode_trigger(asked)) == asked
