"""Answers of the commands sleep and wake, over a role in a world with a virtual clock."""

import asyncio
import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiocoap.error import NetworkError

from locum.cli import fates
from locum.node.coap.endpoint import _reason
from locum.node.control.answering.sessions import drop
from locum.node.control.server import RequestFailed
from locum.node.control.sleep import SleepControl
from locum.node.control.wish_forms import wish
from locum.node.performer import Sequential
from locum.roles import actions as a
from locum.roles.action_values.sessions import FoundSession, Process, SessionsFound
from tests.roles.mobile_node.test_handover import asleep
from tests.roles.world import World, flow


class Performed(Sequential):
    """The world performs at once."""

    def __init__(self) -> None:
        pass

    async def drained(self) -> None:
        """No data is left."""


class Node:
    """As much of a node as the commands use."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.clock = SimpleNamespace(for_people=lambda at: at)
        self.session_capture: SimpleNamespace | None = None
        self.driver = SimpleNamespace(command=self.command, stopping=False)
        self.settings = SimpleNamespace(mobile_node=SimpleNamespace(sleep_seconds=5.0))
        self.slot = SimpleNamespace(name="mn", role=world.device, told=set(), performer=Performed())

    def command(self, _name: str, what: Callable[[None, float], list[a.Action]]) -> None:
        """Perform the role's decisions in the world."""
        self._world.perform(self._world.mn, what(None, self._world.clock(self._world.mn)))


def control(world: World) -> tuple[SleepControl, set[Callable[[], None]]]:
    node = Node(world)
    return SleepControl(cast(Any, node), cast(Any, node.slot)), node.slot.told


async def test_the_first_wake_after_a_restart_says_what_was_lost() -> None:
    world = asleep(sessions=2)
    world.boot_again()
    world.advance(5)
    assert (await control(world)[0].wake())["report"]["lost"] == 2
    assert "report" not in await control(world)[0].wake()


async def test_daemon_restarted_asleep_knows_its_sessions() -> None:
    world = asleep(sessions=2)
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(1)
    report = (await control(world)[0].sleep(None))["report"]
    assert report["went"] == 2
    assert all(row["pids"] for row in report["sessions"])


async def test_sleeping_device_takes_no_wish_of_a_sleep() -> None:
    world = asleep(sessions=2)
    with pytest.raises(RequestFailed, match="asleep already, or about to be; `locum wake-on tcp 8080` wakes"):
        await control(world)[0].sleep(None, until=wish({"form": "tcp", "value": "8080"}))
    assert not world.device.paging.all()


async def test_a_wake_that_a_later_sleep_called_off_fails() -> None:
    world = asleep(sessions=2)
    commands, told = control(world)
    waking = asyncio.create_task(commands.wake())
    await asyncio.sleep(0)
    world.advance(0.01)
    world.sleep()
    world.advance(5)
    for request in list(told):
        request()
    with pytest.raises(RequestFailed, match="asleep again"):
        await waking


async def test_dry_run_is_sorted_by_program_and_counted() -> None:
    world = World(sessions=0)
    world.advance(3)
    names = ("ssh", "curl", "ssh", "curl")
    found = [FoundSession(flow(n), (Process(n % 2 + 1, 1),), (name,)) for n, name in enumerate(names)]

    async def look(_: object) -> SessionsFound:
        return SessionsFound(tuple(found))

    node = Node(world)
    node.session_capture = SimpleNamespace(look=look)
    rows = await SleepControl(cast(Any, node), cast(Any, node.slot)).would_sleep()
    assert [row["programs"] for row in rows] == [["curl"], ["curl"], ["ssh"], ["ssh"]]
    assert fates.forecast(rows) == "4 would go, 0 would stay"


@pytest.mark.parametrize("name", ["xyz", "0a/b", "0", "/1", ""])
async def test_unknown_session_name_is_refused_with_a_reason(name: str) -> None:
    node = SimpleNamespace(driver=SimpleNamespace(slots={"mnps": SimpleNamespace(role=None)}))
    with pytest.raises(RequestFailed, match="names no session: HANDOVER"):
        await drop(cast(Any, node), {"session": name})


def test_unreachable_stand_in_is_named() -> None:
    problem = NetworkError("x")
    problem.__cause__ = OSError(errno.ECONNREFUSED, "ECONNREFUSED, received through errqueue")
    assert _reason(problem) == "no daemon answers on its control port"
    problem.__cause__ = OSError(errno.ENETUNREACH, "received through errqueue")
    assert _reason(problem) == "Network is unreachable"
