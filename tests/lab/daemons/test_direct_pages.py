"""Direct pages on real daemons: a device gives directions and sleeps on, and wakes by the second event (P5)."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import PAIRS, Pair, Plan, Table
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.world import Lab
from locum.wire.control.paging.entry import ActionKind, Entry, EntryAction
from locum.wire.control.paging.status import PagingStatus, StatusAnswer
from tests.lab.daemons.test_event_tables import ALARM, change, events, say, state

NODES = figure_5()
SERVER = {"location_server": str(NODES.address4("ha"))}
AN1, AN2 = (str(NODES.address4(node, "radio0")) for node in ("an1", "an2"))
ADDED = (
    Pair("ha", "an1"),
    Pair("ha", "an2"),
    Pair("ha", "mnps"),
    Pair("mnps", "an1"),
    Pair("mnps", "an2"),
    Pair("cn", "mnps"),
)
TALKER = len(PAIRS) + len(ADDED)
DIRECT = Entry(4, (ALARM,), (EntryAction(ActionKind.PAGE_DIRECT),))
HINTED: Table = {
    "app": "packet",
    "kind": "udp",
    "where": [{"field": "text", "is": "contains", "value": "HINT"}],
    "decision": "stay",
    "entry": [
        {
            "id": 9,
            "app": "packet",
            "kind": "udp",
            "where": [{"field": "text", "is": "contains", "value": "SECOND"}],
            "actions": ["direct"],
        }
    ],
}
DECIDE = """#!/bin/sh
cat >> {got}
case "$(tail -1 {got})" in
*URGENT*) echo '{{"decision": "wake"}}' ;;
*) echo '{{"decision": "stay", "information": {{"word": "URGENT"}}}}' ;;
esac
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that goes on after news, and lets the device wake for urgent texts alone."""
    decide = tmp_path / "decide"
    decide.write_text(DECIDE.format(got=tmp_path / "got"))
    decide.chmod(0o755)
    return decide


@pytest.fixture
def lab(tmp_path: Path, program: Path) -> Iterator[Lab]:
    plan = Plan(
        short_lifetime=3,
        associations=ADDED,
        tables={
            "ha": {
                "home_agent": {"page_seconds": 60.0},
                "location": {"access_nodes": [AN1, AN2], "clients": [str(NODES.address4("mnps"))]},
            },
            "an1": {"foreign_agent": SERVER},
            "an2": {"foreign_agent": SERVER},
            "mnps": {"mnps": {"home_agent": SERVER["location_server"], "page_seconds": 45.0, **SERVER}},
            "mn": {
                "mobile_node": {
                    "page_command": [str(program)],
                    "page_command_seconds": 20.0,
                    "direction": [HINTED],
                }
            },
        },
    )
    with Lab("direct-pages", tmp_path / "lab", plan, captures=False) as made:
        made.wait_registered()
        yield made


def outcomes(lab: Lab) -> list[str]:
    return [event["outcome"] for event in events(lab, "mnps", "direct-page-ended")]


def registrations(lab: Lab) -> int:
    return sum(event.kind == "sent" and event.message == "601" for event in lab.timeline.of("mn"))


def told(program: Path) -> list[dict[str, Any]]:
    """Events that the program has got."""
    return [json.loads(line) for line in (program.parent / "got").read_text().splitlines()]


def test_device_directs_its_agent_and_wakes_later(lab: Lab, program: Path) -> None:
    assert change(lab, DIRECT, word="NEWS", talker=TALKER) == StatusAnswer(PagingStatus.OK)
    lab.command("mn", "sleep")
    assert state(lab) == "asleep"
    before = registrations(lab)
    say(lab, "NEWS of today")
    wait_until("the directions", lambda: outcomes(lab) == ["directed"], 60.0)
    (page,) = events(lab, "mnps", "direct-page-ended")
    assert (page["entry"], page["app"], page["event"], page["information"]) == (4, "packet", "udp", 1)
    assert told(program)[0]["detail"]["text"] == "NEWS of today"
    say(lab, "NEWS of tomorrow")
    time.sleep(3.0)
    assert state(lab) == "asleep" and outcomes(lab) == ["directed"], "the event table goes by the directions"
    assert registrations(lab) == before and len(told(program)) == 1
    (paged,) = events(lab, "mn", "paged")
    assert (paged["decision"], paged["because"]) == ("go-on", "command")
    assert [event["outcome"] for event in events(lab, "an1", "called")] == ["reached"]

    lab.crash("mnps")
    lab.restart("mnps")
    say(lab, "URGENT matter")
    wait_until("the device to be awake", lambda: state(lab) == "awake", 90.0)
    wait_until("the outcome", lambda: outcomes(lab) == ["directed", "reached"], 20.0)
    assert told(program)[1]["detail"]["text"] == "URGENT matter"
    assert json.loads(lab.command("ha", "-j", "page", "list")) == [], "the home agent had no page"
    assert events(lab, "mnps", "page-asked") == []


def test_unreachable_device_is_paged_by_the_home_agent(lab: Lab) -> None:
    assert change(lab, DIRECT, word="URGENT", talker=TALKER) == StatusAnswer(PagingStatus.OK)
    lab.command("mn", "sleep")
    lab.crash("an1")
    say(lab, "URGENT matter")
    wait_until("the page of the home agent", lambda: bool(events(lab, "mnps", "page-asked")), 120.0)
    assert outcomes(lab) == ["no-answer"]
    lab.restart("an1")
    wait_until("the device to be awake", lambda: state(lab) == "awake", 120.0)


def test_entry_of_the_directions_pages(lab: Lab, program: Path) -> None:
    assert change(lab, DIRECT, word="HINT", talker=TALKER) == StatusAnswer(PagingStatus.OK)
    lab.command("mn", "sleep")
    say(lab, "SECOND URGENT matter")
    say(lab, "a HINT")
    wait_until("the directions", lambda: outcomes(lab) == ["directed"], 60.0)
    assert state(lab) == "asleep" and not (program.parent / "got").exists()
    lab.crash("mn")
    lab.restart("mn")
    assert state(lab) == "asleep"
    say(lab, "SECOND URGENT matter")
    wait_until("the device to be awake", lambda: state(lab) == "awake", 90.0)
    wait_until("the outcome", lambda: outcomes(lab) == ["directed", "reached"], 20.0)
    fired = [event["entry"] for event in events(lab, "mnps", "event-fired")]
    assert fired == [4, 9], "the first packet matched no entry yet"
    assert [event["because"] for event in events(lab, "mn", "paged")] == ["direction", "command"]
