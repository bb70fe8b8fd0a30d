"""Fast paging on a network of roles: packets go to the access node before the device has registered (1210, P10, P17)."""

from typing import cast

import pytest

from locum.dataplane.layout.maps import Outcome
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.forwarding import UseAgent
from locum.roles.action_values.paging import DropPaged, PageForwarding, ReleasePaged
from locum.roles.home_agent.role import HomeAgent
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.location import Location1212, encode_1212
from locum.wire.control.paging.page_request import Order, PageRequest1172, encode_1172
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.flow import Flow
from tests.roles.packets import decision, packet_of
from tests.roles.paging.test_reaching import MAC, PACKET, PAGE, live, outcome
from tests.roles.world import AN1, AN2, AN3, HA, HOA, HOA6, PEER, World, asleep, awake

FAST = (PageForwarding.BEFORE, PageForwarding.WITH, PageForwarding.AFTER)
EARLY = FAST[:2]
SSH, OTHER = PACKET.flow, Flow(6, HOA, 443, PEER, 4001)


def sleeping(forwarding: PageForwarding, seed: int = 0, **options: object) -> World:
    """A device that sleeps, with a rule that pages it, and a home agent that is fast."""
    world = World(seed, forwarding=forwarding, **options)  # type: ignore[arg-type]
    world.advance(3)
    world.perform(world.ha, cast(HomeAgent, world.ha.role).add_rule(HOA, PAGE, now=world.now))
    world.sleep()
    world.advance(30)
    assert asleep(world) and PAGE.identifier in live(world)
    world.paged.clear()
    return world


def end_of(world: World, flow: Flow = SSH) -> Addr | None:
    """Care-of address that the home agent sends packets of this flow to; None: they wait, or go nowhere."""
    found = decision(world.ha.forwarding, packet_of(flow))
    return None if found.tunnel is None else found.tunnel.destination


def at_an1(world: World) -> str:
    """The access node's decision about a packet that pages, out of the home agent's tunnel."""
    found = decision(world.an1.forwarding, packet_of(SSH, outer_source=HA))
    if found.outcome is Outcome.HELD:
        return "held"
    return "delivered" if found.outcome is Outcome.DELIVERED else found.outcome.name.lower()


def way(world: World) -> Addr | None:
    """The agent by which the device sends."""
    return None if world.mn.via is None else world.mn.via.agent


def order(world: World, host: str, kinds: tuple[str, ...]) -> list[str]:
    return [event.kind for event in getattr(world, host).events if event.kind in kinds]


def until(world: World, kind: str, host: str = "ha", most: float = 30.0) -> None:
    """Let time pass until a host has told such an event."""
    for _ in range(int(most * 100)):
        if any(event.kind == kind for event in getattr(world, host).events):
            return
        world.advance(0.01)
    raise AssertionError(f"no {kind}")


@pytest.mark.parametrize("forwarding", FAST)
def test_packets_are_at_the_device_before_it_registers(forwarding: PageForwarding) -> None:
    world = sleeping(forwarding, delay=0.05)
    world.tell(world.ha, PACKET)
    until(world, "page-answered")
    until(world, "forwarding-changed")
    assert end_of(world) == AN1 and at_an1(world) == "delivered" and not awake(world)
    assert end_of(world, OTHER) == AN3, "the stand-in goes on with everything else"
    assert [type(action) for action in world.paged].count(ReleasePaged) == 4, "twice for each home address"
    world.advance(30)
    assert awake(world) and outcome(world) == "reached"
    assert end_of(world) == AN1 and at_an1(world) == "delivered"
    assert not any(isinstance(action, DropPaged) for action in world.paged)


def test_forwarding_changes_before_with_or_after_the_page() -> None:
    found = {}
    for forwarding in (*FAST, PageForwarding.REGISTRATION):
        world = sleeping(forwarding, delay=0.05)
        world.tell(world.ha, PACKET)
        world.advance(30)
        assert awake(world)
        messages = [
            event.message if event.kind == "sent" else event.kind
            for event in world.ha.events
            if event.message in ("1170", "1210") or event.kind == "forwarding-changed"
        ]
        found[forwarding.value] = messages[: messages.index("page-ended")]
    assert found == {
        "before": ["1210", "forwarding-changed", "1170", "page-answered", "forwarding-changed"],
        "with": ["1210", "1170", "forwarding-changed", "page-answered", "forwarding-changed"],
        "after": ["1170", "page-answered", "1210", "forwarding-changed", "forwarding-changed"],
        "registration": ["1170", "page-answered"],
    }


@pytest.mark.parametrize("forwarding", EARLY)
def test_packets_wait_at_the_access_node_for_the_answer(forwarding: PageForwarding) -> None:
    world = sleeping(forwarding)
    world.cut("radio0")
    world.tell(world.ha, PACKET)
    world.advance(1)
    assert end_of(world) == AN1 and at_an1(world) == "held"
    world.mend("radio0")
    until(world, "page-delivering", "an1")
    assert at_an1(world) == "delivered"
    world.advance(30)
    assert awake(world) and outcome(world) == "reached"


