"""Reads a row from a line of CSV (RFC 4180) or JSON Lines, or says why it is none."""

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = Mapping[str, Cell]

MAX_COLUMNS = 32
MAX_NAME = 64
"""Characters of a column's name, and of the key of a group."""
_EXACT_DIGITS = 15
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class BadRow(ValueError):
    """A line that is no row, or a row that cannot be used; `kind` is one of KINDS."""

    def __init__(self, kind: str) -> None:
        super().__init__(KINDS[kind])
        self.kind = kind


KINDS: Mapping[str, str] = {
    "too_long": "the line is too long",
    "encoding": "the line is not UTF-8",
    "syntax": "the line is not in the ordered format",
    "columns": "the row has other columns",
    "number": "a cell is not a finite number",
    "group": "the group's key is missing or too long",
    "groups": "there are more groups than ordered",
}


@dataclass(frozen=True, slots=True)
class Csv:
    """Names of the columns in their order. A line with these very names is a header, and no row."""

    columns: Sequence[str]
    separator: str = ","

    def read(self, line: bytes) -> Row | None:
        """The row, or None for a header. Raises BadRow."""
        try:
            (cells,) = csv.reader([_text(line)], delimiter=self.separator, strict=True)
        except (csv.Error, ValueError) as problem:
            raise problem if isinstance(problem, BadRow) else BadRow("syntax") from problem
        if len(cells) != len(self.columns):
            raise BadRow("columns")
        cells = [cell.strip() for cell in cells]
        return None if cells == list(self.columns) else dict(zip(self.columns, cells, strict=True))


@dataclass(frozen=True, slots=True)
class JsonLines:
    """An object on each line. Its numbers, texts, booleans and nulls are cells; lists and objects in it are none."""

    def read(self, line: bytes) -> Row:
        """Raises BadRow."""
        try:
            value = json.loads(_text(line), parse_constant=_refuse, parse_int=_whole)
        except (ValueError, RecursionError) as problem:
            raise problem if isinstance(problem, BadRow) else BadRow("syntax") from problem
        if not isinstance(value, dict) or len(value) > MAX_COLUMNS:
            raise BadRow("columns")
        return {
            key: cell for key, cell in value.items() if isinstance(cell, str | int | float) or cell is None
        }


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as problem:
        raise BadRow("encoding") from problem


def _whole(digits: str) -> float:
    """An int where a binary64 number has it exactly."""
    return int(digits) if len(digits) <= _EXACT_DIGITS else float(digits)


def _refuse(_constant: str) -> float:
    raise BadRow("number")  # RFC 8259 section 6 has no Infinity and no NaN


def number(row: Row, column: str) -> float:
    """The cell as a finite number. Raises BadRow."""
    if column not in row:
        raise BadRow("columns")
    cell = row[column]
    if isinstance(cell, bool) or cell is None or (isinstance(cell, str) and not _NUMBER.fullmatch(cell)):
        raise BadRow("number")
    found = float(cell)
    if not math.isfinite(found):
        raise BadRow("number")
    return found


def group_of(row: Row, column: str | None) -> str:
    """The key of the row's group; empty without such a column. Raises BadRow."""
    if column is None:
        return ""
    cell = row.get(column)
    if isinstance(cell, int | float):
        cell = json.dumps(cell)
    if not cell or len(cell) > MAX_NAME:
        raise BadRow("group")
    return cell
