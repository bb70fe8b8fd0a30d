"""`locum profile` at nodes without profiles: requests are refused in one line."""

import pytest

from locum.node.control.client import NodeRefused
from tests.node.test_real_nodes import World, world

__all__ = ["world"]


def test_nodes_without_profiles_list_none(world: World) -> None:
    for name in ("ha", "an", "mn"):
        world.start(name)
    for name in ("ha", "an"):
        assert world.ask(name, "profile list") == []
        assert world.ask(name, "profile refresh") == []
        with pytest.raises(NodeRefused, match="not served because of a profile"):
            world.ask(name, "profile refresh", home_address="10.36.0.4")
        with pytest.raises(NodeRefused, match="no IPv4 address"):
            world.ask(name, "profile refresh", home_address="fd36::4")
    for request in ("profile list", "profile refresh"):
        with pytest.raises(NodeRefused, match="asks no policy server"):
            world.ask("mn", request)
