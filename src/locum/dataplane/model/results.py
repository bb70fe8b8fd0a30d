"""Results of the model: drop, pass, hold, deliver or encapsulate a packet, and count it.

It must not know why a packet is forwarded as it is.
"""

from collections import Counter
from collections.abc import Iterable
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
    flow_of,
    outer_headers,
)
from locum.dataplane.model.minimal import SMALL, narrowed
from locum.dataplane.model.nesting import circular
from locum.dataplane.model.parse import Packet, stays_on_link
from locum.dataplane.model.tables import Tables
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import Verdict
from locum.wire.control import Flow

MIN_IPV6_MTU = 1280
OUR_MARKS = (maps.MARK_MTU, maps.MARK_RELEASED, maps.MARK_COPY, maps.MARK_LOCAL)


def is_minimal(packet: Packet) -> bool:
    """True if the packet may not be refused for its size (RFC 8200 section 5)."""
    return packet.family == 6 and packet.length <= MIN_IPV6_MTU


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

    def expired(self, work: Work) -> Result:
        """Left to the kernel, which answers "time exceeded", by a route of packets that are too big for a tunnel."""
        work.mark = self._mark_for(0xFFFF)
        return self.passed(work)

    def _mark_for(self, left: int) -> int:
        """The mark of the route with this MTU, or the next smaller one; the smallest, if all are larger."""
        slots = self.tables.environment.inner_mtus()
        mtus = sorted(slots, reverse=True)
        answered = next((mtu for mtu in mtus if mtu <= left), mtus[-1])
        return maps.too_big_mark(self.tables.environment.number, slots[answered])

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
        ends = flow_of(work)
        flow = Flow(
            ends.protocol,
            maps.address_of(ends.destination),
            ends.destination_port,
            maps.address_of(ends.source),
            ends.source_port,
        )
        data = bytes(work.frame[packet.offset : packet.offset + packet.length])
        rule = work.rule if reason is HeldReason.PAGE else 0
        return Result(Outcome.HELD, held=HeldPacket(flow, data, reason, 0, work.ifindex, rule=rule))

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
        if packet.unsound:
            return self.dropped(Reason.BAD_CHECKSUM)
        if (refusal := circular(work, tunnel)) is not None:
            return self.dropped(refusal)
        if work.forwarded and packet.hops <= 1:
            return self.expired(work)
        mtu = self.tables.environment.route_mtu(tunnel)
        if mtu is None:
            return self.dropped(Reason.NO_ROUTE)
        in_pieces = packet.length + overhead > mtu
        if in_pieces and not is_minimal(packet):
            return self.too_big(work, mtu - overhead)
        if work.forwarded:
            decrement_hops(work)
        conflict = self.tables.translate(work, tunnel.destination)
        if isinstance(conflict, Reason):
            return self.dropped(conflict)
        decapsulate(work)
        outer = narrowed(work.frame, packet, tunnel)
        if outer is None:
            outer = outer_headers(tunnel, packet) + bytes(work.frame[ETHERNET:])
        v4 = isinstance(tunnel.destination, IPv4Address)
        frame = bytes(work.frame[:12]) + ETHERTYPES[4 if v4 else 6] + outer
        ours = not work.mark or work.mark & maps.MARK_MASK in OUR_MARKS
        mark = maps.MARK_SENT if ours else work.mark
        self.tables.count(counter, key, packet)
        return Result(Outcome.ENCAPSULATED, frame, mark=maps.MARK_VOID if in_pieces else mark)

    def too_big(self, work: Work, left: int) -> Result:
        """Left to the kernel, which knows the largest MTU of a route that is at most `left`; the smallest, if none is."""
        if work.egress:
            return self.dropped(Reason.TOO_LARGE)
        if work.packet.family == 6:
            left = max(left, MIN_IPV6_MTU)
        work.mark = self._mark_for(left)
        return self.passed(work, Outcome.TOO_BIG)

    def too_big_for_one(self, work: Work, tunnels: Iterable[Tunnel]) -> Result | None:
        """Left to the kernel if one of these tunnels, into which copies of the packet go, does not take it."""
        packet = work.packet
        left = []
        for tunnel in tunnels:
            mtu = self.tables.environment.route_mtu(tunnel)
            if mtu is not None and packet.length + maps.overhead(tunnel) > mtu:
                left.append(mtu - maps.overhead(tunnel))
        if not left or packet.length <= SMALL or is_minimal(packet):
            return None
        return self.too_big(work, min(left))

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
