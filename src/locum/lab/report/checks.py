"""Measured facts of a scenario, each with its expected value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Number = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Check:
    """`wanted` is the expected value in words; it is empty for a fact that is only reported."""

    name: str
    ok: bool
    value: Number
    unit: str = ""
    wanted: str = ""

    def as_json(self) -> Mapping[str, Any]:
        return {
            "name": self.name,
            "ok": self.ok,
            "value": self.value,
            "unit": self.unit,
            "wanted": self.wanted,
        }


@dataclass(slots=True)
class Checks:
    """Checks in the order in which they were made."""

    made: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.made) and all(check.ok for check in self.made)

    def _add(self, name: str, ok: bool, value: Number, unit: str, wanted: str) -> bool:
        rounded = round(value, 3) if isinstance(value, float) else value
        self.made.append(Check(name, ok, rounded, unit, wanted))
        return ok

    def equal(self, name: str, value: Number, wanted: Number, unit: str = "") -> bool:
        return self._add(name, value == wanted, value, unit, f"= {wanted}")

    def at_most(self, name: str, value: float, bound: float, unit: str = "") -> bool:
        return self._add(name, value <= bound, value, unit, f"<= {bound}")

    def at_least(self, name: str, value: float, bound: float, unit: str = "") -> bool:
        return self._add(name, value >= bound, value, unit, f">= {bound}")

    def more_than(self, name: str, value: float, bound: float, unit: str = "") -> bool:
        return self._add(name, value > bound, value, unit, f"> {bound}")

    def holds(self, name: str, value: bool) -> bool:
        """A fact that must be true."""
        return self._add(name, value, value, "", "= True")

    def fact(self, name: str, value: Number, unit: str = "") -> None:
        """Something worth reporting that has no bound."""
        self._add(name, True, value, unit, "")

    def value(self, name: str) -> Number:
        """The value of a check by name. Raises KeyError."""
        for check in self.made:
            if check.name == name:
                return check.value
        raise KeyError(name)
