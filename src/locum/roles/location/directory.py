"""Entries of a location server by home address, node identifier and SIP URI. It must not know messages nor rights."""

from collections.abc import Collection, Iterable

from locum.roles.action_values.addresses import Addr
from locum.roles.location.entry import LocationEntry
from locum.wire.control.paging.location import LocationQuery


class Directory:
    """The entries; no two have a home address in common."""

    def __init__(self) -> None:
        self._entries: dict[str, LocationEntry] = {}
        self._by_address: dict[Addr, str] = {}
        self._by_name: dict[str, set[str]] = {}  # node identifiers and URIs

    def __len__(self) -> int:
        return len(self._entries)

    def all(self) -> Collection[LocationEntry]:
        """Every entry."""
        return self._entries.values()

    def get(self, key: str) -> LocationEntry | None:
        """The entry of that key."""
        return self._entries.get(key)

    def of(self, home_addresses: Iterable[Addr]) -> list[LocationEntry]:
        """The entries that have one of these home addresses, each once."""
        keys = (self._by_address.get(address) for address in home_addresses)
        return [self._entries[key] for key in dict.fromkeys(keys) if key is not None]

    def named(self, name: str) -> list[LocationEntry]:
        """The entries with this node identifier or URI."""
        return [self._entries[key] for key in sorted(self._by_name.get(name, ()))]

    def find(self, query: LocationQuery) -> list[LocationEntry]:
        """The entries that a query is about."""
        if query.home_address is not None:
            return self.of((query.home_address,))
        if query.node_id:
            return [entry for entry in self.named(query.node_id) if entry.location.node_id == query.node_id]
        return [entry for entry in self.named(query.uri) if query.uri in entry.location.uris]

    def put(self, entry: LocationEntry) -> None:
        """Add an entry; those with the same home addresses must have been removed."""
        key = entry.key
        self._entries[key] = entry
        for address in entry.location.home_addresses:
            self._by_address[address] = key
        for name in names_of(entry):
            self._by_name.setdefault(name, set()).add(key)

    def remove(self, entry: LocationEntry) -> None:
        """Remove an entry."""
        key = entry.key
        del self._entries[key]
        for address in entry.location.home_addresses:
            del self._by_address[address]
        for name in names_of(entry):
            keys = self._by_name[name]
            keys.discard(key)
            if not keys:
                del self._by_name[name]


def names_of(entry: LocationEntry) -> set[str]:
    """Node identifier and URIs of an entry."""
    location = entry.location
    return {*location.uris, *((location.node_id,) if location.node_id else ())}
