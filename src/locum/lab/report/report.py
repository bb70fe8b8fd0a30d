"""The report of a scenario: checks, and paths of evidence. A file for programs, a table for users."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from locum.lab.report.checks import Checks, Number


@dataclass(frozen=True, slots=True)
class Report:
    """Outcome of one run. `failure` has the reason when the scenario could not be played to its end."""

    scenario: str
    checks: Checks
    events: Path
    pcaps: Mapping[str, Path]
    seconds: float
    failure: str = ""
    ladder: Mapping[str, Path] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.checks.ok and not self.failure

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "ok": self.ok,
            "failure": self.failure,
            "seconds": round(self.seconds, 1),
            "checks": [check.as_json() for check in self.checks.made],
            "events": str(self.events),
            "pcaps": {node: str(path) for node, path in self.pcaps.items()},
            "ladder": {kind: str(path) for kind, path in self.ladder.items()},
        }

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.as_json(), indent=2) + "\n")

    def print(self, console: Console) -> None:
        console.print(self.table())
        if self.failure:
            console.print(f"[red]{self.scenario} did not come to its end:[/red]", end=" ")
            console.out(self.failure, highlight=False)
        verdict = "[green]all checks hold[/green]" if self.ok else "[red]NOT all checks hold[/red]"
        console.print(f"{self.scenario}: {verdict} ({self.seconds:.0f} s)")

    def table(self) -> Table:
        table = Table(title=f"{self.scenario}: measured", title_justify="left")
        table.add_column("fact")
        table.add_column("value", justify="right")
        table.add_column("wanted")
        table.add_column("")
        for check in self.checks.made:
            sign = "[green]ok[/green]" if check.ok else "[red]NO[/red]"
            table.add_row(
                check.name, readable(check.value, check.unit), check.wanted, sign if check.wanted else ""
            )
        return table


def readable(value: Number, unit: str) -> str:
    """A value in readable form: "31.4 MB", "true", "12 ms"."""
    if isinstance(value, bool):
        return str(value).lower()
    if unit == "bytes" and isinstance(value, (int, float)) and abs(value) >= 100_000:
        return f"{value / 1e6:.1f} MB"
    return f"{value} {singular(unit) if value == 1 else unit}".strip()


def singular(unit: str) -> str:
    """The unit of one thing: "packet" of "packets"; signs of units, such as "ms", have no plural."""
    if len(unit) > 2 and unit.isalpha():
        return unit.removesuffix("es") if unit.endswith("sses") else unit.removesuffix("s")
    return unit


def cleared(output: Path) -> bool:
    """Remove the evidence of an earlier run in this folder; return False when something else is at this path."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return True
    if not (output / "events").is_dir():
        return False
    shutil.rmtree(output)
    return True
