"""The configuration of a location server as values. The role goes by them; nothing here imports its machines."""

from dataclasses import dataclass

from locum.roles.action_values.addresses import Addr

MAX_LIFETIME = 7 * 86400
"""Seconds granted at most, unless configured: a device may sleep for days."""
MAX_ENTRIES = 65_536
"""Devices, unless configured; an entry takes about 2 KiB."""


@dataclass(frozen=True, slots=True)
class NamedDevice:
    """Names of a device that no other may claim; its entries have them without a claim."""

    home_address: Addr
    node_id: str = ""
    uris: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocationConfiguration:
    """`access_nodes` report any device, each at itself; `clients` ask about any. A device speaks for its home addresses."""

    access_nodes: frozenset[Addr] = frozenset()
    clients: frozenset[Addr] = frozenset()
    devices: tuple[NamedDevice, ...] = ()
    max_lifetime: int = MAX_LIFETIME
    max_entries: int = MAX_ENTRIES
    own: Addr | None = None  # address of this host's end point: other roles here report and ask from it
