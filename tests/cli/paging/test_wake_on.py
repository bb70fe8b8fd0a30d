"""`locum wake-on` and `locum sleep --until`: requests to the node, output, exit codes."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from locum.cli import main
from locum.cli.target import Target

WISH = {
    "wish": 1, "text": "ssh", "for": "every sleep", "watched_by": "home agent", "state": "in force", "reason": None,
}  # fmt: skip
OUT = WISH | {"state": "not in force", "reason": "no answer"}
REPORT = {"went": 2, "sessions": []}


class Node:
    """Keeps requests, and answers each with `answers[request]`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {
            "wake-on add": WISH,
            "wake-on list": [WISH, OUT],
            "wake-on remove": {"wish": 1, "text": "ssh", "warning": ""},
            "sleep": {"state": "asleep", "report": REPORT, "wishes": [WISH], "paging_problems": []},
        }

        def ask(target: Target, request: str, *, timeout: float = 10.0, **arguments: Any) -> Any:
            self.requests.append((request, arguments))
            return self.answers[request]

        monkeypatch.setattr(Target, "ask", ask)

    def run(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main.cli, ["--socket", str(Path("/nowhere")), *arguments])
        return done.exit_code, done.output


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        (["ssh"], {"form": "ssh"}),
        (["add", "ssh"], {"form": "ssh"}),
        (["tcp", "8080", "--from", "192.0.2.0/24"], {"form": "tcp", "value": "8080", "from": "192.0.2.0/24"}),
        (["packets", "--protocol", "esp", "--spi", "7"], {"form": "packets", "protocol": "esp", "spi": 7}),
        (["mail", "--from", "boss@example.org", "--quiet", "22:00-07:00", "--every", "60"],
         {"form": "mail", "from": "boss@example.org", "quiet": ["22:00-07:00"], "every": 60}),
        (["download", "--store"], {"form": "download", "actions": ["page", "store"]}),
        (["download", "--direct", "--not-later"], {"form": "download", "actions": ["direct"], "later": False}),
        (["event", "computed", "--app", "rows", "--where", "rows > 9", "--where", "why = x"],
         {"form": "event", "value": "computed", "app": "rows", "where": ["rows > 9", "why = x"]}),
        (["call", "--from", "sip:a@example.org", "--tell", "soon", "--order", "before"],
         {"form": "call", "from": "sip:a@example.org", "tell": "soon", "order": "before"}),
    ],
)  # fmt: skip
def test_forms_become_keys_of_a_request(node: Node, line: list[str], keys: dict[str, Any]) -> None:
    assert node.run("wake-on", *line) == (0, "wish 1: ssh\n")
    assert node.requests == [("wake-on add", {"wish": keys})]


def test_wish_that_is_not_in_force_is_a_failure(node: Node) -> None:
    node.answers["wake-on add"] = OUT
    assert node.run("wake-on", "ssh") == (1, "wish 1: ssh; not in force: no answer\n")


@pytest.mark.parametrize(
    "line", [["telnet"], ["add"], ["ssh", "--every", "0"], ["remove", "ssh"], ["mail", "--order", "x"]]
)
def test_wrong_lines_ask_nothing(node: Node, line: list[str]) -> None:
    code, output = node.run("wake-on", *line)
    assert code == 2 and "Usage" in output and node.requests == []


def test_wishes_are_listed_and_removed(node: Node) -> None:
    code, output = node.run("wake-on", "list")
    assert code == 0 and "home agent" in output and "no answer" in output
    assert node.run("wake-on", "remove", "1") == (0, "wish 1 is gone: ssh\n")
    node.answers["wake-on remove"]["warning"] = "10.5.0.1 may not know it: no answer"
    assert "may not know it" in node.run("wake-on", "remove", "1")[1]
    assert node.requests[1:] == [("wake-on remove", {"number": 1})] * 2


def test_sleep_says_what_wakes_the_device(node: Node) -> None:
    code, output = node.run("sleep", "--until", "mail --from 'the boss'")
    assert (code, output) == (0, "asleep: 2 sessions went to the stand-in\n  wakes it: ssh\n")
    assert node.requests == [("sleep", {"until": {"form": "mail", "from": "the boss"}})]
    node.answers["sleep"] |= {"wishes": [WISH, OUT], "paging_problems": ["10.5.0.1: no answer"]}
    code, output = node.run("sleep")
    assert code == 6
    assert output.splitlines()[1:] == [
        "  wakes it: ssh",
        "  does not wake it: ssh: no answer",
        "  paging: 10.5.0.1: no answer",
    ]


def test_wake_says_what_has_woken_the_device(node: Node) -> None:
    node.answers["wake"] = {"state": "awake", "woken_by": "event: delivered of films"}
    assert node.run("wake") == (0, "awake\n  woken by event: delivered of films\n")
    node.answers["wake"] = {"state": "awake", "woken_by": None, "report": {"returned": 1, "sessions": []}}
    assert node.run("wake") == (0, "awake: 1 session returned\n")


@pytest.mark.parametrize("until", ["", "list", "telnet", "mail --from", "mail 'x"])
def test_wrong_wish_of_a_sleep_is_wrong_usage(node: Node, until: str) -> None:
    code, output = node.run("sleep", "--until", until)
    assert code == 2 and node.requests == []
    assert "Error: --until: " in output and "--until --help" not in output
