"""The context of a device that sleeps is at the stand-in's access node, and goes from there to wherever it wakes up (C7)."""

from collections.abc import Iterator

import pytest

from locum.lab.configuration import Pair, Plan
from locum.lab.contexts import ACCESS, REFUSED, context, policed, refuse
from locum.lab.processes import wait_until
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
