"""A proxy opens a connection while the device sleeps, and a program of the device that waits for it goes on with it (A11)."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import Plan, Table
from locum.lab.network.topology import figure_5
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab, locum
from locum.node.exits import Exit
from tests.node.apps.world import install

PORT = 7300
# Echoes come back as lines: each is noted, and after a moment a new one is sent
PROGRAM = 'echo awake; while read -r line; do echo "got $line" >&2; sleep 0.2; echo again; done'


# As descriptor 3, for this process alone
INHERITED = 'test "$LISTEN_FDS $LISTEN_PID" = "1 $$" && sed -u "s/^/got /" <&3 >&2'


@pytest.fixture(params=[4, 6])
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Lab]:
    install(tmp_path, monkeypatch)
    cn = figure_5((), 1)
    address = cn.address4("cn") if request.param == 4 else cn.address6("cn")
    settings: dict[str, Any] = {
        "begin": [["Connect", 1, str(address), PORT], ["Send", 1, "asleep\n"]],
        "opened": [["HandOver", 1, "chat", "given back\n"]],
    }
    order: Table = {"kind": "puppet", "name": "opener", "settings": settings}
    plan = Plan(tables={"mn": {"mobile_node": {"app": [order], "accept_seconds": 5}}})
    with Lab(f"handed-over-{request.param}", tmp_path / "lab", plan, captures=False) as made:
        made.wait_registered()
        yield made


def held(lab: Lab, number: int) -> bool:
    rows = [row for row in lab.sessions() if row["label"] == "chat" and row["total"] >= 18]
    return len(rows) == number


def lines(program: Program) -> list[str]:
    return re.findall("got (.*)", program.log.read_text())


def serve(lab: Lab) -> Program:
    """Echoes, and says how many connections it has had."""
    command = ["socat", "-d", "-d", f"TCP6-LISTEN:{PORT},fork,reuseaddr,ipv6only=0", "EXEC:cat"]
    return lab.processes.start("cn", "echo", command)


def wait(lab: Lab, name: str, *command: str, options: tuple[str, ...] = ()) -> Program:
    """A program of the device that waits."""
    socket = str(lab.configuration.socket("mn"))
    accept = [*locum(), "--socket", socket, "accept", "chat", "--wait", *options, "--", *command]
    return lab.processes.start("mn", name, accept)


def test_program_goes_on_with_a_connection_of_a_proxy(lab: Lab) -> None:
    server = serve(lab)

    def opened() -> int:
        return server.log.read_text().count("accepting connection")

    socket = str(lab.configuration.socket("mn"))
    program = wait(lab, "chat", "sh", "-c", PROGRAM)
    refused = lab.processes.run("mn", [*locum(), "--socket", socket, "accept", "chat", "--", "cat"])
    assert refused.returncode == 1 and "--wait" in refused.stderr
    lab.command("mn", "sleep")
    wait_until("the connection is held", lambda: held(lab, 1), 30)
    assert opened() == 1
    lab.command("mn", "wake")
    wait_until("the program goes on", lambda: len(lines(program)) > 3, 30)
    assert lines(program)[:4] == ["given back", "asleep", "awake", "again"]
    assert opened() == 1

    lab.command("mn", "sleep")
    wait_until("another connection is held", lambda: held(lab, 1), 30)
    lab.command("mn", "wake")
    waiting = [row for row in lab.sessions("mn") if row["kind"] == "waits"]
    assert [row["label"] for row in waiting] == ["chat"]
    before = len(lines(program))
    wait_until("the program goes on after another sleep", lambda: len(lines(program)) > before + 2, 30)
    assert program.running and opened() == 2

    def unclaimed() -> bool:
        return any(event.kind == "session-unclaimed" for event in lab.timeline.of("mn"))

    wait_until("nobody takes the second one", unclaimed, 30)


@pytest.mark.parametrize("lab", [4], indirect=True)
def test_connections_outlive_the_stand_ins_daemon(lab: Lab) -> None:
    server = serve(lab)
    gone = wait(lab, "gone", "cat")
    lab.command("mn", "sleep")
    wait_until("the connection is held", lambda: held(lab, 1), 30)
    lab.crash("mnps")
    lab.restart("mnps")
    wait_until("it is held, and the proxy has opened another one", lambda: held(lab, 2), 60)
    gone.process.send_signal(signal.SIGINT)
    assert gone.wait(20) == Exit.INTERRUPTED
    programs = [
        wait(lab, f"waiting{number}", "sh", "-c", INHERITED, options=("--socket",)) for number in range(2)
    ]
    lab.command("mn", "wake")
    for program in programs:
        wait_until("the program has all bytes", lambda one=program: len(lines(one)) == 2, 30)  # type: ignore[misc]
        assert lines(program) == ["given back", "asleep"] and program.running
    assert server.log.read_text().count("accepting connection") == 2
