"""The two outputs of a run: a table and a list of rows in JSON. Measures nothing itself."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measurement import Measurement, spread

Row = dict[str, str | float | None]


def row(measurement: Measurement) -> Row:
    """The report's row; `baseline` and `ratio` are null without a baseline."""
    return {
        "name": measurement.name,
        "value": measurement.value,
        "unit": measurement.unit,
        "baseline": measurement.baseline,
        "ratio": measurement.ratio,
    }


def write(measurements: Sequence[Measurement], path: Path) -> None:
    """Write the rows as JSON, making the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row(measurement) for measurement in measurements], indent=2) + "\n")


def quantity(figure: float | None) -> str:
    """A figure with about four digits, thousands apart."""
    if figure is None:
        return "-"
    digits = 0 if abs(figure) >= 1000 else 1 if abs(figure) >= 100 else 2 if abs(figure) >= 1 else 3
    return f"{figure:,.{digits}f}"


def _sampled(figure: float | None, samples: Sequence[float] | None) -> str:
    return quantity(figure) if not samples else f"{quantity(figure)} ±{spread(samples):.0%}"


def show(measurements: Sequence[Measurement], console: Console) -> None:
    """Print the table, then the notes of each row. The spread is half of greatest minus least, over the median."""
    table = Table(title="Locum: value against baseline (medians ± spread)")
    for column in ("name", "unit"):
        table.add_column(column)
    for column in ("value", "baseline", "ratio", "samples"):
        table.add_column(column, justify="right")
    for measured in measurements:
        table.add_row(
            measured.name,
            measured.unit,
            _sampled(measured.value, measured.values),
            _sampled(measured.baseline, measured.baselines),
            quantity(measured.ratio),
            str(len(measured.values)),
        )
    console.print(table)
    for measured in measurements:
        for note in measured.notes:
            console.print(f"{measured.name}: {note}", highlight=False, markup=False, soft_wrap=True)
