"""`locum binding revoke` at a node: ended registrations, refusals, and output."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from locum.node.control.answering.revocations import revoke
from locum.node.control.server import RequestFailed
from locum.node.control.view import NodeView
from locum.roles.actions import Action, Role
from tests.roles.world import AN1, AN3, HOA, Host, World


class Hosted:
    """As much of a driver as the request needs, over a role of the virtual world."""

    def __init__(self, world: World, **hosts: Host) -> None:
        self.world, self.hosts = world, hosts
        self.slots = {name: SimpleNamespace(role=host.role, performer=self) for name, host in hosts.items()}

    async def saved(self) -> None:
        """Everything is stored at once."""

    def command(self, role: str, command: Callable[[Role, float], Sequence[Action]]) -> None:
        self.world.perform(self.hosts[role], list(command(self.hosts[role].role, self.world.now)))


@pytest.fixture
def world() -> World:
    settled = World(agents_keyed=True)
    settled.advance(5)
    return settled


def ask(hosted: Hosted, **arguments: Any) -> dict[str, Any]:
    node = cast(NodeView, SimpleNamespace(driver=hosted))
    return asyncio.run(revoke(node, {"home_address": str(HOA), **arguments}))


def test_at_a_home_agent(world: World) -> None:
    told = ask(Hosted(world, home_agent=world.ha), reason="stolen")
    assert told == {"home_address": str(HOA), "care_of": [str(AN1)], "reason": "stolen"}
    (ended,) = [event for event in world.ha.events if event.kind == "revoked"]
    assert ended.detail["reason"] == "stolen" and ended.detail["in_force"] == [str(AN3)]


def test_at_an_access_node(world: World) -> None:
    assert ask(Hosted(world, foreign_agent=world.an1))["care_of"] == [str(AN1)]
    world.advance(0.02)
    assert "revoked" in world.ha.kinds()


def test_revocation_of_one_agents_registrations(world: World) -> None:
    hosted = Hosted(world, home_agent=world.ha)
    with pytest.raises(RequestFailed, match="nothing is registered"):
        ask(hosted, agent=str(AN3))
    assert ask(hosted, agent=str(AN1))["care_of"] == [str(AN1)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"home_address": "10.99.0.1"}, "nothing is registered"),
        ({"home_address": "nobody"}, "home_address: an IPv4 address"),
        ({"home_address": None}, "home_address: an IPv4 address"),
        ({"agent": "fe80::1"}, "agent: an IPv4 address"),
        ({"reason": 7}, "reason: a text"),
        ({"reason": "x" * 1000}, "reason: a text"),
    ],
)
def test_refused_revocations(world: World, arguments: dict[str, Any], complaint: str) -> None:
    before = world.ha.tables()
    with pytest.raises(RequestFailed, match=complaint):
        ask(Hosted(world, home_agent=world.ha, foreign_agent=world.an1), **arguments)
    assert world.ha.tables() == before
