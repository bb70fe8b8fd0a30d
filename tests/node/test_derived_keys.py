"""A real device that shares a key with the AAA server alone (RFC 3957): it registers through an access node that requires keys."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace
from tests.node.test_real_nodes import AN, HA, MN, World

AAA = 'association_with = "aaa"\nalgorithm = "hmac-sha-1"\n'
AGENT = '[[{}]]\naddress = "{}"\nspi = 2000\nkey_file = "key"\n'
AT_HOME = AAA + AGENT.format("home_agent.foreign_agent", "10.2.0.2")
AT_AGENT = 'challenge = true\nvisitor_keys = "required"\n' + AGENT.format(
    "foreign_agent.home_agent", "10.2.0.1"
)
SHORT = MN.replace("lifetime = 60", "lifetime = 6")


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[World]:
    made = World(tmp_path, namespace)
    own = SHORT + AAA + "foreign_agent_keys = true\n"
    for name, text in (("ha", HA + AT_HOME), ("an", AN + AT_AGENT), ("mn", own)):
        (tmp_path / f"{name}.toml").write_text(text.format(common=made.common(name)))
    yield made
    made.close()


def key(world: World, node: str, table: str) -> tuple[str, ...]:
    """The rows of derived keys at this node."""
    with contextlib.closing(sqlite3.connect(world.folder / "state" / f"{node}.db")) as store:
        return tuple(
            row[0] for row in store.execute("SELECT value FROM entry WHERE collection = ?", (table,))
        )


def keys(world: World) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of the home agent and of the access node."""
    return key(world, "ha", "home_agent.key"), key(world, "an", "foreign_agent.key")


def registrations(world: World) -> int:
    return (world.folder / "mn.jsonl").read_text().count('"registered"')


def test_keys_for_both_agents_outlive_all_ends(world: World) -> None:
    for name in ("ha", "an", "mn"):
        world.start(name)
    world.until(lambda: "10.2.0.2" in world.care_of(), "the registration", 40.0)
    world.until(lambda: world.ping("cn", "10.36.0.4"), "an answer through the tunnels", 40.0)
    world.until(lambda: registrations(world) > 1, "a renewal: no request for a key is under way")
    kept = keys(world)
    for name in ("mn", "an", "ha"):  # a device whose requests are not answered asks for another key
        world.kill(name)
    for name in ("ha", "an", "mn"):
        world.start(name)
    before = registrations(world)
    world.until(lambda: registrations(world) > before + 1, "renewals under the derived keys", 40.0)
    assert [len(rows) for rows in kept] == [1, 1] and keys(world) == kept
    assert world.ping("cn", "10.36.0.4")
