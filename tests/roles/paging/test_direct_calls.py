"""Content of sealed calls: it fits into one datagram, whatever the event and the state are."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.roles.paging.direct_calls import (
    ROOM,
    Unsealable,
    fits,
    fitted,
    read_answer,
    read_call,
    write_answer,
    write_call,
)
from locum.security.sealing import sealing_keys
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.direct_message import MAX_MESSAGE, DirectMessage
from locum.wire.control.paging.direct_page import Decision, DirectDecision, Directions, LeftOut

HOME = IPv4Address("10.50.0.9")
STAND_IN, DEVICE = sealing_keys(b"s" * 16, b"", b"\1", b"\2"), sealing_keys(b"s" * 16, b"", b"\2", b"\1")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=12,
)
maps = st.dictionaries(st.text(max_size=20), values, max_size=6)


@given(st.text(min_size=1, max_size=64), maps, st.none() | maps, st.integers(1, 1 << 40))
def test_every_call_fits_and_is_read_again(
    name: str, detail: dict[str, object], state: dict[str, object] | None, count: int
) -> None:
    call = fitted(ApplicationEvent(name, name, detail), 7, count, state)
    message = write_call(call, b"page-one", HOME, 5, STAND_IN.own, bytes(12))
    assert len(message) <= MAX_MESSAGE
    assert read_call(DirectMessage.decode(message), DEVICE.peer) == call
    assert (call.left_out is LeftOut.DETAIL) == (call.event.detail != detail)
    if call.left_out is LeftOut.NOTHING:
        assert call.state == state
    else:
        assert not call.state


@pytest.mark.parametrize(
    ("detail", "state", "left_out"),
    [
        ("x" * 500, "y" * 500, LeftOut.NOTHING),
        ("x" * 500, "y" * 700, LeftOut.STATE),
        ("x" * 500, None, LeftOut.STATE),
        ("x" * 1200, "", LeftOut.DETAIL),
        ("x" * 20_000, "", LeftOut.DETAIL),
    ],
)
def test_long_parts_are_left_out(detail: str, state: str | None, left_out: LeftOut) -> None:
    told = None if state is None else {"s": state}
    assert fitted(ApplicationEvent("a", "b", {"d": detail}), 7, 1, told).left_out is left_out


def test_answers_are_bound_to_their_call_and_their_direction() -> None:
    call = write_call(
        fitted(ApplicationEvent("a", "b"), 7, 1, {}), b"page-one", HOME, 5, STAND_IN.own, bytes(12)
    )
    header = DirectMessage.decode(call)
    decision = DirectDecision(Decision.GO_ON, Directions((), {"a": 1}))
    answer = DirectMessage.decode(write_answer(decision, header, DEVICE.own, bytes(12)))
    assert read_answer(answer, STAND_IN.peer) == decision
    assert (answer.page, answer.identification) == (header.page, header.identification)
    other = DirectMessage(answer.kind, answer.page, HOME, 6, answer.sealed)
    for message, key in ((other, STAND_IN.peer), (answer, STAND_IN.own), (header, STAND_IN.peer)):
        with pytest.raises(Unsealable):
            read_answer(message, key)


def test_directions_are_bounded_by_one_datagram() -> None:
    assert fits(DirectDecision(Decision.GO_ON))
    assert not fits(DirectDecision(Decision.GO_ON, Directions((), {"a": "x" * 256, "b": "x" * ROOM})))
