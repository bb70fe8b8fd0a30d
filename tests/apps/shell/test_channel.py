"""Effects on their way from a proxy's process: a state goes once, and only what replaces it follows."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.apps.shell.channel import Channel
from locum.roles.app_contract import MAX_STATE, MAX_STATE_DEPTH, MAX_STATE_ITEMS, Keep, Note, checked_state
from locum.wire import cbor


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Channel(theirs), ours


def effects(end: socket.socket) -> list[list[object]]:
    packet: list[list[list[object]]] = cbor2.loads(end.recv(1 << 18))
    return packet[1]


def test_state_is_sent_when_it_has_changed(ends: tuple[Channel, socket.socket]) -> None:
    channel, end = ends
    sent = []
    for number in (1, 1, 1, 2, 2, 1):
        channel.effects("done", [Keep({"number": number}), Note("heard")])
        sent.append([effect for effect in effects(end) if effect[0] == "keep"])
    assert [len(found) for found in sent] == [1, 0, 0, 1, 0, 1]
    assert sent[3] == [["keep", cbor2.dumps({"number": 2})]]


def test_last_state_of_an_answer_is_sent_alone(ends: tuple[Channel, socket.socket]) -> None:
    channel, end = ends
    channel.effects("done", [Keep({"number": number}) for number in range(1000)])
    assert effects(end) == [["keep", cbor2.dumps({"number": 999})]]


@pytest.mark.parametrize(
    "state",
    [
        {"x": "y" * MAX_STATE},
        {"x": [0] * MAX_STATE_ITEMS},
        {"x": datetime(2026, 1, 1, tzinfo=UTC)},
        {"x": {1}},
    ],
)
def test_state_that_no_device_reads_is_refused(
    ends: tuple[Channel, socket.socket], state: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match="state"):
        ends[0].effects("done", [Keep(state)])


_LEAVES = st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.integers(-(1 << 66), 1 << 66)
_KEYS = st.text() | st.integers(-(1 << 66), 1 << 66) | st.booleans()
_STATES = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner), max_leaves=8)


def _is_read(state: object) -> bool:
    """True if it can be read in a 632."""
    try:
        encoded = cbor.encode({7: {"apps": {"": state}}})
        cbor.decode(encoded, limit=2 * MAX_STATE, field="state")
    except (ValueError, cbor2.CBOREncodeError):
        return False
    return True


@settings(max_examples=50)
@given(st.dictionaries(st.text(), _STATES, max_size=3))
def test_states_are_taken_that_can_be_read(state: dict[str, object]) -> None:
    try:
        checked_state(state)
    except (ValueError, cbor2.CBOREncodeError):
        assert not _is_read(state)
    else:
        assert _is_read(state)


@pytest.mark.parametrize("more", [0, 1])
def test_states_are_as_deep_as_can_be_read(more: int) -> None:
    state: dict[str, object] = {"x": 1}
    for _ in range(MAX_STATE_DEPTH - 1 + more):
        state = {"x": state}
    assert _is_read(state) is not bool(more)
    if more:
        with pytest.raises(ValueError, match="in each other"):
            checked_state(state)
    else:
        assert checked_state(state) == state
