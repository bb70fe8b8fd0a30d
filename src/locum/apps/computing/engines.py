"""The shape that tallies, a user's function and a workbook share."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from locum.apps.computing.conditions import Results
from locum.apps.computing.rows import Row


class ComputeError(ValueError):
    """The computation cannot go on; the message is for users."""


class Engine(Protocol):
    """Takes rows, and has results by group; without groups there is one, named by the empty text. Times are steady seconds."""

    at_once: bool
    """True if it takes all rows that came together in one step."""

    def check(self, row: Row) -> None:
        """Raises BadRow for a row that it cannot use."""

    def feed(self, rows: Sequence[Row], *, now: float) -> list[str]:
        """Take rows that `check` has passed; the groups with new results. Raises ComputeError."""

    def pass_time(self, *, now: float) -> list[str]:
        """The groups with new results because of the time alone."""

    def deadline(self) -> float | None:
        """Steady seconds of the next `pass_time`."""

    def full(self) -> str:
        """Why it needs no more rows; empty if it takes more."""

    def result(self, group: str) -> Results:
        """Of one group."""

    def results(self) -> Mapping[str, Results]:
        """By group."""

    def counts(self) -> Mapping[str, int]:
        """Numbers for the result beside those of rows."""

    def state(self, *, now: float) -> Mapping[str, object]:
        """Everything that another process needs to go on."""

    def restore(self, state: Mapping[str, object], *, now: float) -> None:
        """Go on from that state. Raises ValueError, TypeError, KeyError or IndexError."""
