"""Output of commands: JSON for programs, tables for users (rich; NO_COLOR and pipes are honoured)."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

UNBROKEN = 22
"""Characters: shorter values, such as most addresses, are never broken over two lines."""
PIPE_WIDTH = 4096
"""Columns without a terminal: each table row is one line for `grep`."""


class Output:
    """One output format, chosen by `-j`."""

    def __init__(self, json_wanted: bool) -> None:
        self.json = json_wanted

    def value(self, value: Any) -> None:
        """JSON on one line."""
        click.echo(json.dumps(value, ensure_ascii=False))

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Rows with these columns; those that are empty in every row are left out."""
        if self.json:
            self.value(rows)
            return
        if not rows:
            click.echo("none", err=True)
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        shown = [column for column in columns if any(row.get(column) not in (None, "", []) for row in rows)]
        for column in shown:
            numbers = all(
                isinstance(row.get(column), int | float) for row in rows if row.get(column) is not None
            )
            longest = max(len(_cell(column, row.get(column))) for row in rows)
            table.add_column(
                column.replace("_", " "),
                justify="right" if numbers else "left",
                overflow="fold",
                no_wrap=longest <= UNBROKEN,
            )
        for row in rows:
            table.add_row(*(_cell(column, row.get(column)) for column in shown))
        console = Console(soft_wrap=True)
        if not console.is_terminal:
            console.width = PIPE_WIDTH
        console.print(table)

    def record(self, record: Mapping[str, Any]) -> None:
        """One thing, a line per property."""
        if self.json:
            self.value(record)
            return
        for line in _lines(record, ""):
            click.echo(line)

    def done(self, result: Any, word: str) -> None:
        """A command that has succeeded."""
        if self.json:
            self.value(result)
        else:
            click.echo(word)

    def event(self, event: Mapping[str, Any], said: str | None = None) -> None:
        """One event of the stream; `said` is a sentence for users in the place of its kind and details."""
        if self.json:
            self.value(event)
            return
        moment = time.strftime("%H:%M:%S", time.localtime(event["time"])) + f"{event['time'] % 1:.3f}"[1:]
        parts = [moment, f"{event['node']:<6}", f"{event.get('message') or '':<5}"]
        if said is not None:
            click.echo(" ".join([*parts, said]))
            return
        parts.append(event["kind"])
        parts += [str(event[key]) for key in ("home_address", "flow") if event.get(key)]
        parts += [f"{key}={text(value)}" for key, value in event.get("detail", {}).items()]
        click.echo(" ".join(parts))


def text(value: Any) -> str:
    """A JSON value as text for users."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        if "text" in value and "id" in value:  # of a rule
            return f"{value['id']}: {value['text']}"
        if "address" in value:
            said = [f"{value['remaining']:g} s"] if "remaining" in value else []
            said += [
                f"{key} {value[key]}"
                for key, usual in (("bid", None), ("weight", 1))
                if value.get(key, usual) != usual
            ]
            if value.get("registrant", "mn") != "mn":
                said.insert(
                    0, f"of {value['registrant']}" + (", ruled" if value.get("takes") == "ruled" else "")
                )
            return f"{value['address']}" + (f" ({', '.join(said)})" if said else "")
        return " ".join(f"{key}={text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return str(value)


def _cell(key: str, value: Any) -> str:
    """The value of a key as text for users: moments as dates."""
    if value is not None and (key.endswith("_at") or key == "since"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return text(value)


def _lines(record: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in record.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {_cell(key, value)}")
    return lines
