"""A workbook (.xlsx, ISO/IEC 29500) whose cells arriving values feed: its results are other cells.

Formualizer evaluates it, in this process alone. Bounds: size of the file and of what it unpacks to, cells that are fed, formulas of
an evaluation; memory is bounded by the process, and the time of an evaluation by the stand-in's patience.
"""

import datetime  # the library needs it when there are no files any more
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import formualizer

from locum.apps.computing.conditions import Results
from locum.apps.computing.engines import ComputeError
from locum.apps.computing.rows import Row, number
from locum.roles.action_values.addresses import JSON

MAX_WORKBOOK = 1 << 20
"""Bytes of the file."""
MAX_FED = 1000
"""Cells that values feed."""
MAX_RESULTS = 32
MAX_TEXT = 256
"""Characters of a result that is a text; the rest is left out."""
MAX_WORK = 20_000
"""Units of work of one evaluation, about one a formula."""
_LIMITS = {
    "max_input_bytes": MAX_WORKBOOK,
    "max_entries": 256,
    "max_expanded_bytes": 16 << 20,
    "max_part_bytes": 8 << 20,
    "max_xml_depth": 64,
}
_PLACE = re.compile(
    r"(?:'([^']+)'|([^'!]+))!\$?([A-Z]{1,3})\$?([0-9]{1,7})(?::\$?([A-Z]{1,3})\$?([0-9]{1,7}))?"
)
_MAX_ROW, _MAX_COLUMN = 1 << 20, 1 << 14


@dataclass(frozen=True, slots=True)
class Place:
    """A cell, or a rectangle of cells, row by row. Rows and columns from 1."""

    sheet: str
    row: int
    column: int
    rows: int = 1
    columns: int = 1

    @classmethod
    def of(cls, text: str) -> "Place":
        """Of `Data!B2` or `'My data'!B2:B101`. Raises ValueError."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError("a place such as Data!B2 or Data!B2:B101 is expected")
        quoted, plain, column, row, last_column, last_row = found.groups()
        left, top = _column(column), int(row)
        right, bottom = _column(last_column or column), int(last_row or row)
        if not (1 <= top <= bottom <= _MAX_ROW and left <= right <= _MAX_COLUMN):
            raise ValueError("a place goes from its upper left cell to its lower right one, within a sheet")
        return cls(quoted or plain, top, left, bottom - top + 1, right - left + 1)

    @property
    def cells(self) -> int:
        """How many it has."""
        return self.rows * self.columns

    def cell(self, index: int) -> tuple[str, int, int]:
        """The cell of that index: sheet, row and column."""
        return self.sheet, self.row + index // self.columns, self.column + index % self.columns


def _column(letters: str) -> int:
    found = 0
    for letter in letters:
        found = found * 26 + ord(letter) - ord("A") + 1
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """Columns of rows and the places that they feed, names of results and their cells.

    A place of several cells takes values one after the other; where it is full, the workbook is complete, or with `wrap` the
    values go on from its first cell.
    """

    feed: Mapping[str, Place]
    results: Mapping[str, Place]
    wrap: bool = False


class Workbook:
    """Runs in a confined process alone."""

    at_once = True

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._book: formualizer.Workbook | None = None
        self._fed: dict[str, list[float]] = {column: [] for column in plan.feed}
        self._taken = 0
        self._found: Results = {}

    @property
    def is_open(self) -> bool:
        return self._book is not None

    def open(self, data: bytes) -> list[str]:
        """Begin with this file; the groups with new results. Raises ComputeError."""
        limits = formualizer.EvaluationConfig()
        limits.enable_parallel = False  # a confined process has no threads
        limits.max_work_units = MAX_WORK
        try:
            book = formualizer.Workbook.from_bytes(
                data, config=formualizer.WorkbookConfig(eval_config=limits), load_limits=dict(_LIMITS)
            )
            sheets = set(book.sheet_names)
        except Exception as problem:  # the library's errors have no common class
            raise ComputeError(f"the workbook cannot be read: {str(problem)[:200]}") from problem
        for place in (*self._plan.feed.values(), *self._plan.results.values()):
            if place.sheet not in sheets:
                raise ComputeError(f"the workbook has no sheet {place.sheet}")
        self._book = book
        for column, values in self._fed.items():
            for index, value in enumerate(values):
                self._set(self._plan.feed[column], index, value)
        self._evaluate()
        return [""]

    def check(self, row: Row) -> None:
        for column in self._plan.feed:
            number(row, column)

    def feed(self, rows: Sequence[Row], *, now: float) -> list[str]:
        for row in rows:
            if self._is_full:
                break
            for column, place in self._plan.feed.items():
                index, value = self._taken % place.cells, number(row, column)
                values = self._fed[column]
                values[index : index + 1] = [value]
                self._set(place, index, value)
            self._taken += 1
        self._evaluate()
        return [""]

    def _set(self, place: Place, index: int, value: float) -> None:
        if self._book is not None:
            self._book.set_value(*place.cell(index), value)

    def _evaluate(self) -> None:
        if self._book is None:
            return
        try:
            self._found = {
                name: _plain(self._book.evaluate_cell(*place.cell(0)))
                for name, place in self._plan.results.items()
            }
        except Exception as problem:  # the library's errors have no common class
            raise ComputeError(f"the workbook cannot be evaluated: {str(problem)[:200]}") from problem

    def pass_time(self, *, now: float) -> list[str]:
        return []

    def deadline(self) -> float | None:
        return None

    def full(self) -> str:
        return "full" if self._is_full and self.is_open else ""

    @property
    def _is_full(self) -> bool:
        places = self._plan.feed.values()
        return not self._plan.wrap and any(1 < place.cells <= self._taken for place in places)

    def result(self, group: str) -> Results:
        return self._found

    def results(self) -> Mapping[str, Results]:
        return {"": self._found}

    def counts(self) -> Mapping[str, int]:
        return {}

    def state(self, *, now: float) -> Mapping[str, object]:
        return {"fed": {column: list(values) for column, values in self._fed.items()}, "taken": self._taken}

    def restore(self, state: Mapping[str, object], *, now: float) -> None:
        fed, taken = state["fed"], state["taken"]
        if not isinstance(fed, dict) or not isinstance(taken, int):
            raise ValueError("this is not the state of a workbook")
        read = {column: [float(value) for value in fed[column]] for column in self._plan.feed}
        if any(len(values) > self._plan.feed[column].cells for column, values in read.items()):
            raise ValueError("the state has more values than the workbook takes")
        self._fed, self._taken = read, taken


def _plain(value: object) -> JSON:
    """The value of a cell; an error of it is a text such as `#DIV`."""
    match value:
        case bool() | None:
            return value
        case int() if abs(value) < 1 << 53:
            return value
        case int() | float():
            return float(value) if math.isfinite(value) else None
        case str():
            return value[:MAX_TEXT]
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case {"type": "Error", "kind": str(kind)}:
            return f"#{kind.upper()}"
    return str(value)[:MAX_TEXT]
