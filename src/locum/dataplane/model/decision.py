"""The forwarding decision in Python: the verdicts and bytes of bpf/locum.bpf.c.

It decides by a `ForwardingState` and an `Environment` that stands for the kernel's data (indices, MTUs). It is
the reference for the test that compares the two, and the explanation of the C. GSO is the kernel's matter and not
modelled.
"""

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import HeldReason, Outcome, Reason
from locum.dataplane.layout.rules import Place, rule_key
from locum.dataplane.model.acceptance import Acceptance
from locum.dataplane.model.environment import Environment, Result
from locum.dataplane.model.frames import (
    ETHERNET,
    Work,
    copy_congestion,
    decapsulate,
    decrement_hops,
    flow_key,
    flow_of,
    parse_tunnel,
)
from locum.dataplane.model.local_end import LocalEnd
from locum.dataplane.model.parse import (
    Packet,
    Unread,
    is_routed,
    neighbour_discovery,
    parse_packet,
    refused,
    stays_on_link,
)
from locum.dataplane.model.results import Results
from locum.dataplane.model.scope import Receivers, receivers
from locum.dataplane.model.tables import Tables
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.flows import WAITING, FilterPlace, Rule, RuleVerdict, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, FlowVerdict, Side, TunnelAcceptance, Verdict


