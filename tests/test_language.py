"""Mechanical rules of plain language: the names of tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "bench")

MAX_NAME = 60  # characters of a test's name
VAGUE_SUBJECT = re.compile(r"test_(what|who|whom|whose|whoever|whatever|nobody|somebody|anybody)_")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Path and syntax tree of every Python file of the repository."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


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
