"""634, 632 and 618: vectors, round trips, the CDDL, and refusals."""

from contextlib import suppress
from importlib.resources import files
from ipaddress import ip_address

import cbor2
import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.wire.control import (
    MAX_CHUNK,
    MAX_LISTENERS,
    MAX_NOTICE,
    MAX_SESSIONS,
    MAX_SMALL_BODY,
    Abandon,
    Answer632,
    Cancel,
    Done,
    Fetch,
    FinalState,
    Finish,
    Flow,
    Handed,
    Handshake,
    Listener,
    Notice618,
    Policy,
    Reclaim,
    Request634,
    SessionStatus,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    cddl,
    decode_618,
    decode_632,
    decode_634,
    encode_618,
    encode_632,
    encode_634,
)
from locum.wire.errors import WireError
from locum.wire.takes import Takes
from tests.wire.strategies import answers, damaged, notices, requests634, session_record

HANDOVER = bytes(range(16))
HOME, SIX = ip_address("192.0.2.10"), ip_address("2001:db8::10")
PEER, NODE = ip_address("198.51.100.7"), ip_address("203.0.113.5")
FLOW = Flow(6, HOME, 40000, PEER, 80)

KEY1 = "01 50000102030405060708090a0b0c0d0e0f"
FLOW_HEX = "85 06 44c000020a 199c40 44c6336407 1850"

SCHEMA = pycddl.Schema(cddl() + "\n" + files("locum.sessions").joinpath("session.cddl").read_text())

REQUESTS: list[tuple[str, Request634]] = [
    (
        f"a5 0001 {KEY1} 02 82 44c000020a 5020010db8000000000000000000000010 03 81 {FLOW_HEX} 04 a1 65647261696e f5",
        TakeoverPrepare(HANDOVER, (HOME, SIX), (FLOW,), {"drain": True}),
    ),
    (
        f"a7 0001 {KEY1} 02 81 44c000020a 03 81 {FLOW_HEX} 04 a0 0a01 0c 44cb007105",
        TakeoverPrepare(HANDOVER, (HOME,), (FLOW,), switch=Takes.RULED, access_node=NODE),
    ),
    (
        f"a6 0001 {KEY1} 02 81 44c000020a 03 80 04 a0 0e 81 86 06 44c000020a 1850 02 0a 198000",
        TakeoverPrepare(HANDOVER, (HOME,), (), listeners=(Listener(HOME, 80, Policy.ACCEPT, 10, 0x8000),)),
    ),
    (
        f"a5 0002 {KEY1} 05 80 06 a0 0b 81 50{'0f' * 16}",
        TakeoverTransfer(HANDOVER, (), others=(b"\x0f" * 16,)),
    ),
    (f"a4 0002 {KEY1} 05 80 06 a1 646d61696c 4101", TakeoverTransfer(HANDOVER, (), {"mail": b"\x01"})),
    (f"a3 0003 {KEY1} 02 81 44c000020a", Reclaim(HANDOVER, (HOME,))),
    ("a2 0003 02 81 44c000020a", Reclaim(None, (HOME,))),
    (f"a5 0004 {KEY1} 0701 08 1a00010000 09 190400", Fetch(HANDOVER, 1, 65536, 1024)),
    (f"a2 0005 {KEY1}", Finish(HANDOVER)),
    (f"a2 0006 {KEY1}", Done(HANDOVER)),
    (f"a3 0006 {KEY1} 0d 82 01 190fff", Done(HANDOVER, (1, 4095))),
    (f"a2 0007 {KEY1}", Cancel(HANDOVER)),
    (f"a2 0008 {KEY1}", Abandon(HANDOVER)),
    (f"a3 0008 {KEY1} 0d 82 01 190fff", Abandon(HANDOVER, (1, 4095))),
]

