"""The runner of `make test`: which failures are run again alone, and what the outcome of the whole is."""

from pathlib import Path

import pytest

from tests import run

LAB, PURE = "tests/lab/test_x.py::test_a", "tests/roles/test_x.py::test_a"


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ([], False),
        ([LAB], True),
        ([LAB] * 3, True),
        ([LAB] * 4, False),
        ([PURE], False),
        ([LAB, PURE], False),
    ],
)
def test_few_failures_with_processes_may_repeat(failed: list[str], expected: bool) -> None:
    assert run.may_repeat(failed) is expected


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of tests, entered."""
    (tmp_path / "tests" / "lab").mkdir(parents=True)
    (tmp_path / "tests" / "wire").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(tree: Path, folder: str, passes: str) -> None:
    """One test that passes in those of its runs, counted from 0, for which the expression `passes` is true."""
    (tree / "tests" / folder / "test_it.py").write_text(
        f"""
from pathlib import Path

RUNS = Path("runs")


def test_it():
    number = int(RUNS.read_text()) if RUNS.exists() else 0
    RUNS.write_text(str(number + 1))
    assert {passes}
"""
    )


def outcome(tree: Path) -> tuple[int, int]:
    """Exit code, and how often the test was run."""
    code = run.main(["-q", "tests"])
    return code, int((tree / "runs").read_text())


@pytest.mark.parametrize(
    ("passes", "expected"),
    [("True", (0, 1)), ("number > 0", (0, 3)), ("number == 1", (1, 3)), ("False", (1, 2))],
)
def test_outcome_needs_every_run_alone(tree: Path, passes: str, expected: tuple[int, int]) -> None:
    write(tree, "lab", passes)
    assert outcome(tree) == expected


def test_pure_test_has_one_run(tree: Path) -> None:
    write(tree, "wire", "number > 0")
    assert outcome(tree) == (1, 1)
