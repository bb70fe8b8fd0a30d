"""The command line against a scripted node: output and exit code."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from locum.node.control.server import ControlSocket, RequestFailed
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


WENT = {
    "fate": "went",
    "programs": ["ssh"],
    "pids": [7],
    "flow": "tcp 10.36.0.4:5 > 192.0.2.1:22",
    "reason": None,
}
ALONE = {
    "fate": "stayed",
    "programs": ["nginx", "sh"],
    "pids": [8, 9],
    "flow": "tcp 10.36.0.4:443 > 192.0.2.1:50000",
    "reason": "the kernel encrypts it (kTLS), and the keys cannot be taken out",
}
LOST: dict[str, Any] = {
    "fate": "lost",
    "programs": [],
    "pids": [],
    "flow": "tcp 10.36.0.4:6 > 192.0.2.1:25",
    "reason": None,
}
COUNTS = dict.fromkeys(("went", "stayed", "lost", "returned", "closed", "coming"), 0)
REPORTS = {
    "whole": COUNTS | {"went": 1, "sessions": [WENT]},
    "none": COUNTS | {"sessions": []},
    "part": COUNTS | {"went": 2, "stayed": 1, "lost": 1, "sessions": [WENT, WENT, ALONE, LOST]},
}


async def handler(request: str, arguments: Mapping[str, Any]) -> Any:
    match request:
        case "binding list":
            return ROWS
        case "node check":
            return [
                {"where": "nftables: ip filter FORWARD", "problem": "it drops", "remedy": "iptables -I it"}
            ]
        case "session list" | "tunnel list":
            return []
        case "order list":
            return [
                {"order": "fox", "files": 1, "changed_at": 1795984051.5},
                {"order": "new", "changed_at": None},
            ]
        case "counters":
            if arguments.get("format") == "prometheus":
                return "locum_refusals_total 1\n"
            return {"refusals": {"refused-131": 4}, "data_plane": {"no-binding": 2}}
        case "status":
            return {"node": "n", "since": 1.0, "interfaces": {"eth0": "up"}}
        case "sleep":
            return {
                "state": "asleep",
                "for": arguments.get("for"),
                "report": REPORTS.get(str(arguments.get("to"))),
            }
        case "sleep dry-run":
            return [{**ALONE, "fate": "stays"}, {**WENT, "fate": "goes"}]
        case "give":
            return [
                {**WENT, "kind": "given"},
                *([{**ALONE, "kind": "stays"}] if arguments.get("pid") else []),
            ]
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


def test_output_is_a_table_or_json(node: Path) -> None:
    people = locum("binding", "list", socket=node)
    assert people.returncode == 0
    assert "10.2.0.2 (31.5 s)" in people.stdout and "default coa" in people.stdout
    assert "\x1b[" not in people.stdout
    assert json.loads(locum("binding", "list", "-j", socket=node).stdout) == ROWS
    assert json.loads(locum("-j", "binding", "list", socket=node).stdout) == ROWS
    assert json.loads(locum("--socket", str(node), "-j", "session", "list").stdout) == []
    nothing = locum("tunnel", "list", socket=node)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "none\n")


def test_moments_in_tables_are_dates(node: Path) -> None:
    shown = locum("order", "list", socket=node).stdout
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1795984051)) in shown
    assert json.loads(locum("-j", "order", "list", socket=node).stdout)[0]["changed_at"] == 1795984051.5


def test_counters_and_status(node: Path) -> None:
    assert "refused-131" in locum("counters", socket=node).stdout
    assert locum("counters", "--prometheus", socket=node).stdout == "locum_refusals_total 1\n"
    assert "eth0: up" in locum("status", socket=node).stdout


def test_node_check_prints_the_remedy(node: Path, tmp_path: Path) -> None:
    done = locum("node", "check", socket=node)
    assert done.returncode == 1 and "iptables -I it" in done.stdout
    done = locum("node", "check", "-j", socket=node)
    assert done.returncode == 1 and json.loads(done.stdout)[0]["problem"] == "it drops"
    (tmp_path / "no.toml").write_text("[node]\n")
    done = locum("node", "check", str(tmp_path / "no.toml"))
    assert done.returncode == 4 and "no.toml" in done.stderr


def test_sleep_says_how_it_ended(node: Path) -> None:
    done = locum("sleep", "--for", "30", "--to", "whole", socket=node)
    assert (done.returncode, done.stdout) == (0, "asleep: 1 session went to the stand-in\n")
    done = locum("sleep", "--to", "none", socket=node)
    assert (done.returncode, done.stdout) == (0, "asleep: no sessions\n")
    assert json.loads(locum("sleep", "--for", "30", "-j", socket=node).stdout)["for"] == 30
    failed = locum("wake", socket=node)
    assert (failed.returncode, failed.stderr) == (1, "locum: the stand-in was not reached\n")
    assert locum("sleep", "--for", "-1", socket=node).returncode == 2


def test_sleep_names_sessions_that_stay_and_exits_with_6(node: Path) -> None:
    done = locum("sleep", "--to", "part", socket=node)
    assert (done.returncode, done.stderr) == (6, "")
    assert done.stdout.splitlines() == [
        "asleep: 2 sessions went to the stand-in, 1 session stayed, 1 session lost",
        "  stayed: nginx, sh (processes 8, 9), tcp 10.36.0.4:443 > 192.0.2.1:50000: "
        "the kernel encrypts it (kTLS), and the keys cannot be taken out",
        "  lost: no program, tcp 10.36.0.4:6 > 192.0.2.1:25",
    ]
    as_json = locum("sleep", "--to", "part", "-j", socket=node)
    assert as_json.returncode == 6
    assert json.loads(as_json.stdout)["report"] == REPORTS["part"]
    assert locum("give", socket=node).returncode == 0
    assert locum("give", "--pid", "8", socket=node).returncode == 6
    assert "6 done, but some" in " ".join(locum("--help").stdout.split())


def test_a_dry_run_is_a_table(node: Path) -> None:
    done = locum("sleep", "--dry-run", socket=node)
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0].split() == ["fate", "programs", "pids", "flow", "reason"]
    assert "stays" in lines[2] and "nginx, sh" in lines[2] and "kTLS" in lines[2]
    assert "goes" in lines[3] and "ssh" in lines[3]
    rows = json.loads(locum("sleep", "--dry-run", "-j", socket=node).stdout)
    assert [row["fate"] for row in rows] == ["stays", "goes"]


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
