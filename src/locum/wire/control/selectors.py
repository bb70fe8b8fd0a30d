"""Traffic selectors (RFC 6088) inside control messages, as CBOR by control.cddl (rule trigger-selector)."""

from locum.wire import cbor
from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.traffic_selector import TrafficSelector, decode_selector, selector_format

MAX_SELECTOR = 96
"""Bytes of one: every part of an IPv6 selector as a range."""


def selector_to_cbor(selector: TrafficSelector) -> list[object]:
    """Format and bytes of the selector."""
    return [selector_format(selector), selector.encode()]


def selector_from_cbor(value: object, field: str) -> TrafficSelector:
    """The selector that an array stands for; formats that are not known here are kept. Raises WireError."""
    parts = cbor.array(value, field, 2)
    if len(parts) != 2:
        raise WireError(field, 0, "truncated")
    number = cbor.integer(parts[0], f"{field}.format", 0, 255)
    if not isinstance(parts[1], bytes) or len(parts[1]) > MAX_SELECTOR:
        raise WireError(field, 0, "not-octets")
    cursor = Cursor(parts[1])
    selector = decode_selector(number, cursor)
    cursor.done(field)
    return selector
