"""The hold queue: held packets in order, bounded in number, bytes and age; of all home addresses and of each.

It knows no kernel and no clock: packets come in from the ring buffer and go out through the re-injection device, and time is
an argument.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, count

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
    rule: int = 0  # that pages, with the reason PAGE

    @property
    def home_address(self) -> Addr:
        return self.flow.local


_flow_of = lru_cache(4096)(
    flow_of
)  # packets of a flow share the value: less to make, and for the collector to look at


def held_packet(record: bytes) -> HeldPacket:
    """A record of the ring buffer (`struct locum_held` and the packet)."""
    key, time, length, gso_size, ifindex, reason, rule = HELD.unpack_from(record)
    data = record[HELD.size : HELD.size + length]
    return HeldPacket(_flow_of(key), data, HeldReason(reason), gso_size, ifindex, time, rule)


@dataclass(frozen=True, slots=True)
class Room:
    """Room of a queue."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DuePacket:
    """A released packet. `ahead`: it goes out although packets of its flow still wait."""

    number: int
    packet: HeldPacket
    ahead: bool


@dataclass(slots=True)
class _Share:
    """Packets of one home address."""

    packets: int = 0
    bytes: int = 0
    waiting: dict[Flow, deque[int]] = field(default_factory=dict)  # numbers of packets; no empty ones
    due: deque[int] = field(default_factory=deque)  # numbers, doubled, and one more if they go ahead


