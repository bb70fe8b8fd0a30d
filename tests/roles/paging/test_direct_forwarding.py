"""Packets go to the access node of a device that has answered a direct page: 1210 from the stand-in to the home agent (P10, P12)."""

from dataclasses import replace
from typing import cast

import pytest

from locum.roles import actions as a
from locum.roles.action_values.direct_pages import Direction
from locum.roles.action_values.paging import DropPaged, PageForwarding
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mnps.role import StandIn
from locum.wire.control.paging.direct_page import Decision
from locum.wire.control.paging.entry import Pattern
from tests.roles.paging.test_directing import firing
from tests.roles.paging.test_fast import OTHER, at_an1, end_of, order, until
from tests.roles.paging.test_reaching import PAGE, live
from tests.roles.world import AN1, AN2, AN3, HOA, World, asleep, awake

AFTER = PageForwarding.AFTER


def sleeping(seed: int = 0, *, stays: bool = False, **options: object) -> World:
    """A device that sleeps, with a rule that pages it, and a stand-in that changes the forwarding."""
    world = World(seed, located=("an", "mn"), **{"direct_forwarding": AFTER, **options})  # type: ignore[arg-type]
    if stays:
        world.directed = replace(world.directed, directions=(Direction((Pattern(),), Decision.GO_ON),))
        world.start(world.mn)
    world.advance(3)
    world.perform(world.ha, cast(HomeAgent, world.ha.role).add_rule(HOA, PAGE, now=world.now))
    world.sleep()
    world.advance(30)
    assert asleep(world) and PAGE.identifier in live(world)
    world.paged.clear()
    pages = cast(StandIn, world.mnps.role).direct_pages
    pages.fall_back = lambda _home, _firing, _now: [a.Count("fallen-back")]
    return world


def page(world: World) -> None:
    pages = cast(StandIn, world.mnps.role).direct_pages
    world.perform(world.mnps, pages.page(HOA, firing(), now=world.clock(world.mnps)))


def sent(world: World) -> list[object]:
    return [event.detail["destination"] for event in world.mnps.events if event.message == "1210"]


def vanish(world: World) -> None:
    """The device has said that it wakes, and is gone."""
    page(world)
    until(world, "page-answered", "mnps")
    world.kill(world.mn)


def test_packets_are_at_the_device_before_it_registers() -> None:
    world = sleeping(delay=0.05)
    page(world)
    until(world, "forwarding-changed")
    assert end_of(world) == AN1 and at_an1(world) == "delivered" and not awake(world)
    assert end_of(world, OTHER) == AN3, "the stand-in goes on with everything else"
    world.advance(30)
    assert awake(world) and end_of(world) == AN1 and sent(world) == ["device"]
    assert not any(isinstance(action, DropPaged) for action in world.paged)
    (asked,) = (event for event in world.mnps.events if event.message == "1210")
    assert asked.kind == "sent" and order(world, "an1", ("page-hold-ended",)) == []


@pytest.mark.parametrize("stays", [False, True])
def test_without_the_setting_or_a_wake_nothing_is_sent(*, stays: bool) -> None:
    world = sleeping(stays=True) if stays else sleeping(direct_forwarding=PageForwarding.REGISTRATION)
    page(world)
    world.advance(30)
    assert asleep(world) is stays and sent(world) == []
    assert order(world, "an1", ("page-holding",)) == []


def test_page_that_fails_restores_the_forwarding() -> None:
    world = sleeping()
    vanish(world)
    until(world, "forwarding-changed")
    assert end_of(world) == AN1
    world.advance(50)
    assert sent(world) == ["device", "paging"] and world.mnps.counts["fallen-back"] == 1
    assert end_of(world) is None and PAGE.identifier in live(world) and at_an1(world) != "held"
    assert HOA not in world.an1.bindings and not world.an1.acceptances


@pytest.mark.parametrize("seed", range(8))
def test_losses_end_in_the_same_forwarding(seed: int) -> None:
    world = sleeping(seed, duplicate=0.3)
    world.loss = 0.5
    page(world)
    world.advance(15)
    world.loss = 0.0
    world.advance(120)
    if awake(world):
        assert end_of(world) in (AN1, AN2)
    else:
        assert end_of(world) is None and PAGE.identifier in live(world)
    assert at_an1(world) != "held"


def test_home_agent_without_trust_changes_nothing() -> None:
    world = sleeping()
    world.trusted = False
    page(world)
    world.advance(1)
    assert world.mnps.counts["redirect-not-authorised"] == 1 and world.ha.counts["1210-not-authorised"] == 1
    world.advance(30)
    assert awake(world) and sent(world) == ["device"] and order(world, "ha", ("forwarding-changed",)) == []


def test_home_agent_that_restarts_is_asked_again() -> None:
    world = sleeping()
    world.kill(world.ha)
    vanish(world)
    world.advance(20)
    assert world.mnps.counts["redirect-unanswered"] > 1
    world.start(world.ha)
    world.advance(15)
    assert end_of(world) == AN1 and len(sent(world)) > 1
    world.advance(60)
    assert end_of(world) is None and sent(world)[-1] == "paging" and at_an1(world) != "held"


def test_restart_of_the_stand_in_leaves_no_change() -> None:
    world = sleeping()
    vanish(world)
    until(world, "forwarding-changed")
    world.kill(world.mnps)
    world.advance(70)
    assert end_of(world) is None and PAGE.identifier in live(world) and at_an1(world) != "held"
