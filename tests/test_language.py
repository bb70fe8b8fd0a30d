"""Mechanical rules of plain language: names of tests, first lines of docstrings, and names of variables."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "bench")

MAX_NAME = 60  # characters of a test's name
VAGUE_SUBJECT = re.compile(r"test_(what|who|whom|whose|whoever|whatever|nobody|somebody|anybody)_")


VAGUE_FIRST = re.compile(r"(What|Who|Whose|Whom|Whoever|Whatever|Whether|Where|Nobody|Somebody|Anybody)\b")
# A value that only its comment made too long: ruff breaks the line around it.
BROKEN_BY_COMMENT = re.compile(
    r"^( *)[^\n#]*= \(\n(?: +[^\n]*\S  # [^\n]*\n\1\)| +[^\n]*\S\n\1\)  # (?!fmt: |type: )[^\n]*)$",
    re.MULTILINE,
)
HE = re.compile(r"\b(he|him|his)\b")


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Path and syntax tree of every Python file of the repository."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple((str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in files)


def functions_of_tests() -> Iterator[tuple[str, str]]:
    """Place and name of every test function."""
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield f"{path}:{node.lineno}", node.name


def test_names_of_tests_are_short() -> None:
    long = [f"{place} {name}" for place, name in functions_of_tests() if len(name) > MAX_NAME]
    assert not long, f"at most {MAX_NAME} characters; name condition and result: {long}"


def test_names_of_tests_have_a_plain_subject() -> None:
    vague = [f"{place} {name}" for place, name in functions_of_tests() if VAGUE_SUBJECT.match(name)]
    assert not vague, f"begin with the subject, not with what or who: {vague}"


def docstrings() -> Iterator[tuple[str, str]]:
    """Place and text of every docstring, also of those that describe a constant or a field."""
    for path, tree in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for statement in node.body:
                match statement:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        yield f"{path}:{statement.lineno}", text


def test_docstrings_begin_with_a_plain_subject() -> None:
    vague = [f"{place} {text.splitlines()[0]}" for place, text in docstrings() if VAGUE_FIRST.match(text)]
    assert not vague, f"say what is returned or done: {vague}"


def test_docstrings_call_devices_and_nodes_it() -> None:
    personal = [place for place, text in docstrings() if HE.search(text)]
    assert not personal, f"write it: {personal}"


def test_no_variable_is_named_each() -> None:
    places = [
        f"{path}:{node.lineno}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "each")
        or (isinstance(node, ast.arg) and node.arg == "each")
        or (isinstance(node, ast.MatchAs) and node.name == "each")
    ]
    assert not places, f"name the loop variable by a noun: {places}"


def test_comments_break_no_assignment() -> None:
    broken = []
    for path, _tree in modules():
        text = (ROOT / path).read_text()
        broken += [
            f"{path}:{text.count(chr(10), 0, found.start()) + 1}"
            for found in BROKEN_BY_COMMENT.finditer(text)
        ]
    assert not broken, f"put the comment above the assignment: {broken}"
