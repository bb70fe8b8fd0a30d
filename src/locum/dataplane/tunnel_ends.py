"""The tunnels into which packets may be sent, by their far ends: found without a walk over all devices."""

from collections.abc import Iterable

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel

# Outer source, ports of a UDP tunnel, key of GRE: all that outer headers tell besides the destination.
Shape = tuple[Addr, Encapsulation, tuple[int, int] | None, int | None]


def shape_of(tunnel: Tunnel) -> Shape:
    """The shape of packets in this tunnel."""
    udp = tunnel.encapsulation is Encapsulation.UDP
    ports = (tunnel.source_port, tunnel.destination_port) if udp else None
    key = tunnel.gre_key if tunnel.encapsulation is Encapsulation.GRE else None
    return tunnel.source, tunnel.encapsulation, ports, key


def otherwise(encapsulation: Encapsulation) -> Encapsulation:
    """The encapsulation of packets that cannot have this one; the same if all can."""
    return Encapsulation.IPIP if encapsulation is Encapsulation.MINIMAL else encapsulation


class TunnelEnds:
    """Counts the entries that lead into each tunnel.

    A device with a tunnel of its own costs one place of a dictionary; devices that share an end share it here.
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[Addr, Tunnel | dict[Shape, int]] = {}  # the tunnel alone if one entry leads there

    def fill(self, tunnels: Iterable[Tunnel]) -> None:
        """Forget all, and count these."""
        self._ends.clear()
        for tunnel in tunnels:
            self._add(tunnel)

    def replace(self, old: Iterable[Tunnel], new: Iterable[Tunnel]) -> None:
        """An entry leads into `new`, and not into `old` any more."""
        for tunnel in new:
            self._add(tunnel)
        for tunnel in old:
            self._remove(tunnel)

    def replace_many(self, moves: Iterable[tuple[Iterable[Tunnel], Iterable[Tunnel]]]) -> None:
        """The same for many pairs of old and new; each tunnel is looked at once."""
        tunnels: dict[int, Tunnel] = {}  # by identity: many devices lead to few ends
        changes: dict[int, int] = {}
        for old, new in moves:
            for tunnel in new:
                at = id(tunnel)
                tunnels[at] = tunnel
                changes[at] = changes.get(at, 0) + 1
            for tunnel in old:
                at = id(tunnel)
                tunnels[at] = tunnel
                changes[at] = changes.get(at, 0) - 1
        for at, number in changes.items():
            if number > 0:
                self._add(tunnels[at], number)
        for at, number in changes.items():
            if number < 0:
                self._remove(tunnels[at], -number)

    def leads(self, destination: Addr, shape: Shape) -> bool:
        """True if packets of this shape may be sent there."""
        found = self._ends.get(destination)
        shapes = [shape]
        if shape[1] is Encapsulation.IPIP:
            shapes.append((shape[0], Encapsulation.MINIMAL, *shape[2:]))
        if isinstance(found, Tunnel):
            return shape_of(found) in shapes
        return found is not None and any(shape in found for shape in shapes)

    def _add(self, tunnel: Tunnel, number: int = 1) -> None:
        found = self._ends.get(tunnel.destination)
        if found is None and number == 1:
            self._ends[tunnel.destination] = tunnel
            return
        if not isinstance(found, dict):
            found = self._ends[tunnel.destination] = {} if found is None else {shape_of(found): 1}
        shape = shape_of(tunnel)
        found[shape] = found.get(shape, 0) + number

    def _remove(self, tunnel: Tunnel, number: int = 1) -> None:
        found = self._ends.get(tunnel.destination)
        if found is None or isinstance(found, Tunnel):
            self._ends.pop(tunnel.destination, None)
            return
        shape = shape_of(tunnel)
        found[shape] -= number
        if not found[shape]:
            del found[shape]
            if not found:
                del self._ends[tunnel.destination]
