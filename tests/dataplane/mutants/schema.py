"""Many mutants in one source: each changed place asks, when a packet comes, which mutant is chosen.

So one object and one run of the verifier serve many mutants. Text in, text out; nothing is compiled here.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.dataplane.mutants.generate import Mutant, closing, without_text

CHOSEN = "mutant_chosen"
DECLARED = f"volatile unsigned int {CHOSEN};\n"
"""Stands before everything else in the source that is compiled: the only variable of its section."""
_HEADER = re.compile(r"\b(if|for|while) \(")
_PREFIX = re.compile(r"\s*(?:else\b|case [^:;]*:|default:|(?=(?:if|for|while) \())")
_POINTERS = "[a-z]|few|many|more|room|share|known|told|entry|home|local|from|to|key|value|word|last|left|failed|size|found"
_OPERAND = re.compile(rf"(?:^|&&|\|\||\()\s*!?(?:{_POINTERS})\s*(?:$|&&|\|\||\)|\?)")
_BOUNDS = re.compile(r"\w+ >=? (?:LOCUM_|HELD_|OPTION_)|0xfff|place [<>]")
_DECLARATION = re.compile(
    r"(?:(?:static|const|volatile) )*(?:struct \w+|__\w+|int|bool|long|char) \**\w+\s*[=,;\[]"
)


@dataclass(frozen=True, slots=True, order=True)
class _Unit:
    """The part of a source that is written once for each of its mutants: a statement with its end, or an expression."""

    start: int
    end: int
    statement: bool


def combined(source: str, numbered: Sequence[tuple[int, Mutant]]) -> tuple[str, list[int]]:
    """The source with all these mutants of it, and the numbers of those that cannot be among others."""
    code = without_text(source)
    units: dict[_Unit, list[tuple[int, Mutant]]] = defaultdict(list)
    alone = []
    for number, mutant in numbered:
        unit = None if _unrolled(source, mutant) else _unit_of(code, mutant)
        if unit is None:
            alone.append(number)
        else:
            units[unit].append((number, mutant))
    for unit in sorted(units, reverse=True):
        changed = [(number, mutant.applied(source, unit.start, unit.end)) for number, mutant in units[unit]]
        source = source[: unit.start] + _written(unit, source, changed) + source[unit.end :]
    return source, alone


def bears_alone(code: str, mutant: Mutant) -> bool:
    """True if the verifier may well refuse the mutant: a test of a pointer or of a bound. `code` is without text."""
    unit = _unit_of(code, mutant)
    if unit is None:
        return True
    text = code[unit.start : unit.end].strip().removeprefix("return").rstrip("; \n").strip()
    return bool(_OPERAND.search(text) or _BOUNDS.search(text))


def _written(unit: _Unit, source: str, changed: list[tuple[int, str]]) -> str:
    own = source[unit.start : unit.end]
    if unit.statement:
        return (
            "{ "
            + "".join(f"if ({CHOSEN} == {n}) {{ {text} }} else " for n, text in changed)
            + f"{{ {own} }} }}"
        )
    return "(" + "".join(f"{CHOSEN} == {n} ? ({text}) : " for n, text in changed) + f"({own}))"


def _unrolled(source: str, mutant: Mutant) -> bool:
    """True in the header of a loop that is unrolled: the number of its rounds has to be known when it is compiled."""
    begin = source.rfind("\n", 0, source.rfind("for (", 0, mutant.start) + 1)
    return "\n" not in source[begin + 1 : mutant.start] and source[:begin].endswith("#pragma unroll")


def _unit_of(code: str, mutant: Mutant) -> _Unit | None:
    """The smallest unit around the change; None if there is none that can be repeated."""
    for found in _HEADER.finditer(code, mutant.body, mutant.start):
        end = closing(code, found.end() - 1, "()")
        if found.end() <= mutant.start and mutant.end <= end:
            return _of_header(code, found[1], found.end(), end, mutant)
    return _of_statement(code, mutant)


def _of_header(code: str, kind: str, begin: int, end: int, mutant: Mutant) -> _Unit | None:
    if kind != "for":
        return _Unit(begin, end, statement=False)
    first = code.index(";", begin) + 1
    second = code.index(";", first)
    return _Unit(first, second, statement=False) if first <= mutant.start and mutant.end <= second else None


def _of_statement(code: str, mutant: Mutant) -> _Unit | None:
    begin = max(code.rfind(mark, 0, mutant.start) for mark in ";{}") + 1
    if code[begin - 1] == "{" and code[: begin - 1].rstrip()[-1] in "=,(":
        return None  # within a list of initial values
    while found := _PREFIX.match(code, begin, mutant.start):
        begin = found.end()
        if header := _HEADER.match(code, begin):
            begin = closing(code, header.end() - 1, "()") + 1
    begin += len(code[begin:]) - len(code[begin:].lstrip())
    end = _end_of(code, begin, ";")
    if "{" in code[begin:end]:
        return None
    if not _DECLARATION.match(code, begin, end + 1):
        return _Unit(begin, end + 1, statement=True)
    while begin < end:
        after = _end_of(code, begin, ",;")
        value = code.find("=", begin, after) + 1
        if value and value <= mutant.start and mutant.end <= after:
            return _Unit(value, after, statement=False)
        begin = after + 1
    return None


def _end_of(code: str, begin: int, marks: str) -> int:
    """Place of the first of `marks` that is in no brackets."""
    depth = 0
    for place in range(begin, len(code)):
        depth += (code[place] in "([{") - (code[place] in ")]}")
        if not depth and code[place] in marks:
            return place
    raise ValueError(f"no end of what begins at {begin}")
