"""The hold queue: packets that wait, in order, within bounds of number and bytes; what does not fit is counted.

It knows no kernel: packets come in from the ring buffer and go out through the re-injection device.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from locum.dataplane.maps import HELD, HeldReason, flow_of
from locum.roles.actions import Addr
from locum.wire.control import Flow


@dataclass(frozen=True, slots=True)
class HeldPacket:
    """One packet from its IP header on, and what the program knew of it."""

    flow: Flow
    data: bytes
    reason: HeldReason = HeldReason.BINDING
    gso_size: int = 0  # bytes of payload of each segment; 0: not a GSO packet
    ifindex: int = 0
    time: int = 0  # nanoseconds, CLOCK_MONOTONIC

    @property
    def home_address(self) -> Addr:
        return self.flow.local


def held_packet(record: bytes) -> HeldPacket:
    """A record of the ring buffer (`struct locum_held` and the packet)."""
    key, time, length, gso_size, ifindex, reason = HELD.unpack_from(record)
    data = record[HELD.size : HELD.size + length]
    return HeldPacket(flow_of(key), data, HeldReason(reason), gso_size, ifindex, time)


class HoldQueue:
    """First in, first out, for all home addresses together."""

    def __init__(self, packets: int, size: int) -> None:
        self.packet_limit, self.byte_limit = packets, size
        self.bytes = 0
        self.overflow = 0  # packets that did not fit
        self._packets: deque[HeldPacket] = deque()
        self._of: Counter[Flow] = Counter()

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, packet: HeldPacket) -> bool:
        """Keep the packet, or count it as overflow."""
        if len(self._packets) >= self.packet_limit or self.bytes + len(packet.data) > self.byte_limit:
            self.overflow += 1
            return False
        self._packets.append(packet)
        self._of[packet.flow] += 1
        self.bytes += len(packet.data)
        return True

    def has(self, flow: Flow) -> bool:
        """Whether a packet of this flow waits."""
        return self._of[flow] > 0

    def take(self, wanted: Callable[[HeldPacket], bool]) -> list[HeldPacket]:
        """Remove and return, in order, the packets that are wanted."""
        taken, kept = [], deque[HeldPacket]()
        for packet in self._packets:
            if wanted(packet):
                taken.append(packet)
                self._of[packet.flow] -= 1
                self.bytes -= len(packet.data)
            else:
                kept.append(packet)
        self._packets = kept
        self._of = +self._of
        return taken

    def counts(self) -> dict[Addr, int]:
        """Packets that wait, by home address."""
        counts: dict[Addr, int] = {}
        for packet in self._packets:
            counts[packet.home_address] = counts.get(packet.home_address, 0) + 1
        return counts
