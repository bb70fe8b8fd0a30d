"""Byte ranges (RFC 9110 section 14): the Range field against the length of a file."""

import re
from itertools import pairwise

MAX_RANGES = 16
"""Ranges of one request; with more of them the whole file is sent (section 14.2 permits to ignore Range)."""
MAX_DIGITS = 18
_SPEC = re.compile(rf"(\d{{1,{MAX_DIGITS}}})-(\d{{0,{MAX_DIGITS}}})|-(\d{{1,{MAX_DIGITS}}})", re.ASCII)


class Unsatisfiable(ValueError):
    """No range of the field has a byte of the file: 416."""


def parse(field: str, size: int) -> tuple[tuple[int, int], ...]:
    """First and last byte of each range, in the order of the field; empty where the whole file is to be sent.

    A field in another unit or with a fault is ignored, as are more than MAX_RANGES and ones that overlap: both ask for
    more bytes than the file has. So is one for an empty file. Raises Unsatisfiable.
    """
    if not size:
        return ()
    unit, equals, listed = field.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return ()
    specs = [text for text in (part.strip(" \t") for part in listed.split(",")) if text]
    if not specs or len(specs) > MAX_RANGES:
        return ()
    found: list[tuple[int, int]] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None:
            return ()
        first, last, suffix = match.groups()
        if suffix is not None:
            start, end = max(size - int(suffix), 0), size - 1
            if int(suffix) == 0:
                continue
        else:
            start, end = int(first), min(int(last), size - 1) if last else size - 1
            if last and int(last) < start:
                return ()
        if start < size:
            found.append((start, end))
    if not found:
        raise Unsatisfiable(field)
    ordered = sorted(found)
    if any(one[1] >= other[0] for one, other in pairwise(ordered)):
        return ()
    return tuple(found)
