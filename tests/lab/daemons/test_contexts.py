"""The context of a device that sleeps is at the stand-in's access node, and goes from there to wherever it wakes up (C7)."""

import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, OTHER_ADDRESS4, Pair, Plan
from locum.lab.processes import wait_until
from locum.lab.programs.echoes import answered
from locum.lab.scenarios.stand_ins.fig07 import stand_ins
from locum.lab.steps.contexts import ACCESS, REFUSED, context, policed, refuse
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.world import Lab
from locum.wire.control.context import (
    BlockStatus,
    Context624,
    ContextBlock,
    ContextRequest622,
    ContextStatus,
    Onward,
    decode_624,
    decode_acknowledgement_622,
    encode_624,
    encode_request_622,
)
from locum.wire.control.context_blocks import BlockKind
from tests.lab.neighbouring import say

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
    wait_until("the context at the stand-in's", lambda: "policy" in blocks(lab, "an3"), 10.0)
    assert refuse(lab, "an3") == REFUSED, (
        "what reaches the stand-in is policed as at the device's access node"
    )
    assert "policy" not in blocks(lab, "an1"), "the device may have been there before the link was cut"
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
    assert any(event.kind == "context-received" for event in lab.timeline.of("an3"))
    sent = {(event.node, event.message) for event in lab.timeline.events() if event.kind == "sent"}
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


def test_packets_held_for_a_lost_device_go_to_its_stand_in(tmp_path: Path) -> None:
    """C5, 620: the link breaks in the middle of a stream; the access node has the stand-in take over."""
    with Lab("contexts-lost", tmp_path, LOSING, captures=False) as lab:
        lab.wait_registered("an1")
        command = [sys.executable, "-m", "locum.lab.programs.stream", str(HOME_ADDRESS4), "7011", "500", "3"]
        stream = lab.processes.start("cn", "in-flight", command)
        lab.pause(1.0)
        lab.cut("an1")
        wait_until("the stand-in to take", lambda: bool(stand_ins(lab)), 20.0)
        stream.wait(20.0)
        wait_until("the tunnel to end", lambda: counted(lab, "an3", "in") is not None, 20.0)
        assert (counted(lab, "an3", "in") or 0) > 0, "packets came by the tunnel"
        wait_until("the context at the stand-in's", lambda: "policy" in blocks(lab, "an3"), 10.0)
        wait_until("the stand-in to be told", lambda: bool(responsible(lab)), 10.0)
        assert all(responsible(lab)), "618'': with 604'', and after 624"


def responsible(lab: Lab) -> list[bool]:
    """The 618'' to the stand-in, in order."""
    return [event.detail["responsible"] for event in lab.timeline.of("mnps") if event.kind == "notified"]


def counted(lab: Lab, node: str, way: str) -> int | None:
    """Packets of the last tunnel 620 that has ended there."""
    ended = [event.detail for event in lab.timeline.of(node) if event.kind == "in-flight-ended"]
    found = [detail["packets"] for detail in ended if detail["way"] == way]
    return int(found[-1]) if found else None


RETRY, GIVE_UP = 2.0, 15.0
"""Seconds (RFC 4067 section 2.6): CT-Request-Retry and CT-Max-Transfer-Time."""
LATE = 10.0
"""Seconds that a daemon on a busy machine may be late with a timer."""
NEIGHBOURS = Plan(
    associations=(Pair("an1", "an2", ACCESS, ACCESS), Pair("an1", "evil", ACCESS)),
    tables={
        "an1": {"foreign_agent": {"profile": [policed()]}},
        "mn": {"mobile_node": {"context_transfer": True}},
    },
)


def test_an_access_node_that_never_answers(tmp_path: Path) -> None:
    """The daemon of the old one stands still: the move goes on at once, 622 is repeated, and given up in the end."""
    with Lab("contexts-silent", tmp_path, NEIGHBOURS, captures=False) as lab:
        lab.wait_registered("an1")
        lab.restore("an2")
        lab.pause(1.2)  # until the second access node has been heard
        silent = lab.daemons["an1"].process
        silent.send_signal(signal.SIGSTOP)
        try:
            left = lab.cut("an1")
            lab.wait_registered("an2")
            moved = lab.timeline.mark("moved")
            reached = answered(lab.processes, "cn", str(HOME_ADDRESS4), 5, interval=0.2)
            assert reached == 5, "the device is served without its context"
            given_up = lab.timeline.wait("an2", "context-given-up", left, GIVE_UP + 2 * RETRY + LATE)
            assert moved < given_up.time, "the move does not wait for the other one"
        finally:
            silent.send_signal(signal.SIGCONT)
        asked = [
            event.time for event in lab.timeline.of("an2") if (event.kind, event.message) == ("sent", "622")
        ]
        pauses = [later - earlier for earlier, later in pairwise(asked)]
        assert len(asked) >= 5 and all(RETRY - 0.1 <= pause <= RETRY + LATE for pause in pauses), pauses
        assert GIVE_UP - RETRY <= given_up.time - asked[0] <= GIVE_UP + RETRY + LATE
        assert given_up.detail["errand"] == "fetch" and given_up.detail["peer"] == str(
            lab.configuration.care_of("an1")
        )
        assert lab.counters("an2")["refusals"]["context-unanswered"] == len(asked)
        lab.pause(RETRY + 0.5)
        late = sum(1 for event in lab.timeline.of("an2") if (event.kind, event.message) == ("sent", "622"))
        assert late == len(asked) and "policy" not in blocks(lab, "an2")
        assert lab.registered_at(str(lab.configuration.care_of("an2")))


