"""[policy], address pools and NAIs in the configuration: valid tables, and the line of each error."""

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.config.load import ConfigError, load
from locum.node.config.settings import Settings

HOME = """
[node]
name = "ha"
interfaces = ["eth0"]
[home_agent]
address = "192.0.2.1"
home_prefixes = ["203.0.113.0/24"]
"""
POOL = """
[[home_agent.pool]]
name = "guests"
prefix = "203.0.113.0/24"
"""
POLICY = """
[policy]
[[policy.servers]]
address = "192.0.2.53"
secret_file = "radius.secret"
"""
MOBILE = """
[node]
name = "mn"
interfaces = ["wlan0"]
[mobile_node]
home_agent = "192.0.2.1"
links = ["wlan0"]
spi = 1000
key_file = "mn.key"
"""
STAND_IN = """
[node]
name = "standin"
interfaces = ["eth0"]
[control]
address = "192.0.2.130"
[mnps]
address = "192.0.2.130"
access_node = "192.0.2.129"
home_prefixes = ["203.0.113.0/24"]
links = ["eth0"]
"""
CHANGES = """
[policy.changes]
[[policy.changes.clients]]
address = "192.0.2.53"
secret_file = "radius.secret"
"""
Load = Callable[[str], Settings]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Loads a text, with a secret and a key beside it."""
    for name, content in (
        ("radius.secret", "sixteen letters!\n"),
        ("mn.key", "00" * 16),
        ("short", "too short"),
    ):
        secret = tmp_path / name
        secret.touch(mode=0o600)
        secret.write_text(content)

    def from_text(text: str) -> Settings:
        file = tmp_path / "node.toml"
        file.write_text(text)
        return load(file)

    return from_text


def test_policy_and_pools(loaded: Load) -> None:
    settings = loaded(HOME + POOL + POLICY)
    assert settings.policy is not None and settings.home_agent is not None
    (server,) = settings.policy.servers
    assert (server.address, server.port, server.secret) == (
        IPv4Address("192.0.2.53"), 1812, b"sixteen letters!"
    )  # fmt: skip
    assert settings.policy.nas_identifier == "ha"
    assert b"sixteen" not in repr(settings).encode()
    (pool,) = settings.home_agent.homes.pools
    assert (str(pool.first), str(pool.last)) == ("203.0.113.1", "203.0.113.254")
    assert settings.home_addresses >= 254


def test_pushed_changes_are_taken_from_clients(loaded: Load) -> None:
    policy = loaded(HOME + POLICY + CHANGES).policy
    assert policy is not None and policy.changes is not None
    (client,) = policy.changes.clients
    assert (client.address, client.secret) == (IPv4Address("192.0.2.53"), b"sixteen letters!")
    assert (policy.changes.port, policy.changes.window) == (3799, 300.0)
    assert b"sixteen" not in repr(policy).encode()
    without = loaded(HOME + POLICY).policy
    assert without is not None and without.changes is None


def test_a_stand_in_takes_pushed_changes_too(loaded: Load) -> None:
    policy = loaded(STAND_IN + POLICY + CHANGES).policy
    assert policy is not None and policy.changes is not None


def test_a_stand_in_may_know_no_device(loaded: Load) -> None:
    settings = loaded(STAND_IN + POLICY)
    assert settings.control is not None and settings.control.associations == ()
    assert settings.asks_policy_from == IPv4Address("192.0.2.130")
    assert loaded(HOME + POLICY).asks_policy_from == IPv4Address("192.0.2.1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HOME + POOL, "[policy]: is missing"),
        (HOME + "[policy]\n", "servers: is missing"),
        (HOME + POLICY.replace("radius.secret", "short"), "a secret needs at least 16"),
        (HOME + POLICY + POLICY.replace("[policy]\n", ""), "names one server twice"),
        (HOME + POLICY.replace("[policy]", "[policy]\ntimeout = 0"), "timeout"),
        (HOME + POLICY.replace("[policy]", "[policy]\nretrys = 1"), "did you mean retries?"),
        (HOME + POLICY + "[policy.changes]\n", "[policy.changes] clients: is missing"),
        (
            HOME + POLICY + CHANGES + CHANGES.replace("[policy.changes]\n", ""),
            "clients: names one address twice",
        ),
        (HOME + POLICY + CHANGES.replace("changes]\n", "changes]\nwindow = 1\n"), "window"),
        (HOME + POLICY + CHANGES.replace("changes]\n", "changes]\nport = 0\n"), "port"),
        (HOME + POLICY + CHANGES.replace("radius.secret", "short"), "a secret needs at least 16"),
        (MOBILE + 'nai = "a@example.org"\n' + POLICY + CHANGES, "no role of this node has profiles"),
        (HOME + POOL + POOL + POLICY, "names two pools"),
        (HOME + POOL + POOL.replace("guests", "more") + POLICY, "addresses in common"),
        (HOME + POOL.replace("203.0.113", "198.51.100") + POLICY, "is in none of home_prefixes"),
        (HOME + POOL + 'first = "203.0.113.9"\nlast = "203.0.113.8"\n' + POLICY, "comes after last"),
        (HOME + POOL + 'first = "203.0.114.9"\n' + POLICY, "is not in 203.0.113.0/24"),
    ],
)
def test_errors_of_the_policy_tables_are_described(text: str, complaint: str, loaded: Load) -> None:
    with pytest.raises(ConfigError) as problem:
        loaded(text)
    assert complaint in str(problem.value)


def test_a_mobile_node_needs_a_home_address_or_a_nai(loaded: Load) -> None:
    with pytest.raises(ConfigError, match="home_address: is missing"):
        loaded(MOBILE)
    settings = loaded(MOBILE + 'nai = "alice@example.org"\n').mobile_node
    assert settings is not None
    assert settings.configuration.home_address.is_unspecified
    assert settings.configuration.nai == "alice@example.org"
    with pytest.raises(ConfigError, match="nai: must have"):
        loaded(MOBILE + f'nai = "{"x" * 254}"\n')
