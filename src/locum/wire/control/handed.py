"""A connection that a proxy opened at a stand-in and handed over to its device (A11), as CBOR by control.cddl."""

from collections.abc import Mapping
from dataclasses import dataclass

from locum.wire import cbor
from locum.wire.errors import WireError

MAX_LABEL = 64
"""Characters of a label, all of them printable."""
MAX_HANDED = 16
"""Connections of one hand-over that proxies have handed over."""


@dataclass(frozen=True, slots=True)
class Handed:
    """The label of the program that it is for, and the session record of its stand-in's socket (session.cddl)."""

    label: str
    record: Mapping[int, object]

    def to_cbor(self) -> list[object]:
        """The CDDL rule `handed`."""
        return [self.label, dict(self.record)]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Handed":
        """Raises WireError for anything that does not fit; the record itself is for the sessions package to read."""
        items = cbor.array(value, field, 2)
        if len(items) != 2:
            raise WireError(field, 0, "truncated")
        label, record = items
        if not is_label(label):
            raise WireError(f"{field}.label", 0, "range")
        if not isinstance(record, dict) or not all(isinstance(key, int) for key in record):
            raise WireError(f"{field}.record", 0, "not-a-map")
        assert isinstance(label, str)
        return cls(label, record)


def is_label(value: object) -> bool:
    """True for a text that can name a program which waits."""
    return isinstance(value, str) and 0 < len(value) <= MAX_LABEL and value.isprintable()
