"""[policy] -> `PolicySettings`, and [[home_agent.pool]] -> `Pool` (features R3, C9)."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from locum.node.config.policy_settings import (
    CHANGES_PORT,
    RADIUS_PORT,
    PolicyServer,
    PolicySettings,
    PushClient,
    PushSettings,
)
from locum.node.config.toml_table import Table
from locum.roles.profile import Pool

_LONGEST_NAME = 253  # bytes of an attribute (RFC 2865 section 5)
_MOST_ADDRESSES = 1 << 20  # of one pool


def policy(table: Table, node: str) -> PolicySettings:
    """The table [policy]; `node` is the name of this node. Raises ConfigError."""
    servers = tuple(_server(subtable) for subtable in table.tables("servers"))
    if not servers:
        raise table.error("servers", "is missing; write [[policy.servers]] with address and secret_file")
    places = [(server.address, server.port) for server in servers]
    if len(set(places)) != len(places):
        raise table.error("servers", "names one server twice")
    settings = PolicySettings(
        servers=servers,
        nas_identifier=table.string("nas_identifier", node),
        timeout=table.seconds("timeout", 1.0, least=0.1, most=30.0),
        retries=table.integer("retries", 1, most=5),
        dead_time=table.seconds("dead_time", 30.0, most=3600.0),
        dictionary=table.path("dictionary", None),
        changes=_changes(table.table("changes")),
    )
    table.close()
    if not 0 < len(settings.nas_identifier.encode()) <= _LONGEST_NAME:
        raise table.error("nas_identifier", f"must have 1 to {_LONGEST_NAME} bytes")
    return settings


def _changes(table: Table | None) -> PushSettings | None:
    """The table [policy.changes], for what policy servers send by themselves."""
    if table is None:
        return None
    clients = []
    for subtable in table.tables("clients"):
        clients.append(PushClient(subtable.address4("address"), subtable.secret_text("secret_file")))
        subtable.close()
    if not clients:
        raise table.error(
            "clients", "is missing; write [[policy.changes.clients]] with address and secret_file"
        )
    if len({client.address for client in clients}) != len(clients):
        raise table.error("clients", "names one address twice")
    settings = PushSettings(
        port=table.integer("port", CHANGES_PORT, least=1, most=65535),
        window=table.seconds("window", 300.0, least=5.0, most=3600.0),
        clients=tuple(clients),
    )
    table.close()
    return settings


def _server(table: Table) -> PolicyServer:
    server = PolicyServer(
        address=table.address4("address"),
        port=table.integer("port", RADIUS_PORT, least=1, most=65535),
        secret=table.secret_text("secret_file"),
    )
    table.close()
    return server


def pools(tables: Iterable[Table], home_prefixes: Sequence[IPv4Network | IPv6Network]) -> tuple[Pool, ...]:
    """The tables [[home_agent.pool]], whose addresses all lie in the home network. Raises ConfigError."""
    found: list[Pool] = []
    for table in tables:
        pool = _pool(table)
        for key, address in (("first", pool.first), ("last", pool.last)):
            if not any(address in prefix for prefix in home_prefixes):
                raise table.error(key, f"{address} is in none of home_prefixes")
        for other in found:
            if other.name == pool.name:
                raise table.error("name", f"{pool.name!r} names two pools")
            if other.first <= pool.last and pool.first <= other.last:
                raise table.error(
                    "prefix", f"the pools {other.name!r} and {pool.name!r} have addresses in common"
                )
        found.append(pool)
    return tuple(found)


def _pool(table: Table) -> Pool:
    """A prefix, with `first` and `last` for a part of its hosts."""
    name = table.string("name")
    prefix = table.prefix4("prefix")
    settings = Pool(
        name=name,
        first=table.address4("first", _first_host(prefix)),
        last=table.address4("last", _last_host(prefix)),
    )
    table.close()
    for key, address in (("first", settings.first), ("last", settings.last)):
        if address not in prefix:
            raise table.error(key, f"{address} is not in {prefix}")
    if settings.first > settings.last:
        raise table.error("first", f"{settings.first} comes after last, {settings.last}")
    if int(settings.last) - int(settings.first) >= _MOST_ADDRESSES:
        raise table.error("prefix", f"{prefix} is too large: a pool has at most {_MOST_ADDRESSES} addresses")
    return settings


def _first_host(prefix: IPv4Network) -> IPv4Address:
    return prefix.network_address + (1 if prefix.prefixlen < 31 else 0)


def _last_host(prefix: IPv4Network) -> IPv4Address:
    return prefix.broadcast_address - (1 if prefix.prefixlen < 31 else 0)
