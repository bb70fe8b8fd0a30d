"""Answers of one version of the content (RFC 9110), over whole requests."""

import re
from email.utils import formatdate
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.publish import conditions, ranges
from locum.apps.publish.intake import UPLOADED
from tests.apps.publish.world import STARTED, World, archive, split

PAGE = b"<h1>hello</h1>\n"
BIG = bytes(range(256)) * 1024
FILES = {
    "index.html": PAGE,
    "style.css": b"p {}",
    "docs/index.html": b"docs",
    "a b/ü.txt": b"umlaut",
    "big": BIG,
    "empty": b"",
    "site.tar.gz": b"\x1f\x8b",
    "404.html": b"nothing here",
}
ETAG = f'"{sha256(PAGE).hexdigest()}"'
PUBLISHED = formatdate(STARTED, usegmt=True)
BEFORE, AFTER = formatdate(STARTED - 1, usegmt=True), formatdate(STARTED + 1, usegmt=True)


def world(**table: object) -> World:
    return World({UPLOADED: archive(FILES)}, **table)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "target, status, body",
    [
        ("/", 200, PAGE),
        ("/index.html", 200, PAGE),
        ("/?q=1", 200, PAGE),
        ("http://device.example/index.html?x#", 400, None),
        ("http://device.example", 200, PAGE),
        ("HTTP://device.example:80/docs/", 200, b"docs"),
        ("/docs/", 200, b"docs"),
        ("/docs?a=b", 301, None),
        ("/a%20b/%C3%BC.txt", 200, b"umlaut"),
        ("/empty", 200, b""),
        ("/big", 200, BIG),
        ("/../../etc/passwd", 404, None),
        ("/%2e%2e/%2e%2e/etc/passwd", 404, None),
        ("//index.html", 404, None),
        ("/index.html/", 404, None),
        ("/a%00b", 400, None),
        ("/%ff", 400, None),
        ("index.html", 400, None),
        ("ftp://device.example/", 400, None),
        ("/" + "x" * 5000, 414, None),
    ],
)
def test_targets(target: str, status: int, body: bytes | None) -> None:
    found, fields, rest = split(world().get(target))
    assert found == status
    assert int(fields["content-length"]) == len(rest)
    assert body is None or rest == body
    if status == 301:
        assert fields["location"] == "/docs/?a=b"


def test_fields_of_a_file() -> None:
    _status, fields, _body = split(world().get("/"))
    assert fields == {
        "date": PUBLISHED,
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(PAGE)),
        "etag": ETAG,
        "last-modified": PUBLISHED,
        "cache-control": "no-cache",
        "accept-ranges": "bytes",
    }


@pytest.mark.parametrize(
    "table, target, kind",
    [
        ({}, "/style.css", "text/css; charset=utf-8"),
        ({"charset": ""}, "/style.css", "text/css"),
        ({}, "/site.tar.gz", "application/gzip"),
        ({}, "/empty", "application/octet-stream"),
        ({"types": {".css": "text/x-own"}}, "/style.css", "text/x-own"),
        ({"types": {".tar.gz": "text/x-own"}}, "/site.tar.gz", "text/x-own"),
    ],
)
def test_content_types(table: dict[str, object], target: str, kind: str) -> None:
    assert split(world(**table).get(target))[1]["content-type"] == kind


def test_cache_control_by_pattern() -> None:
    one = world(cache_control="max-age=60", cache={"*.css": "max-age=86400, immutable", "docs/*": "no-store"})
    got = {t: split(one.get(t))[1]["cache-control"] for t in ("/", "/style.css", "/docs/")}
    assert got == {"/": "max-age=60", "/style.css": "max-age=86400, immutable", "/docs/": "no-store"}
    assert "cache-control" not in split(world(cache_control="").get("/"))[1]


def test_page_for_missing_files() -> None:
    status, fields, body = split(world(not_found="404.html").get("/nowhere"))
    assert (status, body) == (404, b"nothing here") and "etag" not in fields
    assert split(world().get("/nowhere"))[2] == b"404 Not Found\n"


@pytest.mark.parametrize("target", ["/", "/big", "/nowhere", "/docs", "/%ff"])
def test_head_has_the_fields_of_get(target: str) -> None:
    got, head = (split(world().get(target, method=method)) for method in ("GET", "HEAD"))
    assert head[:2] == got[:2] and head[2] == b""


@pytest.mark.parametrize(
    "method, status, allow",
    [("POST", 405, True), ("DELETE", 405, True), ("BREW", 501, False), ("OPTIONS", 204, True)],
)
def test_other_methods(method: str, status: int, allow: bool) -> None:
    got, fields, _ = split(world().get("/", method=method))
    assert got == status
    assert ("allow" in fields) == allow


