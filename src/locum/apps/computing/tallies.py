"""Count, sum, mean, least and greatest of columns, by group and within a window."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from locum.apps.computing.conditions import Results
from locum.apps.computing.exact import Exact
from locum.apps.computing.rows import BadRow, Row, group_of, number
from locum.roles.action_values.addresses import JSON

OPERATIONS = ("count", "sum", "mean", "min", "max")
MAX_TALLIES = 64
"""Groups times columns."""
MAX_KEPT = 1000
"""Numbers that all sliding windows of one computation hold."""


@dataclass(frozen=True, slots=True)
class Window:
    """The newest `rows` of a group, or those of the last `seconds`.

    A sliding window has results after each row. A tumbling one has them when it is over, and then begins anew.
    """

    rows: int | None = None
    seconds: float | None = None
    sliding: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`groups` is the most groups, by the column `group_by`."""

    values: Sequence[str]
    operations: Sequence[str] = OPERATIONS
    group_by: str | None = None
    groups: int = 1
    window: Window | None = None

    def names(self) -> tuple[str, ...]:
        """Of the results: `mean(celsius)`, or `mean` if there is one column."""
        if len(self.values) == 1:
            return tuple(self.operations)
        return tuple(f"{operation}({value})" for value in self.values for operation in self.operations)

    def short(self, name: str) -> str:
        """The name of the result that a user calls so."""
        word, bracket, column = name.partition("(")
        return word if bracket and list(self.values) == [column.removesuffix(")")] else name


@dataclass(slots=True)
class Tally:
    """Of one column and one group."""

    count: int = 0
    total: Exact = field(default_factory=Exact)
    least: float = math.inf
    greatest: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        self.total.add(value)
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)

    def result(self, operation: str) -> JSON:
        """None if there is none: no rows, or a sum that no binary64 number has."""
        match operation:
            case "count":
                return self.count
            case "sum":
                return self.total.total()
            case _ if not self.count:
                return None
            case "mean":
                return self.total.mean(self.count)
            case "min":
                return self.least
        return self.greatest

    def state(self) -> list[object]:
        return [self.count, self.total.state(), self.least, self.greatest]

    @classmethod
    def of(cls, state: object) -> "Tally":
        match state:
            case [int(count), bytes(total), float(least), float(greatest)] if count >= 0:
                return cls(count, Exact.of(total), least, greatest)
        raise ValueError("this is not the state of a tally")


@dataclass(slots=True)
class Group:
    """`kept` has the rows in a sliding window, with their times. `over` are the tallies of the last tumbling one."""

    tallies: list[Tally]
    kept: deque[tuple[float, tuple[float, ...]]] = field(default_factory=deque)
    over: list[Tally] | None = None

    def add(self, values: tuple[float, ...]) -> None:
        for tally, value in zip(self.tallies, values, strict=True):
            tally.add(value)

    def drop(self) -> None:
        """Forget the oldest row of a sliding window."""
        _, values = self.kept.popleft()
        for tally, value in zip(self.tallies, values, strict=True):
            tally.count -= 1
            tally.total.take_away(value)

    def settle(self) -> None:
        """Find least and greatest of a sliding window."""
        for number_of_column, tally in enumerate(self.tallies):
            column = [values[number_of_column] for _, values in self.kept]
            tally.least, tally.greatest = min(column, default=math.inf), max(column, default=-math.inf)


