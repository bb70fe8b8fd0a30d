"""Packets that flow rules hold until their device is awake (P17): in order, bounded as other held packets.

The first one of a home address is to be told; then all wait in silence until they are released or dropped, so that a flood of
them costs no more than a flood of other held packets. This module knows no kernel and decides nothing.
"""

from collections.abc import Callable

from locum.dataplane.hold import HeldPacket, HoldQueue
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.paging import FIRST_BYTES, PageTriggered

# Home addresses with a time without pages; beyond, the one that has been quiet longest is let go
MOST_QUIET = 4096
NANOSECONDS = 1_000_000_000


class PagedPackets:
    """The packets that wait for devices which are paged. `queue` is theirs alone; `clock` gives nanoseconds."""

    def __init__(self, queue: HoldQueue, clock: Callable[[], int]) -> None:
        self.queue = queue
        self._clock = clock
        self.first: list[PageTriggered] = []  # to be told
        self._told: set[Addr] = set()
        self._quiet: dict[Addr, int] = {}  # until when packets are dropped
        self.dropped = 0

    def take(self, packet: HeldPacket) -> None:
        """Keep the packet, or drop and count it; tell of it if it is the first."""
        home_address = packet.home_address
        until = self._quiet.get(home_address)
        if until is not None:
            if packet.time < until:
                self.dropped += 1
                return
            del self._quiet[home_address]
        self.queue.add(packet)
        if home_address not in self._told:  # without room as well: the device is to wake
            self._told.add(home_address)
            first = packet.data[:FIRST_BYTES]
            self.first.append(PageTriggered(home_address, packet.rule, packet.flow, first, len(packet.data)))

    def floods(self, home_address: Addr, size: int) -> bool:
        """True if a packet of `size` bytes would change nothing: it is counted, and need not be looked at."""
        return home_address in self._told and not self.queue.admits(home_address, size)

    def take_late(self, packet: HeldPacket) -> None:
        """Send a packet whose rule is in force no more: it was under way when the others were released."""
        self.queue.add(packet, due=True)

    def release(self, home_address: Addr) -> int:
        """Make the packets of a home address due; returns their number."""
        self._told.discard(home_address)
        self._quiet.pop(home_address, None)
        return self.queue.release_where(home_address, lambda _flow: True, ahead=True)

    def drop(self, home_address: Addr, quiet: float) -> None:
        """Drop and count the packets of a home address, and those of the next `quiet` seconds."""
        self.dropped += self.queue.drop(home_address)
        self._told.discard(home_address)
        self._quiet.pop(home_address, None)
        self._quiet[home_address] = self._clock() + int(quiet * NANOSECONDS)
        if len(self._quiet) > MOST_QUIET:
            del self._quiet[next(iter(self._quiet))]
