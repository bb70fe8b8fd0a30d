"""Configuration of contexts (C4): profiles of visitors, other access nodes, devices that notify."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.config.foreign_agent import foreign_agent
from locum.node.config.settings import NodeSettings
from locum.node.config.toml_table import ConfigError, Table
from locum.wire.control.context_blocks import PolicyBlock

NODE = NodeSettings(
    "an1",
    ("radio0", "core0"),
    Path("/s"),
    Path("/r"),
    Path("/b"),
    None,
    1 << 20,
    None,
    None,
    hold_packets=64,
    hold_bytes=1 << 20,
    hold_packets_each=16,
    hold_bytes_each=1 << 16,
    hold_age=60,
    path_mtu_probes=True,
)


def agent(**profile: object) -> Table:
    content = {
        "care_of_address": "192.0.2.1",
        "links": ["radio0"],
        "tunnel_silence": 2.5,
        "profile": [{"home_address": "198.51.100.4", **profile}],
    }
    return Table(Path("an1.toml"), "foreign_agent", content)


def test_a_profile_becomes_the_blocks_of_a_context() -> None:
    settings = foreign_agent(agent(to_visitor=[{"id": 3, "action": "drop", "protocol": "udp"}]), NODE)
    policy, _ = settings.configuration.contexts[IPv4Address("198.51.100.4")]
    assert isinstance(policy, PolicyBlock)
    assert [(rule.identifier, rule.allow) for rule in policy.to_visitor.rules] == [(3, False), (3, False)]
    assert policy.to_visitor.otherwise and settings.configuration.tunnel_silence == 2.5


@pytest.mark.parametrize(
    "profile",
    [
        {"to_visitor": [{"id": 1, "action": "drop"}, {"id": 1, "action": "allow"}]},
        {"from_visitor": [{"id": n, "action": "drop"} for n in range(1, 40)]},
        {"to_visitor_otherwise": "perhaps"},
        {"unknown": 1},
    ],
)
def test_senseless_context_profiles_are_refused(profile: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        foreign_agent(agent(**profile), NODE)
