"""Pages over real nodes: a connection from the correspondent wakes the sleeping device, commands do, and nobody else (P1, P17)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locum.lab.captures.pcap import ACK, SYN, segments
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer
from locum.lab.world import Lab

HOME = str(HOME_ADDRESS4)
PORT, OTHER = 80, 8081
LIMITS = {"page_seconds": 60.0}  # a slow machine is no silent device
PLAN = Plan(
    short_lifetime=3,
    associations=(Pair("ha", "an1"), Pair("ha", "an2")),
    tables={
        "ha": {"home_agent": {**LIMITS, "mobile": {"rule": [
            {"id": 7, "priority": 7, "action": "page", "protocol": "tcp", "destination_port": PORT},
        ]}}},
    },
)  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab("pages", tmp_path, PLAN) as made:
        made.wait_registered()
        yield made


def asleep(lab: Lab) -> None:
    lab.command("mn", "sleep")
    wait_until("the rule to be in force", lambda: lab.flow_rules()[0]["live"] == [4, 6], 20.0)


def state(lab: Lab) -> str:
    found: str = lab.ask("mn", "status")["mobile_node"]["state"]
    return found


def called(lab: Lab) -> list[str]:
    """Ends of the access node's calls."""
    return [event.detail["outcome"] for event in lab.timeline.of("an1") if event.kind == "called"]


def taken(lab: Lab) -> list[int]:
    """Packets that rules had taken when they left the kernel."""
    return [event.detail["packets"] for event in lab.timeline.of("ha") if event.kind == "rule-ended"]


def at_an1(lab: Lab) -> str:
    return str(lab.configuration.care_of("an1"))


def pages(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.command("ha", "-j", "page", "list"))
    return found


def test_connection_wakes_the_device_and_completes(lab: Lab) -> None:
    web = WebServer(lab.processes, "mn", lab.output / "web")
    web.start()
    (web.root / "page").write_bytes(b"what the device serves\n")
    asleep(lab)
    other = lab.processes.run("cn", ["curl", "-s", "-m", "2", f"http://{HOME}:{OTHER}/page"])
    assert other.returncode and pages(lab) == [] and state(lab) == "asleep"

    got = lab.processes.run("cn", ["curl", "-sf", "-m", "60", f"http://{HOME}:{PORT}/page"], 90.0)
    assert (got.returncode, got.stdout) == (0, "what the device serves\n")
    wait_until("the outcome", lambda: [page["state"] for page in pages(lab)] == ["reached"], 20.0)
    [page] = pages(lab)
    assert (page["cause"], page["rule"], page["reason"]) == ("packet", 7, None)
    wait_until("the device's own answer", lambda: called(lab) == ["reached"], 20.0)
    wait_until("the device", lambda: state(lab) == "awake", 20.0)
    assert lab.flow_rules()[0]["live"] == []
    counted = "packets of the rule, which is gone"
    wait_until(counted, lambda: sum(taken(lab)) >= 1, 20.0)
    lab.finish()
    files = lab.captures.files
    opened = [
        sum(one.flags & (SYN | ACK) == SYN and one.destination_port == PORT and one.outgoing is outgoing
            for one in segments(files[node]))
        for node, outgoing in (("cn", True), ("mn", False))
    ]  # fmt: skip
    assert opened[0] == opened[1] >= 1, "each once"


def test_commands_page_and_say_the_outcome(lab: Lab) -> None:
    with pytest.raises(LabError, match="is awake"):
        lab.command("ha", "page", HOME)
    asleep(lab)
    assert "reached after" in lab.command("ha", "page", HOME, patience=120.0)
    wait_until("the device", lambda: state(lab) == "awake", 20.0)
    [page] = pages(lab)
    assert (page["state"], page["cause"], page["access_node"]) == ("reached", "command", at_an1(lab))