@pytest.mark.parametrize("forwarding", EARLY)
def test_page_in_vain_restores_the_forwarding(forwarding: PageForwarding) -> None:
    world = sleeping(forwarding)
    world.cut("radio0")
    world.cut("radio1")
    world.tell(world.ha, PACKET)
    world.advance(10)
    assert end_of(world) == AN1 and at_an1(world) == "held"
    world.advance(30)
    assert asleep(world) and outcome(world) == "no-answer"
    assert end_of(world) is None and PAGE.identifier in live(world) and at_an1(world) != "held"
    assert order(world, "an1", ("page-hold-ended", "in-flight-dropped")) == [
        "in-flight-dropped",
        "page-hold-ended",
    ]
    assert [type(action) for action in world.paged][-2:] == [DropPaged, DropPaged]
    assert HOA not in world.an1.bindings and not world.an1.acceptances


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("forwarding", FAST)
def test_fast_page_gets_through_lossy_links(forwarding: PageForwarding, seed: int) -> None:
    world = sleeping(forwarding, seed)
    world.loss = 0.5
    world.tell(world.ha, PACKET)
    world.advance(15)
    world.loss = 0.0
    world.advance(60)
    assert awake(world) and outcome(world) == "reached" and end_of(world) in (AN1, AN2)
    assert at_an1(world) != "held", "whichever access node it has registered at"


@pytest.mark.parametrize("forwarding", FAST)
def test_access_node_restarts_during_a_fast_page(forwarding: PageForwarding) -> None:
    world = sleeping(forwarding)
    world.cut("radio0")
    world.tell(world.ha, PACKET)
    world.advance(2)
    world.kill(world.an1)
    world.start(world.an1)
    world.mend("radio0")
    world.advance(40)
    assert awake(world) and outcome(world) == "reached"
    assert end_of(world) == AN1 and at_an1(world) == "delivered"


@pytest.mark.parametrize("forwarding", FAST)
def test_home_agent_restarts_during_a_fast_page(forwarding: PageForwarding) -> None:
    """The page is forgotten, packets page again, and the access node lets go of what it holds."""
    world = sleeping(forwarding)
    world.cut("radio0")
    world.tell(world.ha, PACKET)
    world.advance(2)
    world.kill(world.ha)
    world.start(world.ha)
    assert end_of(world) is None and PAGE.identifier in live(world)
    world.tell(world.ha, PACKET)
    world.mend("radio0")
    world.advance(40)
    assert awake(world) and outcome(world) == "reached" and end_of(world) == AN1
    world.advance(70)
    assert at_an1(world) == "delivered" and not world.an1.bindings


def test_access_node_that_is_silent_costs_no_packet() -> None:
    world = sleeping(PageForwarding.WITH)
    world.kill(world.an1)
    world.tell(world.ha, PACKET)
    world.advance(10)
    assert end_of(world) is None and PAGE.identifier in live(world), "they wait at the home agent"
    assert world.ha.counts["redirect-unanswered"] >= 1
    world.start(world.an1)
    world.advance(40)
    assert awake(world) and outcome(world) == "reached"


def test_forged_answers_do_not_open_the_hold() -> None:
    """An answer from another link-layer address than the device's is not the device."""
    world = sleeping(PageForwarding.WITH)
    world.cut("radio0")
    world.cut("radio1")
    answers: list[bytes] = []
    world.watch = lambda action: (
        answers.append(action.message) if isinstance(action, a.SendRegistration) else None
    )
    world.tell(world.ha, PACKET)
    world.advance(1)
    world.give(world.mn, world.calls[0].message, Source(AN1, 434, "radio0", b"\x02" * 6, HOA))
    other = bytes((MAC[0] ^ 1,)) + MAC[1:]
    world.give(world.an1, answers[0], Source(HOA, 434, "radio0", other, AN1))
    assert at_an1(world) == "held"


def test_location_server_finds_a_device_that_moved() -> None:
    world = sleeping(PageForwarding.WITH, located=("ha", "mn", "asked"))
    world.cut("radio0")
    world.kill(world.an1)
    actions = world.location.role.happened(moved(world), now=world.now)
    world.perform(world.location, [action for action in actions if not isinstance(action, a.Answer)])
    world.tell(world.ha, PACKET)
    world.advance(60)
    assert awake(world) and outcome(world) == "reached" and end_of(world) == AN2
    pages = [
        event.detail["to"] for event in world.ha.events if (event.kind, event.message) == ("sent", "1170")
    ]
    assert pages[0] == str(AN1) and pages[-1] == str(AN2)


def moved(world: World) -> a.Event:
    """The device's own report that it is at the other access node."""
    sent = round(world.now * 1000)
    said = Location1212((HOA,), 3600, sent, access_node=AN2, care_of=AN2, state=DeviceState.ASLEEP)
    return a.Asked(10_000, "1212", encode_1212(said), HOA, (HOA, HOA6))


def test_request_of_a_stand_in_has_its_own_order() -> None:
    world = sleeping(PageForwarding.REGISTRATION)
    event = ApplicationEvent("mail", "message", {})
    said = PageRequest1172(b"stand-in", HOA, event, Order.BEFORE)
    answers: list[a.Action] = []
    actions = world.ha.role.happened(a.Asked(1, "1172", encode_1172(said), AN3, (HOA, HOA6)), now=world.now)
    world.perform(world.ha, [action for action in actions if not isinstance(action, a.Answer)])
    assert answers == []
    until(world, "forwarding-changed")
    assert end_of(world) == AN1


def test_device_that_is_called_has_a_way_for_its_answers() -> None:
    """One whose daemon was started again while it slept has none before."""
    world = sleeping(PageForwarding.WITH)
    world.kill(world.mn)
    world.start(world.mn)
    assert asleep(world) and way(world) is None
    used: list[a.Action] = []
    world.watch = used.append
    world.tell(world.ha, PACKET)
    until(world, "paged", "mn")
    ways = [type(action) for action in used if isinstance(action, UseAgent | a.SendRegistration)]
    assert ways[:2] == [UseAgent, a.SendRegistration], "the way is there when it answers"
    world.advance(30)
    assert awake(world) and way(world) == AN1
