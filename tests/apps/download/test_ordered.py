"""Ordered downloads on a virtual clock (A4)."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from random import Random

import pytest

from locum.apps.download.transfer import CHECKPOINT
from locum.roles.action_values.addresses import JSON
from tests.apps.download.servers import Http, head, request
from tests.apps.download.world import FIN, RESET, Reply, Server, World

CONTENT = Random(5).randbytes(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "http://files.example/a/data.bin"


def field_of(content: bytes, name: str = "sha256", label: str = "sha-256") -> str:
    return f"{label}=:{base64.b64encode(hashlib.new(name, content).digest()).decode()}:"


def result(world: World) -> Mapping[str, JSON]:
    found = world.app.end(now=world.now)["result"]
    assert isinstance(found, dict)
    return found


def failure(world: World) -> str:
    (event,) = world.told("download_failed")
    return str(event["reason"])


def test_file_is_durable_before_its_event() -> None:
    world = World({"url": URL, "sha256": SHA256, "size": 50_000}, Http(CONTENT))
    world.run(until=lambda: bool(world.events))
    (event,) = world.told("delivered")
    assert event["sha256"] == SHA256 and event["bytes"] == 50_000 and event["wake"] is True
    assert world.content("data.bin") == CONTENT and world.durable["data.bin"] == 50_000
    assert "data.bin.part" not in world.files
    assert result(world)["done"] is True and result(world)["files"] == [["data.bin", 50_000, SHA256]]
    assert result(world)["progress"] == {"received": 50_000, "expected": 50_000}


def test_request_asks_for_the_bytes_as_they_are() -> None:
    world = World({"url": "http://files.example:8080/a?b=c#d"}, Http(CONTENT))
    world.run()
    target, fields = request(world.requests[0])
    assert target == "/a?b=c" and fields["host"] == "files.example:8080"
    assert fields["accept-encoding"] == "identity" and "range" not in fields
    assert (world.connects[0].port, world.connects[0].tls) == (8080, False)


def test_dropped_download_goes_on_where_it_was() -> None:
    server = Http(CONTENT, drops=(10_000, 20_000, 0))
    world = World({"url": URL}, server)
    world.run()
    ranges = [request(data)[1].get("range") for data in world.requests]
    assert ranges == [None, "bytes=10000-", "bytes=30000-", "bytes=30000-"]
    assert all(request(data)[1]["if-range"] == '"v1"' for data in world.requests[1:])
    assert server.heads == ["200", "206", "206", "206"]
    assert world.content("data.bin") == CONTENT and len(world.told("delivered")) == 1


def test_changed_file_is_fetched_from_its_beginning() -> None:
    """The entity tag differs, so the server answers If-Range with 200."""
    first, second = Http(CONTENT, drops=(10_000,)), Http(b"new" * 5000, tag='"v2"')
    servers: list[Server] = [first, second]
    world = World({"url": URL}, lambda data: servers.pop(0)(data))
    world.run()
    assert world.content("data.bin") == b"new" * 5000


@pytest.mark.parametrize("tag", ["", 'W/"v1"'])
def test_without_a_strong_validator_nothing_is_resumed(tag: str) -> None:
    world = World({"url": URL}, Http(CONTENT, drops=(10_000,), tag=tag))
    world.run()
    assert "range" not in request(world.requests[1])[1] and world.content("data.bin") == CONTENT


def test_known_sha256_permits_to_resume_without_validator() -> None:
    world = World({"url": URL, "sha256": SHA256}, Http(CONTENT, drops=(10_000,), tag=""))
    world.run()
    assert request(world.requests[1])[1]["range"] == "bytes=10000-" and world.content("data.bin") == CONTENT


@pytest.mark.parametrize("seconds, strong", [(0, False), (1, True)])
def test_date_is_a_validator_if_it_is_old_enough(seconds: int, strong: bool) -> None:
    """RFC 9110 section 8.8.2.2."""
    changed = "Sun, 29 Nov 2026 10:00:00 GMT"
    fields = (f"Last-Modified: {changed}", f"Date: Sun, 29 Nov 2026 10:00:0{seconds} GMT")
    server = Http(CONTENT, *fields, drops=(10_000,), tag="")
    world = World({"url": URL}, server)
    world.run(until=lambda: len(world.requests) == 2)
    assert request(world.requests[1])[1].get("if-range") == (changed if strong else None)


def test_new_process_goes_on_from_the_last_durable_byte() -> None:
    def slow(data: bytes) -> Iterator[Reply]:
        for piece in Http(CONTENT)(data):
            yield 1.0
            yield piece

    world = World({"url": URL}, slow)
    world.run(until=lambda: len(world.files.get("data.bin.part", b"")) >= 20_000)
    durable = world.durable["data.bin.part"]
    assert 20_000 - 1000 * (CHECKPOINT + 1) <= durable <= 20_000
    world.lose_power()
    world.run()
    assert request(world.requests[1])[1]["range"] == f"bytes={durable}-"
    assert world.content("data.bin") == CONTENT and world.told("delivered")[0]["sha256"] == SHA256


def test_five_new_processes_deliver_once() -> None:
    """C12: responsibility changes hands, and the state comes back with 634."""

    def slow(data: bytes) -> Iterator[Reply]:
        for piece in Http(CONTENT)(data):
            yield 1.0
            yield piece

    world = World({"url": URL, "sha256": SHA256}, slow)
    for _ in range(5):
        world.run(9.0)
        world.state = world.app.end(now=world.now)
        world.lose_power()
    world.run()
    world.begin()
    world.run()
    assert len(world.told("delivered")) == 1 and world.content("data.bin") == CONTENT


def test_process_that_ends_before_its_report_reports_later() -> None:
    world = World({"url": URL}, Http(CONTENT))
    world.run(until=lambda: "data.bin" in world.files)
    assert not world.events
    world.begin()
    world.run()
    assert len(world.told("delivered")) == 1 and len(world.requests) == 1


def test_chunked_body_with_a_digest_behind_it() -> None:
    def server(_: bytes) -> Iterator[Reply]:
        yield head("200 OK", "Transfer-Encoding: chunked", "Trailer: Repr-Digest")
        for start in range(0, len(CONTENT), 7000):
            piece = CONTENT[start : start + 7000]
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
        yield b"0\r\nRepr-Digest: " + digest.encode() + b"\r\n\r\n"

    digest = field_of(CONTENT)
    world = World({"url": URL}, server)
    world.run()
    assert world.content("data.bin") == CONTENT
    digest = field_of(b"other")
    world = World({"url": URL}, server)
    world.run()
    assert "its sha-256 is" in failure(world) and world.files == {}


@pytest.mark.parametrize(
    "field",
    [
        f"Repr-Digest: {field_of(CONTENT, 'sha512', 'sha-512')}",
        f"Content-Digest: {field_of(CONTENT)}",
        f"Digest: SHA-256={base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()}",
    ],
)
def test_digests_of_the_server_are_compared(field: str) -> None:
    world = World({"url": URL}, Http(CONTENT, field))
    world.run()
    assert len(world.told("delivered")) == 1
    world = World({"url": URL}, Http(CONTENT[:-1] + b"\0", field))
    world.run()
    assert "should be" in failure(world)


def test_digest_of_a_sha512_alone_survives_a_new_process() -> None:
    field = f"Repr-Digest: {field_of(CONTENT, 'sha512', 'sha-512')}"

    def slow(data: bytes) -> Iterator[Reply]:
        for piece in Http(CONTENT, field)(data):
            yield 1.0
            yield piece

    world = World({"url": URL}, slow)
    world.run(20.0)
    world.lose_power()
    world.run()
    assert world.content("data.bin") == CONTENT and len(world.told("delivered")) == 1


def test_damaged_part_is_fetched_again() -> None:
    """Content-Digest of a part (RFC 9530 section 3)."""
    answers: list[Server] = [
        Http(CONTENT, drops=(10_000,)),
        Http(CONTENT[:10_000] + bytes(40_000), f"Content-Digest: {field_of(CONTENT[10_000:])}"),
        Http(CONTENT),
    ]
    world = World({"url": URL}, lambda data: answers.pop(0)(data))
    world.run()
    assert world.content("data.bin") == CONTENT
    assert any("a part is damaged" in note for note in world.notes)


def test_wrong_sha256_after_a_resumption_is_fetched_again() -> None:
    answers: list[Server] = [Http(CONTENT, drops=(10_000,)), Http(bytes(50_000)), Http(CONTENT)]
    world = World({"url": URL, "sha256": SHA256}, lambda data: answers.pop(0)(data))
    world.run()
    assert world.content("data.bin") == CONTENT and len(world.requests) == 3
    world = World({"url": URL, "sha256": "00" * 32}, Http(CONTENT))
    world.run()
    assert "should be 0000" in failure(world) and len(world.requests) == 1 and world.files == {}


def test_redirects_are_followed_within_bounds() -> None:
    def server(data: bytes) -> Iterator[Reply]:
        target, _ = request(data)
        if target == "/final":
            yield from Http(CONTENT)(data)
        else:
            yield head("302 Found", f"Location: {places.pop(0)}", "Content-Length: 0")

    places = ["../b/two", "https://other.example/three", "//third.example/final"]
    world = World({"url": URL}, server)
    world.run()
    asked = [(one.host, one.port, one.tls) for one in world.connects]
    assert asked == [
        ("files.example", 80, False),
        ("files.example", 80, False),
        ("other.example", 443, True),
        ("third.example", 443, True),
    ]
    assert world.content("data.bin") == CONTENT
    places = ["/x"] * 10
    world = World({"url": URL}, server)
    world.run()
    assert failure(world) == "the server redirects more than 5 times" and len(world.connects) == 6


@pytest.mark.parametrize(
    "place, reason",
    [
        ("http://files.example/", "from https to http://files.example/"),
        ("ftp://files.example/", "a wrong address"),
        ("https://user@files.example/", "a wrong address"),
        ("https://[::1", "a wrong address"),
    ],
)
def test_redirects_that_are_refused(place: str, reason: str) -> None:
    def server(_: bytes) -> Iterator[Reply]:
        yield head("301 Moved", f"Location: {place}", "Content-Length: 0")

    world = World({"url": "https://files.example/"}, server)
    world.run()
    assert reason in failure(world) and len(world.connects) == 1


def test_downgrade_is_followed_if_permitted() -> None:
    def server(data: bytes) -> Iterator[Reply]:
        if len(world.connects) == 1:
            yield head("301 Moved", "Location: http://files.example/x", "Content-Length: 0")
        else:
            yield from Http(CONTENT)(data)

    world = World({"url": "https://files.example/x", "downgrade": True}, server)
    world.run()
    assert world.content("x") == CONTENT


def test_date_beyond_all_years_is_no_date() -> None:
    def server(data: bytes) -> Iterator[Reply]:
        if len(world.requests) < 2:
            yield head("503 Busy", "Retry-After: Wed, 21 Oct 99999999999999999999 07:28:00 GMT")
        else:
            yield from Http(CONTENT)(data)

    world = World({"url": URL}, server)
    world.run()
    assert len(world.requests) == 2 and world.told("delivered")


def test_tag_beyond_ascii_is_given_back() -> None:
    def server(data: bytes) -> Iterator[Reply]:
        if len(world.requests) < 2:
            yield head("200 OK", 'ETag: "\xf8"', f"Content-Length: {len(CONTENT)}") + CONTENT[:1000]
            yield FIN
        else:
            yield from Http(CONTENT)(data)

    world = World({"url": URL}, server)
    world.run()
    assert b'if-range: "\xc3\xb8"\r\n' in world.requests[1].lower() and world.told("delivered")


def test_busy_server_is_asked_when_it_says() -> None:
    def server(data: bytes) -> Iterator[Reply]:
        if len(world.requests) < 3:
            yield head("503 Busy", "Retry-After: 120", "Content-Length: 0")
        else:
            yield from Http(CONTENT)(data)

    world = World({"url": URL}, server)
    start = world.now
    world.run()
    assert 240 <= world.now - start < 300 and world.content("data.bin") == CONTENT


def test_attempts_come_at_growing_distances_and_end() -> None:
    times: list[float] = []

    def server(_: bytes) -> Iterator[Reply]:
        times.append(world.now)
        yield RESET

    world = World({"url": URL, "retries": 6}, server)
    world.run()
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) == 7 and all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses))
    assert "reset by peer, in the last of 7 attempts" in failure(world)
    assert "reset by peer" in str(result(world)["failed"])


def test_progress_between_failures_begins_the_count_anew() -> None:
    content = bytes(3 << 20)
    world = World({"url": URL, "retries": 1}, Http(content, drops=(1 << 20, 1 << 20), step=1 << 16))
    world.run()
    assert world.content("data.bin") == content


def test_status_that_will_not_change_ends_it() -> None:
    world = World({"url": URL}, lambda _: [head("404 Not Found", "Content-Length: 0")])
    world.run()
    assert failure(world) == "the server answers 404" and len(world.requests) == 1


def test_several_at_a_time_and_no_more() -> None:
    running = most = 0

    def slow(data: bytes) -> Iterator[Reply]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        yield 1.0
        running -= 1
        yield from Http(CONTENT)(data)

    urls: list[JSON] = [f"http://files.example/{number}" for number in range(9)]
    world = World({"url": urls, "parallel": 3}, slow)
    world.run()
    assert most == 3 and len(world.told("delivered")) == 9 and result(world)["done"] is True


@pytest.mark.parametrize("deliver, events", [("at-once", [True]), ("on-request", [False]), ("status", [])])
def test_ways_of_delivery(deliver: str, events: list[bool]) -> None:
    world = World({"url": URL, "deliver": deliver}, Http(CONTENT))
    world.run()
    assert [event["wake"] for event in world.told("delivered")] == events
    assert result(world)["done"] is True


def test_one_of_two_that_fails_harms_no_other() -> None:
    def server(data: bytes) -> Iterator[Reply]:
        if request(data)[0] == "/bad":
            yield head("410 Gone", "Content-Length: 0")
        else:
            yield from Http(CONTENT)(data)

    world = World({"url": ["http://files.example/bad", "http://files.example/good"]}, server)
    world.run()
    assert result(world)["done"] is True and "failed" not in result(world)
    rows = result(world)["downloads"]
    assert isinstance(rows, list) and [row["state"] for row in rows if isinstance(row, dict)] == [
        "failed",
        "stored",
    ]


def test_empty_file() -> None:
    world = World({"url": URL}, Http(b""))
    world.run()
    assert world.content("data.bin") == b"" and len(world.told("delivered")) == 1


def test_body_until_the_end_of_the_connection() -> None:
    world = World({"url": URL}, lambda _: [b"HTTP/1.0 200 OK\r\n\r\n", CONTENT, FIN])
    world.run()
    assert world.content("data.bin") == CONTENT


@pytest.mark.parametrize("change", [{"url": "http://files.example/b/data.bin"}, {"size": 50_000}])
def test_changed_order_of_the_same_name_is_carried_out(change: Mapping[str, JSON]) -> None:
    """The state of the earlier one says that all is done."""
    world = World({"url": URL}, Http(b"old"))
    world.run()
    world.table, world.server = {"url": URL, **change}, Http(CONTENT)
    world.begin()
    world.run()
    assert world.content("data.bin") == CONTENT and len(world.told("delivered")) == 2


def test_state_of_another_shape_does_not_count() -> None:
    world = World(
        {"url": URL}, Http(CONTENT), state={"downloads": {"data.bin": {"safe": "x"}}, "following": 3}
    )
    world.run()
    assert world.content("data.bin") == CONTENT
    assert any("does not count" in note for note in world.notes)
