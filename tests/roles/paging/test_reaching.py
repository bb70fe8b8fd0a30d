"""Pages from the home agent to the sleeping device and back, over lossy links: who is woken, and who is not (P1, P11, P17)."""

from typing import cast

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.paging import DropPaged, PageTriggered, ReleasePaged
from locum.roles.home_agent.role import HomeAgent
from locum.roles.rules import ADMIN, KeptRule, both_families
from locum.security.association import Replay
from locum.wire.flow import Flow
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.world import AN1, HOA, PEER, World, asleep, awake

SSH = Ipv4Selector(protocol=(6, 6), destination_port=(22, 22))
PAGE = KeptRule(7, 7, RuleVerdict.PAGE, both_families(SSH), owner=ADMIN)
PACKET = PageTriggered(HOA, 7, Flow(6, HOA, 22, PEER, 4000), bytes(60), 60)
MAC = b"\x02" * 6


def sleeping(seed: int = 0, *, loss: float = 0.0, replay: Replay = Replay.TIMESTAMP) -> World:
    """A device that sleeps, and whose last registration is over."""
    world = World(seed, replay=replay)
    world.advance(3)
    home = cast(HomeAgent, world.ha.role)
    world.perform(world.ha, home.add_rule(HOA, PAGE, now=world.now))
    world.sleep()
    world.advance(30)
    assert asleep(world) and PAGE.identifier in live(world)
    world.loss = loss
    world.paged.clear()
    return world


def live(world: World) -> set[int]:
    entry = world.ha.bindings.get(HOA)
    return set() if entry is None else {rule.identifier for rule in entry.rules}


def woken_by(world: World) -> str | None:
    return world.device.calls.woken_by


def outcome(world: World) -> object:
    ended = [event for event in world.ha.events if event.kind == "page-ended"]
    return ended[-1].detail["outcome"] if ended else None


def hear(world: World, message: bytes) -> None:
    """A message to the device on its access link, whoever has sent it."""
    world.give(world.mn, message, Source(AN1, 434, "radio0", MAC, HOA))


def test_packet_wakes_the_device_and_reaches_it() -> None:
    world = sleeping()
    world.tell(world.ha, PACKET)
    world.advance(20)
    assert awake(world) and outcome(world) == "reached" and live(world) == set()
    kinds = [event.kind for event in world.ha.events if event.message == "1170"]
    assert kinds == ["sent", "page-answered", "page-ended"]
    assert [event.kind for event in world.an1.events if event.message == "1170"] == ["calling", "called"]
    assert [event.detail["cause"] for event in world.mn.events if event.kind == "paged"] == ["packet"]
    assert ReleasePaged(HOA) in world.paged and not any(isinstance(it, DropPaged) for it in world.paged)
    assert woken_by(world) == f"packet: tcp {HOA}:22 > {PEER}:4000"
    world.sleep()
    world.advance(30)
    assert asleep(world) and woken_by(world) is None
    world.wake()
    world.advance(20)
    assert awake(world) and woken_by(world) is None, "by a command"


@pytest.mark.parametrize("seed", range(12))
def test_page_gets_through_lossy_links(seed: int) -> None:
    world = sleeping(seed, loss=0.5)
    world.tell(world.ha, PACKET)
    world.advance(15)
    assert any(event.kind == "paged" for event in world.mn.events), world.mn.counts
    world.loss = 0.0
    world.advance(60)
    assert awake(world) and outcome(world) == "reached"


def test_restarted_home_agent_knows_the_last_access_node() -> None:
    world = World()
    world.advance(3)
    world.sleep()
    world.advance(1)
    assert asleep(world)
    world.kill(world.ha)
    world.advance(60)
    world.start(world.ha)
    home = cast(HomeAgent, world.ha.role)
    world.perform(world.ha, home.paging.command(HOA, now=world.now))
    world.advance(20)
    assert awake(world) and outcome(world) == "reached"


def test_device_out_of_reach_has_an_outcome() -> None:
    world = sleeping()
    world.cut("radio0")
    world.cut("radio1")
    world.tell(world.ha, PACKET)
    world.advance(40)
    assert asleep(world) and outcome(world) == "no-answer"
    assert [type(action) for action in world.paged] == [DropPaged, DropPaged]
    assert len(world.calls) > 10


def test_access_node_that_was_restarted_calls_on_every_link() -> None:
    world = sleeping()
    world.kill(world.an1)
    world.start(world.an1)
    world.tell(world.ha, PACKET)
    world.advance(20)
    assert awake(world) and world.calls[0].link_layer == b"\xff" * 6


def test_access_node_is_restarted_during_a_page() -> None:
    world = sleeping()
    world.cut("radio0")
    world.cut("radio1")
    world.tell(world.ha, PACKET)
    world.advance(2)
    world.kill(world.an1)
    world.start(world.an1)
    world.mend("radio0")
    world.advance(40)
    assert awake(world) and outcome(world) == "reached"


