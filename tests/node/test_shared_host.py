"""One daemon that is home agent and access node (R17): registration, packets in both directions, a crash.

cn 10.1.0.2 -- 10.1.0.1 ha 10.3.0.1 ~radio~ mn (10.36.0.4, fd36::4)
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace, join
from tests.node.test_real_nodes import HA, MN, World

BOTH = (
    HA.replace('["eth0", "eth1"]', '["eth0", "radio0"]').replace('"10.2.0.1"', '"10.1.0.1"')
    + """
[foreign_agent]
care_of_address = "10.3.0.1"
links = ["radio0"]
advertise_interval = 0.3
"""
)


class SharedHost(World):
    """The device's radio link ends at the home agent's own host."""

    def connect_agents(self, ha: Namespace, an: Namespace) -> None:
        mn = self.spaces["mn"]
        mn.ip("link del radio0")
        join(ha, "radio0", mn, "radio0")
        join(an, "radio0", an, "unused")  # for the world's own steps
        ha.ip("addr add 10.3.0.1/24 dev radio0")


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[SharedHost]:
    made = SharedHost(tmp_path, namespace)
    for name, text in (("ha", BOTH), ("mn", MN.replace('"10.2.0.1"', '"10.1.0.1"'))):
        (tmp_path / f"{name}.toml").write_text(text.format(common=made.common(name)))
    yield made
    made.close()


def test_home_agent_and_access_node_in_one_daemon(world: SharedHost) -> None:
    """602 and 603 stay on the host, packets go without a tunnel, and go on while no daemon runs."""
    world.start("ha")
    world.start("mn")
    events = world.folder / "mn.jsonl"
    world.until(lambda: '"registered"' in events.read_text(), "the registration")
    kinds = {row["kind"] for row in world.ask("ha", "binding list")}
    assert kinds == {"binding", "visitor"}
    assert world.ping("cn", "10.36.0.4") and world.ping("cn", "fd36::4"), world.complaints()
    assert world.ping("mn", "10.1.0.2")
    assert world.ping("ha", "10.36.0.4", 1)
    tunnels = world.ask("ha", "tunnel list")
    assert all(row["packets"] == 0 for row in tunnels if row["direction"] == "to-home-address")
    dropped = world.ask("ha", "counters")["data_plane"]
    assert not any(dropped.values()), dropped
    world.kill("ha")
    assert world.ping("cn", "10.36.0.4", 5)
    world.start("ha")
    assert world.ping("cn", "10.36.0.4", 5)
