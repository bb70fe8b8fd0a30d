"""`locum wake --abandon` says how each session fared."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from locum.node.control.sleep import SleepControl
from locum.roles.actions import Action
from tests.roles.mobile_node.test_handover import asleep
from tests.roles.mobile_node.wake.test_coming import SLOW, coming
from tests.roles.world import World


class Control(SleepControl):
    """Of the device of a world with a virtual clock."""

    def __init__(self, world: World) -> None:
        super().__init__(cast(Any, None), cast(Any, SimpleNamespace(role=world.device)))
        self.world = world

    def state(self) -> dict[str, Any]:
        return {}

    def _command(self, command: Callable[[float], list[Action]]) -> None:
        self.world.perform(self.world.mn, command(self.world.clock(self.world.mn)))

    async def _settled(self, done: Callable[[], bool], doing: str, *, cancel: bool) -> None:
        self.world.advance(1)
        assert done()


def awake() -> World:
    world = World()
    world.advance(3)
    return world


@pytest.mark.parametrize(
    ("world", "flows"), [(asleep, None), (coming, [SLOW]), (awake, [])], ids=["asleep", "coming", "awake"]
)
async def test_abandoned_sessions_are_reported(world: Callable[[], World], flows: list[Any] | None) -> None:
    made = world()
    expected = list(made.sessions) if flows is None else flows
    report = (await Control(made).abandon())["report"]
    assert report["lost"] == len(report["sessions"]) == len(expected)
    assert {session["reason"] for session in report["sessions"]} <= {"the sessions were given up"}
