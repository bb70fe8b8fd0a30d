"""Results of the model: drop, pass, hold, deliver or encapsulate a packet, and count it.

It must not know why a packet is forwarded as it is.
"""

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.dataplane.hold import HeldPacket
from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import HeldReason, Outcome, Reason
from locum.dataplane.model.environment import Result
from locum.dataplane.model.frames import (
    ETHERNET,
    ETHERTYPES,
    Work,
    decapsulate,
    decrement_hops,
    outer_headers,
)
from locum.dataplane.model.parse import stays_on_link
from locum.dataplane.model.tables import Tables
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import Verdict
from locum.wire.control import Flow

OUR_MARKS = (maps.MARK_OVERHEAD, maps.MARK_RELEASED, maps.MARK_COPY, maps.MARK_LOCAL)


@dataclass(frozen=True, slots=True)
class Results:
    """Changes packets as decided, and counts them in `tables`."""

    tables: Tables

    def dropped(self, reason: Reason) -> Result:
        """Drop the packet, and count it unless the reason is NONE."""
        if reason is not Reason.NONE:
            self.tables.reasons[reason] += 1
        return Result(Outcome.DROPPED, reason=reason)

    def passed(self, work: Work, outcome: Outcome = Outcome.PASSED) -> Result:
        """Left to the kernel, without the headers of the tunnel it came out of."""
        decapsulate(work)
        return Result(outcome, bytes(work.frame), mark=work.mark)

    def passed_up(self, work: Work) -> Result:
        """Pass the packet to this host's stack; a packet out of a local tunnel cannot leave again."""
        if not work.ends_here:
            return self.passed(work)
        work.mark = maps.MARK_LOCAL | 1
        return self.passed(work, Outcome.LOCAL)

    def hold(self, work: Work, reason: HeldReason) -> Result:
        """Handed to the daemon."""
        packet = work.packet
        if packet.length > 0xFFFF:
            return self.dropped(Reason.TOO_LARGE)
        flow = Flow(
            packet.protocol,
            maps.address_of(packet.destination),
            packet.destination_port,
            maps.address_of(packet.source),
            packet.source_port,
        )
        data = bytes(work.frame[packet.offset : packet.offset + packet.length])
        return Result(Outcome.HELD, held=HeldPacket(flow, data, reason, 0, work.ifindex))

    def deliver(self, work: Work, ifindex: int) -> Result:
        """Sent to a visitor on a link, or left to the kernel where it has to answer or fragment."""
        packet = work.packet
        if packet.hops <= 1 or stays_on_link(packet.destination):
            return self.passed(work)
        conflict = self.tables.translate(work, None)
        if isinstance(conflict, Reason):
            return self.dropped(conflict)
        decapsulate(work)
        work.mark = maps.MARK_LOCAL
        if len(work.frame) > self.tables.environment.link_mtu(ifindex) + ETHERNET:
            return self.passed(work)
        decrement_hops(work)
        return Result(Outcome.DELIVERED, bytes(work.frame), mark=work.mark, ifindex=ifindex)

    def encapsulate(self, work: Work, tunnel: Tunnel, counter: Counter[bytes], key: bytes) -> Result:
        """Sent into a tunnel and counted under `key`, or why not."""
        packet, overhead = work.packet, maps.overhead(tunnel)
        if packet.length + overhead > 0xFFFF:
            return self.dropped(Reason.TOO_LARGE)
        if work.forwarded and packet.hops <= 1:
            return self.passed(work)
        mtu = self.tables.environment.route_mtu(tunnel)
        if mtu is None:
            return self.dropped(Reason.NO_ROUTE)
        if packet.length + overhead > mtu:
            if work.egress:
                return self.dropped(Reason.TOO_LARGE)
            work.mark = maps.MARK_OVERHEAD | overhead
            return self.passed(work, Outcome.TOO_BIG)
        if work.forwarded:
            decrement_hops(work)
        conflict = self.tables.translate(work, tunnel.destination)
        if isinstance(conflict, Reason):
            return self.dropped(conflict)
        decapsulate(work)
        headers = outer_headers(tunnel, packet)
        v4 = isinstance(tunnel.destination, IPv4Address)
        frame = bytes(work.frame[:12]) + ETHERTYPES[4 if v4 else 6] + headers + bytes(work.frame[ETHERNET:])
        mark = 0 if work.mark & maps.MARK_MASK in OUR_MARKS else work.mark
        self.tables.count(counter, key, packet)
        return Result(Outcome.ENCAPSULATED, frame, mark=mark)

    def by_verdict(self, work: Work, verdict: Verdict) -> Result | None:
        """By a verdict that needs no tunnel; None: the packet goes on."""
        match verdict:
            case Verdict.HOLD | Verdict.REPORT:
                if work.from_tap or work.mark & maps.MARK_MASK == maps.MARK_RELEASED:
                    return None
                reported = verdict is Verdict.REPORT
                return self.hold(work, HeldReason.REPORT if reported else HeldReason.BINDING)
            case Verdict.DROP:
                return self.dropped(Reason.BINDING_DROP)
        return None