class HoldQueue:
    """Packets that wait for their release, and released ones that are due to go out.

    Each packet has its number in the common order. Released packets of one home address go out in that order, and those of
    several addresses in turns.

    A home address has room for its `quota`, and for no more than is still free for others: those that are flooded share
    the room, and one that has few packets waiting always finds some.
    """

    def __init__(self, room: Room, quota: Room, age: int) -> None:
        """`age` in nanoseconds."""
        self.room, self.quota, self.age = room, quota, age
        self.bytes = 0
        self.overflow = 0  # packets that did not fit
        self.beyond_share = 0  # packets of home addresses that had their share
        self.aged = 0  # packets that waited too long
        self._length = 0
        self._numbers = count()
        self._packets: OrderedDict[int, HeldPacket] = OrderedDict()  # the oldest first
        self._shares: dict[Addr, _Share] = {}
        self._turns: deque[Addr] = deque()  # home addresses with due packets, each once

    def __len__(self) -> int:
        return self._length

    @property
    def home_addresses(self) -> int:
        return len(self._shares)

    # In

    def admits(self, home_address: Addr, size: int) -> bool:
        """True if a packet of `size` bytes has room; counted if it has none."""
        packets, bytes_ = self.room.packets - self._length, self.room.bytes - self.bytes
        if not packets or size > bytes_:
            self.overflow += 1
            return False
        share = self._shares.get(home_address)
        if share is None:
            has_share = size <= self.quota.bytes
        else:
            has_share = share.packets < min(self.quota.packets, packets) and share.bytes + size <= min(
                self.quota.bytes, bytes_
            )
        self.beyond_share += not has_share
        return has_share

    def add(self, packet: HeldPacket, *, due: bool = False) -> bool:
        """Keep the packet until its release, or make it `due` at once; false, and counted, without room."""
        if not self.admits(packet.home_address, len(packet.data)):
            return False
        share = self._shares.setdefault(packet.home_address, _Share())
        share.packets += 1
        share.bytes += len(packet.data)
        self._length += 1
        self.bytes += len(packet.data)
        number = next(self._numbers)
        self._packets[number] = packet
        if due:
            self._make_due(packet.home_address, share, [number], ahead=False)
        else:
            share.waiting.setdefault(packet.flow, deque()).append(number)
        return True

    # Out

    def take(self, flow: Flow) -> list[HeldPacket]:
        """Remove and return, in order, the waiting packets of this flow."""
        share = self._shares.get(flow.local)
        if share is None:
            return []
        return [self._remove(share, number) for number in self._numbers_of(share, (flow,))]

    def drop(self, home_address: Addr) -> int:
        """Remove all packets of a home address, due ones too; returns their number."""
        share = self._shares.get(home_address)
        if share is None:
            return 0
        if share.due:
            self._turns.remove(home_address)
        due = [number >> 1 for number in share.due]
        share.due.clear()
        gone = self._numbers_of(share, tuple(share.waiting)) + due
        for number in gone:
            self._remove(share, number)
        return len(gone)

    def release(self, flow: Flow, *, ahead: bool = False) -> int:
        """Make the waiting packets of a flow due; returns their number."""
        share = self._shares.get(flow.local)
        return 0 if share is None else self._release(flow.local, share, (flow,), ahead=ahead)

    def release_where(
        self, home_address: Addr, wanted: Callable[[Flow], bool], *, ahead: bool = False
    ) -> int:
        """Make the waiting packets of all wanted flows of a home address due, in their common order; returns their number."""
        share = self._shares.get(home_address)
        if share is None:
            return 0
        flows = [flow for flow in share.waiting if wanted(flow)]
        return self._release(home_address, share, flows, ahead=ahead)

    def next_due(self) -> DuePacket | None:
        """Remove and return the next packet to send."""
        if not self._turns:
            return None
        home_address = self._turns.popleft()
        share = self._shares[home_address]
        number, ahead = divmod(share.due.popleft(), 2)
        if share.due:
            self._turns.append(home_address)
        return DuePacket(number, self._remove(share, number), bool(ahead))

    @property
    def is_due(self) -> bool:
        """True if released packets have not gone out yet."""
        return bool(self._turns)

    def keep_again(self, due: DuePacket) -> None:
        """A due packet waits again, before those of its flow that came later."""
        packet = due.packet
        share = self._shares.setdefault(packet.home_address, _Share())
        share.packets += 1
        share.bytes += len(packet.data)
        self._length += 1
        self.bytes += len(packet.data)
        self._packets[due.number] = packet
        self._packets.move_to_end(due.number, last=False)
        share.waiting.setdefault(packet.flow, deque()).append(due.number)  # sorted when they leave

    # Age

    @property
    def expires(self) -> int | None:
        """When the oldest packet has waited too long, in nanoseconds; None: there is none."""
        oldest = next(iter(self._packets.values()), None)
        return None if oldest is None else oldest.time + self.age

    def expire(self, now: int, most: int) -> int:
        """Drop and count packets that have waited too long, at most so many; returns their number."""
        dropped = 0
        while dropped < most and self._packets:
            number, packet = next(iter(self._packets.items()))
            share = self._shares[packet.home_address]
            numbers = share.waiting.get(packet.flow, ())
            if (
                packet.time + self.age > now or number not in numbers
            ):  # mostly its first; a due one goes out soon
                break
            share.waiting[packet.flow].remove(number)
            if len(numbers) == 0:
                del share.waiting[packet.flow]
            self._remove(share, number)
            dropped += 1
        self.aged += dropped
        return dropped

    def _release(self, home_address: Addr, share: _Share, flows: Iterable[Flow], *, ahead: bool) -> int:
        released = self._numbers_of(share, flows)
        self._make_due(home_address, share, released, ahead=ahead)
        return len(released)

    def _make_due(self, home_address: Addr, share: _Share, numbers: list[int], *, ahead: bool) -> None:
        if numbers and not share.due:
            self._turns.append(home_address)
        share.due.extend([2 * number + ahead for number in numbers])

    @staticmethod
    def _numbers_of(share: _Share, flows: Iterable[Flow]) -> list[int]:
        """Numbers of the waiting packets of these flows, in order; they wait no more."""
        return sorted(chain.from_iterable(share.waiting.pop(flow, ()) for flow in flows))

    def _remove(self, share: _Share, number: int) -> HeldPacket:
        packet = self._packets.pop(number)
        share.packets -= 1
        share.bytes -= len(packet.data)
        self._length -= 1
        self.bytes -= len(packet.data)
        if not share.packets:
            del self._shares[packet.home_address]
        return packet
