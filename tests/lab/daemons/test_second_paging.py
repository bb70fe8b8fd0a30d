"""Rules of an application agent on real nodes: while the device sleeps its packets go to the agent, others are dropped (P2)."""

import json
from pathlib import Path
from typing import Any

from locum.lab.configuration import Plan, merged
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.world import Lab
from locum.wire.control.paging.entry import Entry
from locum.wire.control.paging.status import PagingStatus
from tests.lab.daemons.test_event_tables import ADDED, ALARM, PAGE, PLAN, TO_STAND_IN, change, state
from tests.lab.daemons.test_paging_classifier import NUMBER, stream_to

NAMED, REST = 5000, 5001
"""UDP ports: the rule that the stand-in sends names the first."""
SECOND = Plan(
    short_lifetime=3,
    associations=ADDED,
    tables=merged(PLAN.tables, {"ha": {"home_agent": {"asleep_otherwise": "drop"}}}),  # type: ignore[arg-type]
)


def test_named_packets_reach_the_agent_others_are_dropped(tmp_path: Path) -> None:
    """Awake, before and after, the device has all of them."""
    with Lab("second-paging", tmp_path, SECOND) as lab:
        lab.wait_registered("an1")
        assert change(lab, Entry(1, (ALARM,), (PAGE,)), rules=(TO_STAND_IN,)).status is PagingStatus.OK
        both(lab)
        assert packets(lab) == {"agent": 0, "drop": 0}, "the device is awake"
        lab.command("mn", "sleep")
        wait_until("the rules to be in force", lambda: all(row["live"] for row in lab.flow_rules()), 20.0)
        both(lab)
        assert packets(lab)["agent"] == NUMBER
        assert drops(lab) >= NUMBER, lab.counters("ha")["data_plane"]
        assert state(lab) == "asleep" and json.loads(lab.command("ha", "-j", "page", "list")) == []
        lab.command("mn", "wake")
        lab.wait_registered("an1")
        both(lab)
        lab.finish()
        arrived = {
            node: [stream.order(lab.captures.files[node], port) for port in (NAMED, REST)]
            for node in ("mn", "mnps")
        }
    once = list(range(NUMBER))
    assert arrived["mnps"] == [once, []], "the agent has what its rule names, once, in order"
    assert arrived["mn"] == [2 * once, 2 * once], "awake, before and after"


def both(lab: Lab) -> None:
    for port in (NAMED, REST):
        stream_to(lab, port)
    lab.pause(0.3)


def drops(lab: Lab) -> int:
    """Packets that the home agent has dropped by a rule."""
    return int(lab.counters("ha")["data_plane"]["rule-dropped"])


def packets(lab: Lab) -> dict[str, int]:
    """Packets that each rule has taken, by its action."""
    rows: list[dict[str, Any]] = lab.flow_rules()
    return {row["action"]: row["packets"] for row in rows}
