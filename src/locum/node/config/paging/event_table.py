"""Entries of a device's event table in their written form (P3, P15): [[mobile_node.event]], and parts of wishes.

Which events there are is for the proxies; nothing here knows any.
"""

import re
from typing import Any

from locum.node.config.toml_table import Table
from locum.roles.mobile_node.paging.configuration import LAST_CONFIGURED
from locum.wire.control.paging.cause import MAX_APP, MAX_KIND
from locum.wire.control.paging.entry import (
    MAX_CONDITIONS,
    MAX_ENTRIES,
    MAX_ENTRY_NAME,
    MAX_FIELD,
    MAX_INFORMATION,
    MAX_PATTERNS,
    MAX_QUIET,
    MAX_SECONDS,
    MAX_TELL,
    MAX_VALUE,
    ActionKind,
    Condition,
    Entry,
    EntryAction,
    Limits,
    Operator,
    Pattern,
    Scalar,
    information_of,
)
from locum.wire.control.paging.page_request import Order
from locum.wire.errors import WireError

OPERATORS = {
    "=": Operator.EQUAL,
    "!=": Operator.NOT_EQUAL,
    "<": Operator.LESS,
    ">": Operator.GREATER,
    "<=": Operator.AT_MOST,
    ">=": Operator.AT_LEAST,
    "contains": Operator.CONTAINS,
    "glob": Operator.GLOB,
}
ACTIONS = {"page": ActionKind.PAGE, "direct": ActionKind.PAGE_DIRECT, "store": ActionKind.STORE}
_HOURS = re.compile(r"^([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)$")


def entries(tables: tuple[Table, ...]) -> tuple[Entry, ...]:
    """All tables [[mobile_node.event]]. Raises ConfigError."""
    found: list[Entry] = []
    for table in tables:
        taken = {entry.identifier for entry in found}
        free = next(number for number in range(1, LAST_CONFIGURED + 1) if number not in taken)
        entry = _entry(table, free)
        if entry.identifier in taken:
            raise table.error("id", f"{entry.identifier} is that of another table")
        found.append(entry)
    if len(found) > MAX_ENTRIES:
        raise tables[MAX_ENTRIES].error(None, f"there are at most {MAX_ENTRIES} tables event")
    return tuple(found)


def _entry(table: Table, free: int) -> Entry:
    entry = Entry(
        table.integer("id", free, least=1, most=LAST_CONFIGURED),
        patterns(table),
        actions(table),
        table.integer("within", None, least=1, most=MAX_SECONDS),
        limits(table),
        _text(table, "name", MAX_ENTRY_NAME, ""),
    )
    table.close()
    if entry.within is not None and len(entry.patterns) < 2:
        raise table.error(
            "within", "is for several patterns; write two or more [[mobile_node.event.pattern]]"
        )
    return entry


def patterns(table: Table) -> tuple[Pattern, ...]:
    """Those of the tables `pattern`, or the one that the table itself is."""
    below = table.tables("pattern")
    if not below:
        return (_pattern(table),)
    for key in ("app", "kind", "where"):
        if key in table:
            raise table.error(key, "belongs into the tables pattern, of which there are some")
    if len(below) > MAX_PATTERNS:
        raise table.error("pattern", f"there are at most {MAX_PATTERNS} tables of it")
    found = []
    for pattern in below:
        found.append(_pattern(pattern))
        pattern.close()
    return tuple(found)


def _pattern(table: Table) -> Pattern:
    conditions = tuple(_condition(condition) for condition in table.tables("where"))
    if len(conditions) > MAX_CONDITIONS:
        raise table.error("where", f"has more than {MAX_CONDITIONS} conditions")
    return Pattern(
        _text(table, "app", MAX_APP, "*"), _text(table, "kind", MAX_KIND, Table.REQUIRED), conditions
    )


def _condition(table: Table) -> Condition:
    """{ field = "size", is = ">", value = 1000 }; with `left` in the place of `value`: the name of information."""
    operator = OPERATORS[table.choice("is", tuple(OPERATORS))]
    field, left = _text(table, "field", MAX_FIELD, Table.REQUIRED), _text(table, "left", MAX_FIELD, None)
    if left is not None and "value" in table:
        raise table.error("left", "either this or value")
    value = left
    if left is None:
        value = table.converted(
            "value", scalar, f"a number, true, false, or a text of at most {MAX_VALUE} characters"
        )
    table.close()
    return Condition(field, operator, value, left is not None)


def scalar(value: Any) -> Scalar:
    """A value of a condition; raises TypeError or ValueError."""
    if not isinstance(value, bool | int | float | str):
        raise TypeError
    if (isinstance(value, str) and len(value) > MAX_VALUE) or value != value:
        raise ValueError
    return value


def actions(table: Table) -> tuple[EntryAction, ...]:
    """The keys actions, order and tell. Raises ConfigError."""
    words = table.strings("actions", ("page",))
    order, tell = table.choice("order", tuple(_ORDERS), None), _text(table, "tell", MAX_TELL, None)
    for word in words:
        if word not in ACTIONS:
            raise table.error("actions", f"{word!r} is none of {', '.join(ACTIONS)}")
    if len(set(words)) != len(words):
        raise table.error("actions", "names one action twice")
    if not words and tell is None:
        raise table.error("actions", f"is empty; name some of {', '.join(ACTIONS)}, or give the key tell")
    if order is not None and "page" not in words:
        raise table.error("order", 'is for the action "page"')
    found = [
        EntryAction(ACTIONS[word], _ORDERS[order] if word == "page" and order is not None else None)
        for word in words
    ]
    return (*found, *([] if tell is None else [EntryAction(ActionKind.TELL, text=tell)]))


_ORDERS = {order.name.lower(): order for order in Order}


def limits(table: Table) -> Limits:
    """The keys every, quiet and later. Raises ConfigError."""
    quiet: tuple[tuple[int, int], ...] = table.converted(
        "quiet", _quiet, 'a list such as ["22:00-07:00"]', ()
    )
    if len(quiet) > MAX_QUIET:
        raise table.error("quiet", f"names more than {MAX_QUIET} times of the day")
    every = table.integer("every", 0, least=1, most=MAX_SECONDS)
    return Limits(every, quiet, table.boolean("later", True))


def _quiet(value: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(hours(item) for item in value)


def hours(value: Any) -> tuple[int, int]:
    """Minutes of the day of a text such as "22:00-07:00". Raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError
    match = _HOURS.match(value)
    if match is None:
        raise ValueError
    first, last = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if first == last:
        raise ValueError("no time at all")
    return first, last


def information(table: Table | None) -> dict[str, object]:
    """Information for the event table: names and values. Raises ConfigError."""
    if table is None:
        return {}
    found: dict[str, object] = {
        name: table.converted(
            name, scalar, f"a number, true, false, or a text of at most {MAX_VALUE} characters"
        )
        for name in table.names
    }
    table.close()
    try:
        information_of(found, "information")
    except WireError:
        problem = f"names have 1 to {MAX_FIELD} characters, and all has at most {MAX_INFORMATION} bytes"
        raise table.error(None, problem) from None
    return found


def _text(table: Table, key: str, most: int, default: Any) -> Any:
    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        if not 0 < len(value) <= most:
            raise ValueError
        return value

    return table.converted(key, convert, f"a text of 1 to {most} characters", default)
