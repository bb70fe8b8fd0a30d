"""The two outputs of a run: a table and a list of rows in JSON. Measures nothing itself."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measurement import Measurement, Unmeasured, spread

Row = dict[str, str | float | None]
Result = Measurement | Unmeasured


def row(result: Result) -> Row:
    """The report's row; `baseline` and `ratio` are null without a baseline. `reason` is there if it could not be measured."""
    if isinstance(result, Unmeasured):
        nothing: Row = dict.fromkeys(("value", "unit", "baseline", "ratio"))
        return {"name": result.name, **nothing, "reason": result.reason}
    return {
        "name": result.name,
        "value": result.value,
        "unit": result.unit,
        "baseline": result.baseline,
        "ratio": result.ratio,
    }


def write(results: Sequence[Result], path: Path) -> None:
    """Write the rows as JSON, making the folder if it is missing. A reader finds the earlier file or this one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps([row(result) for result in results], indent=2) + "\n")
    beside.replace(path)


def quantity(figure: float | None) -> str:
    """A figure with about four digits, thousands apart."""
    if figure is None:
        return "-"
    digits = 0 if abs(figure) >= 1000 else 1 if abs(figure) >= 100 else 2 if abs(figure) >= 1 else 3
    return f"{figure:,.{digits}f}"


def _sampled(figure: float | None, samples: Sequence[float] | None) -> str:
    return quantity(figure) if not samples else f"{quantity(figure)} ±{spread(samples):.0%}"


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table, then the notes of each row. The spread is half of greatest minus least, over the median."""
    table = Table(title="Locum: value against baseline (medians ± spread; ratio: of the pairs' ratios)")
    for column in ("name", "unit"):
        table.add_column(column)
    for column in ("value", "baseline", "ratio", "samples"):
        table.add_column(column, justify="right")
    for result in results:
        if isinstance(result, Unmeasured):
            table.add_row(result.name, "", "not measured", "", "", "0")
            continue
        table.add_row(
            result.name,
            result.unit,
            _sampled(result.value, result.values),
            _sampled(result.baseline, result.baselines),
            _sampled(result.ratio, result.ratios),
            str(len(result.values)),
        )
    console.print(table)
    for result in results:
        notes = (f"not measured: {result.reason}",) if isinstance(result, Unmeasured) else result.notes
        for note in notes:
            console.print(f"{result.name}: {note}", highlight=False, markup=False, soft_wrap=True)
