"""A device in a network of roles with a location server: it registers, moves, sleeps and wakes (P6)."""

from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.location.entry import LocationEntry, Origin
from locum.roles.location.role import LocationServer
from locum.roles.mobile_node.paging.own_way import spread
from locum.roles.registrant.configuration import OwnWayConfiguration
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.way import Way
from tests.roles.world import AN1, AN2, HOA, HOA6, World, asleep, awake

ALL = ("ha", "an", "mn")


def entry(world: World) -> LocationEntry | None:
    """The device's entry; there is no other."""
    assert isinstance(world.location.role, LocationServer)
    found = tuple(world.location.role.entries())
    assert len(found) <= 1
    return found[0] if found else None


def place(world: World) -> tuple[object, ...]:
    """Access node, care-of address and state of the device's entry."""
    found = entry(world)
    assert found is not None
    return found.location.access_node, found.location.care_of, found.location.state


def test_registered_device_is_at_its_access_node() -> None:
    world = World(located=ALL)
    world.advance(5)
    assert place(world) == (AN1, AN1, DeviceState.AWAKE)
    found = entry(world)
    assert found is not None and set(found.location.home_addresses) == {HOA, HOA6}
    world.advance(900)
    assert place(world) == (AN1, AN1, DeviceState.AWAKE), "renewals keep the entry"
    changed = [event for event in world.location.events if event.kind == "location-changed"]
    assert len(changed) == 1


def test_device_that_moves_is_found_at_the_next_access_node() -> None:
    world = World(located=ALL)
    world.advance(5)
    world.cut("radio0")
    world.advance(20)
    assert place(world) == (AN2, AN2, DeviceState.AWAKE)
    world.advance(900)
    assert place(world) == (AN2, AN2, DeviceState.AWAKE), "the end of the visit at the first is no news"


def test_sleeper_is_found_where_it_fell_asleep() -> None:
    world = World(located=ALL)
    world.advance(5)
    world.sleep()
    world.advance(5)
    assert asleep(world)
    world.cut("radio0")
    world.cut("radio1")
    world.advance(900)
    assert place(world) == (AN1, AN1, DeviceState.ASLEEP)
    world.mend("radio1")
    world.wake()
    world.advance(20)
    assert awake(world)
    assert place(world) == (AN2, AN2, DeviceState.AWAKE)


def test_sleeper_is_known_by_its_access_node_alone() -> None:
    world = World(located=("an",))
    world.advance(5)
    world.sleep()
    world.advance(60)
    assert asleep(world)
    assert place(world) == (AN1, AN1, DeviceState.ASLEEP)


def test_refused_sleep_leaves_the_device_awake() -> None:
    world = World(located=ALL)
    world.advance(5)
    world.authorised = (HOA, HOA6)
    world.stand_in_silent = True
    world.sleep()
    world.advance(2)
    assert place(world)[2] is DeviceState.ASLEEP, "it says so while it can"
    world.advance(200)
    assert awake(world)
    assert place(world)[2] is DeviceState.AWAKE


def test_locations_survive_restarts_and_losses() -> None:
    world = World(seed=7, loss=0.2, located=ALL)
    world.advance(30)
    assert place(world) == (AN1, AN1, DeviceState.AWAKE)
    world.kill(world.location)
    world.cut("radio0")
    world.advance(30)
    world.start(world.location)
    world.advance(120)
    assert place(world) == (AN2, AN2, DeviceState.AWAKE), "reports without an answer are repeated"


def test_deregistered_device_has_no_location() -> None:
    world = World(located=ALL)
    world.advance(5)
    world.perform(world.mn, world.device.leave(now=world.clock(world.mn)))
    world.advance(5)
    assert entry(world) is None


def test_visitor_that_the_access_node_revokes_has_left() -> None:
    world = World(located=ALL, agents_keyed=True)
    world.advance(5)
    world.cut("radio0")
    world.cut("radio1")
    assert isinstance(world.an1.role, ForeignAgent)
    world.perform(world.an1, world.an1.role.revoke(HOA, reason="test", now=world.clock(world.an1)))
    world.advance(1)
    assert entry(world) is None


def test_report_of_a_foreign_device_changes_nothing() -> None:
    world = World(located=("an", "mn"))
    world.authorised = ()
    world.advance(5)
    found = entry(world)
    assert found is not None and found.origin is Origin.ACCESS_NODE
    assert world.location.counts["location-not-authorised"] >= 1
    assert any(event.kind == "location-report-failed" for event in world.mn.events)


def test_registrations_alone_give_locations() -> None:
    world = World(located=("ha",))
    world.advance(5)
    found = entry(world)
    assert found is not None and found.origin is Origin.REGISTRATION
    assert place(world) == (AN1, AN1, DeviceState.AWAKE)
    world.cut("radio0")
    world.advance(900)
    assert place(world) == (AN2, AN2, DeviceState.AWAKE)


def test_way_of_the_device_is_kept_while_access_nodes_report() -> None:
    world = World(located=ALL, own_way=OwnWayConfiguration(cycle=320, length=20))
    world.advance(5)
    world.sleep()
    world.advance(900)
    found = entry(world)
    assert found is not None and found.asleep
    assert found.location.way == Way("link", b"", 320, spread(HOA, 320), 20)
