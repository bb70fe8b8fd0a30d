"""The paging classifier of a device (P16), in the kernel of access nodes: it drops or forwards packets to its
stand-in before policing, and no packets to the device itself."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan, Table
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.scenarios.stand_ins.fig07 import stand_ins
from locum.lab.steps.contexts import ACCESS, context
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.world import Lab

REFUSED, BOTH, PAGED, SENT_ON = 7_009, 7_010, 7_012, 7_013
"""UDP ports: policing drops all but PAGED; the classifier drops BOTH and PAGED, and forwards SENT_ON."""
NUMBER = 25
PROFILE: Table = {
    "home_address": str(HOME_ADDRESS4),
    "to_visitor": [
        {"id": 1, "action": "drop", "protocol": "udp", "destination_port": f"{REFUSED}-{BOTH}"},
        {"id": 2, "action": "drop", "protocol": "udp", "destination_port": SENT_ON},
    ],
    "paging": [
        {"id": 1, "action": "drop", "protocol": "udp", "destination_port": f"{BOTH}-{PAGED}"},
        {"id": 2, "action": "allow", "protocol": "udp", "destination_port": SENT_ON},
    ],
}
ASSOCIATIONS = (Pair("an1", "an3", ACCESS, ACCESS),)
AN1: Table = {"foreign_agent": {"profile": [PROFILE]}}
STAND_IN = Registering("mnps", bid=1)
PLANS = {
    "asleep": Plan(
        short_lifetime=3,
        associations=ASSOCIATIONS,
        tables={"an1": AN1, "mn": {"mobile_node": {"context_transfer": True}}},
    ),
    "registered": Plan(
        default_coa=False, associations=ASSOCIATIONS, tables={**registering(STAND_IN), "an1": AN1}
    ),
}
"""The stand-in is reached by the default care-of address (Fig. 6), or by its own registration (Fig. 7)."""


@pytest.mark.parametrize("plan", PLANS)
def test_classifier_is_enforced_at_the_stand_ins_access_node(tmp_path: Path, plan: str) -> None:
    with Lab("paging-classifier", tmp_path, PLANS[plan]) as lab:
        lab.wait_registered("an1")
        awake = sent(lab, "an1")
        lab.close_lid("an1")
        wait_until("the classifier", lambda: "paging" in context(lab, "an3").get("blocks", {}), 20.0)
        if plan == "registered":
            wait_until("the stand-in's registration", lambda: bool(stand_ins(lab)), 20.0)
        asleep, before = sent(lab, "an3"), taken(lab, "an1")
        lab.open_lid("an1")
        lab.wait_registered("an1")
        again = sent(lab, "an1")
        lab.finish()
        arrived = {
            node: {port: stream.order(lab.captures.files[node], port) for port in (BOTH, PAGED, SENT_ON)}
            for node in ("mn", "mnps")
        }
    by_policing = {1: 2 * NUMBER, 2: NUMBER}
    assert awake == again == by_policing, "at the device's access node only policing counts, by its numbers"
    assert before in (by_policing, {}), "while it slept, nothing came there"
    assert asleep == {1: 2 * NUMBER, 2: NUMBER, 3: NUMBER, 4: 0}, "classifier 1 and 2, then policing 1 and 2"
    once = list(range(NUMBER))
    assert arrived["mn"] == {BOTH: [], PAGED: 2 * once, SENT_ON: []}, "awake, before and after"
    assert arrived["mnps"] == {BOTH: [], PAGED: [], SENT_ON: once}


WAKING, QUIET = 7_021, 7_022
"""UDP ports: the classifier pages the device for the first, and forwards both to the stand-in."""
PAGING: Table = {
    "home_address": str(HOME_ADDRESS4),
    "paging": [{"id": 5, "action": "page", "protocol": "udp", "destination_port": WAKING}],
}
PAGED_PLAN = Plan(
    short_lifetime=3,
    associations=(Pair("ha", "an1"), Pair("ha", "an3")),
    tables={
        "ha": {"home_agent": {"page_seconds": 60.0}},  # a slow machine is no silent device
        "an3": {"foreign_agent": {"profile": [PAGING]}},
    },
)


def test_the_classifier_has_the_sleeping_device_paged(tmp_path: Path) -> None:
    with Lab("classifier-pages", tmp_path, PAGED_PLAN) as lab:
        lab.wait_registered("an1")
        lab.command("mn", "sleep")
        wait_until("the device to sleep", lambda: state(lab) == "asleep", 20.0)
        stream_to(lab, QUIET)
        lab.pause(0.5)
        assert state(lab) == "asleep" and pages(lab) == []
        stream_to(lab, WAKING)
        wait_until("the device to wake", lambda: state(lab) == "awake", 60.0)
        wait_until("the outcome", lambda: ended(lab) != [], 60.0)
        [page] = pages(lab)
        assert (page["cause"], page["state"]) == ("event", "reached")
        assert ended(lab) == [("reached", 5)]
        lab.finish()
        arrived = {port: stream.order(lab.captures.files["mnps"], port) for port in (WAKING, QUIET)}
    assert arrived[QUIET] == list(range(NUMBER)), "the stand-in has what the classifier let through"
    assert arrived[WAKING][:1] == [0], "and the packet that woke the device"


def state(lab: Lab) -> str:
    found: str = lab.ask("mn", "status")["mobile_node"]["state"]
    return found


def pages(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.command("ha", "-j", "page", "list"))
    return found


def ended(lab: Lab) -> list[tuple[str, int]]:
    """Outcomes of the pages that the classifier asked for, and their rules."""
    events = [event for event in lab.timeline.of("an3") if event.kind == "classifier-page-ended"]
    return [(event.detail["outcome"], event.detail["rule"]) for event in events]


def stream_to(lab: Lab, port: int) -> None:
    arguments = (str(HOME_ADDRESS4), str(port), "100", "0.25")
    command = [sys.executable, "-m", "locum.lab.programs.stream", *arguments]
    lab.processes.start("cn", f"paging-{port}", command).wait(10.0)


def sent(lab: Lab, node: str) -> dict[int, int]:
    """Datagrams to each port; how many of them each rule takes in the meantime at an access node."""
    before = taken(lab, node)
    for port in (REFUSED, BOTH, PAGED, SENT_ON):
        command = [
            sys.executable,
            "-m",
            "locum.lab.programs.stream",
            str(HOME_ADDRESS4),
            str(port),
            "100",
            "0.25",
        ]
        lab.processes.start("cn", f"classified-{node}-{port}", command).wait(10.0)
    lab.pause(0.3)
    return {number: count - before.get(number, 0) for number, count in taken(lab, node).items()}


def taken(lab: Lab, node: str) -> dict[int, int]:
    """Counters of the rules of the device's filter at an access node, without rule 0."""
    return {
        row["id"]: row["packets"]
        for row in json.loads(lab.command(node, "--json", "filter", "list"))
        if row["home_address"] == str(HOME_ADDRESS4) and row["place"] == "to-visitor" and row["id"]
    }
