"""Rules that are left for a device over real nodes: by its access node (1204), while it sleeps, over a restart (P1, P14)."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locum.lab.captures.pcap import datagrams
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, OTHER_ADDRESS4, Pair, Plan
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer
from locum.lab.world import Lab
from locum.wire.control.paging.page_rules import DeviceState, PageRules1204, encode_1204
from locum.wire.control.paging.rules import PageAction, PageRule
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, decode_status_answer
from locum.wire.traffic_selector import Ipv4Selector
from tests.lab.neighbouring import say

HOME = str(HOME_ADDRESS4)
WEB, QUIET, NOISE, REST = 80, 4100, 4200, 4300
LIMITS = {"page_seconds": 60.0}  # a slow machine is no silent device
PLAN = Plan(
    short_lifetime=3,
    associations=(Pair("ha", "an1"), Pair("ha", "an2"), Pair("ha", "evil")),
    tables={"ha": {"home_agent": LIMITS}},
)
SEND = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], int(sys.argv[2])))"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab("left-rules", tmp_path, PLAN) as made:
        made.wait_registered()
        yield made


def rule(item: int, action: PageAction, protocol: int, port: int) -> PageRule:
    return PageRule(
        item, item, (Ipv4Selector(protocol=(protocol, protocol), destination_port=(port, port)),), action
    )


RULES = (
    rule(1, PageAction.PAGE, 6, WEB),
    rule(2, PageAction.HOLD, 17, QUIET),
    rule(3, PageAction.DROP, 17, NOISE),
)


def leave(lab: Lab, **changes: Any) -> StatusAnswer:
    """An access node with an association for the device leaves its rules; the answer."""
    said: dict[str, Any] = {
        "home_addresses": (HOME_ADDRESS4, HOME_ADDRESS6),
        "rules": RULES,
        "otherwise": PageAction.HOLD,
        "lifetime": 3600,
        "state": DeviceState.AWAKE,
        "sent": round(time.time() * 1000),
    }
    [body] = say(lab, [("1204", encode_1204(PageRules1204(**{**said, **changes})))], to="ha")
    return decode_status_answer(body)


def rows(lab: Lab) -> dict[str, tuple[str, int | None, list[int], int]]:
    """Rules by action: owner, the sender's identifier, families in force, and packets."""
    return {
        f"{row['action']} {row['item']}": (row["owner"], row["item"], row["live"], row["packets"])
        for row in lab.flow_rules()
    }


def live(lab: Lab) -> set[tuple[int, ...]]:
    return {tuple(found[2]) for found in rows(lab).values()}


def send(lab: Lab, port: int) -> None:
    """A datagram of the correspondent to the device."""
    done = lab.processes.run("cn", [sys.executable, "-c", SEND, HOME, str(port)])
    assert not done.returncode, done.stderr


def asleep(lab: Lab) -> None:
    lab.command("mn", "sleep")
    wait_until("the rules to be in force", lambda: live(lab) == {(4, 6)}, 20.0)


def explained(lab: Lab, port: int) -> str:
    return lab.command("ha", "explain", "udp", "198.51.100.80:4000", f"{HOME}:{port}")


def pages(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.command("ha", "-j", "page", "list"))
    return found


def test_rules_that_were_left_act_while_the_device_sleeps(lab: Lab) -> None:
    """Noise is dropped, what nothing names waits, and the page brings both the connection and what waited."""
    web = WebServer(lab.processes, "mn", lab.output / "web")
    web.start()
    (web.root / "page").write_bytes(b"what the device serves\n")
    assert leave(lab) == StatusAnswer(PagingStatus.OK, lifetime=3600)
    foreign = leave(lab, home_addresses=(OTHER_ADDRESS4,))
    assert foreign.status is PagingStatus.NOT_AUTHORISED
    assert lab.counters("ha")["refusals"]["1204-not-authorised"] == 1
    assert live(lab) == {()}, "the device is awake"
    asleep(lab)
    assert {found[0] for found in rows(lab).values()} == {"device"}
    assert "no rule names it: hold" in explained(lab, REST) and "is dropped" in explained(lab, NOISE)

    lab.crash("ha")
    lab.restart("ha")
    wait_until("the rules to be in force again", lambda: live(lab) == {(4, 6)}, 20.0)
    for port in (NOISE, REST, QUIET):
        send(lab, port)
    wait_until(
        "packets of the rules",
        lambda: [rows(lab)[key][3] for key in ("hold 2", "drop 3", "hold None")] == [1, 1, 1],
        20.0,
    )
    assert pages(lab) == [], "nobody is paged"

    got = lab.processes.run("cn", ["curl", "-sf", "-m", "60", f"http://{HOME}:{WEB}/page"], 90.0)
    assert (got.returncode, got.stdout) == (0, "what the device serves\n")
    wait_until("the outcome", lambda: [page["state"] for page in pages(lab)] == ["reached"], 20.0)
    assert live(lab) == {()}, "the device is awake again"
    lab.finish()
    arrived = [
        found.ports[1]
        for found in datagrams(lab.captures.files["mn"])
        if found.protocol == 17 and found.ports[1] in (QUIET, NOISE, REST) and not found.outgoing
    ]
    assert arrived == [REST, QUIET], "once, in order"


def test_a_device_that_says_it_sleeps_is_asleep(lab: Lab) -> None:
    """Its registration holds; it is awake again by the next one."""
    assert leave(lab, state=DeviceState.ASLEEP).status is PagingStatus.OK
    wait_until("the rules to be in force", lambda: live(lab) == {(4, 6)}, 20.0)
    lab.cut("an1")
    lab.restore("an2")
    wait_until("the device to register once more", lambda: live(lab) == {()}, 30.0)
    assert leave(lab, rules=(), lifetime=0).lifetime == 0
    assert rows(lab) == {}
    ended = [event for event in lab.timeline.of("ha") if event.kind == "paging-rules-ended"]
    assert [event.detail["reason"] for event in ended] == ["removed"]
