"""Datagram records and frames: round trips, their CDDL, and nothing but WireError for other input."""

from ipaddress import IPv4Address, IPv6Address

import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.sessions import record as session
from locum.sessions.datagram_flows import unfit
from locum.sessions.datagrams.frames import Frame, frames
from locum.sessions.datagrams.record import MAX_REPEATED, DatagramRecord, Repeated
from locum.wire import cbor, control
from locum.wire.control import Flow
from locum.wire.errors import WireError

HOME, PEER = IPv4Address("10.99.0.5"), IPv4Address("192.0.2.53")
HOME6, PEER6 = IPv6Address("2001:db8::5"), IPv6Address("2001:db8:1::53")
PLAIN = DatagramRecord(Flow(17, HOME, 40000, PEER, 53), 64, 0, Repeated(b"hi", 25, True))
VECTOR = "a4008511440a630005199c4044c0000235183501184002000383426869" + "1819f5"
SCHEMA = "start = datagram-record\n" + session.cddl() + control.cddl()

ports = st.integers(1, 65535)
flows = st.one_of(
    st.builds(Flow, st.just(17), st.just(HOME), ports, st.just(PEER), ports),
    st.builds(Flow, st.just(17), st.just(HOME6), ports, st.just(PEER6), ports),
)
repeats = st.none() | st.builds(
    Repeated, st.binary(max_size=MAX_REPEATED), st.integers(1, 86400), st.booleans()
)
records = st.builds(DatagramRecord, flows, st.integers(1, 255), st.integers(0, 255), repeats)


def test_vector() -> None:
    assert cbor.encode(PLAIN.to_cbor()).hex() == VECTOR


@given(records)
def test_round_trip_and_cddl(record: DatagramRecord) -> None:
    encoded = cbor.encode(record.to_cbor())
    pycddl.Schema(SCHEMA).validate_cbor(encoded)
    assert DatagramRecord.from_cbor(cbor.decode(encoded, limit=1 << 16, field="634")) == record


@given(
    st.dictionaries(
        st.integers(0, 5), st.none() | st.integers() | st.binary() | st.lists(st.integers(), max_size=5)
    )
)
def test_other_maps_raise_wire_errors(value: dict[int, object]) -> None:
    with pytest.raises(WireError):
        DatagramRecord.from_cbor(value)


@pytest.mark.parametrize(
    ("flow", "part"),
    [
        (Flow(6, HOME, 1, PEER, 2), "protocol"),
        (Flow(17, HOME, 1, PEER, 0), "port"),
        (Flow(17, HOME, 1, IPv4Address("224.0.0.251"), 5353), "peer"),
        (Flow(17, HOME, 1, IPv4Address("255.255.255.255"), 67), "peer"),
        (Flow(17, HOME, 1, HOME, 2), "peer"),
        (Flow(17, HOME6, 1, IPv6Address("fe80::1"), 2), "peer"),
        (Flow(17, HOME, 1, PEER, 2), None),
    ],
)
def test_flows_of_no_single_host_are_unfit(flow: Flow, part: str | None) -> None:
    assert unfit(flow) == part


@given(st.lists(st.builds(Frame, st.integers(0, 2**64 - 1), st.binary(max_size=40))), st.integers(0, 60))
def test_frames_leave_out_the_incomplete_one(kept: list[Frame], cut: int) -> None:
    stream = b"".join(frame.encode() for frame in kept)
    found = list(frames(stream[: max(len(stream) - cut, 0)]))
    assert found == kept[: len(found)]
    assert cut or found == kept
