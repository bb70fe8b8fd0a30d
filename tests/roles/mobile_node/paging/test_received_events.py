"""Events that a stand-in stored, at the device that is back: each once, and over a restart (P3)."""

from ipaddress import ip_address
from typing import cast

from locum.roles import actions as a
from locum.roles.action_values.apps import AppOrder, AppTold
from locum.roles.mnps.role import StandIn
from locum.roles.mobile_node.paging.received_events import MAX_KEPT, ReceivedEvents
from locum.roles.paging.stored_events import StoredEvent
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import ActionKind, Entry, EntryAction, Pattern
from locum.wire.control.paging.event_table import EventTable1206, Operation, encode_1206
from tests.roles.world import HOA, STAND_IN, World, asleep, awake

AT = 1_790_000_000_000
EVENT = ApplicationEvent("mail", "message_available", {"from": "boss@example.org"})


def item(number: int, count: int = 1) -> list[object]:
    return StoredEvent(number, 3, EVENT, AT + number, count).to_cbor()


def test_event_is_taken_once_and_kept() -> None:
    received = ReceivedEvents()
    actions = received.returned({"events": [item(1)]}, STAND_IN, HOA)
    rows = [action for action in actions if isinstance(action, a.Persist)]
    (told,) = [action for action in actions if isinstance(action, a.Emit)]
    assert told.kind == "event-received" and told.detail["detail"] == {"from": "boss@example.org"}
    assert received.returned({"events": [item(1)]}, STAND_IN, HOA) == []
    later = ReceivedEvents()
    later.restore(rows, now=0.0)
    assert list(later.all()) == list(received.all())
    assert later.returned({"events": [item(1)]}, STAND_IN, HOA) == []
    assert len(later.returned({"events": [item(1, count=5)]}, STAND_IN, HOA)) == 2


def test_malformed_events_are_counted() -> None:
    received = ReceivedEvents()
    actions = received.returned({"events": [7, item(1), [1]]}, STAND_IN, HOA)
    assert sum(isinstance(action, a.Count) for action in actions) == 2 and len(received.all()) == 1
    assert received.returned({"events": "x"}, STAND_IN, HOA) == received.returned({}, STAND_IN, HOA) == []


def test_number_of_events_is_bounded() -> None:
    received = ReceivedEvents()
    for number in range(1, MAX_KEPT + 10):
        received.returned({"events": [item(number)]}, STAND_IN, HOA)
    assert len(received.all()) == MAX_KEPT and next(iter(received.all())).stored.number == 10
    gone = received.clear()
    assert len(gone) == MAX_KEPT and not received.all()


def test_unreadable_row_is_counted() -> None:
    received = ReceivedEvents()
    rows = [a.Persist("event", "nowhere 1", {"event": "00"}), a.Persist("event", f"{STAND_IN} 1", {})]
    actions = received.restore(rows, now=0.0)
    assert [type(action) for action in actions] == [a.Count, a.Forget] * 2


def told(world: World, kind: str = "delivered") -> None:
    """A proxy at the stand-in emits an event."""
    (taken,) = cast(StandIn, world.mnps.role).handovers()
    world.tell(world.mnps, AppTold(taken.identifier, "fox", kind, None, {"size": 7}))


def sleeping(seed: int = 0) -> World:
    """The device sleeps with an entry that stores and pages, and a proxy."""
    world = World(seed)
    world.apps = (AppOrder("fox", "download"),)
    world.start(world.mn)
    world.advance(3)
    both = (EntryAction(ActionKind.STORE), EntryAction(ActionKind.PAGE))
    change = EventTable1206((HOA,), Operation.REPLACE, 1, (Entry(3, (Pattern("fox", "delivered"),), both),))
    world.perform(world.mn, [a.Ask(1 << 60, STAND_IN, "1206", encode_1206(change), 10.0)])
    world.advance(2)
    world.sleep()
    world.advance(30)
    assert asleep(world)
    return world


def test_event_wakes_the_device_which_gets_it() -> None:
    world = sleeping()
    told(world, "progress")
    world.advance(20)
    assert asleep(world)
    told(world)
    world.advance(40)
    assert awake(world)
    outcomes = [event.detail["outcome"] for event in world.mnps.events if event.kind == "page-outcome"]
    assert outcomes in (["reached"], ["back"])
    (event,) = world.device.events.all()
    assert (event.stand_in, event.stored.event.kind) == (ip_address(STAND_IN), "delivered")
    assert len([event for event in world.ha.events if event.kind == "page-ended"]) == 1
    assert not [key for key in world.mnps.rows if "stored" in key[1] or "page" in key[1]]


def test_flood_of_events_pages_once() -> None:
    world = sleeping()
    for _ in range(10_000):
        told(world)
    world.advance(60)
    assert awake(world)
    assert len([event for event in world.ha.events if event.kind == "page-ended"]) == 1
    assert sum(event.stored.count for event in world.device.events.all()) == 10_000


def test_killed_daemons_lose_no_event() -> None:
    for name in ("mnps", "ha", "an1"):
        for seconds in (0.0, 0.012, 0.05, 0.3, 2.0):
            world = sleeping()
            told(world)
            world.advance(seconds)
            host = getattr(world, name)
            world.kill(host)
            world.advance(5)
            world.start(host)
            world.advance(300)
            assert awake(world), (name, seconds)
            assert len(world.device.events.all()) == 1
