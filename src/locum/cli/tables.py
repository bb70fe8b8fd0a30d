"""Answers of a node as people read them. Knows no request; any list of rows becomes a table."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


def console() -> Console:
    """Where answers go; colours follow NO_COLOR and whether it is a terminal."""
    return Console(highlight=False, soft_wrap=True)


def rows(found: Sequence[Row], what: str) -> None:
    """A table with a column for each key, in the order of first appearance."""
    if not found:
        console().print(f"no {what}s")
        return
    columns = list(dict.fromkeys(key for row in found for key in row))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        numbers = all(isinstance(row.get(column), int | float | None) for row in found)
        table.add_column(column.replace("_", " "), justify="right" if numbers else "left", overflow="fold")
    for row in found:
        table.add_row(*(cell(row.get(column)) for column in columns))
    console().print(table)


def cell(value: Any) -> str:
    """One value in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={cell(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(cell(item) for item in value) or "-"
    return str(value)


def tree(value: Any, depth: int = 0) -> None:
    """Nested mappings, a key a line."""
    if not isinstance(value, Mapping):
        if value is not None:
            console().print(cell(value))
        return
    for key, item in value.items():
        name = f"{'  ' * depth}{str(key).replace('_', ' ')}:"
        if isinstance(item, Mapping) and item:
            console().print(name)
            tree(item, depth + 1)
        elif (
            isinstance(item, Sequence) and not isinstance(item, str) and item and isinstance(item[0], Mapping)
        ):
            console().print(name)
            for entry in item:
                console().print("  " * (depth + 1) + cell(entry))
        else:
            console().print(f"{name} {cell(item)}")


def groups(counters: Mapping[str, Any]) -> None:
    """Counters by group, without those that are zero."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("group")
    table.add_column("counter")
    table.add_column("value", justify="right")
    for group, values in counters.items():
        named = values if isinstance(values, Mapping) else {"": values}
        for name, value in sorted(named.items()):
            if value:
                table.add_row(group, name, cell(value))
    console().print(table if table.row_count else "every counter is zero")


def event_line(event: Row) -> str:
    """One event on one line: time, node, message number, what happened, to whom."""
    moment = float(event.get("time", 0.0))
    clock = time.strftime("%H:%M:%S", time.localtime(moment)) + f".{int(moment % 1 * 1000):03d}"
    parts = [clock, str(event.get("node", "")), str(event.get("message") or "-"), str(event.get("kind", ""))]
    parts += [str(event[key]) for key in ("home_address", "flow") if event.get(key)]
    if event.get("detail"):
        parts.append(cell(event["detail"]))
    return "  ".join(parts)