def test_device_falling_asleep_turns_back() -> None:
    world = World()
    world.advance(3)
    world.perform(world.ha, cast(HomeAgent, world.ha.role).add_rule(HOA, PAGE, now=world.now))
    world.sleep()
    while PAGE.identifier not in live(world):
        world.advance(0.01)
    assert not asleep(world)
    world.tell(world.ha, PACKET)
    world.advance(30)
    assert awake(world) and outcome(world) == "reached"


def test_recorded_calls_wake_nobody() -> None:
    world = sleeping()
    world.tell(world.ha, PACKET)
    world.advance(20)
    call = world.calls[0].message
    world.sleep()
    world.advance(30)
    hear(world, call)
    assert asleep(world) and world.mn.counts["call-repeated"] == 1
    world.kill(world.mn)
    world.start(world.mn)
    hear(world, call)
    assert world.mn.counts["call-replayed"] == 1, "the last registration came later"
    world.advance(10)
    assert asleep(world)


def test_recorded_calls_wake_nobody_with_nonces() -> None:
    """With nonces the last registration is no bound, and a restart must not forget the last call."""
    world = sleeping(replay=Replay.NONCE)
    for _ in range(2):
        world.tell(world.ha, PACKET)
        world.advance(20)
        assert awake(world)
        world.sleep()
        world.advance(30)
    first, last = world.calls[0].message, world.calls[-1].message
    world.kill(world.mn)
    world.start(world.mn)
    hear(world, first)
    hear(world, last)
    world.advance(10)
    assert asleep(world) and world.mn.counts["call-replayed"] == 2

    world.kill(world.mn)
    world.mn.rows["direct_call", "home agent"] = a.Persist(
        "direct_call", "home agent", {"identification": "x"}
    )
    world.start(world.mn)
    assert world.mn.counts["unreadable-row"] == 1 and ("direct_call", "home agent") not in world.mn.rows


@pytest.mark.parametrize("replay", list(Replay))
def test_home_agent_whose_clock_is_set_back_wakes(replay: Replay) -> None:
    """The device takes no call that is earlier than its last registration, or than the last call."""
    world = sleeping(replay=replay)
    world.tell(world.ha, PACKET)
    world.advance(20)
    world.sleep()
    world.advance(30)
    world.step_wall_clock(world.ha, -600.0)
    world.tell(world.ha, PACKET)
    world.advance(20)
    assert [event.kind for event in world.mn.events].count("paged") == 2 and not asleep(world)


def test_forged_calls_wake_nobody() -> None:
    world = sleeping()
    world.cut("radio0")
    world.tell(world.ha, PACKET)
    world.advance(1)
    call = world.calls[0].message
    for place in (5, 18, len(call) - 1):
        hear(world, call[:place] + bytes((call[place] ^ 1,)) + call[place + 1 :])
    hear(world, call[:20])
    hear(world, b"\xff")
    assert asleep(world) and world.mn.counts["call-not-authentic"] == 3
    assert world.mn.counts["call-truncated"] == 2
    hear(world, call)
    assert not asleep(world), "the call itself is right"


def test_call_for_another_device_is_left_alone() -> None:
    world = sleeping()
    world.cut("radio0")
    world.tell(world.ha, PACKET)
    world.advance(1)
    call = world.calls[0].message
    hear(world, call[:12] + PEER.packed + call[16:])
    assert world.mn.counts["call-for-another"] == 1


def test_repeated_call_is_answered_again() -> None:
    world = sleeping()
    answered: list[a.Action] = []
    world.watch = lambda action: answered.append(action) if isinstance(action, a.SendRegistration) else None
    world.cut("radio0")
    world.tell(world.ha, PACKET)
    world.advance(1)
    for _ in range(3):
        hear(world, world.calls[0].message)
    answers = {
        action.message for action in answered if isinstance(action, a.SendRegistration) and action.to == AN1
    }
    assert len(answers) == 1 and world.mn.counts["call-repeated"] == 2
    assert [event.kind for event in world.mn.events].count("paged") == 1


def test_forged_answers_end_no_page() -> None:
    """A host on the link can stop one call; the home agent pages again."""
    world = sleeping()
    world.cut("radio0")
    world.cut("radio1")
    answers: list[bytes] = []
    world.watch = lambda action: (
        answers.append(action.message) if isinstance(action, a.SendRegistration) else None
    )
    world.tell(world.ha, PACKET)
    world.advance(1)
    hear(world, world.calls[0].message)
    forged = answers[0][:-1] + bytes((answers[0][-1] ^ 1,))
    world.give(world.an1, forged, Source(HOA, 434, "radio0", MAC, AN1))
    world.advance(0.5)
    assert world.ha.counts["page-answer-not-authentic"] == 1 and outcome(world) is None
    world.give(world.an1, forged, Source(HOA, 434, "radio0", MAC, AN1))
    world.mend("radio0")
    world.advance(40)
    assert awake(world) and outcome(world) == "reached"
