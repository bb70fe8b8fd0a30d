"""The forwarding decision in Python: what bpf/locum.bpf.c does with a packet, the same verdict and the same bytes.

It decides by a `ForwardingState` and an `Environment` that stands for what the kernel knows (indices, MTUs). It is
the reference for the test that compares the two, and the explanation of the C. GSO is the kernel's matter and not
modelled.
"""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TypeAlias

from locum.dataplane.hold import HeldPacket
from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import HeldReason, Outcome, Reason
from locum.dataplane.layout.rules import Place, rule_key
from locum.dataplane.model.environment import Environment, Result, Socket
from locum.dataplane.model.frames import (
    ETHERNET,
    ETHERTYPES,
    Work,
    copy_congestion,
    decapsulate,
    decrement_hops,
    flow_key,
    outer_headers,
    parse_tunnel,
)
from locum.dataplane.model.parse import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Packet,
    neighbour_discovery,
    parse_packet,
    stays_on_link,
)
from locum.dataplane.model.rules import RuleModel
from locum.dataplane.model.translation import Translator
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    Rule,
    RuleVerdict,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    BindingEntry,
    FlowVerdict,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.control import Flow

OUR_MARKS = (maps.MARK_OVERHEAD, maps.MARK_RELEASED, maps.MARK_COPY, maps.MARK_LOCAL)
FILTER_REASONS = {
    FilterPlace.TO_VISITOR: Reason.FILTERED_TO_VISITOR,
    FilterPlace.FROM_VISITOR: Reason.FILTERED_FROM_VISITOR,
    FilterPlace.EMISSION: Reason.FILTERED_EMISSION,
}

# What a decision met on its way, in order: for explanations, which need more than the result.
Met: TypeAlias = (
    BindingEntry | Rule | Tunnel | TunnelAcceptance | OutboundEntry | FlowVerdict
    | tuple[Filter, FilterRule | None] | Translation
)  # fmt: skip


