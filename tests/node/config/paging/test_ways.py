"""The tables [[foreign_agent.way]] and [[foreign_agent.sleeper]], and keys beside them, read strictly."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.config.load import ConfigError, load
from locum.roles.foreign_agent.ways.settings import (
    GUARD,
    CommandSettings,
    Kind,
    WaysConfiguration,
    WaySettings,
)
from locum.wire.control.paging.way import Way

FIRST = (
    '[node]\nname = "an"\ninterfaces = ["eth0"]\n'
    '[foreign_agent]\ncare_of_address = "192.0.2.9"\nlinks = ["eth0"]\n'
)
PUSH = '[[foreign_agent.way]]\nname = "push"\nkind = "command"\ncommand = ["/opt/push", "a b", "--to"]\n'
WAKE = '[[foreign_agent.way]]\nname = "card"\nkind = "wake-on-lan"\npassword_file = "password"\n'
SLEEPER = '[[foreign_agent.sleeper]]\nhome_address = "203.0.113.4"\n'


@pytest.fixture
def read(tmp_path: Path) -> "Reader":
    return Reader(tmp_path / "an.toml")


class Reader:
    """Reads a text as a configuration file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.password("010203040506")

    def password(self, text: str) -> None:
        secret = self.file.with_name("password")
        secret.touch(mode=0o600)
        secret.write_text(text + "\n")

    def __call__(self, *parts: str) -> WaysConfiguration:
        self.file.write_text(FIRST + "".join(parts))
        settings = load(self.file)
        assert settings.foreign_agent is not None
        return settings.foreign_agent.configuration.ways

    def refused(self, *parts: str) -> str:
        with pytest.raises(ConfigError) as refused:
            self(*parts)
        return str(refused.value)


def test_nothing_configured_is_the_access_link_at_once(read: Reader) -> None:
    assert read() == WaysConfiguration((), {}, GUARD, "link")


def test_whole_tables(read: Reader) -> None:
    more = 'user = "root"\ntimeout = 2.5\nmost = 9\n'
    sleeper = 'way = "card"\nlink_address = "02:00:00:00:00:04"\n'
    other = SLEEPER.replace(".4", ".5") + "page_cycle = 320\npage_slot = 30\npage_offset = 319\n"
    read_ways = read('page_way = "push"\npage_guard = 0.01\n', PUSH, more, WAKE, SLEEPER, sleeper, other)
    assert read_ways == WaysConfiguration(
        (
            WaySettings(
                "push", Kind.COMMAND, command=CommandSettings(("/opt/push", "a b", "--to"), "root", 2.5, 9)
            ),
            WaySettings("card", Kind.WAKE_ON_LAN, bytes((1, 2, 3, 4, 5, 6))),
        ),
        {
            IPv4Address("203.0.113.4"): Way("card", bytes.fromhex("020000000004")),
            IPv4Address("203.0.113.5"): Way("link", b"", 320, 319, 30),
        },
        0.01,
        "push",
    )


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (('page_way = "pigeon"\n',), "no way 'pigeon'; known: link, wake-on-lan"),
        (("page_guard = -1\n",), "page_guard"),
        ((PUSH, PUSH), "two ways have one name"),
        ((PUSH.replace("/opt/", ""),), "with its whole path"),
        (('[[foreign_agent.way]]\nname = "push"\nkind = "command"\ncommand = []\n',), "with its whole path"),
        ((PUSH, 'user = "nobody-of-that-name"\n'), "there is no user"),
        ((PUSH, "timeout = 0\n"), "timeout"),
        ((PUSH, "most = 0\n"), "most"),
        ((PUSH, 'password_file = "password"\n'), "password_file"),
        ((PUSH.replace('"push"', '"link"'),), "that of another kind"),
        ((PUSH.replace('"push"', f'"{33 * "x"}"'),), "1 to 32 characters"),
        ((PUSH.replace("command", "pigeon", 1),), "kind"),
        ((WAKE, "most = 3\n"), "most"),
        ((SLEEPER, SLEEPER), "has two tables"),
        ((SLEEPER, 'way = "card"\n'), "no way 'card'"),
        ((SLEEPER, 'link_address = "ff:ff:ff:ff:ff:ff"\n'), "link_address"),
        ((SLEEPER, 'link_address = "01:00:5e:00:00:01"\n'), "link_address"),
        ((SLEEPER, 'link_address = "02:00:00:00:04"\n'), "link_address"),
        ((SLEEPER, "page_cycle = 100\npage_slot = 101\n"), "longer than page_cycle"),
        ((SLEEPER, "page_cycle = 100\npage_offset = 100\n"), "page_offset"),
        ((SLEEPER, "page_cycle = 86400001\n"), "page_cycle"),
        ((SLEEPER, "cycle = 3\n"), "did you mean page_cycle"),
    ],
)
def test_wrong_tables_are_refused(read: Reader, parts: tuple[str, ...], text: str) -> None:
    assert text in read.refused(*parts)


def test_password_of_another_length_is_refused(read: Reader) -> None:
    read.password("0102030405")
    assert "4 or 6 bytes" in read.refused(WAKE)
