"""An entry of a stand-in's event table (P3, P15), as CBOR by paging.cddl. The table itself is in `roles/paging`.

An entry matches events by patterns, alone or combined, and has actions and limits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from locum.wire import cbor
from locum.wire.control.paging.cause import MAX_APP, MAX_KIND
from locum.wire.control.paging.page_request import Order
from locum.wire.control.paging.status import MAX_ITEM
from locum.wire.errors import WireError

MAX_ENTRIES = 64  # of one device
MAX_PATTERNS = 8  # of one entry
MAX_CONDITIONS = 8  # of one pattern
MAX_ACTIONS = 4
MAX_FIELD = 64  # characters of the name of a field
MAX_VALUE = 256  # characters of a text that a field is compared with
MAX_TELL = 1024  # characters that a correspondent is told
MAX_ENTRY_NAME = 64  # characters
MAX_SECONDS = 7 * 86400  # of a combination or an interval
MAX_QUIET = 4  # quiet hours of one entry
MINUTES = 24 * 60  # of a day
MAX_INFORMATION = 16 << 10  # bytes of what a device left, as CBOR

LEFT = "left."
"""Beginning of the name of a field that is not the event's but information left by the device (P15)."""

Scalar: TypeAlias = bool | int | float | str | None
_NUMBERS = 1 << 64  # CBOR has integers from minus this to this less one


class Operator(IntEnum):
    """Comparison of a field with a value."""

    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    GREATER = 4
    AT_MOST = 5
    AT_LEAST = 6
    CONTAINS = 7  # a text contains a text, a list an item
    GLOB = 8  # with * and ?


class ActionKind(IntEnum):
    """Effect of an event that matches."""

    PAGE = 1  # by the home agent (1172)
    PAGE_DIRECT = 2  # by the access node (1172A)
    STORE = 3  # the device gets the event when it is back
    TELL = 4  # the correspondent gets a text


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparison of a field of the event. With `left`, `value` names a piece of information that the device left.

    Fields of maps inside the detail are written with dots: "message.from".
    """

    field: str
    operator: Operator
    value: Scalar
    left: bool = False

    def to_cbor(self) -> list[object]:
        """The CDDL rule `condition`."""
        return [self.field, int(self.operator), self.value, self.left]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Condition":
        """Raises WireError for anything that does not fit."""
        items = cbor.array(value, field, 4)
        if len(items) != 4 or not isinstance(items[3], bool):
            raise WireError(field, 0, "not-a-condition")
        compared = (
            cbor.text(items[2], f"{field}.value", MAX_FIELD)
            if items[3]
            else _scalar(items[2], f"{field}.value")
        )
        operator = Operator(cbor.integer(items[1], f"{field}.operator", min(Operator), max(Operator)))
        return cls(cbor.text(items[0], f"{field}.field", MAX_FIELD), operator, compared, items[3])


def _scalar(value: object, field: str) -> Scalar:
    match value:
        case None | bool():
            return value
        case int() if -_NUMBERS <= value < _NUMBERS:
            return value
        case float() if not math.isnan(value):
            return value
        case str() if len(value) <= MAX_VALUE:
            return value
    raise WireError(field, 0, "not-a-scalar")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Events of these apps and kinds (names with * and ?) that meet every condition."""

    app: str = "*"
    kind: str = "*"
    conditions: tuple[Condition, ...] = ()

    def to_cbor(self) -> list[object]:
        """The CDDL rule `pattern`."""
        return [self.app, self.kind, [condition.to_cbor() for condition in self.conditions]]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Pattern":
        """Raises WireError for anything that does not fit."""
        items = cbor.array(value, field, 3)
        if len(items) != 3:
            raise WireError(field, 0, "truncated")
        conditions = cbor.array(items[2], f"{field}.conditions", MAX_CONDITIONS)
        return cls(
            cbor.text(items[0], f"{field}.app", MAX_APP),
            cbor.text(items[1], f"{field}.kind", MAX_KIND),
            tuple(Condition.from_cbor(condition, f"{field}.condition") for condition in conditions),
        )


