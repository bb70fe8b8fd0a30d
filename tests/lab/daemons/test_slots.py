"""A device that listens for 20 ms in every 320 ms: its radio is really deaf otherwise, and a connection wakes it (P13)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.lab.captures.pcap import UDP, datagrams
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan, Table
from locum.lab.errors import LabError
from locum.lab.network.radio import Listening
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer
from locum.lab.world import Lab
from locum.roles.mobile_node.paging.own_way import spread

HOME = str(HOME_ADDRESS4)
CYCLE, LENGTH = 320, 20
OFFSET = spread(HOME_ADDRESS4, CYCLE)
SLOTS = Listening(CYCLE, OFFSET, LENGTH)
SLEEPER: Table = {"home_address": HOME, "page_cycle": CYCLE, "page_slot": LENGTH, "page_offset": OFFSET}
RULE: Table = {"id": 7, "priority": 7, "action": "page", "protocol": "tcp", "destination_port": 80}
PAGE_SECONDS = 8.0
PLAN = Plan(
    short_lifetime=3,
    associations=(Pair("ha", "an1"), Pair("ha", "an2")),
    tables={
        "ha": {"home_agent": {"page_seconds": PAGE_SECONDS, "mobile": {"rule": [RULE]}}},
        "an1": {"foreign_agent": {"sleeper": [SLEEPER]}},
        "mn": {"mobile_node": {"page_cycle": CYCLE, "page_slot": LENGTH}},
    },
)
CALL = 255  # type of an experimental message, as a call is one


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab("slots", tmp_path, PLAN) as made:
        made.wait_registered()
        yield made


def fall_asleep(lab: Lab, listening: Listening = SLOTS) -> None:
    lab.command("mn", "sleep")
    wait_until("the rule to be in force", lambda: lab.flow_rules()[0]["live"] == [4, 6], 20.0)
    time.sleep(PLAN.short_lifetime)  # then nothing is left to say for the device
    lab.listen(listening)


def state(lab: Lab) -> str:
    found: str = lab.ask("mn", "status")["mobile_node"]["state"]
    return found


def calls_on_air(lab: Lab) -> list[float]:
    """Milliseconds within the cycle at which calls left the access node."""
    lab.finish()
    return [
        (1000 * one.time - OFFSET) % CYCLE
        for one in datagrams(lab.captures.files["an1"])
        if one.outgoing and one.protocol == UDP and str(one.destination) == HOME
        and one.ports[1] == 434 and one.transport[8] == CALL
    ]  # fmt: skip


def test_connection_wakes_a_device_that_listens_in_slots(lab: Lab) -> None:
    web = WebServer(lab.processes, "mn", lab.output / "web")
    web.start()
    (web.root / "page").write_bytes(b"what the device serves\n")
    fall_asleep(lab)
    time.sleep(4.0)
    frames = lab.network.heard("an1")
    assert state(lab) == "asleep" and frames.deaf > 3 * frames.heard, "advertisements come all the time"
    assert frames.sent + frames.mute <= 5, "a sleeper's kernel alone says something"
    before = time.time()

    got = lab.processes.run("cn", ["curl", "-sf", "-m", "60", f"http://{HOME}/page"], 90.0)
    assert (got.returncode, got.stdout) == (0, "what the device serves\n")
    wait_until("the device", lambda: state(lab) == "awake", 20.0)
    lab.listen(None)
    calls = calls_on_air(lab)
    heard = [
        (1000 * one.time - OFFSET) % CYCLE
        for one in datagrams(lab.captures.files["mn"])
        if not one.outgoing and before - 3.5 < one.time < before
    ]
    assert all(at < LENGTH + 5 for at in heard), "captures at the device show what its radio hears"
    # One is enough; a busy machine misses a slot, or two
    assert 1 <= len(calls) <= 6, "bounded by the pauses between calls"
    assert sum(at < LENGTH for at in calls) >= len(calls) / 2


def test_device_that_hears_nothing_costs_few_frames(lab: Lab) -> None:
    fall_asleep(lab, Listening(CYCLE, OFFSET, LENGTH, loss=1.0))
    with pytest.raises(LabError, match="no-answer"):
        lab.command("ha", "page", HOME, patience=120.0)
    assert state(lab) == "asleep"
    lab.listen(SLOTS)
    assert "reached" in lab.command("ha", "page", HOME, patience=120.0), "once it hears again"
    wait_until("the device", lambda: state(lab) == "awake", 20.0)
    lab.listen(None)
    assert 3 <= len(calls_on_air(lab)) <= 2 * (3 + PAGE_SECONDS)
