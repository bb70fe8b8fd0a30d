"""All mutants of a C source file: changes of one decision each. Text in, text out; nothing is compiled here."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OPAQUE = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.DOTALL | re.MULTILINE
)
"""Comments, strings and preprocessor lines: they have no decisions."""
_FUNCTION = re.compile(r"(\w+)\([^;{}]*\)\s*\{")
_OPERATOR = re.compile(r"&&|\|\||==|!=|<=|>=|<<|>>|->|<|>")
_CHANGED = {
    "&&": "||",
    "||": "&&",
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
}
_SET_FLAG = re.compile(r"\|= (?!.*\?)[A-Z][A-Z0-9_]+;")
_FLAGS = re.compile(r"\b([A-Z][A-Z0-9_]+) \| ([A-Z][A-Z0-9_]+)\b")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `source[start:end]` becomes `text`."""

    file: str
    line: int
    function: str
    kind: str
    about: str
    start: int
    end: int
    text: str
    body: int
    """Begin of the body of its function."""
    number: int = 1
    """Place among those of the same file, function, kind and text."""

    @property
    def name(self) -> str:
        """Names the mutant without its line, so that it stays the same when the file grows."""
        again = f" #{self.number}" if self.number > 1 else ""
        return f"{self.file} {self.function}: {self.kind} `{self.about}`{again}"

    def applied(self, source: str, begin: int = 0, end: int | None = None) -> str:
        """The source, or a part of it, with this change."""
        return source[begin : self.start] + self.text + source[self.end : end]


def without_text(source: str) -> str:
    """The source with blanks for comments, strings and preprocessor lines."""
    return _OPAQUE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of the file, in the order of the text."""
    source = path.read_text()
    code = without_text(source)
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for function, begin, end in _functions(code):
        changes = sorted(_changes(code, begin, end))
        for start, stop, kind, about, text in changes:
            shown = " ".join(about.split())[:_SHOWN]
            seen[function, kind, shown] += 1
            line = code.count("\n", 0, start) + 1
            number = seen[function, kind, shown]
            found.append(Mutant(path.name, line, function, kind, shown, start, stop, text, begin, number))
    return found


def _functions(code: str) -> Iterator[tuple[str, int, int]]:
    """Name and body of each function."""
    place = 0
    while found := _FUNCTION.search(code, place):
        place = closing(code, found.end() - 1, "{}")
        yield found[1], found.end(), place


def closing(code: str, opening: int, pair: str) -> int:
    """Place of the bracket that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(code)):
        depth += (code[place] == pair[0]) - (code[place] == pair[1])
        if not depth:
            return place
    raise ValueError(f"no {pair[1]} closes the {pair[0]} at {opening}")


def _changes(code: str, begin: int, end: int) -> Iterator[tuple[int, int, str, str, str]]:
    """(start, end, kind, what is changed, its replacement)."""
    for found in re.compile(r"\bif \(").finditer(code, begin, end):
        opening = found.end() - 1
        stop = closing(code, opening, "()")
        condition = code[opening + 1 : stop]
        yield opening + 1, stop, "negated", condition, f"!({condition})"
        yield opening + 1, stop, "never", condition, f"({condition}) && 0"
    for found in re.compile(r"\? ").finditer(code, begin, end):
        about = code[max(begin, code.rfind("\n", 0, found.start())) : found.start()]
        yield found.start(), found.start(), "never, at ?", about[-_SHOWN:], "&& 0 "
        yield found.start(), found.start(), "always, at ?", about[-_SHOWN:], "|| 1 "
    for found in _OPERATOR.finditer(code, begin, end):
        changed = _CHANGED.get(found[0])
        if changed is not None:
            about = code[max(begin, found.start() - 24) : found.end() + 24]
            yield found.start(), found.end(), f"{found[0]} as {changed}", about, changed
    for found in _SET_FLAG.finditer(code, begin, end):
        about = code[code.rfind("\n", 0, found.start()) : found.end()]
        yield found.start(), found.end(), "flag not set", about, "|= 0;"
    for found in _FLAGS.finditer(code, begin, end):
        for kept, dropped in ((1, 2), (2, 1)):
            yield found.start(), found.end(), f"without {found[dropped]}", found[0], found[kept]