@pytest.mark.parametrize(
    "fields, status",
    [
        ([f"If-None-Match: {ETAG}"], 304),
        ([f"If-None-Match: W/{ETAG}"], 304),
        ([f'If-None-Match: "x", {ETAG}'], 304),
        (['If-None-Match: "x"', f"If-None-Match: {ETAG}"], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "x"'], 200),
        (['If-None-Match: "x"', f"If-Modified-Since: {AFTER}"], 200),
        ([f"If-Modified-Since: {PUBLISHED}"], 304),
        ([f"If-Modified-Since: {BEFORE}"], 200),
        (["If-Modified-Since: yesterday"], 200),
        ([f"If-Match: {ETAG}"], 200),
        (["If-Match: *"], 200),
        ([f"If-Match: W/{ETAG}"], 412),
        (['If-Match: "x"'], 412),
        ([f"If-Unmodified-Since: {BEFORE}"], 412),
        ([f"If-Unmodified-Since: {PUBLISHED}"], 200),
        ([f"If-Match: {ETAG}", f"If-Unmodified-Since: {BEFORE}"], 200),
        ([f"If-Match: {ETAG}", f"If-None-Match: {ETAG}"], 304),
    ],
)
def test_conditions(fields: list[str], status: int) -> None:
    got, answered, body = split(world().get("/", *fields))
    assert got == status
    assert (body == PAGE) == (status == 200)
    if status == 304:
        assert answered["etag"] == ETAG and "cache-control" in answered


@pytest.mark.parametrize(
    "field, first, last",
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("Bytes=100-199", 100, 199),
        ("bytes=262000-", 262000, 262143),
        ("bytes=-10", 262134, 262143),
        ("bytes=-999999", 0, 262143),
        ("bytes=0-999999", 0, 262143),
        ("bytes=5-6,999999-", 5, 6),
    ],
)
def test_one_range(field: str, first: int, last: int) -> None:
    status, fields, body = split(world().get("/big", f"Range: {field}"))
    assert status == 206
    assert fields["content-range"] == f"bytes {first}-{last}/{len(BIG)}"
    assert body == BIG[first : last + 1] and int(fields["content-length"]) == len(body)


@pytest.mark.parametrize(
    "field",
    [
        "bytes=5-4",
        "bytes=a-b",
        "bytes=-",
        "bytes=",
        "lines=0-1",
        "bytes 0-1",
        "bytes=0-10,5-20",
        f"bytes={','.join(f'{n}-{n}' for n in range(0, 40, 2))}",
        f"bytes=0-{'9' * 40}",
    ],
)
def test_range_that_is_ignored(field: str) -> None:
    status, _fields, body = split(world().get("/big", f"Range: {field}"))
    assert (status, body) == (200, BIG)


@pytest.mark.parametrize("field", ["bytes=262144-", "bytes=999999-9999999", "bytes=-0"])
def test_range_that_cannot_be_satisfied(field: str) -> None:
    status, fields, _body = split(world().get("/big", f"Range: {field}"))
    assert status == 416 and fields["content-range"] == f"bytes */{len(BIG)}"


def test_range_of_an_empty_file_and_of_head_is_ignored() -> None:
    assert split(world().get("/empty", "Range: bytes=0-"))[0] == 200
    assert split(world().get("/big", "Range: bytes=0-1", method="HEAD"))[0] == 200


@pytest.mark.parametrize("target, content", [("/big", BIG), ("/", PAGE)])
def test_several_ranges(target: str, content: bytes) -> None:
    status, fields, body = split(world().get(target, "Range: bytes=0-1, 4-5,-3"))
    assert status == 206 and "content-range" not in fields
    assert int(fields["content-length"]) == len(body)
    match = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", fields["content-type"])
    assert match is not None
    first, *parts, last = body.split(b"\r\n--" + match[1].encode())
    assert first == b"" and last == b"--\r\n"
    heads, bodies = zip(*(part.split(b"\r\n\r\n") for part in parts), strict=True)
    size = len(content)
    assert list(bodies) == [content[0:2], content[4:6], content[-3:]]
    assert f"Content-Range: bytes {size - 3}-{size - 1}/{size}".encode() in heads[2]


@pytest.mark.parametrize(
    "field, status",
    [
        (ETAG, 206),
        (f"W/{ETAG}", 200),
        ('"x"', 200),
        (PUBLISHED, 206),
        (BEFORE, 200),
        (AFTER, 200),
        ("junk", 200),
    ],
)
def test_if_range(field: str, status: int) -> None:
    assert split(world().get("/", "Range: bytes=0-1", f"If-Range: {field}"))[0] == status


@given(st.text(max_size=60), st.integers(0, 2**40))
def test_any_range_is_within_the_file(field: str, size: int) -> None:
    try:
        found = ranges.parse(f"bytes={field}", size)
    except ranges.Unsatisfiable:
        return
    assert all(0 <= first <= last < size for first, last in found)


@given(st.text(max_size=80))
def test_any_condition_has_an_answer(field: str) -> None:
    names = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
    for name in names:
        assert conditions.status({name: field}, ETAG, 0) in (200, 304, 412)
    conditions.takes_range(field, ETAG, 0)
