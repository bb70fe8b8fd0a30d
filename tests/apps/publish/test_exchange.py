"""Connections of the `publish` proxy: order, limits, and peers that misbehave."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.apps.publish.exchange import MAX_BODY, MAX_HEAD, PIECE, WINDOW
from locum.apps.publish.intake import UPLOADED
from tests.apps.publish.world import World, archive, split

PAGE, OTHER = b"page one", b"page two"
BIG = b"0123456789abcdef" * (WINDOW // 8)
FILES = {"one": PAGE, "two": OTHER, "big": BIG}
ONE = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
TWO = b"GET /two HTTP/1.1\r\nHost: x\r\n\r\n"


def world(**table: object) -> World:
    return World({UPLOADED: archive(FILES)}, **table)  # type: ignore[arg-type]


def bodies(data: bytes) -> list[bytes]:
    """Bodies of several answers, by their lengths."""
    found: list[bytes] = []
    while data:
        _status, fields, rest = split(data)
        length = int(fields["content-length"])
        found.append(rest[:length])
        data = rest[length:]
    return found


def test_connection_persists() -> None:
    one = world()
    number = one.connect()
    for _ in range(5):
        assert bodies(one.ask(number, ONE)) == [PAGE]
        assert bodies(one.ask(number, TWO)) == [OTHER]
    assert one.state[number] == "open"
    assert one.ask(number, b"GET /one HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(PAGE)
    assert one.state[number] == "finished"


def test_answer_from_memory_is_the_same() -> None:
    """But for the date."""
    one = world()
    number = one.connect()
    first = one.ask(number, ONE)
    one.advance(2.0)
    again = one.ask(number, ONE)
    assert first != again
    assert re.sub(rb"Date: [^\r]*", b"", first) == re.sub(rb"Date: [^\r]*", b"", again)
    assert one.app.end(now=one.now)["result"]["paths"] == {"one": 2}  # type: ignore[index]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_pipelined_requests_are_answered_in_order(step: int) -> None:
    one = world()
    number = one.connect()
    data = (ONE + TWO) * 5
    for start in range(0, len(data), step):
        one.say(number, data[start : start + step])
    assert bodies(bytes(one.received[number])) == [PAGE, OTHER] * 5


def test_http_1_0_closes() -> None:
    one = world()
    number = one.connect()
    assert one.ask(number, b"GET /one HTTP/1.0\r\n\r\n").endswith(PAGE)
    assert one.state[number] == "finished"


@pytest.mark.parametrize(
    "data, status",
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /one\r\n\r\n", 400),
        (b"GET /one HTTP/1.1\r\n\r\n", 400),
        (b"GET /one HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /one HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /one HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", 400),
        (b"GET /one HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\n\r\n", 501),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /one HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /one HTTP/1.1\r\nHost: x\r\nX: " + b"y" * MAX_HEAD, 431),
        (b"GET /one HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 4000, 431),
        (b"GET /one HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + bytes(MAX_BODY + 1), 413),
    ],
)
def test_malformed_request_ends_the_connection(data: bytes, status: int) -> None:
    one = world()
    number = one.connect()
    assert split(one.ask(number, data))[0] == status
    assert one.state[number] == "finished"


def test_malformed_head_request_gets_no_body() -> None:
    one = world()
    number = one.connect()
    malformed = b"HEAD /one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    status, _fields, body = split(one.ask(number, malformed))
    assert (status, body, one.state[number]) == (400, b"", "finished")


def test_body_of_a_request_is_passed_over() -> None:
    one = world()
    number = one.connect()
    post = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    assert split(one.ask(number, post))[0] == 405
    chunked = b"GET /one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert bodies(one.ask(number, chunked + TWO)) == [PAGE, OTHER]


def test_request_that_waits_for_100_is_answered_at_once() -> None:
    one = world()
    number = one.connect()
    head = b"POST /one HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n"
    assert split(one.ask(number, head))[0] == 405
    assert one.state[number] == "finished"


def test_peer_that_sends_no_more_gets_its_answers() -> None:
    one = world()
    number = one.connect()
    one.takes = False
    one.say(number, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" + ONE)
    one.say(number, b"")
    one.takes = True
    one.drain(number)
    assert bodies(bytes(one.received[number])) == [BIG, PAGE]
    assert one.state[number] == "finished"


def test_peer_that_leaves_in_a_request_is_let_go() -> None:
    one = world()
    number = one.connect()
    one.say(number, ONE[:20])
    one.say(number, b"")
    assert one.state[number] == "finished"


def test_slow_peer_holds_no_more_than_the_window() -> None:
    one = world()
    one.takes = False
    number = one.connect()
    one.say(number, (b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n") * 3)
    assert len(one.received[number]) <= WINDOW + PIECE + 1000
    one.say(number, ONE)
    assert one.paused == {number}
    while len(one.received[number]) < 3 * len(BIG):
        one.drain(number)
    one.takes = True
    one.drain(number)
    assert bodies(bytes(one.received[number])) == [BIG] * 3 + [PAGE]
    assert one.paused == set()


def test_unread_small_answers_are_bounded() -> None:
    """A peer that asks from memory and never reads."""
    one = world()
    one.ask(one.connect(), ONE)
    one.takes = False
    number = one.connect()
    for _ in range(5000):
        if number not in one.paused:
            one.say(number, ONE)
    assert number in one.paused and len(one.received[number]) < WINDOW + 2000
    one.takes = True
    one.drain(number)
    assert number not in one.paused
    assert set(bodies(bytes(one.received[number]))) == {PAGE}


def test_slow_request_is_ended() -> None:
    """A byte a second: the whole request has its time, not each byte."""
    one = world(head_seconds=10.0)
    number = one.connect()
    for place in range(9):
        one.say(number, ONE[place : place + 1])
        one.advance(1.0)
    assert one.state[number] == "open"
    one.advance(3.0)
    assert split(bytes(one.received[number]))[0] == 408
    assert one.state[number] == "finished"


def test_idle_connection_is_ended() -> None:
    one = world(idle_seconds=20.0)
    silent, used = one.connect(), one.connect()
    one.advance(15.0)
    one.ask(used, ONE)
    one.advance(10.0)
    assert (one.state[silent], one.state[used]) == ("finished", "open")
    one.advance(15.0)
    assert one.state[used] == "finished"
    assert one.app.deadline() is None or one.counts["Keep"]


def test_peer_that_takes_nothing_is_ended() -> None:
    one = world(stall_seconds=30.0, idle_seconds=5.0)
    one.takes = False
    number = one.connect()
    one.say(number, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    one.advance(25.0)
    one.drain(number)
    one.advance(25.0)
    assert one.state[number] == "open"
    one.advance(10.0)
    assert one.state[number] == "aborted"


def test_idle_connections_give_way() -> None:
    one = world(connections=4, connections_per_peer=4, idle_seconds=1000.0)
    first = one.connect("192.0.2.1")
    one.advance(1.0)
    others = [one.connect(f"192.0.2.{n}") for n in range(2, 8)]
    assert one.state[first] == "finished"
    assert sum(one.state[number] == "open" for number in (first, *others)) <= 4
    assert one.state[others[-1]] == "open"
    assert bodies(one.ask(others[-1], ONE)) == [PAGE]


def test_listener_waits_while_all_are_busy() -> None:
    one = world(connections=3, connections_per_peer=3)
    busy = [one.connect() for _ in range(2)]
    for number in busy:
        one.say(number, ONE[:10])
    third = one.connect()
    assert one.paused == {1}
    one.say(third, b"GET /one HTTP/1.0\r\n\r\n")
    assert one.state[third] == "finished" and one.paused == set()


def test_one_peer_cannot_have_all_connections() -> None:
    one = world(connections=8, connections_per_peer=2)
    mine = [one.connect("192.0.2.1") for _ in range(3)]
    assert [one.state[number] for number in mine] == ["open", "open", "aborted"]
    assert bodies(one.ask(one.connect("192.0.2.2"), ONE)) == [PAGE]
    assert one.app.end(now=one.now)["result"]["refused_connections"] == 1  # type: ignore[index]


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from([ONE, TWO, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n", b"x", b"HTTP/1.1"])
        | st.binary(max_size=30),
        max_size=12,
    )
)
def test_any_bytes_give_answers_or_an_end(pieces: list[bytes]) -> None:
    """The same bytes in other pieces have the same answers."""
    data = b"".join(pieces)
    results = []
    for parts in (pieces, [data], [data[n : n + 3] for n in range(0, len(data), 3)]):
        one = world()
        number = one.connect()
        for part in parts:
            if part:
                one.say(number, part)
        results.append((bytes(one.received[number]), one.state[number]))
        assert one.counts["Abort"] == 0
    assert results[0] == results[1] == results[2]
