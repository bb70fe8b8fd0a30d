"""[[foreign_agent.way]] and [[foreign_agent.sleeper]]: ways to reach sleeping devices (P11, P13)."""

import pwd
from collections.abc import Sequence
from ipaddress import IPv4Address

from locum.node.config.toml_table import Table
from locum.roles.foreign_agent.ways.kinds import WITHOUT_SETTINGS
from locum.roles.foreign_agent.ways.reach import CARD_BYTES, EVERYBODY
from locum.roles.foreign_agent.ways.settings import (
    GUARD,
    CommandSettings,
    Kind,
    WaysConfiguration,
    WaySettings,
)
from locum.roles.registrant.configuration import OwnWayConfiguration
from locum.wire.control.paging.way import MAX_CYCLE, MAX_WAY, Way

LENGTH = 20  # milliseconds of a slot, unless configured
_MOST_COMMANDS = 256  # at once
_LONGEST_COMMAND = 300.0  # seconds
_MOST_ARGUMENTS = 64
_SECURE_ON = (0, 4, 6)  # bytes of a password
_NO_CARD = bytes(CARD_BYTES)


def ways(table: Table) -> WaysConfiguration:
    """The ways of an access node and of its devices, from [foreign_agent]. Raises ConfigError."""
    configured = tuple(_way(item) for item in table.tables("way"))
    names = [way.name for way in configured]
    if len(set(names)) != len(names):
        raise table.error("way", "two ways have one name")
    known = {kind.value for kind in WITHOUT_SETTINGS} | set(names)
    default = table.string("page_way", Kind.LINK.value)
    if default not in known:
        raise table.error("page_way", _unknown(default, known))
    devices: dict[IPv4Address, Way] = {}
    for item in table.tables("sleeper"):
        home_address = item.address4("home_address")
        if home_address in devices:
            raise item.error("home_address", "has two tables")
        devices[home_address] = _sleeper(item, known)
    guard = table.seconds("page_guard", GUARD, least=0.0, most=10.0)
    return WaysConfiguration(configured, devices, guard, default)


def _way(table: Table) -> WaySettings:
    name = way_name(table, "name")
    kind = Kind(table.choice("kind", tuple(kind.value for kind in Kind)))
    password, command = b"", None
    match kind:
        case Kind.WAKE_ON_LAN if "password_file" in table:
            password = table.secret("password_file", short=True)
            if len(password) not in _SECURE_ON:
                raise table.error("password_file", "SecureOn has passwords of 4 or 6 bytes")
        case Kind.COMMAND:
            command = _command(table)
    table.close()
    if name in {other.value for other in Kind} and name != kind.value:
        raise table.error("name", f"is that of another kind of way than {kind.value!r}")
    return WaySettings(name, kind, password, command)


def _command(table: Table) -> CommandSettings:
    command = table.strings("command")
    if not command or not command[0].startswith("/") or len(command) > _MOST_ARGUMENTS:
        raise table.error(
            "command", "is a program with its whole path, and its arguments; no shell reads them"
        )
    if any("\0" in argument for argument in command):
        raise table.error("command", "has a character that no argument can have")
    user = table.string("user", None)
    if user is not None:
        try:
            pwd.getpwnam(user)
        except (KeyError, ValueError):
            raise table.error("user", f"there is no user {user!r} here") from None
    return CommandSettings(
        command,
        user,
        table.seconds("timeout", 10.0, least=0.1, most=_LONGEST_COMMAND),
        table.integer("most", 4, least=1, most=_MOST_COMMANDS),
    )


def _sleeper(table: Table, known: set[str]) -> Way:
    name = table.string("way", Kind.LINK.value)
    if name not in known:
        raise table.error("way", _unknown(name, known))
    link_address = table.converted(
        "link_address", card, "a link-layer address such as 02:00:00:00:00:04", b""
    )
    cycle, length = slot_lengths(table)
    offset = table.integer("page_offset", 0, least=0, most=max(cycle - 1, 0))
    table.close()
    return Way(name, link_address, cycle, offset, length if cycle else 0)


def own_way(table: Table, links: Sequence[str]) -> OwnWayConfiguration:
    """The keys of [mobile_node] about the way to reach this device. Raises ConfigError."""
    name = way_name(table, "page_way") if "page_way" in table else Kind.LINK.value
    cycle, length = slot_lengths(table)
    wake_link = table.string("wake_on_lan", None)
    if wake_link is not None and wake_link not in links:
        raise table.error("wake_on_lan", f"{wake_link!r} is not among links")
    if wake_link is not None and "page_way" in table:
        raise table.error("wake_on_lan", "is a way of its own; leave page_way out")
    password = b""
    if "wake_password_file" in table:
        password = table.secret("wake_password_file", short=True)
        if wake_link is None or len(password) != CARD_BYTES:
            raise table.error("wake_password_file", "is for wake_on_lan, and has 6 bytes")
    return OwnWayConfiguration(name, cycle, length if cycle else 0, wake_link, password)


def slot_lengths(table: Table) -> tuple[int, int]:
    """The milliseconds of `page_cycle` and `page_slot`; a cycle of 0 means that the device always listens."""
    cycle = table.integer("page_cycle", 0, least=0, most=MAX_CYCLE)
    length = table.integer("page_slot", min(LENGTH, cycle) if cycle else LENGTH, least=1, most=MAX_CYCLE)
    if cycle and length > cycle:
        raise table.error("page_slot", f"is {length}, longer than page_cycle, {cycle}")
    return cycle, length


def way_name(table: Table, key: str) -> str:
    """The name of a way."""

    def convert(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError
        if not 1 <= len(value) <= MAX_WAY or not value.isprintable():
            raise ValueError
        return value

    return table.converted(key, convert, f"a name of 1 to {MAX_WAY} characters")


def card(value: object) -> bytes:
    """The link-layer address of one Ethernet card. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError
    octets = bytes.fromhex(value.replace(":", " ").replace("-", " "))
    if len(octets) != CARD_BYTES or octets in (EVERYBODY, _NO_CARD) or octets[0] & 1:
        raise ValueError("not the address of one card")
    return octets


def _unknown(name: str, known: set[str]) -> str:
    return f"there is no way {name!r}; known: {', '.join(sorted(known))}"
