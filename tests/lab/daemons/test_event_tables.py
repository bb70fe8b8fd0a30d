"""Event tables on real daemons: a job's end, or one packet, wakes the device, which gets its event (P3, P4, P15)."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, PAIRS, Pair, Plan
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.steps.story import web
from locum.lab.world import Lab
from locum.roles.mnps.paging.agent_rules import LIFETIME
from locum.wire.control.paging.entry import ActionKind, Condition, Entry, EntryAction, Operator, Pattern
from locum.wire.control.paging.event_table import EventTable1206, Operation, encode_1206
from locum.wire.control.paging.rules import AgentRule
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, decode_status_answer
from locum.wire.traffic_selector import Ipv4Selector
from tests.lab.daemons.test_orders import states

SIZE = 6_000_000
RATE = 2_000_000
"""Bytes a second."""
WORD = "ALARM"
ADDED = (Pair("ha", "an1"), Pair("ha", "an2"), Pair("ha", "mnps"), Pair("cn", "mnps"))
TALKER = len(PAIRS) + len(ADDED)
PLAN = Plan(
    short_lifetime=3,
    associations=ADDED,
    tables={
        "ha": {"home_agent": {"page_seconds": 60.0}},  # a slow machine is no silent device
        "mnps": {"mnps": {"home_agent": str(figure_5((), 1).address4("ha"))}},
    },
)
PAGE, STORE = EntryAction(ActionKind.PAGE), EntryAction(ActionKind.STORE)
TO_STAND_IN = AgentRule(9, 9, (Ipv4Selector(protocol=(17, 17), destination_port=(5000, 5000)),))
ALARM = Pattern("packet", "udp", (Condition("text", Operator.CONTAINS, "word", left=True),))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("event-tables", tmp_path_factory.mktemp("tables"), PLAN, captures=False) as lab:
        lab.wait_registered()
        yield lab


def change(
    lab: Lab,
    *entries: Entry,
    home: object = HOME_ADDRESS4,
    word: str = WORD,
    talker: int = TALKER,
    rules: tuple[AgentRule, ...] = (),
) -> StatusAnswer:
    """A 1206 under an association of the correspondent's host, which names the home addresses."""
    table = EventTable1206(
        (home,),  # type: ignore[arg-type]
        Operation.REPLACE,
        round(time.time() * 1000),
        entries,
        information={"word": word},
        rules=rules,
    )
    ends = [str(lab.topology.address4(node)) for node in ("cn", "mnps")]
    names = [f"{talker:02x}01", f"{talker:02x}02", str(lab.configuration.key("cn-mnps")), "1206"]
    command = [sys.executable, "-m", "locum.lab.programs.speaker", *ends, *names, encode_1206(table).hex()]
    done = lab.processes.run("cn", command, 60.0)
    assert done.returncode == 0, done.stderr
    return decode_status_answer(bytes.fromhex(done.stdout))


def state(lab: Lab) -> str:
    found: str = lab.ask("mn", "status")["mobile_node"]["state"]
    return found


def events(lab: Lab, node: str, kind: str) -> list[dict[str, Any]]:
    return [dict(event.detail) for event in lab.timeline.of(node) if event.kind == kind]


def say(lab: Lab, text: str) -> None:
    """A datagram of the correspondent to a port of the device."""
    script = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({text!r}.encode(), ({str(HOME_ADDRESS4)!r}, 5000))"
    assert lab.processes.run("cn", [sys.executable, "-c", script]).returncode == 0


def test_end_of_an_ordered_download_pages_once(lab: Lab) -> None:
    _, digests = web(lab, [("film", SIZE)], str(RATE))
    answer = change(lab, Entry(1, (Pattern("film", "delivered"),), (PAGE, STORE), name="the film"))
    assert answer == StatusAnswer(PagingStatus.OK)
    assert change(lab, home=lab.topology.address4("cn")).status is PagingStatus.NOT_AUTHORISED
    url = f"http://{lab.topology.address4('cn')}/film"
    lab.command("mn", "order", "download", url, "--sha256", digests["film"])
    lab.command("mn", "sleep")
    assert state(lab) == "asleep"
    wait_until("the device to be awake", lambda: state(lab) == "awake", 90.0)
    assert states(lab) == {"film": "done"}
    (told,) = [event for event in events(lab, "mnps", "app-event") if event["event"] == "delivered"]
    assert told["detail"]["sha256"] == digests["film"]
    (fired,) = events(lab, "mnps", "event-fired")
    assert (fired["entry"], fired["name"], fired["app"]) == (1, "the film", "film")
    assert len(events(lab, "mnps", "page-asked")) == 1
    wait_until("the outcome", lambda: len(events(lab, "mnps", "page-outcome")) == 1, 20.0)
    assert events(lab, "mnps", "page-outcome")[0]["outcome"] in ("reached", "back")
    (page,) = json.loads(lab.command("ha", "-j", "page", "list"))
    assert (page["state"], page["cause"]) == ("reached", "event")
    (event,) = lab.ask("mn", "event list")
    assert (event["app"], event["event"], event["entry"]) == ("film", "delivered", 1)
    assert event["detail"]["sha256"] == digests["film"]
    assert lab.ask("mnps", "event list") == []


def test_one_packet_with_the_left_word_pages(lab: Lab) -> None:
    answer = change(lab, Entry(2, (ALARM,), (PAGE,)), rules=(TO_STAND_IN,))
    assert answer == StatusAnswer(PagingStatus.OK, lifetime=LIFETIME)
    (left,) = events(lab, "ha", "paging-rules-changed")
    assert (left["by"], left["rules"]) == (str(lab.topology.address4("mnps")), 1)
    before = len(events(lab, "mnps", "event-fired"))
    lab.command("mn", "sleep")
    for number in range(5):
        say(lab, f"all is well {number}")
    time.sleep(2.0)
    assert state(lab) == "asleep" and len(events(lab, "mnps", "event-fired")) == before
    say(lab, f"{WORD} in the cellar")
    wait_until("the device to be awake", lambda: state(lab) == "awake", 60.0)
    fired = events(lab, "mnps", "event-fired")[before:]
    assert [(event["entry"], event["app"], event["event"]) for event in fired] == [(2, "packet", "udp")]


def test_event_outlasts_dead_daemons(lab: Lab) -> None:
    both = Entry(3, (ALARM,), (PAGE, STORE))
    assert change(lab, both) == StatusAnswer(PagingStatus.OK)
    assert [event["reason"] for event in events(lab, "ha", "paging-rules-ended")] == ["removed"]
    lab.command("mn", "sleep")
    lab.crash("ha")
    say(lab, WORD)  # the kernel's forwarding goes on
    wait_until(
        "the page to wait",
        lambda: lab.ask("mnps", "event show", home_address=str(HOME_ADDRESS4))["page"],
        20.0,
    )
    assert "stored" in lab.command("mnps", "event", "show", str(HOME_ADDRESS4))
    lab.crash("mnps")
    lab.restart("mnps")
    lab.restart("ha")
    wait_until("the device to be awake", lambda: state(lab) == "awake", 120.0)
    received = lab.ask("mn", "event list")
    assert [event["entry"] for event in received] == [1, 3]
    assert "2 events are forgotten" in lab.command("mn", "event", "clear")
    assert lab.ask("mn", "event list") == []
    (row,) = lab.ask("mnps", "event tables")
    assert row["when"] == "packet/udp [text contains left.word]" and row["actions"] == ["page", "store"]
