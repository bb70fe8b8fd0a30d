"""Servers that lie, drip, flood or never end: each ends with a reason, within bounds (A4)."""

import itertools
from collections.abc import Iterable, Iterator

import pytest

from locum.apps.download.response import MAX_HEAD
from locum.apps.download.transfer import ROOM_AGAIN, WINDOW
from locum.roles.action_values.addresses import JSON
from tests.apps.download.servers import Http, head, request
from tests.apps.download.test_ordered import CONTENT, URL, failure
from tests.apps.download.world import FIN, Reply, World


def forever(item: bytes, *pauses: float) -> Iterator[Reply]:
    return itertools.cycle((*pauses, item))


@pytest.mark.parametrize(
    "replies, reason",
    [
        ([b"HTTP/1.1 200 OK\r\n", *[b"X: %s\r\n" % (b"a" * 1000)] * 40], "too long"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"a" * (MAX_HEAD + 1)], "too long"),
        ([head("103 Early Hints")] * 20, "goes on with answers 1xx"),
        ([head("101 Switching Protocols", "Upgrade: x")], "no HTTP"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "no HTTP"),
        ([b"\x16\x03\x01" + bytes(100)], "no HTTP"),
        ([head("200 OK", "Content-Length: 5", "Content-Length: 6")], "no HTTP"),
        ([head("200 OK", "Content-Length: -1")], "no HTTP"),
        ([head("200 OK", "Transfer-Encoding: gzip")], "no HTTP"),
        ([head("200 OK", "Transfer-Encoding: chunked"), b"zz\r\n"], "no HTTP"),
        ([head("200 OK", "Transfer-Encoding: chunked"), b"0" * (MAX_HEAD + 1)], "no HTTP"),
        ([head("200 OK", "Transfer-Encoding: chunked"), b"0\r\n", *[b"X: y\r\n"] * 10_000], "too long"),
        ([FIN], "without an answer"),
        ([head("200 OK", "Content-Length: 9"), b"12", FIN], "in the body"),
        ([head("200 OK", "Transfer-Encoding: chunked"), b"5\r\n12345\r\n", FIN], "in the body"),
    ],
)
def test_answer_that_cannot_be_read(replies: list[Reply], reason: str) -> None:
    world = World({"url": URL, "retries": 2}, lambda _: replies)
    world.run()
    assert reason in failure(world) and len(world.requests) == 3 and world.files == {}


@pytest.mark.parametrize(
    "replies",
    [
        [head("206 Partial", "Content-Length: 5", "Content-Range: bytes 7-11/50000"), b"12345"],
        [head("206 Partial", "Content-Length: 5", "Content-Range: bytes 10000-10005/50000"), b"12345"],
        [head("206 Partial", "Content-Length: 5", "Content-Range: bytes 10000-10004/3"), b"12345"],
        [head("206 Partial", "Content-Length: 5", "Content-Range: bytes 10000-10004/60000"), b"12345"],
        [head("206 Partial", "Content-Length: 5", "Content-Range: lines"), b"12345"],
        [head("206 Partial", "Content-Length: 5"), b"12345"],
        [head("206 Partial", 'ETag: "v2"', "Content-Length: 5", "Content-Range: bytes 10000-10004/50000")],
        [head("416 Range", "Content-Range: bytes */7", "Content-Length: 0")],
    ],
)
def test_wrong_answer_to_a_range_is_not_joined(replies: list[Reply]) -> None:
    answers: list[Iterable[Reply]] = []

    def server(data: bytes) -> Iterable[Reply]:
        if not answers:
            answers.extend([replies, Http(CONTENT)(b"GET / HTTP/1.1\r\n\r\n")])
            return Http(CONTENT, drops=(10_000,))(data)
        return answers.pop(0)

    world = World({"url": URL}, server)
    world.run()
    assert world.content("data.bin") == CONTENT
    assert "range" not in request(world.requests[2])[1]


def test_shorter_range_than_asked_for_is_completed() -> None:
    """RFC 9110 section 15.3.7: a server may send a part of the range."""

    def server(data: bytes) -> Iterator[Reply]:
        start = int(request(data)[1].get("range", "bytes=0-")[6:-1])
        if not start:
            yield from Http(CONTENT, drops=(10_000,))(data)
            return
        end = min(start + 20_000, 50_000)
        range_ = f"Content-Range: bytes {start}-{end - 1}/50000"
        yield head("206 Partial", 'ETag: "v1"', range_, f"Content-Length: {end - start}")
        yield CONTENT[start:end]

    world = World({"url": URL}, server)
    world.run()
    assert world.content("data.bin") == CONTENT and len(world.requests) == 3


