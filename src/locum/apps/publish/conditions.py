"""Conditional requests (RFC 9110 section 13) against a strong entity tag and a time of modification."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_TAG = re.compile(r'[ \t]*(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*"))?[ \t]*(?:,|$)')


def status(fields: Mapping[str, str], etag: str, modified: int) -> int:
    """200, 304 or 412 for a GET or HEAD of a file (section 13.2.2). Names of `fields` are in lower case."""
    if (wanted := fields.get("if-match")) is not None:
        if not _has(wanted, etag, strong=True):
            return 412
    elif (since := _seconds(fields.get("if-unmodified-since"))) is not None and modified > since:
        return 412
    if (known := fields.get("if-none-match")) is not None:
        return 304 if _has(known, etag, strong=False) else 200
    if (since := _seconds(fields.get("if-modified-since"))) is not None and modified <= since:
        return 304
    return 200


def takes_range(field: str | None, etag: str, modified: int) -> bool:
    """True if a range of this version may be sent (If-Range, section 13.1.5)."""
    if field is None:
        return True
    if field.startswith(('"', "W/")):
        return field.strip() == etag  # strong comparison: no weak tag equals
    return _seconds(field) == modified


def _has(field: str, etag: str, *, strong: bool) -> bool:
    """True if the list of tags has this one, or is "*". A list with a fault has none after it."""
    if field.strip() == "*":
        return True
    position = 0
    while position < len(field):
        match = _TAG.match(field, position)
        if match is None or match.end() == position:
            return False
        weak, tag = match.groups()
        if tag == etag and not (strong and weak):
            return True
        position = match.end()
    return False


def _seconds(field: str | None) -> int | None:
    """An HTTP-date in seconds since 1970; None for anything else (section 13.1.3: it is ignored)."""
    if field is None:
        return None
    try:
        moment = parsedate_to_datetime(field)
        return int(moment.timestamp()) if moment.tzinfo is not None else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
