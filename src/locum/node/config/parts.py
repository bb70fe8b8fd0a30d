"""Parts of several tables of a configuration: names of links, associations and keys of agents.

It must not know any role.
"""

from collections.abc import Callable
from functools import lru_cache

from locum.node.config.settings import NodeSettings, PeerKey
from locum.node.config.toml_table import Table
from locum.roles.nat import TraversalMode
from locum.security.association import FIRST_SPI, LAST_SPI, AaaAssociation, Algorithm, Association, Replay

_LONGEST_LINK_NAME = 15  # IFNAMSIZ - 1
LONGEST_NAI = 253  # bytes: it becomes a User-Name (RFC 2865 section 5, RFC 7542 section 2.3)
LONGEST_LIFETIME = 0xFFFE  # 0xffff means infinity (RFC 5944 section 3.3)


def links(table: Table, key: str, node: NodeSettings | None = None) -> tuple[str, ...]:
    """Names of network interfaces; those of a role must be among those of the node."""
    names = table.strings(key)
    if not names:
        raise table.error(key, 'needs at least one interface, such as ["eth0"]')
    for name in names:
        if not 0 < len(name) <= _LONGEST_LINK_NAME or "/" in name or any(c.isspace() for c in name):
            raise table.error(key, f"{name!r} cannot be the name of an interface")
        if node is not None and name not in node.interfaces:
            raise table.error(key, f"{name!r} is not among interfaces of [node]; add it there")
    if len(set(names)) != len(names):
        raise table.error(key, "names an interface twice")
    return names


# Tables with the same key file have one association: there may be very many of them.
_association, _with_aaa = lru_cache(256)(Association), lru_cache(256)(AaaAssociation)


def own_association(table: Table) -> Association:
    """The same of a mobile node, whose key may be that with an AAA server: `association_with` (RFC 3957)."""
    with_aaa = table.choice("association_with", ("home-agent", "aaa"), "home-agent") == "aaa"
    return association(table, made=_with_aaa if with_aaa else _association)


def association(
    table: Table, key: bytes | None = None, made: Callable[..., Association] = _association
) -> Association:
    """The keys `spi`, `algorithm` and `replay`, and those of the secret where `key` does not come otherwise."""
    algorithm = table.choice("algorithm", tuple(algorithm.value for algorithm in Algorithm), "hmac-sha-256")
    replay = table.choice("replay", tuple(replay.value for replay in Replay), "timestamp")
    spi = table.integer("spi", least=FIRST_SPI, most=LAST_SPI)
    if key is not None:
        return _association(spi, key, Algorithm(algorithm), Replay(replay))
    short = table.boolean("short_key", False)
    typed = table.choice("key_format", ("hexadecimal", "text"), "hexadecimal") == "text"
    return made(
        spi=spi,
        key=table.secret("key_file", typed=typed, short=short),
        algorithm=Algorithm(algorithm),
        replay=Replay(replay),
        sent_spi=table.integer("sent_spi", None, least=FIRST_SPI, most=LAST_SPI),
        short_key=short,
    )


def nat_traversal(table: Table, default: str) -> TraversalMode:
    """The key `nat_traversal` of a node that may stand behind a NAT (RFC 3519)."""
    return TraversalMode(table.choice("nat_traversal", tuple(mode.value for mode in TraversalMode), default))


def keepalive(table: Table) -> float | None:
    """The key `keepalive_interval` of such a node, in seconds; None: the home agent's."""
    interval: float | None = table.seconds("keepalive_interval", None, least=1.0, most=65535.0)
    return interval


def own_nai(table: Table) -> str | None:
    """The key `nai` of a mobile node: with it the home address may be left to the home agent (RFC 2794)."""
    nai = table.string("nai", None)
    if nai is not None and not 0 < len(nai.encode()) <= LONGEST_NAI:
        raise table.error("nai", f"must have 1 to {LONGEST_NAI} bytes")
    return nai


def agent_key(table: Table) -> PeerKey:
    """A whole table: the association with the agent at `address`."""
    return _peer_key(table, "address")


def visitor_key(table: Table) -> PeerKey:
    """A whole table: the association with the mobile node at `home_address`."""
    return _peer_key(table, "home_address")


def _peer_key(table: Table, key: str) -> PeerKey:
    read = PeerKey(address=table.address4(key), association=association(table))
    table.close()
    return read