@dataclass(frozen=True, slots=True)
class EntryAction:
    """One effect. `order` belongs to PAGE (None: the home agent's setting), `text` to TELL."""

    kind: ActionKind
    order: Order | None = None
    text: str = ""

    def to_cbor(self) -> list[object]:
        """The CDDL rule `entry-action`."""
        if self.kind is ActionKind.TELL:
            return [int(self.kind), self.text]
        return [int(self.kind), None if self.order is None else int(self.order)]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "EntryAction":
        """Raises WireError for anything that does not fit."""
        number, argument = cbor.pair(value, field)
        kind = ActionKind(cbor.integer(number, f"{field}.kind", min(ActionKind), max(ActionKind)))
        if kind is ActionKind.TELL:
            return cls(kind, text=cbor.text(argument, f"{field}.text", MAX_TELL))
        if argument is None:
            return cls(kind)
        if kind is ActionKind.PAGE:
            return cls(kind, Order(cbor.integer(argument, f"{field}.order", min(Order), max(Order))))
        raise WireError(f"{field}.order", 0, "not-a-page")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on pages of an entry. With `later` an event that a limit kept back has its page when the limit ends.

    Quiet hours are minutes of the device's day: from the first to before the second, past midnight if that is lower.
    """

    interval: int = 0  # seconds between two pages; 0: no limit
    quiet: tuple[tuple[int, int], ...] = ()
    later: bool = True

    def to_map(self) -> dict[int, object]:
        """The CDDL rule `limits`."""
        body: dict[int, object] = {}
        if self.interval:
            body[0] = self.interval
        if self.quiet:
            body[1] = [list(hours) for hours in self.quiet]
        if not self.later:
            body[2] = False
        return body

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Limits":
        """Raises WireError for anything that does not fit."""
        reader = cbor.Reader(value, field)
        interval = 0 if reader.absent(0) else reader.integer(0, "interval", 1, MAX_SECONDS)
        quiet = tuple(
            _hours(hours, f"{field}.quiet") for hours in reader.optional_array(1, "quiet", MAX_QUIET)
        )
        later = reader.absent(2) or reader.boolean(2, "later")
        reader.done()
        return cls(interval, quiet, later)


def _hours(value: object, field: str) -> tuple[int, int]:
    first, last = cbor.pair(value, field)
    hours = cbor.integer(first, field, 0, MINUTES - 1), cbor.integer(last, field, 0, MINUTES - 1)
    if hours[0] == hours[1]:
        raise WireError(field, 0, "range")
    return hours


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. Without `within` any of the patterns will do; with it each must match an event within so many seconds."""

    identifier: int  # 1 to MAX_ITEM
    patterns: tuple[Pattern, ...]  # 1 to MAX_PATTERNS
    actions: tuple[EntryAction, ...]  # 1 to MAX_ACTIONS, of different kinds
    within: int | None = None
    limits: Limits = Limits()
    name: str = ""  # for users

    def to_map(self) -> dict[int, object]:
        """The CDDL rule `entry`."""
        body: dict[int, object] = {
            0: self.identifier,
            1: [pattern.to_cbor() for pattern in self.patterns],
            2: [action.to_cbor() for action in self.actions],
        }
        if self.within is not None:
            body[3] = self.within
        if self.limits != Limits():
            body[4] = self.limits.to_map()
        if self.name:
            body[5] = self.name
        return body

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Entry":
        """Raises WireError for anything that does not fit."""
        reader = cbor.Reader(value, field)
        patterns = reader.array(1, "patterns", MAX_PATTERNS)
        actions = tuple(
            EntryAction.from_cbor(action, f"{field}.action")
            for action in reader.array(2, "actions", MAX_ACTIONS)
        )
        if not patterns:
            raise WireError(f"{field}.patterns", 0, "range")
        if not actions:
            raise WireError(f"{field}.actions", 0, "range")
        if len({action.kind for action in actions}) != len(actions):
            raise WireError(f"{field}.actions", 0, "repeated")
        entry = cls(
            reader.integer(0, "identifier", 1, MAX_ITEM),
            tuple(Pattern.from_cbor(pattern, f"{field}.pattern") for pattern in patterns),
            actions,
            None if reader.absent(3) else reader.integer(3, "within", 1, MAX_SECONDS),
            Limits() if reader.absent(4) else Limits.from_cbor(reader.value(4, "limits"), f"{field}.limits"),
            "" if reader.absent(5) else reader.text(5, "name", MAX_ENTRY_NAME),
        )
        reader.done()
        return entry


def information_of(value: object, field: str) -> Mapping[str, object]:
    """The information that a device left: names and scalars. Raises WireError."""
    if not isinstance(value, dict):
        raise WireError(field, 0, "not-a-map")
    found: dict[str, object] = {}
    for name, piece in value.items():
        found[cbor.text(name, f"{field}.name", MAX_FIELD)] = _scalar(piece, f"{field}.value")
    if len(cbor.encode(found)) > MAX_INFORMATION:
        raise WireError(field, 0, "too-large")
    return found
