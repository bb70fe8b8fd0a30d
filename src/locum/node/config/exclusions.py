"""The keys exclude_* of [mobile_node]: programs whose sessions are left alone when the device falls asleep."""

import pwd
from typing import Any

from locum.node.config.toml_table import Table
from locum.sessions.programs.exclusions import DEFAULT_PROGRAMS, Exclusions

_LARGEST_PORT = 0xFFFF


def exclusions(table: Table) -> Exclusions:
    """Programs added to the defaults, or in their place with exclude_defaults = false. Raises ConfigError."""
    programs = table.converted("exclude_programs", _names, 'a list of names such as ["openvpn", "vpn-*"]', ())
    users = table.converted(
        "exclude_users", _users, 'a list of users of this host such as ["backup", 990]', ()
    )
    units = table.converted("exclude_units", _names, 'a list of units such as ["backup.service"]', ())
    ports = table.converted(
        "exclude_ports", _ports, "a list of ports from 1 to 65535 such as [873, 5900]", ()
    )
    defaults = DEFAULT_PROGRAMS if table.boolean("exclude_defaults", True) else ()
    return Exclusions((*defaults, *programs), frozenset(users), units, frozenset(ports))


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError
    for text in value:
        if not text or "/" in text:
            raise ValueError(f"{text!r} is no name; leave the directory out")
    return tuple(value)


def _users(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_user(text) for text in value)


def _user(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is no user id")
        return value
    try:
        return pwd.getpwnam(value).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {value!r}") from None


def _ports(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError
    for text in value:
        if isinstance(text, bool) or not isinstance(text, int):
            raise TypeError
        if not 1 <= text <= _LARGEST_PORT:
            raise ValueError(f"{text} is no port")
    return tuple(value)
