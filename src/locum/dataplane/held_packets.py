"""Packets that the kernel handed up: they wait in the hold queue, go to a function, or are openings to decide on.

They come in from the ring buffer and go back through the re-injection device, in order. The written flow verdicts,
bindings and acceptances say which packets may go; this module decides nothing itself.

A turn of the event loop reads and sends a bounded number of packets. The rest of the ring is read in later turns, and the rest
of the released packets goes out then: the same order, but newcomers may overtake them, for the programs hold them no more.
"""

import time
from collections.abc import Callable
from functools import lru_cache

from locum.dataplane.hold import HeldPacket, HoldQueue, Room, held_packet
from locum.dataplane.icmp_message import Told
from locum.dataplane.kernel.device import Reinjection
from locum.dataplane.kernel.libbpf import Map, RingBuffer
from locum.dataplane.kernel.reassembly import acceptable, as_ip_in_ip
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.layout.maps import HELD, HeldReason, address_of
from locum.dataplane.limits import Limits
from locum.dataplane.mtu.pieces import Pieces
from locum.dataplane.paged_packets import PagedPackets
from locum.dataplane.tunnel_errors import TunnelErrors
from locum.dataplane.turn import Turn
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import WAITING, RuleVerdict
from locum.roles.action_values.forwarding import FlowVerdict, Stage, Verdict
from locum.roles.action_values.paging import PageAsked, PageTriggered
from locum.wire.control import Flow

# Rounds in which the queue may fill again while it is emptied.
RELEASE_ROUNDS = 8
MAX_OPENINGS = 256  # between two looks of the daemon; the rest is asked for again by its peers
EXPIRED_AT_ONCE = 4096  # packets dropped for their age in one turn

_WAITING = (HeldReason.BINDING, HeldReason.FLOW, HeldReason.REPORT)
_HOLD = RuleVerdict.HOLD
_home_address = lru_cache(4096)(address_of)