def test_a_device_that_the_access_node_does_not_know(tmp_path: Path) -> None:
    """It has lost all it knew: it says so, once. Half a context changes that block by block; nothing follows from it."""
    with Lab("contexts-unknown", tmp_path, NEIGHBOURS, captures=False) as lab:
        lab.wait_registered("an1")
        lab.cut("an1")
        lab.crash("an1")
        for kept in (lab.place.path / "state" / "an1").iterdir():
            kept.unlink()
        file = lab.configuration.file("an1")
        file.write_text(file.read_text().partition("[[foreign_agent.profile]]")[0])
        lab.restart("an1")
        lab.restore("an2")
        lab.wait_registered("an2")
        wait_until("the answer", lambda: "context-unknown-mobile" in lab.counters("an2")["refusals"], 10.0)
        lab.pause(RETRY + 0.5)
        told = [event for event in lab.timeline.of("an2") if (event.kind, event.message) == ("sent", "622")]
        assert len(told) == 1, "what was answered is not asked again"
        reached = answered(lab.processes, "cn", str(HOME_ADDRESS4), 3, interval=0.2)
        assert reached == 3, "the device is served without a context"
        assert not context(lab, "an1")

        unknown = ContextRequest622(HOME_ADDRESS4, 1)
        half = Context624(
            ContextStatus.OK,
            HOME_ADDRESS4,
            1,
            (
                ContextBlock(BlockKind.VISITOR, 1, b"\xa0"),
                ContextBlock(BlockKind.POLICY, 1, b"\xa1\x00\x00"),
                ContextBlock(99, 1, b""),
                ContextBlock(BlockKind.PAGING, 4, None),
            ),
            onward=Onward.MOVED,
        )
        asked, pushed = say(lab, [("622", encode_request_622(unknown)), ("624", encode_624(half))])
        assert decode_624(asked).status is ContextStatus.UNKNOWN_MOBILE
        answer = decode_acknowledgement_622(pushed)
        assert answer.status is ContextStatus.MALFORMED
        assert answer.statuses == {
            BlockKind.VISITOR: BlockStatus.MALFORMED,
            BlockKind.POLICY: BlockStatus.MALFORMED,
            99: BlockStatus.UNSUPPORTED,
            BlockKind.PAGING: BlockStatus.ABSENT,
        }
        assert not lab.bindings("an1") and not blocks(lab, "an1")
        assert not [row for row in lab.ask("an1", "tunnel list") if str(HOME_ADDRESS4) in str(row)]


def test_false_claims_of_an_access_node_are_refused(tmp_path: Path) -> None:
    """Unknown and foreign home addresses, half a context, and claims older than the known ones."""
    with Lab("contexts-neighbour", tmp_path, NEIGHBOURS, captures=False) as lab:
        lab.wait_registered("an1")
        before = state(lab)
        old = 1  # millisecond of 1970 at which it says to have accepted a registration
        foreign = ContextRequest622(OTHER_ADDRESS4, old, onward=Onward.MOVED)
        claim = ContextRequest622(HOME_ADDRESS4, old, onward=Onward.MOVED)
        push = Context624(ContextStatus.OK, HOME_ADDRESS4, old, (), onward=Onward.MOVED)
        messages = [
            ("622", encode_request_622(foreign)),
            ("622", encode_request_622(claim)),
            ("624", encode_624(push)),
            ("622", b"\xa1\x00\x00"),
            ("624", encode_624(push)[:-3]),
        ]
        bodies = say(lab, messages)
        assert decode_624(bodies[0]).status is ContextStatus.NOT_AUTHORISED
        claimed = decode_624(bodies[1])
        assert claimed.status is ContextStatus.STALE and claimed.registered > old and not claimed.blocks
        assert decode_acknowledgement_622(bodies[2]).status is ContextStatus.STALE
        assert decode_624(bodies[3]).status is ContextStatus.MALFORMED
        assert decode_acknowledgement_622(bodies[4]).status is ContextStatus.MALFORMED
        assert state(lab) == before, "nothing has changed"
        assert refuse(lab, "an1") == REFUSED, "the device is served and policed as before"


def state(lab: Lab) -> tuple[Any, ...]:
    """An access node's state about the device, without fields that every request changes."""
    visitors = [(binding["home_address"], binding["kind"]) for binding in lab.bindings("an1")]
    row = context(lab, "an1")
    kept = {name: version for name, version in row["blocks"].items() if name != "visitor"}
    return visitors, kept, row.get("forwarded_to"), row.get("forwarded_from")
