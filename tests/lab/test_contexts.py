"""The context of a device that sleeps is at the stand-in's access node, and goes from there to wherever it wakes up (C7)."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.contexts import ACCESS, REFUSED, context, policed, refuse
from locum.lab.processes import wait_until
from locum.lab.scenarios.fig07 import stand_ins
from locum.lab.stand_ins import Registering, registering
from locum.lab.world import Lab

OTHER_PORT = 7_010
PLAN = Plan(
    short_lifetime=3,
    associations=(Pair("an1", "an3", ACCESS, ACCESS), Pair("an2", "an3", ACCESS, ACCESS)),
    tables={
        "an2": {"foreign_agent": {"profile": [policed()]}},
        "mn": {"mobile_node": {"context_transfer": True}},
    },
)
CHANGED = f"""
[[foreign_agent.profile]]
home_address = "{policed()["home_address"]}"
[[foreign_agent.profile.to_visitor]]
id = 1
action = "drop"
protocol = "udp"
destination_port = {OTHER_PORT}
"""


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("contexts", tmp_path_factory.mktemp("lab"), PLAN, captures=False) as made:
        yield made


def blocks(lab: Lab, node: str) -> dict[str, int]:
    found: dict[str, int] = context(lab, node).get("blocks", {})
    return found


def test_a_sleeping_device_finds_its_context_where_it_wakes(lab: Lab) -> None:
    """From the second access node to the stand-in's, to the first, back to the stand-in's, changed there, and back."""
    lab.cut("an1")
    lab.restore("an2")
    lab.wait_registered("an2")
    lab.close_lid("an2")
    assert "policy" in blocks(lab, "an3")
    assert refuse(lab, "an3") == REFUSED, (
        "what reaches the stand-in is policed as at the device's access node"
    )
    assert not blocks(lab, "an1")
    lab.open_lid("an1")
    lab.wait_registered("an1")
    wait_until("the context at the first access node", lambda: "policy" in blocks(lab, "an1"), 10.0)
    assert refuse(lab, "an1") == REFUSED

    lab.close_lid("an1")
    wait_until("the first access node to drop what it knew", lambda: not blocks(lab, "an1"), 20.0)
    lab.crash("an3")
    file = lab.configuration.file("an3")
    file.write_text(file.read_text() + CHANGED)
    lab.restart("an3")
    lab.open_lid("an1")
    lab.wait_registered("an1")
    wait_until("the changed context", lambda: "policy" in blocks(lab, "an1"), 10.0)
    assert refuse(lab, "an1", OTHER_PORT) == REFUSED, "the change was made while it slept"
    assert refuse(lab, "an1") == 0
    assert any(each.kind == "context-received" for each in lab.timeline.of("an3"))
    sent = {(each.node, each.message) for each in lab.timeline.events() if each.kind == "sent"}
    assert {("an1", "622"), ("an1", "624"), ("an2", "624"), ("an3", "624")} <= sent


LOST = Registering("mnps", bid=1)
TAKEN = registering(LOST)
LOSING = Plan(
    default_coa=False,
    associations=(Pair("an1", "an3", ACCESS, ACCESS), Pair("an1", "mnps", at_far={"may_trigger": True})),
    tables={
        **TAKEN,
        "an1": {"foreign_agent": {"mnps": [LOST.address], "probe_interval": 0.5, "profile": [policed()]}},
    },
)


def test_what_waits_for_a_lost_device_follows_to_its_stand_in(tmp_path: Path) -> None:
    """C5, 620: the link breaks in the middle of a stream; the access node has the stand-in take over."""
    with Lab("contexts-lost", tmp_path, LOSING, captures=False) as lab:
        lab.wait_registered("an1")
        command = [sys.executable, "-m", "locum.lab.stream", str(HOME_ADDRESS4), "7011", "500", "3"]
        stream = lab.processes.start("cn", "in-flight", command)
        lab.pause(1.0)
        lab.cut("an1")
        wait_until("the stand-in to take", lambda: bool(stand_ins(lab)), 20.0)
        stream.wait(20.0)
        wait_until("the tunnel to end", lambda: counted(lab, "an3", "in") is not None, 20.0)
        assert (counted(lab, "an3", "in") or 0) > 0, "packets came by the tunnel"
        assert "policy" in blocks(lab, "an3")
        told = [each.detail["responsible"] for each in lab.timeline.of("mnps") if each.kind == "notified"]
        assert told and all(told), "618'': with 604'', and after 624"


def counted(lab: Lab, node: str, way: str) -> int | None:
    """Packets of the last tunnel 620 that has ended there."""
    ended = [each.detail for each in lab.timeline.of(node) if each.kind == "in-flight-ended"]
    found = [each["packets"] for each in ended if each["way"] == way]
    return int(found[-1]) if found else None
