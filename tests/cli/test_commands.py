"""The command line against a node that is played: what is printed, and with which exit code it ends."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from locum.node.control_socket import ControlSocket, RequestFailed
from locum.node.events import EventStream

ROWS = [
    {
        "kind": "binding",
        "home_address": "10.36.0.4",
        "care_of": [{"address": "10.2.0.2", "remaining": 31.5}],
        "default_coa": "10.3.0.1",
        "in_force": ["10.2.0.2"],
    }
]


async def handler(request: str, arguments: Mapping[str, Any]) -> Any:
    match request:
        case "binding list":
            return ROWS
        case "session list" | "tunnel list":
            return []
        case "counters":
            if arguments.get("format") == "prometheus":
                return "locum_refusals_total 1\n"
            return {"refusals": {"refused-131": 4}, "data_plane": {"no-binding": 2}}
        case "status":
            return {"node": "n", "since": 1.0, "interfaces": {"eth0": "up"}}
        case "sleep":
            return {"state": "asleep", "for": arguments.get("for")}
    raise RequestFailed("the stand-in was not reached")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Path]:
    """A control socket whose requests are answered from another thread."""
    path, ready, loop = tmp_path / "n.sock", threading.Event(), asyncio.new_event_loop()
    events = EventStream("n")

    async def serve() -> None:
        control = ControlSocket(path, handler, events.subscribe)
        await control.open()
        ready.set()
        while True:
            await asyncio.sleep(0.05)
            events.emit("tick", "601", "10.36.0.4", detail={"lifetime": 3})

    def run() -> None:
        task = loop.create_task(serve())
        loop.call_soon(lambda: stop.append(task))
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            return

    stop: list[Any] = []
    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(5)
    yield path
    loop.call_soon_threadsafe(stop[0].cancel)
    thread.join()


def locum(*arguments: str, socket: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "LOCUM_SOCKET"}
    if socket is not None:
        environment["LOCUM_SOCKET"] = str(socket)
    return subprocess.run(
        [sys.executable, "-m", "locum", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=20,
    )


def test_tables_for_people_and_json_for_programs(node: Path) -> None:
    people = locum("binding", "list", socket=node)
    assert people.returncode == 0
    assert "10.2.0.2 (31.5 s)" in people.stdout and "default coa" in people.stdout
    assert "\x1b[" not in people.stdout
    assert json.loads(locum("binding", "list", "-j", socket=node).stdout) == ROWS
    assert json.loads(locum("-j", "binding", "list", socket=node).stdout) == ROWS
    assert json.loads(locum("--socket", str(node), "-j", "session", "list").stdout) == []
    nothing = locum("tunnel", "list", socket=node)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "none\n")


def test_counters_and_status(node: Path) -> None:
    assert "refused-131" in locum("counters", socket=node).stdout
    assert locum("counters", "--prometheus", socket=node).stdout == "locum_refusals_total 1\n"
    assert "eth0: up" in locum("status", socket=node).stdout


def test_sleep_says_how_it_ended(node: Path) -> None:
    done = locum("sleep", "--for", "30", socket=node)
    assert (done.returncode, done.stdout) == (0, "asleep\n")
    assert json.loads(locum("sleep", "--for", "30", "-j", socket=node).stdout)["for"] == 30
    failed = locum("wake", socket=node)
    assert (failed.returncode, failed.stderr) == (1, "locum: the stand-in was not reached\n")
    assert locum("sleep", "--for", "-1", socket=node).returncode == 2


def test_monitor_streams(node: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "locum", "--socket", str(node), "monitor", "-j"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["kind"] == "tick"
    process.terminate()
    process.wait()
    process.stdout.close()


def test_exit_codes(tmp_path: Path) -> None:
    unreachable = locum("status", socket=tmp_path / "none.sock")
    assert unreachable.returncode == 3 and unreachable.stderr.count("\n") == 1
    assert locum("no-such-thing").returncode == 2
    assert locum("--help").returncode == 0
    (tmp_path / "bad.toml").write_text("[node]\n")
    bad = locum("config", "check", str(tmp_path / "bad.toml"))
    assert bad.returncode == 4 and "[node] name" in bad.stderr and bad.stderr.count("\n") == 1
    as_json = locum("config", "check", "-j", str(tmp_path / "bad.toml"))
    assert as_json.returncode == 4 and json.loads(as_json.stdout)["key"] == "name"
    assert locum("node", "run", str(tmp_path / "bad.toml")).returncode == 4


def test_help_names_every_command() -> None:
    text = locum("--help").stdout
    for word in (
        "binding",
        "config",
        "counters",
        "demo",
        "lab",
        "monitor",
        "node",
        "session",
        "sleep",
        "wake",
    ):
        assert word in text
