"""The answer to one request: status, header fields, and the pieces of the body (RFC 9110)."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

from locum.apps.publish import conditions, ranges
from locum.apps.publish.site import BadTarget, Moved, Resource, Site

METHODS = "GET, HEAD, OPTIONS"
KNOWN = frozenset(("POST", "PUT", "DELETE", "CONNECT", "TRACE", "PATCH"))
"""Methods that are refused as not allowed here (405); others are not implemented (501)."""
MAX_TARGET = 4096
"""Bytes of a request target."""
RETRY_AFTER = 5
"""Seconds, in a 503."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of the archive of a version."""

    site: Site
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


Piece: TypeAlias = bytes | Extent


@dataclass(frozen=True, slots=True)
class Answer:
    """`pieces` are empty for HEAD, 204 and 304, whose fields are those of the whole. `path` is that of the file, for counts."""

    status: int
    fields: tuple[tuple[str, str], ...]
    pieces: tuple[Piece, ...] = ()
    path: str = ""
    close: bool = False

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.pieces))


def plain(status: int, *fields: tuple[str, str], head: bool = False, close: bool = False) -> Answer:
    """An answer without a file: the status as a text for people."""
    body = f"{status} {HTTPStatus(status).phrase}\n".encode()
    listed = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *fields)
    return Answer(status, listed, () if head else (body,), close=close)


def answer(method: str, target: str, version: str, fields: Mapping[str, str], site: Site | None) -> Answer:
    """The answer to a request. Names of `fields` are in lower case. `site` None: there is no content yet."""
    if not version.startswith("1."):
        return plain(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, close=True)
    head = method == "HEAD"
    if method == "OPTIONS":
        return Answer(HTTPStatus.NO_CONTENT, (("Allow", METHODS),))
    if method in KNOWN:
        return plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", METHODS))
    if method not in ("GET", "HEAD"):
        return plain(HTTPStatus.NOT_IMPLEMENTED, close=True)
    if len(target) > MAX_TARGET:
        return plain(HTTPStatus.REQUEST_URI_TOO_LONG, head=head, close=True)
    if site is None:
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", str(RETRY_AFTER)), head=head)
    try:
        found = site.find(target)
    except BadTarget:
        return plain(HTTPStatus.BAD_REQUEST, head=head)
    if isinstance(found, Moved):
        return _moved(found, head)
    if found is None:
        return _missing(site, head)
    return _file(found, site, fields, head)


def _moved(found: Moved, head: bool) -> Answer:
    body = f'<a href="{html.escape(found.location)}">{html.escape(found.location)}</a>\n'.encode()
    fields = (
        ("Location", found.location),
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(body))),
    )
    return Answer(HTTPStatus.MOVED_PERMANENTLY, fields, () if head else (body,))


def _missing(site: Site, head: bool) -> Answer:
    page = site.not_found
    if page is None:
        return plain(HTTPStatus.NOT_FOUND, head=head)
    fields = (("Content-Type", page.content_type), ("Content-Length", str(page.entry.size)))
    return Answer(HTTPStatus.NOT_FOUND, fields, () if head else _pieces(site, page))


def _file(found: Resource, site: Site, fields: Mapping[str, str], head: bool) -> Answer:
    validators = (("ETag", found.etag), ("Last-Modified", site.last_modified))
    caching = (("Cache-Control", found.cache_control),) if found.cache_control else ()
    status = conditions.status(fields, found.etag, site.modified)
    if status == HTTPStatus.NOT_MODIFIED:
        return Answer(status, (*validators, *caching), path=found.path)
    if status == HTTPStatus.PRECONDITION_FAILED:
        return plain(status, head=head)
    common = (*validators, *caching, ("Accept-Ranges", "bytes"))
    size = found.entry.size
    wanted: tuple[tuple[int, int], ...] = ()
    # Section 14.2: a Range of any other method than GET is ignored.
    if not head and conditions.takes_range(fields.get("if-range"), found.etag, site.modified):
        try:
            wanted = ranges.parse(fields.get("range", ""), size)
        except ranges.Unsatisfiable:
            return plain(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, ("Content-Range", f"bytes */{size}"))
    if len(wanted) > 1:
        return _parts(found, site, wanted, common)
    kind = (("Content-Type", found.content_type),)
    if not wanted:
        length = (("Content-Length", str(size)),)
        return Answer(
            HTTPStatus.OK, (*kind, *length, *common), () if head else _pieces(site, found), path=found.path
        )
    first, last = wanted[0]
    place = (("Content-Length", str(last - first + 1)), ("Content-Range", f"bytes {first}-{last}/{size}"))
    pieces = _pieces(site, found, first, last + 1)
    return Answer(HTTPStatus.PARTIAL_CONTENT, (*kind, *place, *common), pieces, path=found.path)


def _parts(
    found: Resource, site: Site, wanted: tuple[tuple[int, int], ...], common: tuple[tuple[str, str], ...]
) -> Answer:
    """Several ranges as multipart/byteranges (section 14.6). No content has its own digest in it, hence the boundary."""
    boundary = found.entry.digest.hex()[:40]
    pieces: list[Piece] = []
    for first, last in wanted:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {found.content_type}\r\n"
            f"Content-Range: bytes {first}-{last}/{found.entry.size}\r\n\r\n"
        )
        pieces += [head.encode(), *_pieces(site, found, first, last + 1)]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    fields = (
        ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
        ("Content-Length", str(sum(map(len, pieces)))),
    )
    return Answer(HTTPStatus.PARTIAL_CONTENT, (*fields, *common), tuple(pieces), path=found.path)


def _pieces(site: Site, found: Resource, start: int = 0, end: int | None = None) -> tuple[Piece, ...]:
    entry = found.entry
    stop = entry.size if end is None else end
    if start == stop:
        return ()
    if entry.content is not None:
        return (entry.content[start:stop],)
    return (Extent(site, entry.offset + start, stop - start),)
