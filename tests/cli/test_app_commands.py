"""`locum app list`: proxies that run, and kinds that cannot be loaded."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from locum.cli import main
from locum.cli.target import Target

STALE = {
    "kind": "greeter",
    "origin": "greeter:Greeter",
    "problem": "ModuleNotFoundError(\"No module named 'greeter'\")",
}
FINE = {"kind": "log", "origin": "locum.apps.header_log.app:HeaderLog", "problem": ""}


@pytest.mark.parametrize("options", [[], ["-j"]])
def test_kinds_that_cannot_be_loaded_are_named(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """A package is gone, or its class is. JSON has the proxies alone."""

    def ask(self: Target, request: str, *, timeout: float = 10.0, **arguments: Any) -> Any:
        return {"app list": [], "app kinds": [FINE, STALE]}[request]

    monkeypatch.setattr(Target, "ask", ask)
    done = CliRunner().invoke(main.cli, ["--socket", "/nowhere", *options, "app", "list"])
    assert done.exit_code == 0
    if options:
        assert json.loads(done.stdout) == []
    else:
        wanted = "kind greeter (greeter:Greeter) cannot be loaded: ModuleNotFoundError"
        assert wanted in done.output and "kind log" not in done.output
