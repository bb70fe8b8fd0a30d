"""The tables [[mobile_node.keepalive]] of a configuration."""

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.config.load import load
from locum.node.config.toml_table import ConfigError
from locum.sessions.datagrams.keep_alive import KeepAliveRule
from tests.node.config.test_load import CONTROL, MOBILE_NODE, NODE

Write = Callable[[str], Path]

RULES = """
[[mobile_node.keepalive]]
port = 3478
seconds = 25
peer = "198.51.100.7"
discard_answers = true

[[mobile_node.keepalive]]
port = 4500
seconds = 20
"""


def test_rules_are_read_in_their_order(write: Write) -> None:
    settings = load(write(NODE + CONTROL + MOBILE_NODE + RULES)).mobile_node
    assert settings is not None
    assert settings.keep_alive == (
        KeepAliveRule(3478, 25, IPv4Address("198.51.100.7"), True),
        KeepAliveRule(4500, 20),
    )


@pytest.mark.parametrize(
    ("line", "wrong", "said"),
    [
        ("seconds = 25", "seconds = 0", "seconds"),
        ("port = 3478", "port = 70000", "port"),
        ("port = 3478", "ports = 3478", "port"),
        ("discard_answers = true", 'discard_answers = "yes"', "discard_answers"),
        ('peer = "198.51.100.7"', 'peer = "example.org"', "peer"),
    ],
)
def test_mistakes_name_table_and_key(write: Write, line: str, wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"mobile_node\.keepalive.*{said}"):
        load(write(NODE + CONTROL + MOBILE_NODE + RULES.replace(line, wrong)))


def test_too_many_rules_are_refused(write: Write) -> None:
    many = "\n[[mobile_node.keepalive]]\nport = 1\nseconds = 1\n" * 17
    with pytest.raises(ConfigError, match=r"keepalive.*17 tables; at most 16"):
        load(write(NODE + CONTROL + MOBILE_NODE + many))
