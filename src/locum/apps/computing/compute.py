"""The kind `compute`: operations on columns, or a user's own Python function (A8, A10)."""

from collections.abc import Mapping
from functools import partial

from locum.apps.computing import functions, tallies
from locum.apps.computing.keys import Keys
from locum.apps.computing.proxy import Proxy
from locum.apps.computing.rows import MAX_COLUMNS, MAX_NAME, Csv, JsonLines
from locum.apps.computing.settings import MAX_ROWS, MAX_SECONDS, Computation, Settings, row_format, shared
from locum.roles.action_values.addresses import JSON


class Compute(Proxy):
    """Computes over rows from sessions of the device and at a port of its home address."""

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> Settings:
        """Raises SettingError."""
        keys = Keys(table)
        rows = row_format(keys)
        computation = _function(keys) if "program" in keys else _tallies(keys, rows)
        return shared(keys, rows, computation)


def _function(keys: Keys) -> Computation:
    program = keys.text("program", functions.MAX_PROGRAM)
    if len(program.encode()) > functions.MAX_PROGRAM or not functions.has_step(program):
        raise keys.error(
            "program",
            f"at most {functions.MAX_PROGRAM} bytes with a line 'def step(state, rows):' are expected",
        )
    if other := [key for key in ("values", "operations", "group_by", "window") if key in keys]:
        raise keys.error("program", f"either this or {other[0]}")
    return Computation(partial(functions.Function, program), None)


def _tallies(keys: Keys, rows: Csv | JsonLines) -> Computation:
    values = keys.texts("values", MAX_COLUMNS, MAX_NAME)
    if values is None:
        raise keys.error("values", "is missing: the columns to compute with; or a program")
    group_by = keys.text("group_by", MAX_NAME) if "group_by" in keys else None
    if isinstance(rows, Csv) and (unknown := sorted({*values, group_by or values[0]} - set(rows.columns))):
        raise keys.error("group_by" if group_by in unknown else "values", f"{unknown[0]!r} is not in columns")
    most = tallies.MAX_TALLIES // len(values)
    groups = keys.whole("groups", 1, most)
    if groups is None:
        groups = min(16, most)
    operations = keys.texts("operations", len(tallies.OPERATIONS), 8) or tallies.OPERATIONS
    if unknown := sorted(set(operations) - set(tallies.OPERATIONS)):
        raise keys.error("operations", f"{unknown[0]!r} is none of {', '.join(tallies.OPERATIONS)}")
    if group_by is None:
        groups = 1
    window = _window(keys, groups * len(values))
    plan = tallies.Plan(values, operations, group_by, groups, window)
    tumbling = window is not None and not window.sliding
    return Computation(partial(tallies.Tallies, plan), frozenset(plan.names()), plan.short, tumbling)


def _window(keys: Keys, tallied: int) -> tallies.Window | None:
    table = keys.table("window")
    if table is None:
        return None
    sliding = table.choice("kind", ("tumbling", "sliding"), "tumbling") == "sliding"
    most = tallies.MAX_KEPT // tallied if sliding else MAX_ROWS
    rows, seconds = table.whole("rows", 1, most), table.seconds("seconds", 0.1, MAX_SECONDS)
    if (rows is None) == (seconds is None):
        raise table.error("rows", "either this or seconds is expected")
    table.end()
    return tallies.Window(rows, seconds, sliding)