ANSWERS: list[tuple[str, Answer632]] = [
    ("a1 0007", Answer632(Status.WRONG_STATE)),
    (
        f"a8 0000 {KEY1} 02 44cb007105 03 81 a7 0000 01 {FLOW_HEX} 0200 031864 0418c8 05f4 0600"
        "04 4464617461 05f5 06 81 a8 0000 0107 0218c8 0318c4 04f5 051868 0603 07 447461696c 07 a1 616103",
        Answer632(
            status=Status.OK,
            handover=HANDOVER,
            access_node=NODE,
            sessions=(SessionStatus(0, FLOW, Status.OK, held=100, total=200),),
            data=b"data",
            more=True,
            final=(FinalState(0, 7, 200, 196, peer_closed=True, error=104, acked=3, tail=b"tail"),),
            application={"a": 3},
        ),
    ),
    (
        f"a2 0000 03 81 a8 0000 01 {FLOW_HEX} 0201 0300 0400 05f4 0600 07 6466756c6c",
        Answer632(Status.OK, sessions=(SessionStatus(0, FLOW, Status.REFUSED, reason="full"),)),
    ),
    (
        f"a2 0000 03 81 a9 0000 01 {FLOW_HEX} 0200 0305 0405 05f4 0600 09 41c0 0a 23",
        Answer632(Status.OK, sessions=(SessionStatus(0, FLOW, Status.OK, 5, 5, spoken=b"\xc0", surplus=-4),)),
    ),
    (
        f"a2 0000 03 81 a8 0000 01 {FLOW_HEX} 0200 0300 0400 05f4 0600 08 85 01 1affffffff 1905b4 f5 19faf0",
        Answer632(
            Status.OK,
            sessions=(
                SessionStatus(0, FLOW, Status.OK, accepted=Handshake(1, 0xFFFFFFFF, 1460, True, 64240)),
            ),
        ),
    ),
]


@pytest.mark.parametrize(("vector", "value"), REQUESTS, ids=lambda value: type(value).__name__)
def test_634_vectors(vector: str, value: Request634) -> None:
    data = bytes.fromhex(vector)
    assert encode_634(value) == data
    assert decode_634(data) == value
    SCHEMA.validate_cbor(data)


def test_632_with_a_connection_of_a_proxy() -> None:
    status = SessionStatus(0, FLOW, Status.OK, handed=Handed("chat", session_record(FLOW)))
    data = encode_632(Answer632(Status.OK, sessions=(status,)))
    assert decode_632(data).sessions == (status,)
    SCHEMA.validate_cbor(data)


@pytest.mark.parametrize(
    "value", [["", {}], ["a" * 65, {}], ["a\n", {}], [1, {}], ["a", []], ["a", {"b": 1}], ["a"], "a"], ids=str
)
def test_wrong_connections_of_proxies_are_refused(value: object) -> None:
    with pytest.raises(WireError):
        Handed.from_cbor(value, "handed")


def test_634_with_a_session_record() -> None:
    value = TakeoverTransfer(HANDOVER, (session_record(FLOW),))
    data = encode_634(value)
    assert decode_634(data) == value
    SCHEMA.validate_cbor(data)
    with pytest.raises(pycddl.ValidationError):
        SCHEMA.validate_cbor(encode_634(TakeoverTransfer(HANDOVER, ({0: 1},))))


@pytest.mark.parametrize(
    ("vector", "value"), ANSWERS, ids=["refusal", "everything", "reason", "proxies", "accepted"]
)
def test_632_vectors(vector: str, value: Answer632) -> None:
    data = bytes.fromhex(vector)
    assert encode_632(value) == data
    assert decode_632(data) == value
    SCHEMA.validate_cbor(data)


def test_618_vector() -> None:
    data = bytes.fromhex("a3 00 44c000020a 01f5 02 44cb007105")
    value = Notice618(HOME, True, NODE)
    assert encode_618(value) == data
    assert decode_618(data) == value
    SCHEMA.validate_cbor(data)


@given(requests634)
def test_634_round_trip_and_cddl(value: Request634) -> None:
    data = encode_634(value)
    assert decode_634(data) == value
    SCHEMA.validate_cbor(data)


@given(answers)
def test_632_round_trip_and_cddl(value: Answer632) -> None:
    data = encode_632(value)
    assert decode_632(data) == value
    SCHEMA.validate_cbor(data)


@given(notices)
def test_618_round_trip_and_cddl(value: Notice618) -> None:
    data = encode_618(value)
    assert decode_618(data) == value
    SCHEMA.validate_cbor(data)


