"""Messages about orders: vectors, round trips, the CDDL, and refusals."""

from contextlib import suppress
from importlib.resources import files
from ipaddress import ip_address

import cbor2
import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.control import cddl
from locum.wire.control.answer import Answer632, Status, decode_632, encode_632
from locum.wire.control.order import (
    MAX_DATA,
    MAX_ORDER,
    Operation,
    OrderAnswer,
    OrderRequest,
    decode_order,
    decode_order_answer,
    encode_order,
    encode_order_answer,
)
from locum.wire.errors import WireError
from tests.wire.strategies import addresses, damaged

HOME = ip_address("192.0.2.10")
RULES = cddl() + "\n" + files("locum.sessions").joinpath("session.cddl").read_text()
REQUESTS = {
    operation: pycddl.Schema(f"tried = order-{operation.name.lower()}\n" + RULES) for operation in Operation
}
ANSWER = pycddl.Schema("tried = order-answer\n" + RULES)

names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=64)
positions = st.integers(0, (1 << 63) - 1)
requests = st.one_of(
    st.builds(
        OrderRequest,
        st.just(Operation.CHECK),
        addresses,
        names,
        st.tuples(names, names, st.dictionaries(names, st.integers(0, 9) | names, max_size=3)),
        st.lists(st.tuples(names, names, st.just({})), max_size=3).map(tuple),
    ),
    st.builds(
        OrderRequest, st.sampled_from((Operation.LIST, Operation.REMOVE, Operation.STATE)), addresses, names
    ),
    st.builds(
        OrderRequest,
        st.just(Operation.READ),
        addresses,
        names,
        file=names,
        offset=positions,
        size=st.integers(0, MAX_DATA),
    ),
    st.builds(OrderRequest, st.just(Operation.DIGEST), addresses, names, file=names),
    st.builds(
        OrderRequest,
        st.just(Operation.WRITE),
        addresses,
        names,
        file=names,
        offset=positions,
        data=st.binary(max_size=99),
    ),
    st.builds(
        OrderRequest,
        st.just(Operation.COMMIT),
        addresses,
        names,
        file=names,
        size=positions,
        digest=st.binary(min_size=32, max_size=32),
    ),
)
answers = st.builds(
    OrderAnswer,
    st.sampled_from(Status),
    st.just("") | names,
    st.lists(st.tuples(names, positions), max_size=3).map(tuple),
    st.binary(max_size=99),
    positions,
    st.just(b"") | st.binary(min_size=32, max_size=32),
)


@pytest.mark.parametrize(
    ("vector", "value"),
    [
        (
            "a4 0001 01 44c000020a 02 63666f78 03 83 63666f78 68646f776e6c6f6164 a1 6375726c 6178",
            OrderRequest(Operation.CHECK, HOME, "fox", ("fox", "download", {"url": "x"})),
        ),
        (
            "a5 0001 01 44c000020a 02 63666f78 03 83 6161 6162 a0 04 81 83 6163 6164 a0",
            OrderRequest(Operation.CHECK, HOME, "fox", ("a", "b", {}), (("c", "d", {}),)),
        ),
        ("a3 0002 01 44c000020a 02 63666f78", OrderRequest(Operation.LIST, HOME, "fox")),
        (
            "a6 0003 01 44c000020a 02 63666f78 05 6161 06 02 07 190400",
            OrderRequest(Operation.READ, HOME, "fox", file="a", offset=2, size=1024),
        ),
        (
            "a6 0005 01 44c000020a 02 63666f78 05 6161 06 00 08 42beef",
            OrderRequest(Operation.WRITE, HOME, "fox", file="a", data=b"\xbe\xef"),
        ),
        (
            "a6 0006 01 44c000020a 02 63666f78 05 6161 07 02 09 5820" + "11" * 32,
            OrderRequest(Operation.COMMIT, HOME, "fox", file="a", size=2, digest=b"\x11" * 32),
        ),
        ("a3 0007 01 44c000020a 02 63666f78", OrderRequest(Operation.REMOVE, HOME, "fox")),
        ("a3 0008 01 44c000020a 02 63666f78", OrderRequest(Operation.STATE, HOME, "fox")),
    ],
)
def test_vectors_of_requests(vector: str, value: OrderRequest) -> None:
    data = bytes.fromhex(vector)
    assert encode_order(value) == data and decode_order(data) == value
    REQUESTS[value.operation].validate_cbor(data)


def test_vectors_of_answers() -> None:
    for vector, value in (
        ("a2 0001 01 626e6f", OrderAnswer(Status.REFUSED, "no")),
        ("a2 0000 02 81 82 6161 07", OrderAnswer(Status.OK, files=(("a", 7),))),
        ("a3 0000 03 42beef 04 07", OrderAnswer(Status.OK, data=b"\xbe\xef", size=7)),
    ):
        data = bytes.fromhex(vector)
        assert encode_order_answer(value) == data and decode_order_answer(data) == value
        ANSWER.validate_cbor(data)


@given(requests)
def test_request_goes_and_comes(value: OrderRequest) -> None:
    data = encode_order(value)
    REQUESTS[value.operation].validate_cbor(data)
    assert decode_order(data) == value


@given(answers)
def test_answer_goes_and_comes(value: OrderAnswer) -> None:
    data = encode_order_answer(value)
    ANSWER.validate_cbor(data)
    assert decode_order_answer(data) == value


@given(st.binary(max_size=64) | damaged(requests.map(encode_order)))
def test_any_bytes_give_a_request_or_an_error(data: bytes) -> None:
    with suppress(WireError):
        decode_order(data)


@given(st.binary(max_size=64) | damaged(answers.map(encode_order_answer)))
def test_any_bytes_give_an_answer_or_an_error(data: bytes) -> None:
    with suppress(WireError):
        decode_order_answer(data)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({0: 9}, "range"),
        ({2: ""}, "range"),
        ({2: "x" * 65}, "range"),
        ({5: "x" * 101}, "range"),
        ({6: -1}, "range"),
        ({7: MAX_DATA + 1}, "range"),
        ({10: 1}, "unknown-key"),
        ({8: b""}, "unknown-key"),
    ],
)
def test_wrong_request_is_refused(change: dict[int, object], reason: str) -> None:
    body = {0: 3, 1: HOME.packed, 2: "fox", 5: "a", 6: 0, 7: 9}
    with pytest.raises(WireError) as caught:
        decode_order(cbor2.dumps(body | change, canonical=True))
    assert caught.value.reason == reason


def test_request_past_its_bound_is_refused() -> None:
    full = OrderRequest(Operation.WRITE, HOME, "x" * 64, file="x" * 100, data=bytes(MAX_DATA))
    assert decode_order(encode_order(full)) == full
    with pytest.raises(WireError, match="too-large"):
        decode_order(bytes(MAX_ORDER + 1))


def test_refused_proxy_is_named_in_a_632() -> None:
    value = Answer632(Status.REFUSED, reason="no", app="fox")
    assert decode_632(encode_632(value)) == value
    pycddl.Schema("tried = answer-632\n" + RULES).validate_cbor(encode_632(value))
