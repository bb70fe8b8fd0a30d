"""Packets that the kernel handed up: they wait in the hold queue, go to a function, or are openings to decide on.

They come in from the ring buffer and go back through the re-injection device, in order. The written flow verdicts,
bindings and acceptances say which packets may go; this module decides nothing itself.
"""

from collections.abc import Callable

from locum.dataplane.hold import HeldPacket, HoldQueue, held_packet
from locum.dataplane.kernel.device import Reinjection
from locum.dataplane.kernel.libbpf import Map, RingBuffer
from locum.dataplane.kernel.reassembly import acceptable
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.layout.maps import HeldReason
from locum.dataplane.limits import Limits
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import FlowVerdict, Stage, Verdict
from locum.wire.control import Flow

# Rounds in which the queue may fill again while it is emptied; then the rest waits for the next release.
RELEASE_ROUNDS = 8
MAX_OPENINGS = 256  # between two looks of the daemon; the rest is asked for again by its peers


class HeldPackets:
    """Packets that the data plane holds for its daemon. `ring` is the map of the ring buffer."""

    def __init__(self, ring: Map, device: Reinjection, tables: Tables, limits: Limits) -> None:
        self._device = device
        self._tables = tables
        self._queue = HoldQueue(limits.hold_packets, limits.hold_bytes)
        self._diverted: dict[Flow, Callable[[bytes], None]] = {}
        self._fresh: list[HeldPacket] = []
        self._openings: list[bytes] = []
        self._openings_dropped = 0
        self._forgotten = 0
        self._refused = 0
        self._not_injected = 0
        self._ring = RingBuffer(ring.fd, self._take_record)

    def fileno(self) -> int:
        """Readable when packets were held or reported."""
        return self._ring.fileno()

    def close(self) -> None:
        self._ring.close()

    def _take_record(self, record: bytes) -> None:
        packet = held_packet(record)
        if packet.reason is HeldReason.OPENING:
            self._take_opening(packet)
        elif (take := self._diverted.get(packet.flow)) is not None:
            take(packet.data)
        elif self._queue.add(packet):
            self._fresh.append(packet)

    def _take_opening(self, packet: HeldPacket) -> None:
        if len(self._openings) < MAX_OPENINGS:
            self._openings.append(packet.data)
        else:
            self._openings_dropped += 1

    # Out of the queue

    def read_openings(self) -> list[bytes]:
        """SYNs to watched ports since the last call."""
        self._ring.consume()
        openings, self._openings = self._openings, []
        return openings

    def read(self) -> list[HeldPacket]:
        """Move packets from the kernel's ring into the queue; returns the new ones."""
        self._ring.consume()
        fresh, self._fresh = self._fresh, []
        return fresh

    def take(self, of: Addr | Flow) -> list[bytes]:
        """Remove the held packets of a home address or flow and return them, in order."""
        self._ring.consume()
        queue = self._queue
        taken = queue.take(of) if isinstance(of, Flow) else queue.take_where(lambda flow: flow.local == of)
        return [packet.data for packet in taken]

    def forget(self, home_address: Addr) -> None:
        """Drop and count the held packets of a home address."""
        self._forgotten += len(self.take(home_address))

    def divert(self, flow: Flow, take: Callable[[bytes], None] | None) -> None:
        """Give the held packets of this flow to a function instead of the queue; None: no more."""
        if take is None:
            self._diverted.pop(flow, None)
            return
        for packet in self.take(flow):
            take(packet)
        self._diverted[flow] = take

    # Into the kernel

    def release(self, of: Addr | Flow, *, ahead: bool = False) -> int:
        """Put the held packets that are now allowed into the kernel; with `ahead` all those of a home address."""
        if isinstance(of, Flow):
            return self._send(lambda: self._queue.take(of) if self._allowed(of) else [])
        return self._send(
            lambda: self._queue.take_where(lambda flow: flow.local == of and (ahead or self._allowed(flow)))
        )

    def send_of(self, flow: Flow) -> None:
        """Send the packets held for this flow; the cost does not grow with the packets of others."""
        self._send(lambda: self._queue.take(flow))

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
        if not acceptable(self._tables.state, packet, by_visitor=self._tables.serves(index)):
            self._refused += 1
            return False
        return self.inject(packet)

    def _allowed(self, flow: Flow) -> bool:
        verdict = self._tables.state.flows.get(flow)
        if verdict is not None:
            return verdict is FlowVerdict.DELIVER
        entries = (self._tables.state.stage(stage).get(flow.local) for stage in Stage)
        return not any(entry and entry.verdict in (Verdict.HOLD, Verdict.REPORT) for entry in entries)

    def _send(self, take: Callable[[], list[HeldPacket]]) -> int:
        sent = 0
        for _ in range(RELEASE_ROUNDS):
            self._ring.consume()
            packets = take()
            if not packets:
                break
            sent += sum(self.inject(packet.data, packet.gso_size) for packet in packets)
        return sent

    # Counts

    def counters(self) -> dict[str, int]:
        """Packets that were dropped between the kernel and the daemon, by reason."""
        return {
            "hold-queue-overflow": self._queue.overflow,
            "openings-dropped": self._openings_dropped,
            "hold-forgotten": self._forgotten,
            "unregistered-source-reassembled": self._refused,
            "injection-failed": self._not_injected,
        }
