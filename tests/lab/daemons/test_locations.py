"""The location server on the home agent's host, with real nodes: a device registers, sleeps, and wakes elsewhere (P6)."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, OTHER_ADDRESS4, Pair, Plan
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.world import Lab
from locum.wire.control.paging.location import (
    Location1212,
    LocationQuery,
    decode_1212,
    decode_query_answer,
    encode_1212,
    encode_query,
)
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.status import PagingStatus, decode_status_answer
from tests.lab.neighbouring import say

_NODES = figure_5()
SERVER = _NODES.address4("ha")
AN1, AN2 = (_NODES.address4(node, "radio0") for node in ("an1", "an2"))
TOLD = {"location_server": str(SERVER)}
SIP = "sip:mn@example.org"
PLAN = Plan(
    associations=(
        Pair("ha", "an1"),
        Pair("ha", "an2"),
        Pair("ha", "mn"),
        Pair("ha", "evil", {"home_addresses": [str(OTHER_ADDRESS4)]}),
    ),
    tables={
        "ha": {"location": {"access_nodes": [str(AN1), str(AN2)]}},
        "an1": {"foreign_agent": TOLD},
        "an2": {"foreign_agent": TOLD},
        "mn": {"mobile_node": {**TOLD, "sip_uris": [SIP]}},
    },
)


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("locations", tmp_path_factory.mktemp("lab"), PLAN, captures=False) as made:
        yield made


def row(lab: Lab) -> dict[str, Any]:
    """The device's entry; empty without one."""
    rows: list[dict[str, Any]] = json.loads(lab.command("ha", "--json", "location", "list"))
    return next((row for row in rows if row["home_address"] == str(HOME_ADDRESS4)), {})


def wait_for(lab: Lab, access_node: object, state: str) -> None:
    """Until the device is known there in that state."""
    wait_until(
        f"the device to be {state} at {access_node}",
        lambda: (row(lab).get("access_node"), row(lab).get("state")) == (str(access_node), state),
        30.0,
    )


def stored(lab: Lab) -> DeviceState | None:
    """The device's state in the row that is committed."""
    database = lab.place.path / "state" / "ha" / "ha.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        rows = opened.execute("SELECT value FROM entry WHERE collection = 'location.entry'").fetchall()
    found = [decode_1212(bytes.fromhex(json.loads(text)["location"])) for (text,) in rows]
    return found[0].state if found else None


def named(lab: Lab) -> bool:
    """True if the device's own report, with its SIP URI, is there."""
    return row(lab).get("sip_uris") == [SIP]


def test_sleeping_device_is_found_where_it_fell_asleep(lab: Lab) -> None:
    lab.wait_registered("an1")
    wait_for(lab, AN1, "awake")
    wait_until("the report of the device", lambda: named(lab), 30.0)
    assert str(HOME_ADDRESS6) in row(lab)["home_addresses"]
    shown = lab.command("ha", "location", "show", SIP)
    assert str(HOME_ADDRESS4) in shown and str(AN1) in shown

    foreign = Location1212((HOME_ADDRESS4,), 300, round(time.time() * 1000), access_node=AN2, care_of=AN2)
    bodies = say(
        lab,
        [
            ("1212", encode_1212(foreign)),
            ("1212", encode_1212(foreign)[:-1]),
            ("1135", encode_query(LocationQuery(HOME_ADDRESS4))),
        ],
        to="ha",
    )
    assert decode_status_answer(bodies[0]).status is PagingStatus.NOT_AUTHORISED
    assert decode_status_answer(bodies[1]).status is PagingStatus.MALFORMED
    assert decode_query_answer(bodies[2]).status is PagingStatus.NOT_AUTHORISED
    assert row(lab)["access_node"] == str(AN1)
    counted = lab.counters("ha")["refusals"]
    assert counted["location-not-authorised"] == counted["location-query-not-authorised"] == 1

    lab.close_lid("an1")
    wait_for(lab, AN1, "asleep")
    wait_until("the row", lambda: stored(lab) is DeviceState.ASLEEP, 30.0)
    lab.crash("ha")
    lab.restart("ha")
    assert (row(lab)["access_node"], row(lab)["state"]) == (str(AN1), "asleep"), "entries are durable"
    lab.open_lid("an2")
    lab.wait_registered("an2")
    wait_for(lab, AN2, "awake")
    assert named(lab), "names stay with the entry"
    sent = {(event.node, event.message) for event in lab.timeline.events() if event.kind == "sent"}
    assert {("an1", "1212"), ("an2", "1212"), ("mn", "1212")} <= sent
