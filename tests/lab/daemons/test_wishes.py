"""Wishes over real nodes: a device says what shall wake it, falls asleep, and is woken by that and by nothing else (P1, P12)."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.errors import LabError
from locum.lab.network.topology import figure_5
from locum.lab.processes import Program, wait_until
from locum.lab.programs.services import WebServer
from locum.lab.programs.talking import hear, say
from locum.lab.steps.story import web
from locum.lab.world import Lab

HOME = str(HOME_ADDRESS4)
PORT, OTHER = 80, 8081
PLAN = Plan(
    short_lifetime=3,
    associations=(Pair("ha", "an1"), Pair("ha", "an2"), Pair("mn", "ha"), Pair("ha", "mnps")),
    tables={
        "ha": {"home_agent": {"page_seconds": 60.0}},
        "mnps": {"mnps": {"home_agent": str(figure_5((), 1).address4("ha"))}},
    },
)  # fmt: skip

ECHO = """
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Echo)
print("listening", flush=True)
server.serve_forever()
"""
TALK = """
import socket, sys
lines = socket.create_connection((sys.argv[1], int(sys.argv[2]))).makefile("rw", buffering=1)
print("open", flush=True)
for line in sys.stdin:
    lines.write(line)
    lines.flush()
    print(lines.readline(), end="", flush=True)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab("wishes", tmp_path, PLAN) as made:
        made.wait_registered()
        yield made


def state(lab: Lab) -> str:
    found: str = lab.ask("mn", "status")["mobile_node"]["state"]
    return found


def live(lab: Lab) -> list[str]:
    """Texts of the rules that page and that are in the kernel of the home agent."""
    return [rule["text"] for rule in lab.flow_rules() if rule["live"] and rule["action"] == "page"]


def fetched(lab: Lab, port: int, seconds: int) -> str | None:
    """The page from the device, for the correspondent; None: no answer in time."""
    line = ["curl", "-sf", "-m", str(seconds), f"http://{HOME}:{port}/page"]
    got = lab.processes.run("cn", line, seconds + 30.0)
    return got.stdout if got.returncode == 0 else None


def pages(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.command("ha", "-j", "page", "list"))
    return found


def test_device_is_woken_by_its_wishes_alone(lab: Lab) -> None:
    server = WebServer(lab.processes, "mn", lab.output / "web")
    server.start()
    (server.root / "page").write_bytes(b"what the device serves\n")
    assert lab.command("mn", "wake-on", "tcp", str(PORT)).strip() == f"wish 1: tcp {PORT}"
    with pytest.raises(LabError, match=r"there is no proxy of the kind mail.*watch-mail"):
        lab.command("mn", "wake-on", "mail", "--from", "boss@example.org")
    assert live(lab) == [], "rules wait while the device is awake"
    listed = json.loads(lab.command("mn", "-j", "wake-on", "list"))
    assert [(wish["wish"], wish["state"]) for wish in listed] == [(1, "in force"), (2, "not in force")]
    lab.command("mn", "wake-on", "remove", "2")

    told = lab.command("mn", "sleep")
    assert f"  wakes it: tcp {PORT}" in told.splitlines()
    wait_until("the rule to be in force", lambda: len(live(lab)) == 1, 20.0)
    assert fetched(lab, OTHER, 2) is None and state(lab) == "asleep" and pages(lab) == []
    assert fetched(lab, PORT, 60) == "what the device serves\n"
    wait_until("the device", lambda: state(lab) == "awake", 20.0)
    wait_until("the outcome", lambda: [page["state"] for page in pages(lab)] == ["reached"], 20.0)
    assert live(lab) == []
    assert f"woken by packet: tcp {HOME}:{PORT} > " in lab.command("mn", "wake")

    lab.command("mn", "wake-on", "remove", "1")
    assert "wakes it" not in lab.command("mn", "sleep")
    wait_until("the short registration to end", lambda: state(lab) == "asleep", 20.0)
    assert fetched(lab, PORT, 3) is None and state(lab) == "asleep" and len(pages(lab)) == 1
    lab.command("mn", "wake")

    assert f"  wakes it: tcp {PORT}" in lab.command("mn", "sleep", "--until", f"tcp {PORT}")
    wait_until("the rule to be in force", lambda: len(live(lab)) == 1, 20.0)
    assert fetched(lab, PORT, 60) == "what the device serves\n"
    wait_until("the device", lambda: state(lab) == "awake", 20.0)
    wait_until("the end of its wish", lambda: lab.ask("mn", "wake-on list") == [], 20.0)


def test_device_is_woken_by_the_end_of_a_download(lab: Lab) -> None:
    _, digests = web(lab, [("film", 3_000_000)], "1000000")
    with pytest.raises(LabError, match=r"there is no proxy of the kind download.*locum order download"):
        lab.command("mn", "wake-on", "download", "--store")
    url = f"http://{lab.topology.address4('cn')}/film"
    lab.command("mn", "order", "download", url, "--sha256", digests["film"])
    assert "  wakes it: download --store" in lab.command("mn", "sleep").splitlines()
    wait_until("the device", lambda: state(lab) == "awake", 90.0)
    assert "woken by event: delivered of film" in lab.command("mn", "wake")
    wait_until("the stored event", lambda: len(lab.ask("mn", "event list")) == 1, 20.0)
    [page] = pages(lab)
    assert (page["cause"], page["state"]) == ("event", "reached")
    lab.command("mn", "wake-on", "remove", "1")
    assert lab.ask("mn", "wake-on list") == []


def talker(lab: Lab, name: str) -> Program:
    """A connection of the correspondent to the device, whose lines come back."""
    line = [sys.executable, "-c", TALK, HOME, str(OTHER)]
    return lab.processes.start("cn", name, line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_open_connection_does_not_wake_the_device(lab: Lab) -> None:
    server = lab.processes.start(
        "mn", "echo", [sys.executable, "-c", ECHO, HOME, str(OTHER)], stdout=subprocess.PIPE
    )
    assert hear(server) == "listening"
    first = talker(lab, "first")
    assert hear(first) == "open" and say(first, "awake") == "awake"
    lab.command("mn", "wake-on", "tcp", str(OTHER))

    told = lab.command("mn", "sleep").splitlines()
    assert f"  wakes it: tcp {OTHER}" in told and not [line for line in told if "paging:" in line]
    wait_until("the rule to be in force", lambda: len(live(lab)) == 1, 20.0)
    say(first, "asleep", answered=False)
    time.sleep(5.0)  # the packet and its repetitions have had the time
    assert state(lab) == "asleep" and pages(lab) == []

    second = talker(lab, "second")
    wait_until("the device", lambda: state(lab) == "awake", 60.0)
    assert hear(second, 30.0) == "open" and say(second, "new") == "new"
    assert hear(first, 30.0) == "asleep" and say(first, "again") == "again"
    wait_until("the outcome", lambda: [page["state"] for page in pages(lab)] == ["reached"], 20.0)
    lab.command("mn", "wake-on", "remove", "1")