encoded = requests634.map(encode_634) | answers.map(encode_632) | notices.map(encode_618)
shapes = st.dictionaries(
    st.integers(0, 10),
    st.recursive(
        st.integers(-2, 2000) | st.binary(max_size=16) | st.booleans() | st.none() | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.integers(0, 8), inner, max_size=8),
        max_leaves=12,
    ),
    max_size=10,
).map(lambda value: cbor2.dumps(value, canonical=True))


@settings(max_examples=400)
@given(st.binary(max_size=60) | damaged(encoded) | encoded | shapes)
def test_bytes_give_a_value_or_wire_error(data: bytes) -> None:
    """The CDDL describes every message that a decoder accepts."""
    with suppress(WireError):
        request = decode_634(data)
        assert decode_634(encode_634(request)) == request
        if not (isinstance(request, TakeoverTransfer) and request.sessions):
            SCHEMA.validate_cbor(data)
    with suppress(WireError):
        assert decode_632(encode_632(decode_632(data))) == decode_632(data)
    with suppress(WireError):
        assert decode_618(encode_618(decode_618(data))) == decode_618(data)


def changed(value: Request634, **keys: object) -> bytes:
    body = cbor2.loads(encode_634(value))
    for name, replacement in keys.items():
        body[int(name[1:])] = replacement
    return cbor2.dumps(body, canonical=True)


FETCH, PREPARE = Fetch(HANDOVER, 0, 0, 1), TakeoverPrepare(HANDOVER, (HOME,), (FLOW,))


@pytest.mark.parametrize(
    ("data", "field", "reason"),
    [
        (changed(FETCH, k0=0), "634.kind", "range"),
        (changed(FETCH, k0=9), "634.kind", "range"),
        (changed(FETCH, k0=True), "634.kind", "not-an-integer"),
        (changed(FETCH, k1=bytes(15)), "634.handover", "range"),
        (changed(FETCH, k1="0123456789abcdef"), "634.handover", "not-octets"),
        (changed(FETCH, k7=MAX_SESSIONS), "634.session", "range"),
        (changed(FETCH, k8=-1), "634.offset", "range"),
        (changed(FETCH, k8=1 << 63), "634.offset", "range"),
        (changed(FETCH, k9=MAX_CHUNK + 1), "634.limit", "range"),
        (changed(FETCH, k10=0), "634.10", "unknown-key"),
        (cbor2.dumps({0: 4}), "634.handover", "missing"),
        (cbor2.dumps([]), "634", "not-a-map"),
        (changed(PREPARE, k2=[bytes(5)]), "634.home-address", "not-an-address"),
        (changed(PREPARE, k2=[bytes(4)] * 65), "634.home-addresses", "too-many-items"),
        (changed(PREPARE, k3=[FLOW.to_cbor()] * 4097), "634.flows", "too-many-items"),
        (changed(PREPARE, k3=[[6, HOME.packed, 1, SIX.packed, 2]]), "634.flow.peer", "family"),
        (changed(PREPARE, k3=[[6, HOME.packed, 65536, PEER.packed, 2]]), "634.flow.local-port", "range"),
        (changed(PREPARE, k3=[[6, HOME.packed, 1, PEER.packed]]), "634.flow", "truncated"),
        (changed(PREPARE, k3=[[6, HOME.packed, 1, PEER.packed, 2, 3]]), "634.flow", "too-many-items"),
        (changed(PREPARE, k4={1: 2}), "634.configuration", "not-a-text-map"),
        (changed(PREPARE, k10=2), "634.switch", "range"),
        (changed(PREPARE, k12=bytes(5)), "634.access-node", "not-an-address"),
        (changed(TakeoverTransfer(HANDOVER, ()), k11=[bytes(15)]), "634.others", "not-a-handover"),
        (changed(TakeoverTransfer(HANDOVER, ()), k11=[bytes(16)] * 257), "634.others", "too-many-items"),
        (changed(TakeoverTransfer(HANDOVER, ()), k5=[{"a": 1}]), "634.session-record", "not-a-map"),
        (changed(TakeoverTransfer(HANDOVER, ()), k5=[{}] * 4097), "634.sessions", "too-many-items"),
        (changed(Abandon(HANDOVER), k13=[0] * 4097), "634.sessions", "too-many-items"),
        (changed(Abandon(HANDOVER), k13=[MAX_SESSIONS]), "634.session", "range"),
        (changed(Abandon(HANDOVER), k13=[True]), "634.session", "not-an-integer"),
    ],
)
def test_634_refusals(data: bytes, field: str, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_634(data)
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_only_a_transfer_may_be_large() -> None:
    transfer = TakeoverTransfer(HANDOVER, ({4: bytes(8 << 20)},))
    assert decode_634(encode_634(transfer)) == transfer
    with pytest.raises(WireError, match="too-large"):
        decode_634(encode_634(TakeoverPrepare(HANDOVER, (), (), {"x": bytes(MAX_SMALL_BODY)})))
    with pytest.raises(WireError, match="too-large"):
        decode_618(bytes(MAX_NOTICE + 1))


def test_a_tail_lies_within_what_was_received() -> None:
    body = cbor2.loads(encode_632(ANSWERS[1][1]))
    body[6][0][3] = 197
    with pytest.raises(WireError, match=r"632\.final\.tail"):
        decode_632(cbor2.dumps(body, canonical=True))


def test_prepare_with_the_most_sessions_is_a_small_body() -> None:
    flows = tuple(Flow(6, SIX, 1 + number, SIX + 1, 443) for number in range(MAX_SESSIONS))
    listeners = tuple(
        Listener(SIX, 1000 + number, Policy.ACCEPT, 1024, 0xFFFF) for number in range(MAX_LISTENERS)
    )
    value = TakeoverPrepare(
        HANDOVER, (HOME, SIX), flows, switch=Takes.ALL, access_node=SIX, listeners=listeners
    )
    assert decode_634(encode_634(value)) == value


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [(0, 17, "protocol"), (2, 0, "port"), (3, 3, "policy"), (4, 0, "most"), (5, 0x10000, "window")],
)
def test_a_listener_out_of_range_is_malformed(at: int, value: int, field: str) -> None:
    prepare = TakeoverPrepare(HANDOVER, (HOME,), (), listeners=(Listener(HOME, 80, Policy.ACCEPT, 1, 1),))
    body = cbor2.loads(encode_634(prepare))
    body[14][0][at] = value
    with pytest.raises(WireError, match=rf"634\.listener\.{field}"):
        decode_634(cbor2.dumps(body, canonical=True))
    body[14] = encode_two(prepare)
    with pytest.raises(WireError, match="duplicate"):
        decode_634(cbor2.dumps(body, canonical=True))


