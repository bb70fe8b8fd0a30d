"""1210 of a stand-in over real nodes: packets go to the access node of a device that has answered a direct page (P10, P12)."""

from pathlib import Path

from locum.lab.configuration import PAIRS, Pair, Plan, Table
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.world import Lab
from locum.wire.control.paging.entry import ActionKind, Entry, EntryAction
from locum.wire.control.paging.status import PagingStatus, StatusAnswer
from tests.lab.daemons.test_event_tables import ALARM, change, events, say, state
from tests.lab.daemons.test_fast_pages import BRIEF, requests
from tests.lab.daemons.test_paging_classifier import NUMBER, stream_to

NODES = figure_5()
SERVER = {"location_server": str(NODES.address4("ha"))}
CELLS = [str(NODES.address4(node, "radio0")) for node in ("an1", "an2")]
PAGING = 7_051
"""UDP port that the home agent's rule pages for."""
ADDED = (
    Pair("ha", "an1"),
    Pair("ha", "an2"),
    Pair("ha", "mnps", at_near={"may_trigger": True}),
    Pair("mnps", "an1"),
    Pair("mnps", "an2"),
    Pair("cn", "mnps"),
)
TALKER = len(PAIRS) + len(ADDED)
DIRECT = Entry(4, (ALARM,), (EntryAction(ActionKind.PAGE_DIRECT),))
RULE: Table = {
    "id": 7,
    "priority": 7,
    "action": "page",
    "protocol": "udp",
    "destination_port": PAGING,
}
PLAN = Plan(
    short_lifetime=BRIEF,
    associations=ADDED,
    tables={
        "ha": {
            "home_agent": {"page_seconds": 60.0, "mobile": {"rule": [RULE]}},
            "location": {"access_nodes": CELLS, "clients": [str(NODES.address4("mnps"))]},
        },
        "an1": {"foreign_agent": SERVER},
        "an2": {"foreign_agent": SERVER},
        "mnps": {
            "mnps": {
                "home_agent": SERVER["location_server"],
                "page_seconds": 45.0,
                "page_forwarding": "after",
                **SERVER,
            }
        },
    },
)


def test_stand_in_leads_packets_to_the_access_node(tmp_path: Path) -> None:
    with Lab("direct-forwarding", tmp_path / "lab", PLAN) as lab:
        lab.wait_registered()
        assert change(lab, DIRECT, word="URGENT", talker=TALKER) == StatusAnswer(PagingStatus.OK)
        lab.command("mn", "sleep")
        wait_until("the rule to be in force", lambda: lab.flow_rules()[0]["live"] == [4, 6], 20.0)
        begun = lab.timeline.mark("urgent")
        say(lab, "URGENT matter")
        wait_until("the device to be awake", lambda: state(lab) == "awake", 90.0)
        stream_to(lab, PAGING)
        lab.pause(0.5)
        lab.finish()
        asked = [event.detail for event in lab.timeline.of("mnps") if event.message == "1210"]
        assert [detail["destination"] for detail in asked] == ["device"]
        changed = [event for event in lab.timeline.of("ha") if event.kind == "forwarding-changed"]
        care_of = str(lab.configuration.care_of("an1"))
        assert [event.detail["to"] for event in changed] == [care_of, "binding"]
        full = [
            time for time, lifetime in requests(lab.captures.files["mn"]) if time > begun and lifetime > BRIEF
        ]
        assert changed[0].time < full[0], "before the full registration"
        assert events(lab, "ha", "page-ended") == [], "the home agent had no page"
        assert stream.order(lab.captures.files["mn"], PAGING) == list(range(NUMBER))
