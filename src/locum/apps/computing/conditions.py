"""Conditions over results, such as `mean(celsius) > 30 and count >= 10`. Nothing of one is ever run as a program.

condition  = all *( "or" all )
all        = one *( "and" one )
one        = "not" one / "(" condition ")" / term operator term
operator   = "<" / "<=" / ">" / ">=" / "==" / "!="
term       = number / text in quotes / name [ "(" column ")" ]
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from locum.roles.action_values.addresses import JSON

MAX_CONDITION = 256
"""Characters; they also limit how deep brackets are."""
Results: TypeAlias = Mapping[str, JSON]
Check: TypeAlias = Callable[[Results], bool]
_Term: TypeAlias = Callable[[Results], JSON]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<text>"[^"]*"|'[^']*')
      | (?P<name>[^\W\d]\w*(?:\([^()"']*\))?)
      | (?P<sign><=|>=|==|!=|<|>|\(|\))
    )\s*""",
    re.VERBOSE,
)
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_WORDS = {"and", "or", "not"}


class ConditionError(ValueError):
    """A condition that cannot be read; the message is for users."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`names` are the results that it looks at, in their order. A comparison with a missing result is false."""

    text: str
    names: tuple[str, ...]
    holds: Check = field(compare=False)


def read(text: str, named: Callable[[str], str] = lambda name: name) -> Condition:
    """`named` gives the name of a result that is called so. Raises ConditionError."""
    if not 0 < len(text) <= MAX_CONDITION:
        raise ConditionError(f"a condition has 1 to {MAX_CONDITION} characters")
    reader = _Reader(text, named)
    check = reader.condition()
    if reader.kind != "end":
        raise ConditionError(f"{reader.value!r} is not expected there")
    return Condition(text, tuple(dict.fromkeys(reader.names)), check)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise ConditionError(f"{text[at:].strip()[:20]!r} cannot be read")
        value = found[found.lastgroup]
        yield ("word" if value in _WORDS else found.lastgroup), value
        at = found.end()
    yield "end", "the end"


class _Reader:
    """Reads one condition by recursive descent."""

    def __init__(self, text: str, named: Callable[[str], str]) -> None:
        self._named = named
        self._left = _tokens(text)
        self.names: list[str] = []
        self.kind = self.value = ""
        self._next()

    def _next(self) -> None:
        self.kind, self.value = next(self._left)

    def _take(self, value: str) -> bool:
        """True if the next token is this sign or word; it is gone then."""
        if self.kind not in ("sign", "word") or self.value != value:
            return False
        self._next()
        return True

    def condition(self) -> Check:
        checks = [self._all()]
        while self._take("or"):
            checks.append(self._all())
        return lambda results: any(check(results) for check in checks)

    def _all(self) -> Check:
        checks = [self._one()]
        while self._take("and"):
            checks.append(self._one())
        return lambda results: all(check(results) for check in checks)

    def _one(self) -> Check:
        if self._take("not"):
            inner = self._one()
            return lambda results: not inner(results)
        if self._take("("):
            bracketed = self.condition()
            if not self._take(")"):
                raise ConditionError(f"a closing bracket is expected instead of {self.value!r}")
            return bracketed
        left = self._term()
        sign = self.value
        if self.kind != "sign" or sign not in _OPERATORS:
            raise ConditionError(f"a comparison is expected instead of {sign!r}")
        self._next()
        right = self._term()
        return lambda results: _compare(sign, left(results), right(results))

    def _term(self) -> _Term:
        kind, value = self.kind, self.value
        if kind not in ("number", "text", "name"):
            raise ConditionError(f"a number, a text or a name is expected instead of {value!r}")
        self._next()
        if kind == "name":
            name = self._named(canonical(value))
            self.names.append(name)
            return lambda results: results.get(name)
        constant: JSON = value[1:-1]
        if kind == "number":
            constant = float(value)
            if not math.isfinite(constant):
                raise ConditionError(f"the number {value} is too large")
        return lambda _results: constant


def canonical(name: str) -> str:
    """The name of a result without spaces around its column."""
    word, bracket, column = name.partition("(")
    return f"{word}({column.rstrip(')').strip()})" if bracket else word


def _compare(sign: str, left: JSON, right: JSON) -> bool:
    """Numbers with numbers, texts and booleans with equals alone; everything else is false."""
    if _is_number(left) and _is_number(right):
        return _OPERATORS[sign](left, right)  # type: ignore[arg-type]
    if sign in ("==", "!=") and type(left) is type(right) and isinstance(left, str | bool):
        return (left == right) is (sign == "==")
    return False


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(slots=True)
class Alarms:
    """Which groups are in alarm: from the moment at which `when` holds until `again` does (hysteresis).

    Without `again`, until `when` holds no more.
    """

    when: Condition
    again: Condition | None = None
    raised: set[str] = field(default_factory=set)

    def rises(self, group: str, results: Results) -> bool:
        """True when the group's alarm is raised by these results."""
        if group in self.raised:
            over = not self.when.holds(results) if self.again is None else self.again.holds(results)
            if over:
                self.raised.discard(group)
            return False
        if not self.when.holds(results):
            return False
        self.raised.add(group)
        return True