def encode_two(prepare: TakeoverPrepare) -> list[object]:
    return [listener.to_cbor() for listener in prepare.listeners * 2]


def test_transfer_with_the_most_sessions_is_walked() -> None:
    value = TakeoverTransfer(HANDOVER, (session_record(FLOW),) * MAX_SESSIONS)
    assert decode_634(encode_634(value)) == value


@pytest.mark.parametrize("reason", ["", "x" * 201, 5])
def test_a_reason_is_a_short_text(reason: object) -> None:
    body = cbor2.loads(encode_632(ANSWERS[2][1]))
    body[3][0][7] = reason
    with pytest.raises(WireError, match=r"632\.session\.reason"):
        decode_632(cbor2.dumps(body, canonical=True))


@pytest.mark.parametrize("status", list(Status))
def test_every_status(status: Status) -> None:
    assert decode_632(encode_632(Answer632(status))).status is status


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(WireError):
        decode_632(cbor2.dumps({0: 8}))


@pytest.mark.parametrize(
    ("total", "surplus"), [(5, 6), (0, 1), (1 << 62, -(1 << 62)), (1 << 30, (1 << 20) + 1)]
)
def test_surplus_that_no_stream_can_have_is_malformed(total: int, surplus: int) -> None:
    status = SessionStatus(0, FLOW, Status.OK, held=total, total=total, surplus=surplus)
    with pytest.raises(WireError) as caught:
        decode_632(encode_632(Answer632(Status.OK, sessions=(status,))))
    assert caught.value.field == "632.session.surplus"
