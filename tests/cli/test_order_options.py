"""Options of `locum order` and `locum accept` that the command line reads itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from locum.cli import app
from locum.cli.main import cli
from locum.cli.orders.commands import CONSUME, WHEN
from locum.node.control.client import NodeClient
from locum.roles.action_values.apps import Consume, When

ADDED = {"warning": "", "unreached": "", "note": "it begins when the device sleeps"}


def _without_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NodeClient, "__init__", lambda self, *_: None)
    monkeypatch.setattr(NodeClient, "__exit__", lambda *_: None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Requests that a node would have got."""
    requests: list[Mapping[str, Any]] = []

    def request(_: NodeClient, request: str, /, **arguments: Any) -> Any:
        requests.append({"request": request, **arguments})
        return ADDED

    _without_socket(monkeypatch)
    monkeypatch.setattr(NodeClient, "request", request)
    return requests


def run(*arguments: str, stdin: str | bytes = "") -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["--socket", "/nowhere", *arguments], input=stdin)
    return done.exit_code, done.output


WATCH = ("order", "watch-mail", "mail.example.org", "--user", "me", "--password-file")


def test_password_file_of_others_is_refused(tmp_path: Path, asked: list[Mapping[str, Any]]) -> None:
    path = tmp_path / "mail.password"
    path.write_text("s3cret\nmore\n")
    path.chmod(0o644)
    for command in (WATCH, ("order", "add", "mail", "m", "--password-file")):
        code, said = run(*command, str(path))
        assert code == 2 and f"--password-file: {path} is open to others (mode 0644)" in said
        assert f"chmod 600 {path}" in said
    path.chmod(0o600)
    assert (
        run(*WATCH, str(path))[0] == 0
        and run("order", "add", "mail", "m", "--password-file", str(path))[0] == 0
    )
    assert [request["settings"]["password"] for request in asked] == ["s3cret", "s3cret"]


def test_password_comes_from_standard_input(asked: list[Mapping[str, Any]]) -> None:
    assert run(*WATCH, "-", stdin="s3cret\n")[0] == 0
    assert asked[0]["settings"]["password"] == "s3cret"
    for wrong in ("", "\n", b"\xff\xfe\n"):
        code, said = run(*WATCH, "-", stdin=wrong)
        assert code == 2 and "--password-file" in said
    code, said = run("order", "add", "mail", "m", "password=x", "--password-file", "-", stdin="y")
    assert code == 2 and "either" in said


def test_limits_of_an_order_go_to_the_node(asked: list[Mapping[str, Any]]) -> None:
    add = ("order", "add", "keepalive", "mqtt", "interval=5")
    assert run(*add, "--emission", "tcp 1883", "--emission", "udp 53", "--consume", "omit")[0] == 0
    assert asked[0]["limits"] == {"consume": "omit", "emission": ["tcp 1883", "udp 53"]}
    assert run(*add)[0] == 0 and asked[1]["limits"] == {}
    assert run(*add, "--emission", "none")[0] == 0 and asked[2]["limits"] == {"emission": []}
    code, said = run(*add, "--consume", "eat")
    assert code == 2 and "eat" in said and len(asked) == 3
    assert tuple(Consume) == CONSUME and tuple(When) == WHEN
    assert run(*add, "--when", "always")[0] == 0 and asked[3]["limits"] == {"when": "always"}
    assert run("order", "download", "http://192.0.2.1/x", "--when", "asleep")[0] == 0
    assert asked[4]["limits"] == {"when": "asleep"}


@pytest.mark.parametrize(
    ("arguments", "label", "command"),
    [
        (("chat", "--", "nc", "-l"), "chat", ("nc", "-l")),
        (("--", "nc", "--", "x"), None, ("nc", "--", "x")),
        (("--wait", "--", "chat"), None, ("chat",)),
        (("chat", "nc"), "chat", ("nc",)),
    ],
)
def test_label_stands_before_the_hyphens(
    arguments: tuple[str, ...], label: str | None, command: tuple[str, ...]
) -> None:
    context = app.accept.make_context("accept", list(arguments))
    assert (context.params["label"], context.params["command"]) == (label, command)


@pytest.mark.parametrize("arguments", [("chat",), ("--",), ("a", "b", "--", "c"), ()])
def test_program_is_missing_or_before_the_hyphens(arguments: tuple[str, ...]) -> None:
    code, said = run("accept", *arguments)
    assert code == 2 and ("COMMAND is missing" in said or "'b' stands before --" in said)


def test_taken_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    answer = {"label": "chat", "flow": "tcp 10.0.0.1:5 > 192.0.2.1:7", "others": ["news"]}
    _without_socket(monkeypatch)
    monkeypatch.setattr(NodeClient, "request_socket", lambda self, name, **given: (given["label"], answer))
    monkeypatch.setattr(app, "_run", lambda connection, command, inherited: ran.append((connection, command)))
    monkeypatch.setenv("LOCUM_LABEL", "")
    code, said = run("accept", "--", "cat")
    assert code == 0 and said == "locum: chat (tcp 10.0.0.1:5 > 192.0.2.1:7); others wait: news\n"
    assert run("accept", "chat", "--", "cat") == (0, "")
    assert ran == [(None, ("cat",)), ("chat", ("cat",))]
    assert isinstance(app.accept, click.Command)
