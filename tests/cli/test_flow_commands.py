"""`locum flow, trigger, explain, peer`: requests to the node, output, exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from locum.cli import main
from locum.cli.target import Target

RULE = {"home_address": "10.36.0.4", "id": 7, "priority": 3, "text": "protocol=udp to 1", "packets": 2}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Requests of commands to the node, which answers with a rule or an explanation."""
    requests: list[tuple[str, dict[str, Any]]] = []

    def ask(self: Target, request: str, *, timeout: float = 10.0, **arguments: Any) -> Any:
        requests.append((request, arguments))
        if request == "explain":
            return {"steps": ["home agent: entry of 10.36.0.4"], "verdict": "is dropped: no-session"}
        return [RULE] if request.endswith("list") else RULE

    monkeypatch.setattr(Target, "ask", ask)
    return requests


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main.cli, ["--socket", str(Path("/nowhere")), *arguments])
    return done.exit_code, done.output


def test_a_rule_is_asked_for_with_the_keys_of_its_table(asked: list[tuple[str, dict[str, Any]]]) -> None:
    options = ("--priority", "3", "--to", "1", "--to", "office", "--share", "--dscp", "0x2e")
    more = ("--source", "198.51.100.0/24", "--destination-port", "8000-8099", "--protocol", "udp")
    assert run("flow", "add", *options, *more) == (0, "rule 7: protocol=udp to 1\n")
    rule = {
        "priority": 3, "action": "forward", "to": [1, "office"], "share": True, "dscp": 46,
        "source": "198.51.100.0/24", "destination_port": "8000-8099", "protocol": "udp",
    }  # fmt: skip
    assert asked == [("flow add", {"rule": rule})]
    assert run("flow", "add", "--priority", "3", "--drop", "--home-address", "10.36.0.4", "--id", "7")[0] == 0
    drop = {"priority": 3, "action": "drop", "to": [], "share": False, "id": 7}
    assert asked[1:] == [("flow add", {"rule": drop, "home_address": "10.36.0.4"})]
    assert run("flow", "add", "--priority", "3", "--page")[0] == 0
    assert run("flow", "add", "--priority", "3", "--agent")[0] == 0
    assert run("flow", "add", "--priority", "3", "--hold")[0] == 0
    page = {"priority": 3, "action": "page", "to": [], "share": False}
    assert asked[2:] == [
        ("flow add", {"rule": page}),
        ("flow add", {"rule": {"priority": 3, "action": "agent", "share": False}}),
        ("flow add", {"rule": {**page, "action": "hold"}}),
    ]


def test_rules_are_listed_and_removed(asked: list[tuple[str, dict[str, Any]]]) -> None:
    code, text = run("flow", "list")
    assert code == 0 and all(word in text for word in ("10.36.0.4", "protocol=udp to 1", "packets"))
    assert json.loads(run("flow", "list", "-j")[1]) == [RULE]
    assert run("flow", "remove", "7") == (0, "rule 7 is gone\n")
    assert asked[-1] == ("flow remove", {"id": 7})


def test_trigger_covers_all_flows_or_those_of_the_options(
    asked: list[tuple[str, dict[str, Any]]],
) -> None:
    assert run("trigger", "take", "10.36.0.4", "--mnps", "10.3.0.2") == (0, "taken\n")
    assert run("trigger", "release", "10.36.0.4", "--mnps", "10.3.0.2", "--protocol", "6") == (
        0,
        "released\n",
    )
    common = {"home_address": "10.36.0.4", "mnps": "10.3.0.2"}
    assert asked == [
        ("trigger", {"operation": "take", **common, "selector": {}}),
        ("trigger", {"operation": "release", **common, "selector": {"protocol": 6}}),
    ]


def test_explanation_is_printed_in_lines(asked: list[tuple[str, dict[str, Any]]]) -> None:
    code, text = run("explain", "tcp", "198.51.100.7:1", "10.36.0.4:80", "--dscp", "46", "--here")
    assert (code, text) == (0, "home agent: entry of 10.36.0.4\nthe packet is dropped: no-session\n")
    ends = {"protocol": "tcp", "source": "198.51.100.7:1", "destination": "10.36.0.4:80"}
    assert asked == [("explain", {**ends, "dscp": 46, "here": True})]


@pytest.mark.parametrize(
    "arguments",
    [
        ("flow", "add", "--priority", "3", "--drop", "--to", "1"),
        ("flow", "add", "--priority", "3", "--page", "--to", "1"),
        ("flow", "add", "--priority", "3", "--page", "--drop"),
        ("flow", "add", "--priority", "3", "--hold", "--to", "1"),
        ("flow", "add", "--priority", "3", "--hold", "--page"),
        ("flow", "add", "--priority", "3", "--agent", "--page"),
        ("flow", "add", "--priority", "high", "--drop"),
        ("flow", "remove"),
        ("flow", "remove", "seven"),
        ("trigger", "give", "10.36.0.4", "--mnps", "10.3.0.2"),
        ("trigger", "take", "10.36.0.4"),
        ("explain", "tcp", "198.51.100.7:1"),
        ("explain", "tcp", "198.51.100.7:1", "10.36.0.4:80", "--dscp", "64"),
    ],
)
def test_wrong_usage_sends_no_request(
    asked: list[tuple[str, dict[str, Any]]], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments)[0] == 2
    assert asked == []


@pytest.mark.parametrize("name", sorted(main._COMMANDS))
def test_every_command_exists_and_has_help(name: str) -> None:
    code, text = run(name, "--help")
    assert code == 0 and "Usage:" in text