class Tallies:
    """`left_early` counts rows that a sliding window by time could not hold."""

    at_once = False

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._groups: dict[str, Group] = {}
        self._over_at: float | None = None  # of tumbling windows by time
        self._window = plan.window or Window()
        self._kept, self._most_kept = 0, MAX_KEPT // len(plan.values)  # rows
        self.left_early = 0

    def check(self, row: Row) -> None:
        key = group_of(row, self._plan.group_by)
        for value in self._plan.values:
            number(row, value)
        if key not in self._groups and len(self._groups) >= self._plan.groups:
            raise BadRow("groups")

    def feed(self, rows: Sequence[Row], *, now: float) -> list[str]:
        changed = self.pass_time(now=now)
        for row in rows:
            key = group_of(row, self._plan.group_by)
            values = tuple(number(row, value) for value in self._plan.values)
            if self._add(key, values, now):
                changed.append(key)
        return list(dict.fromkeys(changed))

    def _add(self, key: str, values: tuple[float, ...], now: float) -> bool:
        """True if the group has new results."""
        one = self._groups.get(key)
        if one is None:
            one = self._groups[key] = Group(self._fresh())
        one.add(values)
        window = self._window
        if window.sliding:
            one.kept.append((now, values))
            self._kept += 1
            self._slide(one, now)
            self._make_room()
            return True
        if window.seconds is not None:
            if self._over_at is None:
                self._over_at = now + window.seconds
            return False
        if window.rows is None:
            return True
        if one.tallies[0].count < window.rows:
            return False
        one.over, one.tallies = one.tallies, self._fresh()
        return True

    def _slide(self, one: Group, now: float) -> bool:
        """Forget the rows that have left the window; True if there were any."""
        before, window = len(one.kept), self._window
        while window.rows is not None and len(one.kept) > window.rows:
            one.drop()
        while window.seconds is not None and one.kept and one.kept[0][0] <= now - window.seconds:
            one.drop()
        self._kept += len(one.kept) - before
        return len(one.kept) < before

    def _make_room(self) -> None:
        """All windows together hold so many numbers: the oldest row leaves early."""
        while self._kept > self._most_kept:
            oldest = min((one for one in self._groups.values() if one.kept), key=lambda one: one.kept[0][0])
            oldest.drop()
            self._kept -= 1
            self.left_early += 1

    def _fresh(self) -> list[Tally]:
        return [Tally() for _ in self._plan.values]

    def pass_time(self, *, now: float) -> list[str]:
        window = self._window
        if window.sliding and window.seconds is not None:
            return [key for key, one in self._groups.items() if self._slide(one, now)]
        if self._over_at is None or now < self._over_at or window.seconds is None:
            return []
        for one in self._groups.values():
            one.over, one.tallies = one.tallies, self._fresh()
        self._over_at = None  # the next one begins with its first row
        return list(self._groups)

    def deadline(self) -> float | None:
        window = self._window
        if window.sliding and window.seconds is not None:
            return min(
                (one.kept[0][0] + window.seconds for one in self._groups.values() if one.kept), default=None
            )
        return self._over_at

    def full(self) -> str:
        return ""

    def results(self) -> Mapping[str, Results]:
        return {key: self.result(key) for key in self._groups}

    def result(self, group: str) -> Results:
        one = self._groups[group]
        tallies = one.tallies
        if self._window != Window() and not self._window.sliding:
            if one.over is None:
                return {}
            tallies = one.over
        if self._window.sliding:
            one.settle()
        found: dict[str, JSON] = {}
        for value, tally in zip(self._plan.values, tallies, strict=True):
            for operation in self._plan.operations:
                name = operation if len(tallies) == 1 else f"{operation}({value})"
                found[name] = tally.result(operation)
        return found

    def counts(self) -> Mapping[str, int]:
        return {"left_early": self.left_early} if self.left_early else {}

    def state(self, *, now: float) -> Mapping[str, object]:
        return {
            "groups": {
                key: {
                    "tallies": [] if self._window.sliding else [tally.state() for tally in one.tallies],
                    "kept": [[now - at, *values] for at, values in one.kept],
                    "over": None if one.over is None else [tally.state() for tally in one.over],
                }
                for key, one in self._groups.items()
            },
            "left_early": self.left_early,
            "left": None if self._over_at is None else self._over_at - now,
        }

    def restore(self, state: Mapping[str, object], *, now: float) -> None:
        groups, left, early = state["groups"], state["left"], state["left_early"]
        if not isinstance(groups, dict) or not isinstance(early, int):
            raise ValueError("groups are a map")
        self._groups = {str(key): self._group(value, now) for key, value in groups.items()}
        self.left_early = early
        self._kept = sum(len(one.kept) for one in self._groups.values())
        self._over_at = now + left if isinstance(left, float) else None

    def _group(self, state: Mapping[str, object], now: float) -> Group:
        tallies, kept, over = state["tallies"], state["kept"], state["over"]
        if not isinstance(tallies, list) or not isinstance(kept, list):
            raise ValueError("this is not the state of a group")
        one = Group([Tally.of(tally) for tally in tallies] or self._fresh())
        for age, *values in kept:
            row = tuple(float(value) for value in values)
            one.kept.append((now - float(age), row))
            one.add(row)
        one.over = [Tally.of(tally) for tally in over] if isinstance(over, list) else None
        if len(one.tallies) != len(self._plan.values) or (one.over and len(one.over) != len(one.tallies)):
            raise ValueError("the state has other columns")
        return one
