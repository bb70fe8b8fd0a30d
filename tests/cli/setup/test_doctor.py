"""`locum doctor`: output and exit code."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from locum.cli import main
from locum.cli.setup import doctor
from locum.node.setup.findings import Facts

GOOD = Facts(
    root=True,
    libbpf=True,
    wireguard_tools=True,
    wireguard=True,
    server=False,
    forwarding=False,
    ruleset=(),
)


@pytest.mark.parametrize(
    ("facts", "code", "text"),
    [
        (GOOD, 0, "nothing is wrong with this host\n"),
        (replace(GOOD, root=False), 6, "not root: some checks read what is root's; run it with sudo\n"),
        (
            replace(GOOD, libbpf=False),
            1,
            "no libbpf.so.1: the data plane cannot be loaded; apt-get install libbpf1\n",
        ),
    ],
)
def test_findings_decide_the_exit_code(
    facts: Facts, code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "facts", lambda server: replace(facts, server=server))
    done = CliRunner().invoke(main.cli, ["doctor"])
    assert (done.exit_code, done.output) == (code, text)


def test_a_server_is_looked_at_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "facts", lambda server: replace(GOOD, server=server))
    done = CliRunner().invoke(main.cli, ["-j", "doctor", "--server"])
    assert done.exit_code == 1
    assert [row["what"] for row in json.loads(done.output)] == ["no IPv4 forwarding"]


def test_the_console_script_passes_the_code_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "facts", lambda server: replace(GOOD, wireguard=False))
    monkeypatch.setattr("sys.argv", ["locum", "doctor"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 1