class HeldPackets:
    """Packets that the data plane holds for its daemon. `ring` is the map of the ring buffer; `clock` gives nanoseconds."""

    def __init__(
        self,
        ring: Map,
        device: Reinjection,
        tables: Tables,
        limits: Limits,
        narrow: Callable[[Addr, int, int], None] = lambda *_: None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`narrow` is called with the end of a tunnel, the MTU of its path and its overhead, in bytes."""
        self._device = device
        self._narrow = narrow
        self._pieces = Pieces()
        self._tables = tables
        self._clock = clock
        self._reading, self._sending = Turn(clock), Turn(clock)
        self._queue = _queue(limits)
        self.paged = PagedPackets(_queue(limits), _queue(limits), clock)
        # Called when `serve` has something to do, now or later.
        self.tell_pending: Callable[[], None] = lambda: None
        # Called with the addresses of a packet that is large in its tunnel.
        self.tell_large: Callable[[Addr, Addr], None] = lambda _source, _destination: None
        # Called with the first bytes of a packet that nothing takes.
        self.tell_headers: Callable[[HeldPacket], None] = lambda _packet: None
        self._diverted: dict[Flow, Callable[[bytes], None]] = {}
        self._forgetting: dict[Addr, int] = {}  # until when their packets in the ring are to be dropped
        self._fresh: list[HeldPacket] = []
        self._openings: list[bytes] = []
        self._openings_dropped = 0
        self._asked: list[PageAsked] = []
        self._forgotten = 0
        self._refused = 0
        self._not_injected = 0
        self._errors = TunnelErrors()
        self._ring = RingBuffer(ring.fd, self._take_record)

    def fileno(self) -> int:
        """Readable when packets were held or reported."""
        return self._ring.fileno()

    def close(self) -> None:
        self._ring.close()
        self._pieces.close()

    def take_over(self, ring: Map) -> None:
        """Take the packets that are left in the ring of an earlier daemon."""
        earlier = RingBuffer(ring.fd, self._take_record)
        while not earlier.consume():
            self._reading.begin()
        earlier.close()

    # In

    def _take_record(self, record: bytes) -> bool:
        """Keep the packet of a record, or drop and count it; false ends the reading for this turn."""
        reason = record[HELD.size - 4]
        waits = reason in _WAITING and not (self._diverted or self._forgetting)
        length = len(record) - HELD.size
        # A flood is dropped here, at a fraction of the price of a packet that is kept.
        if reason == HeldReason.PAGE:
            home_address, rule = _home_address(record[:16]), HELD.unpack_from(record)[6]
            if not self.paged.floods(
                home_address, length, pages=self._verdict(home_address, rule) is not _HOLD
            ):
                self._take_packet(held_packet(record))
        elif not waits or self._queue.admits(_home_address(record[:16]), length):
            self._take_packet(held_packet(record))
        return self._reading.spend(length)

    def _take_packet(self, packet: HeldPacket) -> None:
        if packet.reason is HeldReason.OPENING:
            self._take_opening(packet)
        elif packet.reason is HeldReason.PATH:
            self._narrow(packet.flow.peer, packet.gso_size, packet.ifindex)
        elif packet.reason is HeldReason.LARGE:
            self.tell_large(packet.flow.local, packet.flow.peer)
        elif packet.reason is HeldReason.HEADERS:
            self.tell_headers(packet)
        elif packet.reason is HeldReason.PIECES:
            self._pieces.send(packet.data, packet.gso_size)
        elif packet.reason is HeldReason.PAGE:
            self._take_paged(packet)
        elif packet.reason is HeldReason.CLASSIFIED:
            self._take_asking(packet)
        elif packet.time <= self._forgetting.get(packet.home_address, -1):
            self._forgotten += 1
        elif (take := self._diverted.get(packet.flow)) is not None:
            take(packet.data)
        elif self._is_late(packet):
            self._queue.add(packet, due=True)
        elif self._queue.add(packet):
            self._fresh.append(packet)

    def _take_opening(self, packet: HeldPacket) -> None:
        if len(self._openings) < MAX_OPENINGS:
            self._openings.append(packet.data)
        else:
            self._openings_dropped += 1

    def _take_asking(self, packet: HeldPacket) -> None:
        """A report; its rule reports again within a second if there is no room now."""
        if len(self._asked) < MAX_OPENINGS:
            home, rule, flow = packet.home_address, packet.rule, packet.flow
            self._asked.append(PageAsked(home, rule, flow, packet.ifindex, packet.gso_size))

    def _take_paged(self, packet: HeldPacket) -> None:
        verdict = self._verdict(packet.home_address, packet.rule)
        if verdict is None:
            self.paged.take_late(packet)
        else:
            self.paged.take(packet, pages=verdict is not _HOLD)

    def _verdict(self, home_address: Addr, identifier: int) -> RuleVerdict | None:
        """PAGE or HOLD, that of the rule where it is still there; None: no rule of the home address holds packets."""
        entry = self._tables.state.stage(Stage.HOME).get(home_address)
        found = None
        for rule in () if entry is None else entry.rules:
            if rule.verdict in WAITING:
                if rule.identifier == identifier:
                    return rule.verdict
                found = RuleVerdict.PAGE if rule.verdict is RuleVerdict.PAGE else found or rule.verdict
        return found

    def _consume(self) -> bool:
        """Read the ring within the turn; true if nothing is left in it."""
        self._reading.join()
        emptied = self._reading.left and self._ring.consume()
        if emptied:
            self._forgetting.clear()
        return emptied

    # Out of the queue

    def serve(self) -> None:
        """One turn of the event loop: read the ring, send released packets, drop those that waited too long."""
        self._reading.begin()
        self._sending.begin()
        self._consume()
        self._fresh.clear()
        self._send_due()
        for queue in (self._queue, *self.paged.queues):
            queue.expire(self._clock(), EXPIRED_AT_ONCE)

    @property
    def is_due(self) -> bool:
        """True if `serve` has released packets to send at once."""
        return self._queue.is_due or self.paged.is_due

    @property
    def expires(self) -> int | None:
        """When `serve` has packets to drop for their age, in nanoseconds of the clock; None: no packet waits."""
        queues = (self._queue, *self.paged.queues)
        times = [queue.expires for queue in queues if queue.expires is not None]
        return min(times, default=None)

    def read_openings(self) -> list[bytes]:
        """SYNs to watched ports since the last call, from their IP headers on; `inject` accepted ones."""
        self._consume()
        openings, self._openings = self._openings, []
        return openings

    def read_pages(self) -> list[PageTriggered]:
        """The first packets since the last call that wait for a device which is to be paged."""
        self._consume()
        first, self.paged.first = self.paged.first, []
        return first

    def read_asked(self) -> list[PageAsked]:
        """Reports of packets since the last call whose filter rules ask for pages."""
        self._consume()
        asked, self._asked = self._asked, []
        return asked

    def read(self) -> list[HeldPacket]:
        """Move packets from the kernel's ring into the queue, as many as a turn allows; returns the new ones that wait."""
        self._consume()
        fresh, self._fresh = self._fresh, []
        return fresh

    def forget(self, home_address: Addr) -> None:
        """Drop and count the held packets of a home address."""
        now = self._clock()
        if not self._consume():
            self._forgetting[home_address] = now
        self._forgotten += self._queue.drop(home_address)

    def divert(self, flow: Flow, take: Callable[[bytes], None] | None) -> None:
        """Give the held packets of this flow to a function instead of the queue; None: no more."""
        if take is None:
            self._diverted.pop(flow, None)
            return
        self._consume()
        for packet in self._queue.take(flow):
            take(packet.data)
        self._diverted[flow] = take

    # Into the kernel

    def release(self, of: Addr | Flow, *, ahead: bool = False) -> int:
        """Put the held packets that are now allowed into the kernel; with `ahead` all those of a home address.

        Returns the number of packets that went out at once.
        """
        if isinstance(of, Flow):
            return self._release(lambda: self._queue.release(of) if self._allowed(of) else 0)
        return self._release(
            lambda: self._queue.release_where(of, lambda flow: ahead or self._allowed(flow), ahead=ahead)
        )

    def release_paged(self, home_address: Addr) -> int:
        """Put the packets that wait for a device into the kernel, in order; returns the number that went out at once."""
        return self._release(lambda: self.paged.release(home_address))

    def send_of(self, flow: Flow) -> None:
        """Send the packets held for this flow; the cost does not grow with the packets of others."""
        self._release(lambda: self._queue.release(flow, ahead=True))

    def inject(self, packet: bytes, gso_size: int = 0) -> bool:
        """Put a packet into the kernel as if it had arrived; returns False, and counts it, if the kernel takes none of it."""
        try:
            self._device.write(packet, gso_size)
        except OSError:  # the device is down, or the packet is none
            self._not_injected += 1
            return False
        return True

    def inject_reassembled(self, packet: bytes, index: int) -> bool:
        """Inject a tunnel packet that the stack put together, which came on link `index`, unless it is not allowed."""
        packet = as_ip_in_ip(packet)
        if not acceptable(self._tables.state, packet, by_visitor=self._tables.access.serves(index)):
            self._refused += 1
            return False
        return self.inject(packet)

    def tell_of_error(self, version: int, message: bytes) -> Told | None:
        """The message to the sender of a packet which was lost in a tunnel, for an ICMP error about the tunnel packet.

        `message` begins with the error's type; `version` is that of the IP header before it.
        """
        return self._errors.tell(version, message, self._tables.state, now=time.monotonic())

    def _allowed(self, flow: Flow) -> bool:
        verdict = self._tables.state.flows.get(flow)
        if verdict is not None:
            return verdict is FlowVerdict.DELIVER
        return not self._waits(flow.local)

    def _waits(self, home_address: Addr) -> bool:
        """True if an entry of the home address holds or reports its packets."""
        entries = (self._tables.state.stage(stage).get(home_address) for stage in Stage)
        return any(entry and entry.verdict in (Verdict.HOLD, Verdict.REPORT) for entry in entries)

    def _is_late(self, packet: HeldPacket) -> bool:
        """True if the packet was in the ring when those of its flow were released."""
        by_entry = packet.reason is not HeldReason.FLOW
        return self._allowed(packet.flow) and not (by_entry and self._waits(packet.home_address))

    def _release(self, make_due: Callable[[], int]) -> int:
        sent = 0
        for _ in range(RELEASE_ROUNDS):
            emptied = self._consume()
            released = make_due()
            sent += self._send_due()
            if not released or not emptied:
                break
        if self.is_due or self.expires is not None or self.paged.first:
            self.tell_pending()
        return sent

    def _send_due(self) -> int:
        """Send due packets within the turn; returns their number."""
        sent = 0
        self._sending.join()
        while self._sending.left and (due := self.paged.next_due()) is not None:
            sent += self.inject(due.packet.data, due.packet.gso_size)
            self._sending.spend(len(due.packet.data))
        while self._sending.left and (due := self._queue.next_due()) is not None:
            packet = due.packet
            if due.ahead or self._allowed(packet.flow):
                sent += self.inject(packet.data, packet.gso_size)
                self._sending.spend(len(packet.data))
            elif (take := self._diverted.get(packet.flow)) is not None:
                take(packet.data)
            else:  # held again, since it was released
                self._queue.keep_again(due)
        return sent

    # Counts

    def counters(self) -> dict[str, int]:
        """Packets that were dropped between the kernel and the daemon, by reason."""
        queues = (self._queue, *self.paged.queues)
        return {
            "hold-queue-overflow": sum(queue.overflow for queue in queues),
            "hold-queue-share": sum(queue.beyond_share for queue in queues),
            "hold-aged": sum(queue.aged for queue in queues),
            "page-failed": self.paged.dropped,
            "openings-dropped": self._openings_dropped,
            "hold-forgotten": self._forgotten,
            "unregistered-source-reassembled": self._refused,
            "injection-failed": self._not_injected,
            **self._errors.counts,
            "sent-in-fragments": self._pieces.sent,
            "fragments-not-sent": self._pieces.failed,
        }

    def waiting(self) -> dict[str, int]:
        """Packets that are held now, their bytes, and home addresses."""
        queues = (self._queue, *self.paged.queues)
        return {
            "packets": sum(len(queue) for queue in queues),
            "bytes": sum(queue.bytes for queue in queues),
            "home_addresses": sum(queue.home_addresses for queue in queues),
        }


def _queue(limits: Limits) -> HoldQueue:
    return HoldQueue(
        Room(limits.hold_packets, limits.hold_bytes),
        Room(limits.hold_packets_each, limits.hold_bytes_each),
        limits.hold_age * 1_000_000_000,
    )