class Model:
    """Decides packet by packet; `reasons` and the counters grow as in the kernel. `met` is about the last packet."""

    def __init__(self, state: ForwardingState, environment: Environment) -> None:
        self.tables = tables = Tables(state, environment)
        self.results = Results(tables)
        self.acceptance = Acceptance(tables, self.results)
        self.local_end = LocalEnd(tables, self.results)
        self.met = tables.met
        self.asks = tables.asks
        self.reasons = tables.reasons
        self.binding_count = tables.binding_count
        self.acceptance_count = tables.acceptance_count
        self.outbound_count = tables.outbound_count
        self.translator = tables.translator
        self.rules = tables.rules
        self.copies: list[Result] = []  # of the last packet, for its second and later tunnels

    # The two hooks

    def ingress(self, frame: bytes, ifindex: int, mark: int = 0) -> Result:
        """A frame that arrived on an interface."""
        self.tables.met.clear()
        self.tables.asks.clear()
        self.copies.clear()
        receivers = self._receivers(frame, ifindex)
        work = self._read(frame, ifindex, mark) if receivers is not Receivers.OTHERS else None
        if work is None:
            return Result(Outcome.PASSED, frame, mark=mark)
        work.forwarded = True
        work.to_several = receivers is Receivers.SEVERAL
        packet = work.packet
        if (refusal := refused(packet)) is not None:
            return self.results.dropped(refusal)
        if self.tables.spoofed(work):
            return self.results.dropped(Reason.SPOOFED_SOURCE)
        if packet.destination in self.tables.endpoints:
            return self._from_tunnel(work) or self.results.passed(work)
        if ifindex == self.tables.environment.tap:
            if mark == maps.MARK_LOCAL | 1:
                return self.local_end.decide(work) or self.results.passed(work, Outcome.LOCAL)
            work.from_tap = True
            work.mark = maps.MARK_RELEASED
        if not is_routed(packet.destination) or stays_on_link(packet.source):
            return self.results.passed(work)
        if work.to_several:
            known = self.tables.has_entry(packet.destination)
            return self.results.dropped(Reason.LINK_BROADCAST) if known else self.results.passed(work)
        work.signalling = self.tables.signalling(packet)
        self.tables.from_interface(work)
        policed = not (self.tables.own(packet.destination) or work.from_tap or work.signalling)
        if policed and (reason := self.tables.refused(work, packet.source, FilterPlace.FROM_VISITOR)):
            return self.results.dropped(reason)
        if stays_on_link(packet.destination) or neighbour_discovery(packet):
            return self.results.passed(work)
        decided = self._to_home_address(work)
        if decided is None and work.from_tap:
            # A packet that has waited here follows a visitor that is elsewhere now (620).
            decided = self._at_visited(work)
        return decided or self._by_source(work, ifindex) or self.results.passed(work)

    def egress(self, frame: bytes, ifindex: int, ingress_ifindex: int = 0, mark: int = 0) -> Result:
        """A frame that is about to leave by an interface."""
        self.tables.met.clear()
        self.tables.asks.clear()
        self.copies.clear()
        return self._egress(frame, ifindex, ingress_ifindex, mark)

    def _egress(self, frame: bytes, ifindex: int, ingress_ifindex: int, mark: int) -> Result:
        on_tap = ifindex == self.tables.environment.tap
        if not on_tap and mark in (maps.MARK_SENT, maps.MARK_LOCAL):
            return Result(Outcome.PASSED, frame, mark=0)  # decided already
        if self._receivers(frame, ifindex) is not Receivers.HOST:  # a bridge sends it on
            return Result(Outcome.PASSED, frame, mark=mark)
        work = self._read(frame, ifindex, mark)
        if work is not None:
            work.egress = True
            result = self._leave(work, ingress_ifindex)
            if result is not None:
                return result
            mark = work.mark
        if on_tap:
            stray = work is not None and self._ours(work.packet)
            return self.results.dropped(Reason.STRAY if stray else Reason.NONE)
        return Result(Outcome.PASSED, frame if work is None else bytes(work.frame), mark=mark)

    # Decisions

    def _receivers(self, frame: bytes, ifindex: int) -> Receivers:
        environment = self.tables.environment
        if ifindex == environment.tap:  # a frame there may have been made for another device
            return Receivers.HOST
        return receivers(frame, environment.hardware.get(ifindex))

    def _read(self, frame: bytes, ifindex: int, mark: int) -> Work | None:
        family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[12:14])
        if family is None:
            return None
        packet = parse_packet(frame, ETHERNET, len(frame), family)
        return None if packet is None else Work(bytearray(frame), packet, ifindex, mark)

    @staticmethod
    def _ours(packet: Packet) -> bool:
        return not (stays_on_link(packet.destination) or stays_on_link(packet.source))

    def _leave(self, work: Work, ingress_ifindex: int) -> Result | None:
        packet = work.packet
        if (refusal := refused(packet)) is not None:
            return self.results.dropped(refusal)
        if work.mark & maps.MARK_MASK == maps.MARK_LOCAL:
            if work.mark & 1:
                return self.results.dropped(Reason.UNCLAIMED)
            work.mark = 0
            return None
        if work.ifindex == self.tables.environment.tap and work.mark & maps.MARK_MASK == maps.MARK_COPY:
            return self._copy(work)
        of_tunnel = packet.source in self.tables.endpoints and parse_tunnel(work.frame, packet) is not None
        if of_tunnel and not ingress_ifindex:
            return None
        if not is_routed(packet.destination) or neighbour_discovery(packet):
            return None
        if not self._ours(packet):
            reason = self._filtered_as_it_leaves(work, ingress_ifindex)
            return self.results.dropped(reason) if reason else None
        work.signalling = work.mark == maps.MARK_SIGNALLING or self.tables.signalling(packet)
        if work.mark == maps.MARK_SIGNALLING or work.mark & maps.MARK_MASK == maps.MARK_ANSWER:
            work.mark = 0
        elif packet.source in self.tables.flow_homes and (reason := self._suspended(work)):
            return self.results.dropped(reason)
        self.tables.from_interface(work)
        if not ingress_ifindex and (reason := self.tables.refused(work, packet.source, FilterPlace.EMISSION)):
            return self.results.dropped(reason)
        decided = self._to_home_address(work) or self._by_source(work, ingress_ifindex)
        if decided is None and (reason := self._unfiltered(work, ingress_ifindex)):
            return self.results.dropped(reason)
        return decided

    def _unfiltered(self, work: Work, ingress_ifindex: int) -> Reason | None:
        """Why a packet that the stack routes to a visitor's link, though it came in no tunnel, or was held, is dropped."""
        if not ingress_ifindex or work.ifindex not in self.tables.environment.access:
            return None
        return self.tables.refused(work, work.packet.destination, FilterPlace.TO_VISITOR)

    def _filtered_as_it_leaves(self, work: Work, ingress_ifindex: int) -> Reason | None:
        """Why a packet that goes into no tunnel, as an address of it is of one link, is dropped."""
        reason = None
        if not ingress_ifindex:
            reason = self.tables.refused(work, work.packet.source, FilterPlace.EMISSION)
        return reason or self._unfiltered(work, ingress_ifindex)

    def _suspended(self, work: Work) -> Reason | None:
        """Why a packet of a home address with captured flows does not leave."""
        packet, following = work.packet, self.tables.following
        if not following.find_transport(work, packet.source, of_source=True) or following.lacks_first(work):
            return work.refused
        key = flow_key(flow_of(work), from_home=True)
        return Reason.SUSPENDED if self.tables.flows.get(key) is FlowVerdict.SUSPEND else None

    def _copy(self, work: Work) -> Result:
        entry = self.tables.bindings.get(work.packet.destination)
        number = work.mark & 0xFFFF
        if entry is None or len(entry.tunnels) < 2 or number >= len(entry.tunnels):
            return self.results.dropped(Reason.STRAY)
        return self._into_tunnel(work, entry.tunnels[number])

    def _from_tunnel(self, work: Work) -> Result | None:
        outer = work.packet
        if outer.unread is Unread.CHAIN:  # raw sockets would get it as a tunnel packet
            return self.results.dropped(Reason.UNREAD_HEADERS)
        if parse_tunnel(work.frame, outer) is None:
            return None
        if work.to_several:
            return self.results.dropped(Reason.LINK_BROADCAST)
        if work.mark & maps.MARK_MASK == maps.MARK_RENEWED:
            work.mark, work.renewed = 0, True
        if outer.fragment:
            if outer.source not in self.tables.sources:
                return self.results.dropped(Reason.UNREGISTERED_SOURCE)
            self.tables.reasons[Reason.TUNNEL_FRAGMENT] += 1
            return self.results.passed(work)
        accepted = self.acceptance.accept(work)
        if accepted is None:
            return self.results.dropped(Reason.MALFORMED_TUNNEL)
        if isinstance(accepted, Result):
            return accepted
        if not copy_congestion(work):
            return self.results.dropped(Reason.CONGESTED)
        if (visited := self._to_visitor(work, accepted)) is not None:
            return visited
        if not self._ours(work.packet):
            return self.results.passed(work)
        if accepted.side is Side.TO_HOME_ADDRESS:
            return self._at_visited(work) or self.local_end.decide(work) or self.results.passed(work)
        return self._to_home_address(work) or self.results.passed(work)

    # Packets to a home address

    def _to_home_address(self, work: Work) -> Result | None:
        entry = self.tables.bindings.get(work.packet.destination)
        result = None
        if entry is not None:
            self.tables.met.append(entry)
            result = self._at_home(work, entry)
            native = entry.verdict is Verdict.NATIVE and not work.egress
            if work.ruled and (_went(result) if result is not None else native):
                self.tables.rules.count(entry.home_address, Place.FLOW_RULES, work.packet, work.rule)
        return result or self.local_end.decide(work)

    def _at_home(self, work: Work, entry: BindingEntry) -> Result | None:
        if entry.peer is not None and maps.address(entry.peer) == work.packet.source:
            if entry.peer_tunnel is None:
                return self.results.dropped(Reason.PEER_UNREACHABLE)
            return self._into_tunnel(work, entry.peer_tunnel)
        if entry.rules:
            work.ruled = True
            taken = self.tables.rules.flow_rule(work, entry)
            if work.refused is not None:
                return self.results.dropped(work.refused)
            if taken is not None:
                return self._by_rule(work, *taken)
        if entry.verdict is not Verdict.ENCAPSULATE:
            return self.results.by_verdict(work, entry.verdict)
        if entry.weights:
            tunnel = self.tables.rules.shared(work, entry)
            refused = work.refused
            return self._into_tunnel(work, tunnel) if refused is None else self.results.dropped(refused)
        return self._to_tunnels(work, entry)

    def _by_rule(self, work: Work, rule: Rule, tunnel: Tunnel | None) -> Result:
        work.rule = rule.identifier
        self.tables.met.append(rule)
        if rule.verdict in WAITING:
            return self.results.hold(work, HeldReason.PAGE)
        if rule.verdict is RuleVerdict.DROP or tunnel is None:
            return self.results.dropped(Reason.RULE_DROPPED)
        return self._into_tunnel(work, tunnel)

    def _locally(self, work: Work, tunnel: Tunnel) -> Result:
        """A tunnel that ends on the host where it begins: as if the packet had just come out of it."""
        work.ends_here = True
        source, end = maps.address(tunnel.source), maps.address(tunnel.destination)
        acceptance = self.acceptance.to_home(
            source, end, work.packet, maps.TO_END, tunnel.gre_key
        ) or self.acceptance.to_home(
            source, end, work.packet, maps.SIDES.index(Side.TO_HOME_ADDRESS), tunnel.gre_key
        )
        if acceptance is not None:
            self.tables.met.append(acceptance)
            self.tables.count(self.tables.acceptance_count, maps.acceptance_key(acceptance), work.packet)
            if (visited := self._to_visitor(work, acceptance)) is not None:
                return visited
        return self._at_visited(work) or self.local_end.decide(work) or self.results.passed_up(work)

    def _at_visited(self, work: Work) -> Result | None:
        entry = self.tables.visited.get(work.packet.destination)
        if entry is None:
            return None
        self.tables.met.append(entry)
        if entry.verdict is not Verdict.ENCAPSULATE:
            return self.results.by_verdict(work, entry.verdict)
        if maps.address(entry.tunnels[0].destination) in self.tables.endpoints:
            return None
        key = rule_key(entry.home_address, Place.VISITED)
        return self.results.encapsulate(work, entry.tunnels[0], self.tables.rules.counts, key)

    def _by_source(self, work: Work, ifindex: int) -> Result | None:
        packet = work.packet
        if work.signalling or self.tables.own(packet.destination) or work.as_itself:
            return None
        key = maps.OUTBOUND_KEY.pack(packet.source, ifindex, 0)
        entry = self.tables.outbound.get(key)
        if entry is None:
            return None
        self.tables.met.append(entry)
        if entry.tunnel.destination in self.tables.state.endpoints:
            if not work.egress or not ifindex:
                self.tables.count(self.tables.outbound_count, key, packet)
            return None
        return self.results.encapsulate(work, entry.tunnel, self.tables.outbound_count, key)

    # Where a packet goes

    def _to_visitor(self, work: Work, acceptance: TunnelAcceptance) -> Result | None:
        """Deliver on the access link; None if the receiver is on this host (R17) or on no link."""
        link = acceptance.delivers_on
        if link is None:
            return None
        if reason := self.tables.refused(work, work.packet.destination, FilterPlace.TO_VISITOR):
            return self.results.dropped(reason)
        hop = acceptance.next_hop
        if hop is not None and maps.address(hop) in self.tables.environment.own:
            return None
        return self.results.deliver(work, self.tables.environment.links[link])

    def _to_tunnels(self, work: Work, entry: BindingEntry) -> Result | None:
        if len(entry.tunnels) > 1:
            if work.forwarded and work.packet.hops <= 1:
                return self.results.expired(work)
            away = [t for t in entry.tunnels if t.destination not in self.tables.state.endpoints]
            if (refused := self.results.too_big_for_one(work, away)) is not None:
                return refused
            decapsulate(work)
            if work.forwarded:
                decrement_hops(work)
                work.packet.hops -= 1
                work.forwarded = False
            for number in range(1, len(entry.tunnels)):
                mark = maps.MARK_COPY | number
                self.copies.append(self._egress(bytes(work.frame), self.tables.environment.tap, 0, mark))
            work.mark = 0
        return self._into_tunnel(work, entry.tunnels[0])

    def _into_tunnel(self, work: Work, tunnel: Tunnel) -> Result:
        """For the home agent's binding of the packet's destination."""
        self.tables.met.append(tunnel)
        if tunnel.destination in self.tables.state.endpoints:
            return self._locally(work, tunnel)
        return self.results.encapsulate(work, tunnel, self.tables.binding_count, work.packet.destination)


def _went(result: Result) -> bool:
    """True if the packet has gone to the target of its rule or binding, or waits by its rule: only then it counts."""
    if result.held is not None:
        return result.held.reason is HeldReason.PAGE
    if result.outcome is Outcome.DROPPED:
        return result.reason in (Reason.RULE_DROPPED, Reason.BINDING_DROP)
    return result.outcome in (Outcome.ENCAPSULATED, Outcome.DELIVERED, Outcome.LOCAL)
