"""Services for guarded home addresses in the kernel's maps: of this host, watched ports, and logs of what nothing takes."""

import struct

from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import maps
from locum.dataplane.state import ForwardingState, Service, Watched
from locum.roles.action_values.addresses import Addr

KEY = struct.Struct("<2sBx")  # port in network order, protocol
WATCHED_KEY = struct.Struct("<16s2s6x")  # address, port in network order
_THERE = struct.pack("<I", 1)


def key_of(protocol: int, port: int) -> bytes:
    return KEY.pack(port.to_bytes(2, "big"), protocol)


def watched_key(home_address: Addr, port: int) -> bytes:
    return WATCHED_KEY.pack(maps.address(home_address), port.to_bytes(2, "big"))


def read_watched(found: dict[str, Map]) -> set[Watched]:
    """Read the kernel's map of watched ports."""
    ports = set()
    for key, _ in found["watched"].items():
        home, port = WATCHED_KEY.unpack(key)
        ports.add((maps.address_of(home), int.from_bytes(port, "big")))
    return ports


def read(found: dict[str, Map]) -> set[Service]:
    """Read the kernel's map of services."""
    services = set()
    for key, _ in found["services"].items():
        port, protocol = KEY.unpack(key)
        services.add((protocol, int.from_bytes(port, "big")))
    return services


class ServiceTable:
    """Writes the kernel's map to match `state.services`."""

    def __init__(self, found: dict[str, Map]) -> None:
        self._map = found["services"]
        self._watched = found["watched"]

    def offer(self, state: ForwardingState, protocol: int, port: int) -> None:
        """From now on."""
        state.services.add((protocol, port))
        self._map.put(key_of(protocol, port), _THERE)

    def withdraw(self, state: ForwardingState, protocol: int, port: int) -> None:
        """No more; connections that are open stay."""
        if (protocol, port) in state.services:
            state.services.discard((protocol, port))
            self._map.delete(key_of(protocol, port))

    def watch(self, state: ForwardingState, home_address: Addr, port: int) -> None:
        """New connections to this port come up to the daemon."""
        state.watched.add((home_address, port))
        self._watched.put(watched_key(home_address, port), _THERE)

    def unwatch(self, state: ForwardingState, home_address: Addr, port: int) -> None:
        """No more."""
        if (home_address, port) in state.watched:
            state.watched.discard((home_address, port))
            self._watched.delete(watched_key(home_address, port))


class HeaderLogs:
    """Home addresses whose dropped packets' headers come up (HeldReason.HEADERS). `found` are the kernel's maps."""

    def __init__(self, found: dict[str, Map]) -> None:
        self._map = found["logged"]

    def begin(self, home_address: Addr, most: int) -> None:
        """From now on, at most so many a second."""
        self._map.put(maps.address(home_address), maps.LOGGED.pack(0, 0, 0, most))

    def left_out(self, home_address: Addr) -> int:
        """Packets beyond that since `begin`."""
        value = self._map.get(maps.address(home_address))
        return 0 if value is None else int(maps.LOGGED.unpack(value)[1])

    def end(self, home_address: Addr) -> None:
        """No more."""
        self._map.delete(maps.address(home_address))

    def clear(self) -> None:
        """Those of an earlier daemon: its proxies are gone."""
        self._map.delete_many([key for key, _ in self._map.items()])
