"""`locum page`: requests to the node, output, exit code."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from locum.cli import main
from locum.cli.target import Target

PAGE = {
    "home_address": "10.36.0.4", "page": "00" * 8, "cause": "command", "state": "reached", "reason": None, "seconds": 1.25,
    "attempts": 1, "folded": 0, "access_node": "10.1.0.1", "answered_by": "mn",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({}, 0, "reached after 1.25 s\n"),
        ({"state": "no-answer", "reason": "it is off"}, 1, "no-answer after 1.25 s: it is off\n"),
    ],
)
def test_page_waits_for_the_outcome(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], code: int, text: str
) -> None:
    requests: list[tuple[str, dict[str, Any]]] = []

    def ask(self: Target, request: str, *, timeout: float = 10.0, **arguments: Any) -> Any:
        requests.append((request, arguments))
        return [PAGE | changes] if request == "page list" else PAGE | changes

    monkeypatch.setattr(Target, "ask", ask)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main.cli, ["--socket", str(Path("/nowhere")), *arguments])
        return done.exit_code, done.output

    assert run("page", "10.36.0.4") == (code, text)
    assert requests == [("page", {"home_address": "10.36.0.4"})]
    listed = run("page", "list")
    assert listed[0] == 0 and "10.36.0.4" in listed[1] and "command" in listed[1]
    assert requests[1:] == [("page list", {})]
    assert run("page")[0] == 2
