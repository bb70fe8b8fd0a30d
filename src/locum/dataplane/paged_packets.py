"""Packets that flow rules hold until their device is awake (P17): in order, bounded as other held packets.

The first one of a home address whose rule pages is to be told; then all wait in silence until they are released or dropped, so
that a flood of them costs no more than a flood of other held packets. Those of rules that hold without a page wait in a queue
of their own: they take no room from packets that wake the device, and outlive a page in vain. This module knows no kernel and
decides nothing.
"""

from collections.abc import Callable

from locum.dataplane.hold import DuePacket, HeldPacket, HoldQueue
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.paging import FIRST_BYTES, PageTriggered

# Home addresses with a time without pages; beyond, the one that has been quiet longest is let go
MOST_QUIET = 4096
NANOSECONDS = 1_000_000_000


class PagedPackets:
    """The packets that wait for devices which sleep. Both queues are theirs alone; `clock` gives nanoseconds.

    `queue` has those of rules that page, `silent` those of rules that hold without a page.
    """

    def __init__(self, queue: HoldQueue, silent: HoldQueue, clock: Callable[[], int]) -> None:
        self.queue, self.silent = queue, silent
        self._clock = clock
        self.first: list[PageTriggered] = []  # to be told
        self._told: set[Addr] = set()
        self._quiet: dict[Addr, int] = {}  # until when packets are dropped
        self.dropped = 0

    @property
    def queues(self) -> tuple[HoldQueue, HoldQueue]:
        """Both queues."""
        return self.queue, self.silent

    def take(self, packet: HeldPacket, *, pages: bool = True) -> None:
        """Keep the packet, or drop and count it; tell of it if it is the first whose rule pages."""
        if not pages:
            self.silent.add(packet)
            return
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

    def floods(self, home_address: Addr, size: int, *, pages: bool = True) -> bool:
        """True if a packet of `size` bytes would change nothing: it is counted, and need not be looked at."""
        if not pages:
            return not self.silent.admits(home_address, size)
        return home_address in self._told and not self.queue.admits(home_address, size)

    def take_late(self, packet: HeldPacket) -> None:
        """Send a packet whose rule is in force no more: it was under way when the others were released."""
        self.queue.add(packet, due=True)

    def release(self, home_address: Addr) -> int:
        """Make the packets of a home address due; returns their number."""
        self._told.discard(home_address)
        self._quiet.pop(home_address, None)
        return sum(queue.release_where(home_address, lambda _flow: True, ahead=True) for queue in self.queues)

    @property
    def is_due(self) -> bool:
        """True if released packets have not gone out yet."""
        return self.queue.is_due or self.silent.is_due

    def next_due(self) -> DuePacket | None:
        """Remove and return the next packet to send: those of rules that page are first."""
        return self.queue.next_due() or self.silent.next_due()

    def drop(self, home_address: Addr, quiet: float) -> None:
        """Drop and count the packets that a page in vain was for, and those of the next `quiet` seconds."""
        self.dropped += self.queue.drop(home_address)
        self._told.discard(home_address)
        self._quiet.pop(home_address, None)
        self._quiet[home_address] = self._clock() + int(quiet * NANOSECONDS)
        if len(self._quiet) > MOST_QUIET:
            del self._quiet[next(iter(self._quiet))]
