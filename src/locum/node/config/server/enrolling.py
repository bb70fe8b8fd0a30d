"""`[server]` -> `ServerSettings`: read once at start, strictly."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from locum.node.config.toml_table import Table
from locum.wire.enrolment.code import PORT, SECRET_BYTES, Code

_NOT_FOR_DEVICES = 3  # the network's own address, the server's, and the last one
_LONGEST = 29  # bits; a shorter network has room for no more than one device
_LONGEST_V6 = 112


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """A server at which devices enrol."""

    port: int
    addresses: tuple[str, ...]  # the first stands in codes
    home_prefix: IPv4Network
    home_prefix_v6: IPv6Network | None
    transport_prefix: IPv4Network
    code_seconds: float
    most_devices: int
    roll_over_seconds: float  # 0: keys are never replaced


def server(table: Table) -> ServerSettings:
    """The settings in the table. Raises ConfigError."""
    home = _checked(table, "home_prefix", table.prefix4("home_prefix"))
    transport = _checked(table, "transport_prefix", table.prefix4("transport_prefix"))
    if home.overlaps(transport):
        raise table.error("transport_prefix", f"{transport} overlaps home_prefix {home}; choose another")
    room = min(home.num_addresses, transport.num_addresses) - _NOT_FOR_DEVICES
    settings = ServerSettings(
        port=table.integer("port", PORT, least=1, most=65535),
        addresses=_addresses(table),
        home_prefix=home,
        home_prefix_v6=_prefix_v6(table),
        transport_prefix=transport,
        code_seconds=table.seconds("code_seconds", 900.0, least=60.0, most=86400.0),
        most_devices=table.integer("most_devices", room, least=1),
        roll_over_seconds=86400.0 * table.integer("roll_over_days", 30, most=3650),
    )
    table.close()
    if settings.most_devices > room:
        raise table.error(
            "most_devices", f"{settings.most_devices} devices need a larger prefix: there is room for {room}"
        )
    return settings


def _checked(table: Table, key: str, prefix: IPv4Network) -> IPv4Network:
    if prefix.prefixlen > _LONGEST:
        raise table.error(key, f"{prefix} is too small for devices; its length must be {_LONGEST} or less")
    if prefix.is_multicast or prefix.is_loopback or prefix.is_unspecified or prefix.prefixlen < 8:
        raise table.error(key, f"{prefix} is not for hosts; take private space, such as 10.20.0.0/24")
    return prefix


def _prefix_v6(table: Table) -> IPv6Network | None:
    def convert(value: Any) -> IPv6Network:
        if not isinstance(value, str):
            raise TypeError
        return IPv6Network(value)

    prefix: IPv6Network | None = table.converted(
        "home_prefix_v6", convert, 'a prefix such as "fd12:3456:789a::/64"', None
    )
    if prefix is None:
        return None
    if prefix.prefixlen > _LONGEST_V6:
        raise table.error(
            "home_prefix_v6", f"{prefix} is too small for devices; its length must be {_LONGEST_V6} or less"
        )
    if prefix.is_multicast or prefix.is_link_local or prefix.is_unspecified or prefix.prefixlen < 16:
        raise table.error(
            "home_prefix_v6", f"{prefix} is not for hosts; take a prefix of yours, or of fd00::/8"
        )
    return prefix


def _addresses(table: Table) -> tuple[str, ...]:
    found = table.strings("addresses")
    if not found:
        raise table.error(
            "addresses", "is empty; write the addresses or names at which devices reach the server"
        )
    for address in found:
        try:
            Code(address, 0, bytes(SECRET_BYTES))
        except ValueError:
            raise table.error(
                "addresses",
                f"{address!r} is no address and no host name in lower case; write it as devices reach it",
            ) from None
    if len(set(found)) < len(found):
        raise table.error("addresses", "names one address twice; write each once")
    return found
