"""Packets of the data plane as events, and texts through proxies that run, of a stand-in's event tables (P3, P15)."""

import asyncio
from pathlib import Path

from locum.node.apps.paging.table_events import MUTE, NO_PROXY, NO_SESSION, TableEvents
from locum.roles.action_values.apps import AppOrder, StartApps
from locum.roles.action_values.event_tables import (
    CorrespondentTold,
    PacketsSeen,
    SeenPacket,
    TellCorrespondent,
    WatchPackets,
)
from locum.roles.actions import Event
from locum.wire.control import Flow
from tests.node.apps.test_captures import HOME, HOME6, OTHER, World
from tests.node.apps.world import HANDOVER, Connection, Standing
from tests.node.apps.world import HOME as DEVICE

IRC = AppOrder("chat", "keepalive", {"protocol": "irc", "ports": [7], "interval": 3600})
LOG = AppOrder("log", "log")


async def gathered(events: list[Event], number: int) -> list[Event]:
    async with asyncio.timeout(20):
        while len(events) < number:
            await asyncio.sleep(0.01)
    return events


def watching(standing: Standing) -> tuple[TableEvents, World, list[Event]]:
    events: list[Event] = []
    table, world = TableEvents(standing.apps, events.append), World()
    table.begin(world.captures)
    return table, world, events


async def test_watched_packets_are_reported_together() -> None:
    table, world, events = watching(Standing())
    watch = table.handlers()[WatchPackets]
    watch(WatchPackets((HOME, HOME6), 10))
    assert world.kernel.logged == {HOME: 10, HOME6: 10}
    world.arrive(HOME, b"a")
    world.arrive(HOME6, b"b", left_out=2)
    world.arrive(OTHER, b"c")
    world.kernel.left[HOME6] = 2
    await gathered(events, 1)
    assert events == [PacketsSeen((HOME, HOME6), (SeenPacket(b"a", 1500), SeenPacket(b"b", 1500)), 2)]
    watch(WatchPackets((HOME, HOME6), 0))
    assert world.kernel.logged == {}
    world.arrive(HOME)
    await asyncio.sleep(0.1)
    assert len(events) == 1


async def test_packets_wanted_before_the_data_plane_are_watched() -> None:
    table, world = TableEvents(Standing().apps, lambda _event: None), World()
    watch = table.handlers()[WatchPackets]
    watch(WatchPackets((HOME,), 10))
    watch(WatchPackets((OTHER,), 10))
    watch(WatchPackets((OTHER,), 0))
    table.begin(world.captures)
    assert world.kernel.logged == {HOME: 10}


async def test_text_reaches_the_correspondent(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    table, _, events = watching(standing)
    await standing.perform(StartApps(HANDOVER, DEVICE, (IRC, LOG)))
    await standing.until(lambda: all(app.begun for app in standing.apps.all()))
    assert await connection.hears(13) == b"PING :locum\r\n"

    def tell(app: str, flow: Flow = connection.held.flow, handover: bytes = HANDOVER) -> None:
        table.handlers()[TellCorrespondent](TellCorrespondent(handover, app, flow, "AWAY :asleep"))

    tell("chat")
    assert await connection.hears(14) == b"AWAY :asleep\r\n"
    other = Flow(6, HOME, 1, OTHER, 2)
    tell("chat", other)
    tell("nobody")
    tell("chat", handover=b"x" * 16)
    assert [event.reason for event in events if isinstance(event, CorrespondentTold)] == [
        "",
        NO_SESSION,
        NO_PROXY,
        NO_PROXY,
    ]
    assert not standing.apps.catalogue.tells("log") and standing.apps.catalogue.tells("keepalive")
    (log,) = [app for app in standing.apps.all() if app.order.name == "log"]
    log.sessions.update(standing.apps.all()[0].sessions)
    tell("log")
    assert isinstance(events[-1], CorrespondentTold) and events[-1].reason == MUTE
    connection.close()
