"""The hold queue: held packets in order, bounded in number and bytes; packets beyond are counted.

It knows no kernel: packets come in from the ring buffer and go out through the re-injection device.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, count
from operator import itemgetter

from locum.dataplane.layout.maps import HELD, HeldReason, flow_of
from locum.roles.action_values.addresses import Addr
from locum.wire.control import Flow


@dataclass(frozen=True, slots=True)
class HeldPacket:
    """One packet from its IP header on, with the program's data about it."""

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
    """First in, first out, for all home addresses together.

    Packets are kept by flow, each with its number in the common order: the packets of one flow are taken at a cost that
    does not grow with those of the others.
    """

    def __init__(self, packets: int, size: int) -> None:
        self.packet_limit, self.byte_limit = packets, size
        self.bytes = 0
        self.overflow = 0  # packets that did not fit
        self._length = 0
        self._numbers = count()
        self._packets: dict[Flow, list[tuple[int, HeldPacket]]] = {}  # no empty lists

    def __len__(self) -> int:
        return self._length

    def add(self, packet: HeldPacket) -> bool:
        """Keep the packet, or count it as overflow."""
        if self._length >= self.packet_limit or self.bytes + len(packet.data) > self.byte_limit:
            self.overflow += 1
            return False
        self._packets.setdefault(packet.flow, []).append((next(self._numbers), packet))
        self._length += 1
        self.bytes += len(packet.data)
        return True

    def take(self, flow: Flow) -> list[HeldPacket]:
        """Remove and return, in order, the packets of this flow."""
        return self._remove((flow,))

    def take_where(self, wanted: Callable[[Flow], bool]) -> list[HeldPacket]:
        """Remove and return, in their common order, the packets of all flows that are wanted."""
        return self._remove([flow for flow in self._packets if wanted(flow)])

    def _remove(self, flows: Iterable[Flow]) -> list[HeldPacket]:
        numbered = chain.from_iterable(self._packets.pop(flow, ()) for flow in flows)
        taken = [packet for _, packet in sorted(numbered, key=itemgetter(0))]
        self._length -= len(taken)
        self.bytes -= sum(len(packet.data) for packet in taken)
        return taken
