"""Services of this host that may answer for guarded home addresses, in the kernel's map of that name."""

import struct

from locum.dataplane.libbpf import Map
from locum.dataplane.state import ForwardingState, Service

KEY = struct.Struct("<2sBx")  # port in network order, protocol
_THERE = struct.pack("<I", 1)


def key_of(protocol: int, port: int) -> bytes:
    return KEY.pack(port.to_bytes(2, "big"), protocol)


def read(found: dict[str, Map]) -> set[Service]:
    """What the kernel has."""
    services = set()
    for key, _ in found["services"].items():
        port, protocol = KEY.unpack(key)
        services.add((protocol, int.from_bytes(port, "big")))
    return services


class ServiceTable:
    """Writes what `state.services` is to be."""

    def __init__(self, found: dict[str, Map]) -> None:
        self._map = found["services"]

    def offer(self, state: ForwardingState, protocol: int, port: int) -> None:
        """From now on."""
        state.services.add((protocol, port))
        self._map.put(key_of(protocol, port), _THERE)

    def withdraw(self, state: ForwardingState, protocol: int, port: int) -> None:
        """No more; connections that are open stay."""
        if (protocol, port) in state.services:
            state.services.discard((protocol, port))
            self._map.delete(key_of(protocol, port))
