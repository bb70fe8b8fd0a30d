"""The record: its CDDL, its bounds, and that nothing but WireError comes of other input."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.sessions import record as module
from locum.sessions.record import TRANSFERABLE, SessionRecord, TcpState, TimestampUnit, Window
from locum.wire import cbor, control
from locum.wire.control import Flow
from locum.wire.errors import WireError

HOME, PEER = IPv4Address("10.99.0.5"), IPv4Address("192.0.2.80")
HOME6, PEER6 = IPv6Address("2001:db8::5"), IPv6Address("2001:db8:1::80")
PLAIN = SessionRecord(
    flow=Flow(6, HOME, 40000, PEER, 80),
    state=TcpState.ESTABLISHED,
    snd_seq=0xFFFFFFF0,
    rcv_seq=7,
    unacked=b"GET ",
    unsent=b"/",
    unread=3,
    window=Window(1, 64000, 65535, 70000, 7),
    timestamp=99,
    mss=1460,
    window_scale=(7, 10),
    sack=True,
    keepalive=(7200, 75, 9),
    timestamp_unit=TimestampUnit.MICROSECONDS,
    intake=(5000000000, 131072),
)
VECTOR = (
    "af0085064"  # 15 pairs; flow: TCP, 10.99.0.5
    "40a630005199c4044c00002501850"
    "0101021afffffff00307044447455420"
    "05412f06030785"
    + "0119fa0019ffff1a0001117007"
    + "08186309"
    + "1905b40a82070a0bf5"
    + "0c83191c20184b09"
    + "0d01"
    + "0f821b000000012a05f2001a00020000"
)

u32 = st.integers(0, 0xFFFFFFFF)
records = st.builds(
    SessionRecord,
    flow=st.one_of(
        st.builds(
            Flow, st.just(6), st.just(HOME), st.integers(1, 65535), st.just(PEER), st.integers(1, 65535)
        ),
        st.builds(
            Flow, st.just(6), st.just(HOME6), st.integers(1, 65535), st.just(PEER6), st.integers(1, 65535)
        ),
    ),
    state=st.sampled_from(sorted(TRANSFERABLE - {TcpState.FIN_WAIT2})),
    snd_seq=u32,
    rcv_seq=u32,
    unacked=st.binary(max_size=50),
    unsent=st.binary(max_size=50),
    unread=u32,
    window=st.builds(lambda a, b, c, d: Window(a, min(b, c), max(b, c), d, a), u32, u32, u32, u32),
    timestamp=st.none() | u32,
    mss=st.integers(1, 65535),
    window_scale=st.none() | st.tuples(st.integers(0, 14), st.integers(0, 14)),
    sack=st.booleans(),
    keepalive=st.none() | st.tuples(st.integers(1, 32767), st.integers(1, 32767), st.integers(1, 127)),
    timestamp_unit=st.none() | st.sampled_from(TimestampUnit),
    intake=st.none() | st.tuples(st.integers(0, (1 << 63) - 1), u32),
)


def through(record: SessionRecord) -> SessionRecord:
    return SessionRecord.from_cbor(cbor.decode(cbor.encode(record.to_cbor()), limit=1 << 20, field="record"))


def test_vector() -> None:
    assert cbor.encode(PLAIN.to_cbor()).hex() == "".join(VECTOR.split())
    assert through(PLAIN) == PLAIN
    told = replace(PLAIN, intake=(1 << 40, 131072))
    assert (
        cbor.encode(told.to_cbor()).hex().endswith("0f821b00000100000000001a00020000")
        and through(told) == told
    )


@given(records)
def test_round_trip_and_cddl(record: SessionRecord) -> None:
    assert through(record) == record
    schema.validate_cbor(cbor.encode(record.to_cbor()))


schema = pycddl.Schema("start = session-record\n" + module.cddl() + control.cddl())
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 33), st.binary(max_size=20), st.text(max_size=3)
)
anything: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=6
)


@given(
    record=records,
    changes=st.dictionaries(st.integers(0, 16), anything, max_size=3),
    gone=st.sets(st.integers(0, 15), max_size=2),
)
def test_other_maps_are_wire_errors(
    record: SessionRecord, changes: dict[int, object], gone: set[int]
) -> None:
    body = {key: value for key, value in (record.to_cbor() | changes).items() if key not in gone}
    try:
        SessionRecord.from_cbor(body)
    except WireError as error:
        assert error.field.startswith("session-record")


@pytest.mark.parametrize(
    "flow",
    [
        Flow(17, HOME, 1, PEER, 1),
        Flow(6, HOME, 0, PEER, 1),
        Flow(6, HOME, 1, PEER, 0),
        Flow(6, IPv4Address("127.0.0.1"), 1, PEER, 1),
        Flow(6, HOME, 1, IPv4Address("224.0.0.1"), 1),
        Flow(6, HOME6, 1, IPv6Address("fe80::1"), 1),
        Flow(6, HOME6, 1, IPv6Address("::ffff:127.0.0.1"), 1),
        Flow(6, HOME, 1, IPv4Address("255.255.255.255"), 1),
        Flow(6, HOME, 1, IPv4Address("0.1.2.3"), 1),
        Flow(6, HOME, 1, HOME, 2),
    ],
)
def test_impossible_flow_of_a_record_is_refused(flow: Flow) -> None:
    with pytest.raises(WireError, match="flow"):
        through(replace(PLAIN, flow=flow))


def test_records_that_the_kernel_would_refuse() -> None:
    with pytest.raises(WireError, match="window"):
        through(replace(PLAIN, window=Window(1, 2, 1, 3, 1)))
    with pytest.raises(WireError, match="state"):
        through(replace(PLAIN, state=TcpState.LISTEN))
    with pytest.raises(WireError, match="unacked"):
        through(replace(PLAIN, state=TcpState.FIN_WAIT2))
    with pytest.raises(WireError, match="not-a-map"):
        SessionRecord.from_cbor([1])
