"""The command line as a newcomer meets it: every mistake is one line and a documented exit code."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from locum.cli import tables
from locum.cli.exits import Exit


def locum(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "locum.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **environment},
    )


def test_version() -> None:
    assert locum("--version").stdout.startswith("locum")


def test_a_wrong_option_is_wrong_usage() -> None:
    assert locum("status", "--nonsense").returncode == Exit.USAGE


def test_sleeping_for_no_time_is_wrong_usage() -> None:
    assert locum("sleep", "--for", "0").returncode == Exit.USAGE


def test_no_node_answers(tmp_path: Path) -> None:
    done = locum("--socket", str(tmp_path / "none.sock"), "binding", "list")
    assert done.returncode == Exit.UNREACHABLE
    assert "locum node run" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    done = locum("config", "check", str(tmp_path / "none.toml"))
    assert done.returncode == Exit.CONFIG
    assert "none.toml" in done.stderr and "no such file" in done.stderr


def test_a_node_is_not_run_from_a_wrong_configuration(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text('[node]\nname = "x"\ninterfaces = ["lo"]\nnonsense = 1\n')
    done = locum("node", "run", str(file))
    assert done.returncode == Exit.CONFIG
    assert "nonsense" in done.stderr and "[node]" in done.stderr


@pytest.fixture
def answering(tmp_path: Path) -> Path:
    """A control socket on which a node with one binding answers: the client half is what is tested here."""
    import socket

    path = tmp_path / "node.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                answer = {"id": request["id"], "ok": True, "result": [{"home_address": "10.9.0.10"}]}
                if request["request"] != "binding list":
                    answer = {"id": request["id"], "ok": False, "error": "this node plays no mobile node"}
                connection.sendall(json.dumps(answer).encode() + b"\n")

    threading.Thread(target=serve, daemon=True).start()
    return path


def test_json_before_or_behind_the_command(answering: Path) -> None:
    done = locum("binding", "list", "-j", LOCUM_SOCKET=str(answering))
    assert json.loads(done.stdout) == [{"home_address": "10.9.0.10"}]


def test_a_refusal_says_why(answering: Path) -> None:
    done = locum("wake", LOCUM_SOCKET=str(answering))
    assert done.returncode == Exit.FAILED
    assert done.stderr == "locum: this node plays no mobile node\n"


def test_no_colour_when_it_is_not_wanted(answering: Path) -> None:
    done = locum("binding", "list", LOCUM_SOCKET=str(answering), NO_COLOR="1", FORCE_COLOR="")
    assert "\x1b" not in done.stdout and "10.9.0.10" in done.stdout


def test_an_event_is_one_line() -> None:
    event = {
        "time": 0.25,
        "node": "ha",
        "kind": "binding-changed",
        "message": "602",
        "detail": {"coa": "10.1.0.1"},
    }
    line = tables.event_line(event)
    assert line.split("  ")[1:] == ["ha", "602", "binding-changed", "coa=10.1.0.1"]
