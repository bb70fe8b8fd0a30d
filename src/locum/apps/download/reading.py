"""Decisions on the head of a response to a download's request (RFC 9110 sections 13 to 15)."""

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from locum.apps.download.digests import Digests, digests, of_representation
from locum.apps.download.response import Head
from locum.apps.download.stages import GiveUp, Retry

LONGEST_ASKED = 3600.0
"""Seconds of a Retry-After that is followed."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of a server that may have another answer later."""
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_OUTSIDE = re.compile(r"bytes \*/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Body:
    """A body follows: it begins at byte `first` of a file of `total` bytes, if the server tells this."""

    first: int
    total: int | None
    expected: Digests
    of_part: Digests


@dataclass(frozen=True, slots=True)
class Complete:
    """The server has no more than what is stored."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A redirect."""

    location: str


def judge(head: Head, have: int, validator: str) -> Body | Complete | Elsewhere:
    """The answer to a request for everything behind `have` bytes. Raises Retry or GiveUp."""
    if head.status in REDIRECTS:
        location = head.fields.get("location")
        if not location:
            raise GiveUp(f"the server answers {head.status} without a location")
        return Elsewhere(location)
    if head.status in AGAIN:
        raise Retry(f"the server answers {head.status}", after=_after(head))
    if head.status == 200:
        whole = of_representation(head.fields) or digests(head.fields, "content-digest")
        return Body(0, head.length, whole, {})
    if head.status == 206:
        return _part(head, have, validator)
    if head.status == 416 and have:
        outside = _OUTSIDE.fullmatch(head.fields.get("content-range", ""))
        if outside is not None and int(outside[1]) == have:
            return Complete()
        raise Retry("the server has a shorter file now", anew=True)
    raise GiveUp(f"the server answers {head.status}")


def _part(head: Head, have: int, validator: str) -> Body:
    found = _RANGE.fullmatch(head.fields.get("content-range", ""))
    if found is None:
        raise Retry("the server answers 206 without the range", anew=True)
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if first != have or last < first or (total is not None and last >= total):
        raise Retry(f"the server sends another range than that from byte {have}", anew=True)
    if head.length is not None and head.length != last - first + 1:
        raise Retry("the server tells two lengths", anew=True)
    if validator.startswith('"') and head.fields.get("etag", validator) != validator:
        raise Retry("the server sends a part of another file", anew=True)
    return Body(first, total, of_representation(head.fields), digests(head.fields, "content-digest"))


def strong_validator(head: Head) -> str:
    """A value for If-Range: a strong entity tag, or a date that is one (RFC 9110 section 8.8.2.2); empty if there is neither."""
    tag = head.fields.get("etag", "")
    if re.fullmatch(r'"[\x21\x23-\x7e\x80-\xff]{0,200}"', tag):
        return tag
    changed, sent = head.fields.get("last-modified", ""), head.fields.get("date", "")
    try:
        before = parsedate_to_datetime(sent) - parsedate_to_datetime(changed)
    except (ValueError, TypeError, OverflowError):
        return ""
    return changed if before.total_seconds() >= 1 and len(changed) < 64 else ""


def _after(head: Head) -> float | None:
    """Seconds of Retry-After; a date counts from the server's own."""
    told = head.fields.get("retry-after", "")
    try:
        if told.isdecimal():
            return min(float(told), LONGEST_ASKED)
        wait = parsedate_to_datetime(told) - parsedate_to_datetime(head.fields.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait.total_seconds(), 0.0), LONGEST_ASKED)