@dataclass(slots=True)
class Model:
    """Decides packet by packet; `reasons` and the counters grow as in the kernel. `met` is about the last packet."""

    state: ForwardingState
    environment: Environment
    reasons: Counter[Reason] = field(default_factory=Counter)
    binding_count: Counter[bytes] = field(default_factory=Counter)
    acceptance_count: Counter[bytes] = field(default_factory=Counter)
    outbound_count: Counter[bytes] = field(default_factory=Counter)
    met: list[Met] = field(default_factory=list)
    translator: Translator = field(init=False)
    rules: RuleModel = field(init=False)
    _flow_homes: set[bytes] = field(default_factory=set)
    _flows: dict[bytes, FlowVerdict] = field(default_factory=dict)
    _endpoints: set[bytes] = field(default_factory=set)
    _bindings: dict[bytes, BindingEntry] = field(default_factory=dict)
    _visited: dict[bytes, BindingEntry] = field(default_factory=dict)
    _local_ends: dict[bytes, BindingEntry] = field(default_factory=dict)
    _acceptances: dict[bytes, TunnelAcceptance] = field(default_factory=dict)
    _outbound: dict[bytes, OutboundEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        state, links = self.state, self.environment.links
        self.translator = Translator(state.translations)
        self._endpoints = {maps.address(a) for a in state.endpoints}
        self._flows = {maps.flow_key(f): v for f, v in state.flows.items()}
        self._flow_homes = {maps.address(f.local) for f in state.flows}
        self._bindings = {maps.address(h): e for h, e in state.bindings.items()}
        self._visited = {maps.address(h): e for h, e in state.visited.items()}
        self._local_ends = {maps.address(h): e for h, e in state.local_ends.items()}
        self._acceptances = {maps.acceptance_key(a): a for a in state.acceptances.values()}
        self.rules = RuleModel(state.filters.values(), self.reasons, self.environment.now)
        self._outbound = {
            maps.outbound_key(e.home_address, 0 if e.link is None else links[e.link]): e
            for e in state.outbound_entries()
        }

    # The two hooks

    def ingress(self, frame: bytes, ifindex: int, mark: int = 0) -> Result:
        """A frame that arrived on an interface."""
        self.met.clear()
        work = self._read(frame, ifindex, mark)
        if work is None:
            return Result(Outcome.PASSED, frame, mark=mark)
        work.forwarded = True
        packet = work.packet
        if packet.destination in self._endpoints:
            return self._from_tunnel(work) or self._passed(work)
        if ifindex == self.environment.tap:
            if mark == maps.MARK_LOCAL | 1:
                return self._at_local_end(work) or self._passed(work, Outcome.LOCAL)
            work.from_tap = True
            work.mark = maps.MARK_RELEASED
        if not self._ours(packet):
            return self._passed(work)
        self._from_interface(work)
        policed = not (self._own(packet.destination) or work.from_tap or packet.registration)
        if policed and not self._allowed(work, packet.source, FilterPlace.FROM_VISITOR):
            return self._dropped(Reason.FILTERED_FROM_VISITOR)
        decided = self._to_home_address(work)
        if decided is None and work.from_tap:
            # what has waited here follows a visitor that is elsewhere now (620)
            decided = self._at_visited(work)
        return decided or self._by_source(work, ifindex) or self._passed(work)

    def egress(self, frame: bytes, ifindex: int, ingress_ifindex: int = 0, mark: int = 0) -> Result:
        """A frame that is about to leave by an interface."""
        self.met.clear()
        return self._egress(frame, ifindex, ingress_ifindex, mark)

    def _egress(self, frame: bytes, ifindex: int, ingress_ifindex: int, mark: int) -> Result:
        work = self._read(frame, ifindex, mark)
        on_tap = ifindex == self.environment.tap
        if work is not None:
            work.egress = True
            result = self._leave(work, ingress_ifindex)
            if result is not None:
                return result
            mark = work.mark
        if on_tap:
            stray = work is not None and self._ours(work.packet)
            return self._dropped(Reason.STRAY if stray else Reason.NONE)
        return Result(Outcome.PASSED, frame if work is None else bytes(work.frame), mark=mark)

    # Decisions

    def _read(self, frame: bytes, ifindex: int, mark: int) -> Work | None:
        family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[12:14])
        if family is None:
            return None
        packet = parse_packet(frame, ETHERNET, len(frame), family)
        return None if packet is None else Work(bytearray(frame), packet, ifindex, mark)

    @staticmethod
    def _ours(packet: Packet) -> bool:
        return not (
            stays_on_link(packet.destination) or stays_on_link(packet.source) or neighbour_discovery(packet)
        )

    def _own(self, address: bytes) -> bool:
        return address in self._endpoints or address in self.environment.own

    def _leave(self, work: Work, ingress_ifindex: int) -> Result | None:
        packet = work.packet
        if work.mark & maps.MARK_MASK == maps.MARK_LOCAL:
            if work.mark & 1:
                return self._dropped(Reason.UNCLAIMED)
            work.mark = 0
            return None
        if packet.source in self._endpoints and parse_tunnel(work.frame, packet) is not None:
            return None
        if work.ifindex == self.environment.tap and work.mark & maps.MARK_MASK == maps.MARK_COPY:
            return self._copy(work)
        if not self._ours(packet):
            return None
        if work.mark & maps.MARK_MASK == maps.MARK_ANSWER:
            work.mark = 0
        elif packet.source in self._flow_homes:
            key = flow_key(
                packet.source, packet.destination, packet.source_port, packet.destination_port, packet
            )
            if self._flows.get(key) is FlowVerdict.SUSPEND:
                return self._dropped(Reason.SUSPENDED)
        self._from_interface(work)
        if not ingress_ifindex and not self._allowed(work, packet.source, FilterPlace.EMISSION):
            return self._dropped(Reason.FILTERED_EMISSION)
        return self._to_home_address(work) or self._by_source(work, ingress_ifindex)

    def _copy(self, work: Work) -> Result:
        entry = self._bindings.get(work.packet.destination)
        number = work.mark & 0xFFFF
        if entry is None or not 1 <= number < len(entry.tunnels):
            return self._dropped(Reason.STRAY)
        return self._into_tunnel(work, entry.tunnels[number])

    def _accept(self, work: Work) -> TunnelAcceptance | Result | None:
        """Judge a whole tunnel packet to one of our end points; `work` is then about the inner packet.

        None: malformed. A result: dropped and counted.
        """
        outer = work.packet
        shape = parse_tunnel(work.frame, outer)
        end = outer.offset + outer.length
        if shape is None or shape.family == 0 or shape.inner > end:
            return None
        inner = parse_packet(bytes(work.frame), shape.inner, end, shape.family)
        if inner is None:
            return None
        acceptance = self._of_tunnel(outer, inner)
        if acceptance is not None:
            if not _comes_right(outer, acceptance):
                return self._dropped(Reason.UNREGISTERED_SOURCE)
            if acceptance.side is Side.TO_HOME_ADDRESS and work.ifindex in self.environment.access:
                return self._dropped(Reason.FROM_ACCESS_LINK)
            work.packet, work.strip, work.outer_tos = inner, shape.inner - outer.offset, outer.tos
            self._count(self.acceptance_count, maps.acceptance_key(acceptance), inner)
            self.met.append(acceptance)
            return acceptance
        found = self.translator.back(work.frame, inner, in_tunnel=True)
        if found is not None:
            key = maps.ACCEPTANCE_KEY.pack(
                outer.source, found.key[0], maps.SIDES.index(Side.FROM_HOME_ADDRESS), 0
            )
            acceptance = self._acceptances.get(key)
            if acceptance is not None:
                self.translator.translate_back(work.frame, inner, found)
                if not _comes_right(outer, acceptance):
                    return self._dropped(Reason.UNREGISTERED_SOURCE)
                work.packet, work.strip, work.outer_tos = inner, shape.inner - outer.offset, outer.tos
                self._count(self.acceptance_count, key, inner)
                return acceptance
        return self._dropped(Reason.UNREGISTERED_SOURCE)

    def _of_tunnel(self, outer: Packet, inner: Packet) -> TunnelAcceptance | None:
        to, from_home = (maps.SIDES.index(side) for side in (Side.TO_HOME_ADDRESS, Side.FROM_HOME_ADDRESS))
        source, end = outer.source, outer.destination
        return (
            self._to_home(source, end, inner, to)
            or self._acceptances.get(maps.ACCEPTANCE_KEY.pack(source, inner.source, from_home, 0))
            or self._to_home(source, end, inner, maps.TO_END)
        )

    def _to_home(self, source: bytes, end: bytes, inner: Packet, side: int) -> TunnelAcceptance | None:
        """With TO_END, or beside what is found without, the acceptance of the end point goes before (R17)."""
        found = self._acceptances.get(maps.ACCEPTANCE_KEY.pack(source, inner.destination, side, 0))
        if side != maps.TO_END:
            return found and (self._to_home(source, end, inner, maps.TO_END) or found)
        at_end = found is not None and found.end is not None and maps.address(found.end) == end
        return found if at_end else None

    def _from_tunnel(self, work: Work) -> Result | None:
        outer = work.packet
        if parse_tunnel(work.frame, outer) is None:
            return None
        if outer.fragment:
            self.reasons[Reason.TUNNEL_FRAGMENT] += 1
            return self._passed(work)
        accepted = self._accept(work)
        if accepted is None:
            return self._dropped(Reason.MALFORMED_TUNNEL)
        if isinstance(accepted, Result):
            return accepted
        if not copy_congestion(work):
            return self._dropped(Reason.CONGESTED)
        if (visited := self._to_visitor(work, accepted)) is not None:
            return visited
        if not self._ours(work.packet):
            return self._passed(work)
        if accepted.side is Side.TO_HOME_ADDRESS:
            return self._at_visited(work) or self._at_local_end(work) or self._passed(work)
        return self._to_home_address(work) or self._passed(work)

    # Packets to a home address

    def _to_home_address(self, work: Work) -> Result | None:
        entry = self._bindings.get(work.packet.destination)
        result = None
        if entry is not None:
            self.met.append(entry)
            result = self._at_home(work, entry)
            native = entry.verdict is Verdict.NATIVE and not work.egress
            if work.ruled and (_went(result) if result is not None else native):
                self.rules.count(entry.home_address, Place.FLOW_RULES, work.packet, work.rule)
        return result or self._at_local_end(work)

    def _at_home(self, work: Work, entry: BindingEntry) -> Result | None:
        if entry.peer is not None and maps.address(entry.peer) == work.packet.source:
            if entry.peer_tunnel is None:
                return self._dropped(Reason.PEER_UNREACHABLE)
            return self._into_tunnel(work, entry.peer_tunnel)
        if entry.rules:
            work.ruled = True
            taken = self.rules.flow_rule(work, entry)
            if taken is not None:
                return self._by_rule(work, *taken)
        if entry.verdict is not Verdict.ENCAPSULATE:
            return self._by_verdict(work, entry.verdict)
        if entry.weights:
            return self._into_tunnel(work, self.rules.shared(work, entry))
        return self._to_tunnels(work, entry)

    def _by_rule(self, work: Work, rule: Rule, tunnel: Tunnel | None) -> Result:
        work.rule = rule.identifier
        self.met.append(rule)
        if rule.verdict is RuleVerdict.DROP or tunnel is None:
            return self._dropped(Reason.RULE_DROPPED)
        return self._into_tunnel(work, tunnel)

    def _allowed(self, work: Work, home: bytes, place: FilterPlace) -> bool:
        """What the filter of this home address at this place says, if there is one."""
        decided = self.rules.filtered(work, home, place)
        if decided is None:
            return True
        self.met.append(decided)
        found, rule = decided
        verdict = found.otherwise if rule is None else rule.verdict
        return verdict is FilterVerdict.ALLOW

    def _locally(self, work: Work, tunnel: Tunnel) -> Result:
        """A tunnel that ends on the host where it begins: as if the packet had just come out of it."""
        work.ends_here = True
        source, end = maps.address(tunnel.source), maps.address(tunnel.destination)
        acceptance = self._to_home(source, end, work.packet, maps.TO_END) or self._to_home(
            source, end, work.packet, maps.SIDES.index(Side.TO_HOME_ADDRESS)
        )
        if acceptance is not None:
            self.met.append(acceptance)
            self._count(self.acceptance_count, maps.acceptance_key(acceptance), work.packet)
            if (visited := self._to_visitor(work, acceptance)) is not None:
                return visited
        return self._at_visited(work) or self._at_local_end(work) or self._passed_up(work)

    def _at_visited(self, work: Work) -> Result | None:
        entry = self._visited.get(work.packet.destination)
        if entry is None:
            return None
        self.met.append(entry)
        if entry.verdict is not Verdict.ENCAPSULATE:
            return self._by_verdict(work, entry.verdict)
        if maps.address(entry.tunnels[0].destination) in self._endpoints:
            return None
        key = rule_key(entry.home_address, Place.VISITED)
        return self._encapsulate(work, entry.tunnels[0], self.rules.counts, key)

    def _at_local_end(self, work: Work) -> Result | None:
        destination = work.packet.destination
        if work.egress:
            return None
        entry = self._local_ends.get(destination)
        guarded = entry is not None and entry.verdict is Verdict.GUARD
        result = self._by_flow(work) if guarded or destination in self._flow_homes else None
        if result is not None:
            return result
        if entry is not None:
            self.met.append(entry)
            result = self._by_verdict(work, entry.verdict)
        result = result or self._to_interface(work)
        return result or (self._guard(work) if guarded else None)

    def _to_interface(self, work: Work) -> Result | None:
        """What is delivered to this host, at the stand-in's own address (R12)."""
        packet = work.packet
        local = self.translator.interface(packet.destination)
        if local not in self.environment.own or (local == packet.destination and not work.strip):
            return None
        done = self._translate(work, None)
        if isinstance(done, Reason):
            return self._dropped(done)
        return self._passed_up(work) if done else None

    def _guard(self, work: Work) -> Result:
        if work.packet.protocol in (ICMP, ICMPV6):
            return self._passed_up(work)
        if self._opens_watched(work):
            return self._passed_up(work) if work.from_tap else self._hold(work, HeldReason.OPENING)
        if self._has_socket(work):
            return self._passed_up(work)
        return self._dropped(Reason.NO_SESSION)

    def _opens_watched(self, work: Work) -> bool:
        """A new connection to a port whose connections the daemon decides on."""
        packet = work.packet
        watched = (maps.address_of(packet.destination), packet.destination_port) in self.state.watched
        return packet.protocol == TCP and not packet.later_fragment and watched and self._opens(work)

    @staticmethod
    def _opens(work: Work) -> bool:
        packet = work.packet
        whole = packet.payload + 20 <= packet.offset + packet.length
        return whole and work.frame[packet.payload + 13] & 0x16 == 0x02

    def _has_socket(self, work: Work) -> bool:
        """A connection or an offered service of this host: bpf/service.h."""
        packet = work.packet
        if packet.later_fragment or packet.protocol not in (TCP, UDP):
            return False
        offered = (packet.protocol, packet.destination_port) in self.state.services
        socket = self.environment.socket(packet)
        if packet.protocol == UDP:
            return offered and socket is not None
        if socket is not Socket.LISTENING:
            return socket is not None
        return offered and self._opens(work)

    def _by_flow(self, work: Work) -> Result | None:
        packet = work.packet
        key = flow_key(packet.destination, packet.source, packet.destination_port, packet.source_port, packet)
        verdict = self._flows.get(key)
        if verdict is None:
            return None
        self.met.append(verdict)
        if verdict is FlowVerdict.DELIVER or work.from_tap:
            return self._passed_up(work)
        return self._hold(work, HeldReason.FLOW)

    def _by_verdict(self, work: Work, verdict: Verdict) -> Result | None:
        """The verdicts that need no tunnel."""
        match verdict:
            case Verdict.HOLD | Verdict.REPORT:
                if work.from_tap or work.mark & maps.MARK_MASK == maps.MARK_RELEASED:
                    return None
                reported = verdict is Verdict.REPORT
                return self._hold(work, HeldReason.REPORT if reported else HeldReason.BINDING)
            case Verdict.DROP:
                return self._dropped(Reason.BINDING_DROP)
        return None

    def _translate(self, work: Work, tunnel: Addr | None) -> Reason | bool:
        """Towards the stand-in (R12): done or not, or why the packet is dropped."""
        done = self.translator.towards(work.frame, work.packet, tunnel)
        if done is True:
            key = (maps.address_of(work.packet.destination), tunnel)
            self.met.append(self.state.translations[key])
        return done

    def _from_interface(self, work: Work) -> None:
        """Flows that a translation sent to this source get their home address back (R12)."""
        packet = work.packet
        if packet.registration or self._own(packet.destination):
            return
        found = self.translator.back(work.frame, packet, in_tunnel=False)
        if found is not None:
            self.translator.translate_back(work.frame, packet, found)
        else:
            work.as_itself = self.translator.is_own_name(packet.source)

    def _by_source(self, work: Work, ifindex: int) -> Result | None:
        packet = work.packet
        if packet.registration or self._own(packet.destination) or work.as_itself:
            return None
        key = maps.OUTBOUND_KEY.pack(packet.source, ifindex, 0)
        entry = self._outbound.get(key)
        if entry is None:
            return None
        self.met.append(entry)
        if entry.tunnel.destination in self.state.endpoints:
            if not work.egress or not ifindex:
                self._count(self.outbound_count, key, packet)
            return None
        return self._encapsulate(work, entry.tunnel, self.outbound_count, key)

    # What is done with a packet

    def _dropped(self, reason: Reason) -> Result:
        if reason is not Reason.NONE:
            self.reasons[reason] += 1
        return Result(Outcome.DROPPED, reason=reason)

    def _passed(self, work: Work, outcome: Outcome = Outcome.PASSED) -> Result:
        decapsulate(work)
        return Result(outcome, bytes(work.frame), mark=work.mark)

    def _passed_up(self, work: Work) -> Result:
        """To the stack of this host; what came out of a tunnel on its own host cannot leave it again."""
        if not work.ends_here:
            return self._passed(work)
        work.mark = maps.MARK_LOCAL | 1
        return self._passed(work, Outcome.LOCAL)

    def _to_visitor(self, work: Work, acceptance: TunnelAcceptance) -> Result | None:
        """On the access link; None when whom it is for is on this very host (R17), or when it is for no link."""
        if acceptance.link is None:
            return None
        if not self._allowed(work, work.packet.destination, FilterPlace.TO_VISITOR):
            return self._dropped(Reason.FILTERED_TO_VISITOR)
        hop = acceptance.next_hop
        if hop is not None and maps.address(hop) in self.environment.own:
            return None
        return self._deliver(work, self.environment.links[acceptance.link])

    def _hold(self, work: Work, reason: HeldReason) -> Result:
        packet = work.packet
        if packet.length > 0xFFFF:
            return self._dropped(Reason.TOO_LARGE)
        flow = Flow(
            packet.protocol,
            maps.address_of(packet.destination),
            packet.destination_port,
            maps.address_of(packet.source),
            packet.source_port,
        )
        data = bytes(work.frame[packet.offset : packet.offset + packet.length])
        return Result(Outcome.HELD, held=HeldPacket(flow, data, reason, 0, work.ifindex))

    def _deliver(self, work: Work, ifindex: int) -> Result:
        packet = work.packet
        if packet.hops <= 1 or stays_on_link(packet.destination):
            return self._passed(work)
        conflict = self._translate(work, None)
        if isinstance(conflict, Reason):
            return self._dropped(conflict)
        decapsulate(work)
        work.mark = maps.MARK_LOCAL
        if len(work.frame) > self.environment.link_mtu(ifindex) + ETHERNET:
            return self._passed(work)
        decrement_hops(work)
        return Result(Outcome.DELIVERED, bytes(work.frame), mark=work.mark, ifindex=ifindex)

    def _to_tunnels(self, work: Work, entry: BindingEntry) -> Result | None:
        if len(entry.tunnels) > 1:
            if work.forwarded and work.packet.hops <= 1:
                return self._passed(work)
            decapsulate(work)
            if work.forwarded:
                decrement_hops(work)
                work.packet.hops -= 1
                work.forwarded = False
            for number in range(1, len(entry.tunnels)):
                self._egress(bytes(work.frame), self.environment.tap, 0, maps.MARK_COPY | number)
            work.mark = 0
        return self._into_tunnel(work, entry.tunnels[0])

    def _into_tunnel(self, work: Work, tunnel: Tunnel) -> Result:
        """For the home agent's binding of the packet's destination."""
        self.met.append(tunnel)
        if tunnel.destination in self.state.endpoints:
            return self._locally(work, tunnel)
        return self._encapsulate(work, tunnel, self.binding_count, work.packet.destination)

    def _encapsulate(self, work: Work, tunnel: Tunnel, counter: Counter[bytes], key: bytes) -> Result:
        packet, overhead = work.packet, maps.overhead(tunnel)
        if packet.length + overhead > 0xFFFF:
            return self._dropped(Reason.TOO_LARGE)
        if work.forwarded and packet.hops <= 1:
            return self._passed(work)
        mtu = self.environment.route_mtu(tunnel)
        if mtu is None:
            return self._dropped(Reason.NO_ROUTE)
        if packet.length + overhead > mtu:
            if work.egress:
                return self._dropped(Reason.TOO_LARGE)
            work.mark = maps.MARK_OVERHEAD | overhead
            return self._passed(work, Outcome.TOO_BIG)
        if work.forwarded:
            decrement_hops(work)
        conflict = self._translate(work, tunnel.destination)
        if isinstance(conflict, Reason):
            return self._dropped(conflict)
        decapsulate(work)
        headers = outer_headers(tunnel, packet)
        v4 = isinstance(tunnel.destination, IPv4Address)
        frame = bytes(work.frame[:12]) + ETHERTYPES[4 if v4 else 6] + headers + bytes(work.frame[ETHERNET:])
        mark = 0 if work.mark & maps.MARK_MASK in OUR_MARKS else work.mark
        self._count(counter, key, packet)
        return Result(Outcome.ENCAPSULATED, frame, mark=mark)

    @staticmethod
    def _count(counter: Counter[bytes], key: bytes, packet: Packet) -> None:
        counter[key] += 1
        counter[b"bytes" + key] += packet.length


def _comes_right(outer: Packet, acceptance: TunnelAcceptance) -> bool:
    """Whether a tunnel packet comes in the UDP datagrams that the acceptance is about, if it is about any."""
    port = outer.source_port if outer.protocol == UDP else 0
    return acceptance.source_port in (0, port)


def _went(result: Result) -> bool:
    """Whether the packet has gone where the rules, or what remains beside them, want it: in what they did, it counts."""
    if result.outcome is Outcome.DROPPED:
        return result.reason in (Reason.RULE_DROPPED, Reason.BINDING_DROP)
    return result.outcome in (Outcome.ENCAPSULATED, Outcome.DELIVERED, Outcome.LOCAL)
