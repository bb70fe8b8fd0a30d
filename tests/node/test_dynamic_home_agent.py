"""A real device that names no home agent (RFC 4433): the access node chooses, the home agent accepts, packets take the tunnels."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace
from tests.node.test_real_nodes import AN, HA, MN, World

CHOOSING = AN + 'assigns_home_agent = "10.2.0.1"\n'
KEY = 'spi = 2000\nkey_file = "key"\n'
AT_ACCESS = f'[[foreign_agent.home_agent]]\naddress = "10.2.0.1"\n{KEY}'
AT_HOME = f'[[home_agent.foreign_agent]]\naddress = "10.2.0.2"\n{KEY}'
# It proposes a home agent that the access node does not serve.
LEFT_OPEN = MN.replace('"10.2.0.1"', '"10.2.0.77"\ndynamic_home_agent = true\nnai = "laptop@example.org"')


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[World]:
    made = World(tmp_path, namespace)
    for name, text in (("ha", HA + AT_HOME), ("an", CHOOSING + AT_ACCESS), ("mn", LEFT_OPEN)):
        (tmp_path / f"{name}.toml").write_text(text.format(common=made.common(name)))
    yield made
    made.close()


def test_home_agent_is_assigned_by_the_access_node(world: World) -> None:
    for name in ("ha", "an", "mn"):
        world.start(name)
    world.until(lambda: "10.2.0.2" in world.care_of(), "the registration", 40.0)
    world.until(lambda: world.ping("cn", "10.36.0.4"), "an answer through the tunnels", 40.0)
    assert world.ping("mn", "10.1.0.2")
    assert world.ask("mn", "status")["mobile_node"]["home_agent"] == "10.2.0.1"
    world.kill("mn")
    world.start("mn")
    world.until(lambda: world.ping("cn", "10.36.0.4"), "an answer after the restart", 40.0)
    assert world.ask("mn", "status")["mobile_node"]["home_agent"] == "10.2.0.1"
