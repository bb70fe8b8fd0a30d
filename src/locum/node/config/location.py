"""[location] -> settings of a location server (P6)."""

import re

from locum.node.config.settings import LocationSettings
from locum.node.config.toml_table import Table
from locum.roles.location.configuration import (
    MAX_ENTRIES,
    MAX_LIFETIME,
    LocationConfiguration,
    NamedDevice,
)
from locum.wire.control.paging.location import MAX_URI, MAX_URIS
from locum.wire.control.paging.provision import MAX_NODE_ID
from locum.wire.control.paging.status import MAX_LIFETIME as LONGEST

_URI = re.compile(r"^sips?:[^\s<>\"]+$", re.IGNORECASE)
_MOST_ENTRIES = 1 << 20


def location(table: Table) -> LocationSettings:
    """The whole table. Raises ConfigError."""
    configuration = LocationConfiguration(
        access_nodes=frozenset(table.addresses("access_nodes", ())),
        clients=frozenset(table.addresses("clients", ())),
        devices=tuple(_device(item) for item in table.tables("device")),
        max_lifetime=table.integer("max_lifetime", MAX_LIFETIME, least=1, most=LONGEST),
        max_entries=table.integer("max_entries", MAX_ENTRIES, least=1, most=_MOST_ENTRIES),
    )
    table.close()
    homes = [device.home_address for device in configuration.devices]
    if len(set(homes)) != len(homes):
        raise table.error("device", "two tables have one home_address")
    return LocationSettings(configuration)


def _device(table: Table) -> NamedDevice:
    device = NamedDevice(
        home_address=table.address("home_address"),
        node_id=table.string("node_id", ""),
        uris=sip_uris(table, "sip_uris"),
    )
    table.close()
    if len(device.node_id) > MAX_NODE_ID:
        raise table.error("node_id", f"has more than {MAX_NODE_ID} characters")
    if not device.node_id and not device.uris:
        raise table.error(
            "node_id", "is missing, and sip_uris too; the table names the device by one of them"
        )
    return device


def sip_uris(table: Table, key: str) -> tuple[str, ...]:
    """SIP URIs of a device, each once. Raises ConfigError."""
    uris = table.strings(key, ())
    if len(uris) > MAX_URIS:
        raise table.error(key, f"names more than {MAX_URIS} URIs")
    for uri in uris:
        if not _URI.match(uri) or len(uri) > MAX_URI:
            raise table.error(
                key, f'{uri!r} is no SIP URI of at most {MAX_URI} characters, such as "sip:me@example.org"'
            )
    if len(set(uris)) != len(uris):
        raise table.error(key, "names one URI twice")
    return uris