def test_more_bytes_than_told_are_left_out() -> None:
    world = World({"url": URL}, lambda _: [head("200 OK", "Content-Length: 5"), b"1234567890", b"x", FIN])
    world.run()
    assert world.content("data.bin") == b"12345"


@pytest.mark.parametrize(
    "table, replies, reason",
    [
        ({"max_size": 1000}, [head("200 OK", "Content-Length: 1001")], "more than 1000 bytes (max_size)"),
        ({"size": 10}, [head("200 OK", "Content-Length: 11")], "11 bytes, not 10"),
        ({"size": 10}, [head("200 OK", "Content-Length: 9")], "9 bytes, not 10"),
        ({"size": 10}, [b"HTTP/1.0 200 OK\r\n\r\n", b"123", FIN], "3 bytes, not 10"),
        ({"size": 10}, [b"HTTP/1.0 200 OK\r\n\r\n", b"12345678901"], "more than 10 bytes, not 10"),
    ],
)
def test_wrong_size_ends_it_at_once(table: dict[str, JSON], replies: list[Reply], reason: str) -> None:
    world = World({"url": URL, **table}, lambda _: replies)
    world.run()
    assert reason in failure(world) and len(world.requests) == 1 and world.files == {}


@pytest.mark.parametrize("first", [b"HTTP/1.0 200 OK\r\n\r\n", head("200 OK", "Transfer-Encoding: chunked")])
def test_body_that_never_ends_is_bounded(first: bytes) -> None:
    piece = b"a" * 1000 if b"1.0" in first else b"3e8\r\n" + b"a" * 1000 + b"\r\n"
    world = World({"url": URL, "max_size": 100_000}, lambda _: itertools.chain([first], forever(piece)))
    world.run()
    assert "max_size" in failure(world)


def drip(_: bytes) -> Iterator[Reply]:
    yield head("200 OK", "Content-Length: 5000")
    yield from forever(b"a", 1.0)


def test_dripping_server_is_left_after_a_while() -> None:
    world = World({"url": URL, "retries": 1}, drip)
    start = world.now
    world.run()
    assert "1 bytes a second, less than 100" in failure(world)
    assert 2 * WINDOW <= world.now - start < 3 * WINDOW


def test_dripping_server_is_waited_for_if_configured() -> None:
    world = World({"url": URL, "least_rate": 0}, drip)
    start = world.now
    world.run()
    assert len(world.told("delivered")) == 1 and world.now - start == 5_000


def test_time_limit_ends_the_most_patient_one() -> None:
    world = World({"url": URL, "least_rate": 0, "time_limit": 500}, drip)
    start = world.now
    world.run(200.0)
    world.state = world.app.end(now=world.now)
    world.begin()
    world.run()
    assert "more than 500 seconds" in failure(world) and 499 <= world.now - start <= 502


@pytest.mark.parametrize(
    "replies, reason",
    [
        ([], "no answer within 60 seconds"),
        ([b"HTTP/1.1 200 OK\r\n"], "no answer within 60 seconds"),
        ([head("200 OK", "Content-Length: 5"), b"12"], "not a byte within 60 seconds"),
    ],
)
def test_silent_server_is_left(replies: list[Reply], reason: str) -> None:
    world = World({"url": URL, "retries": 0, "least_rate": 0}, lambda _: replies)
    start = world.now
    world.run()
    assert reason in failure(world) and 60 <= world.now - start < 62


def test_dripping_head_is_left() -> None:
    world = World({"url": URL, "retries": 0}, lambda _: forever(b"H", 1.0))
    start = world.now
    world.run()
    assert world.now - start <= 61 and world.told("download_failed")


def test_full_disk_ends_it_with_a_reason() -> None:
    world = World({"url": URL}, Http(CONTENT), room=30_000)
    world.run()
    assert failure(world) == "its file: No space left on device" and world.files == {}


def test_full_disk_is_waited_for_if_configured() -> None:
    world = World({"url": URL, "no_room": "wait"}, Http(CONTENT), room=30_000)
    world.run(3.5 * ROOM_AGAIN)
    assert not world.events and len(world.requests) == 4
    world.room = 1 << 20
    world.run()
    assert world.content("data.bin") == CONTENT
