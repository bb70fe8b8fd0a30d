"""A user's own Python function `step(state, rows)`, which returns the next state: its results are the state's items.

The function has all of Python that a confined process has: no files, no network, no other processes, bounded memory and
time. It could also do whatever a proxy of its device may do: nothing here keeps it from that, the stand-in does.
"""

import collections
import datetime
import functools
import itertools
import json
import math
import re
import statistics
import traceback
from collections.abc import Callable, Mapping, Sequence

from locum.apps.computing.conditions import Results
from locum.apps.computing.engines import ComputeError
from locum.apps.computing.rows import Row
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import checked_state
from locum.roles.app_results import RESULT

MAX_PROGRAM = 12 << 10
"""Bytes of the program: it fits into the settings of a proxy."""
MAX_VALUES = 8 << 10
"""Bytes of the state that it returns, as JSON."""
MODULES = (collections, datetime, functools, itertools, json, math, re, statistics)
"""It can import these, as a confined process can read no files."""
_DEFINES = re.compile(r"^def step\(", re.MULTILINE)
_NAME = "program"


def has_step(program: str) -> bool:
    """True if the text defines `step`. It is not compiled: a text can be made that crashes the compiler."""
    return _DEFINES.search(program) is not None


class Function:
    """Runs in a confined process alone."""

    at_once = True

    def __init__(self, program: str) -> None:
        self._program = program
        self._step: Callable[[object, object], object] | None = None
        self._state: Results = {}

    def check(self, row: Row) -> None:
        """It sees every row."""

    def feed(self, rows: Sequence[Row], *, now: float) -> list[str]:
        try:
            step = self._step or self._compiled()
            returned = step(json.loads(json.dumps(self._state)), [dict(row) for row in rows])
        except (Exception, SystemExit) as problem:  # code of others
            raise ComputeError(f"the program has failed: {_reason(problem)}") from problem
        self._state = _checked(returned)
        return [""]

    def _compiled(self) -> Callable[[object, object], object]:
        names: dict[str, object] = {"__name__": _NAME}
        exec(compile(self._program, _NAME, "exec"), names)
        step = names.get("step")
        if not callable(step):
            raise TypeError("step is no function")
        self._step = step
        return step

    def pass_time(self, *, now: float) -> list[str]:
        return []

    def deadline(self) -> float | None:
        return None

    def full(self) -> str:
        return ""

    def result(self, group: str) -> Results:
        return self._state

    def results(self) -> Mapping[str, Results]:
        return {"": self._state}

    def counts(self) -> Mapping[str, int]:
        return {}

    def state(self, *, now: float) -> Mapping[str, object]:
        return {"values": json.dumps(self._state, separators=(",", ":"))}

    def restore(self, state: Mapping[str, object], *, now: float) -> None:
        values = state["values"]
        if not isinstance(values, str):
            raise ValueError("values are a text")
        self._state = _checked(json.loads(values))


def _checked(value: object) -> Mapping[str, JSON]:
    """Raises ComputeError for anything else than a small table of JSON values."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ComputeError("the program has failed: step returned no dict with texts as keys")
    try:
        text = json.dumps(value, allow_nan=False)
        checked_state({RESULT: {"results": value}})
    except (ValueError, TypeError, RecursionError) as problem:
        raise ComputeError(
            f"the program has failed: step returned something that is no small JSON: {problem}"
        ) from problem
    if len(text) > MAX_VALUES:
        raise ComputeError(f"the program has failed: step returned a state of more than {MAX_VALUES} bytes")
    plain: dict[str, JSON] = json.loads(text)
    return plain


def _reason(problem: BaseException) -> str:
    """Kind, message and line in the program."""
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == _NAME]
    if isinstance(problem, SyntaxError):
        lines = [problem.lineno]
    where = f" in line {lines[-1]}" if lines and lines[-1] is not None else ""
    return f"{type(problem).__name__}{where}: {str(problem)[:200]}"
