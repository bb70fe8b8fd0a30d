"""The forwarding decision in Python: what bpf/locum.bpf.c does with a packet, the same verdict and the same bytes.

It decides by a `ForwardingState` and an `Environment` that stands for what the kernel knows (indices, MTUs). It is
the reference for the test that compares the two, and the explanation of the C. GSO is the kernel's matter and not
modelled.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from locum.dataplane import maps
from locum.dataplane.hold import HeldPacket
from locum.dataplane.maps import HeldReason, Outcome, Reason
from locum.dataplane.parse import (
    GRE,
    ICMP,
    ICMPV6,
    IPIP,
    IPV6_IN,
    MIP_TUNNEL_DATA,
    TCP,
    UDP,
    Packet,
    neighbour_discovery,
    ones_sum,
    parse_packet,
    stays_on_link,
)
from locum.dataplane.state import ForwardingState
from locum.dataplane.translation_model import Translator
from locum.roles.actions import (
    BindingEntry,
    Encapsulation,
    FlowVerdict,
    Side,
    Tunnel,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.control import Flow

ETHERNET = 14
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
OUTER_HOPS = 64
OUR_MARKS = (maps.MARK_OVERHEAD, maps.MARK_RELEASED, maps.MARK_COPY)


class Socket(Enum):
    """What the host's sockets say of a packet; None: nobody has one for it."""

    CONNECTED = "connected"  # TCP in any state but LISTEN
    LISTENING = "listening"  # TCP in LISTEN, or UDP


@dataclass(frozen=True, slots=True)
class Environment:
    """What the kernel knows besides our maps. `route_mtu` is the MTU towards a tunnel's far end, None: no route."""

    tap: int
    links: Mapping[str, int]
    own: frozenset[bytes] = frozenset()
    route_mtu: Callable[[Tunnel], int | None] = lambda _tunnel: 1500
    link_mtu: Callable[[int], int] = lambda _ifindex: 1500
    socket: Callable[[Packet], "Socket | None"] = lambda _packet: None


@dataclass(slots=True)
class Result:
    """What became of a packet. `frame` is meaningful unless it was dropped or held; `ifindex` where it was delivered."""

    outcome: Outcome
    frame: bytes = b""
    reason: Reason = Reason.NONE
    mark: int = 0
    ifindex: int = 0
    held: HeldPacket | None = None


@dataclass(slots=True)
class _Work:
    frame: bytearray
    packet: Packet
    ifindex: int
    mark: int
    forwarded: bool = False
    egress: bool = False
    from_tap: bool = False
    strip: int = 0
    outer_tos: int = 0


@dataclass(slots=True)
class Model:
    """Decides packet by packet; `reasons` and the three counters grow as in the kernel."""

    state: ForwardingState
    environment: Environment
    reasons: Counter[Reason] = field(default_factory=Counter)
    binding_count: Counter[bytes] = field(default_factory=Counter)
    acceptance_count: Counter[bytes] = field(default_factory=Counter)
    outbound_count: Counter[bytes] = field(default_factory=Counter)
    _bindings: dict[bytes, BindingEntry | None] = field(default_factory=dict)
    _flow_homes: set[bytes] = field(default_factory=set)
    _flows: dict[bytes, FlowVerdict] = field(default_factory=dict)
    _endpoints: set[bytes] = field(default_factory=set)
    _acceptances: dict[bytes, TunnelAcceptance] = field(default_factory=dict)
    _outbound: dict[bytes, Tunnel] = field(default_factory=dict)
    translator: Translator = field(init=False)

    def __post_init__(self) -> None:
        state, links = self.state, self.environment.links
        self.translator = Translator(state.translations)
        self._endpoints = {maps.address(a) for a in state.endpoints}
        self._flows = {maps.flow_key(f): v for f, v in state.flows.items()}
        self._flow_homes = {maps.address(f.local) for f in state.flows}
        self._bindings = dict.fromkeys(self._flow_homes)
        self._bindings |= {maps.address(h): e for h, e in state.bindings.items()}
        self._acceptances = {maps.acceptance_key(a): a for a in state.acceptances.values()}
        self._outbound = {
            maps.outbound_key(e.home_address, 0 if e.link is None else links[e.link]): e.tunnel
            for e in state.outbound_entries()
        }

    # The two hooks

    def ingress(self, frame: bytes, ifindex: int, mark: int = 0) -> Result:
        """A frame that arrived on an interface."""
        work = self._read(frame, ifindex, mark)
        if work is None:
            return Result(Outcome.PASSED, frame, mark=mark)
        work.forwarded = True
        if work.packet.destination in self._endpoints:
            return self._from_tunnel(work) or self._passed(work)
        if ifindex == self.environment.tap:
            work.from_tap = True
            work.mark = maps.MARK_RELEASED
        if not self._ours(work.packet):
            return self._passed(work)
        return self._by_binding(work) or self._by_source(work, ifindex) or self._passed(work)

    def egress(self, frame: bytes, ifindex: int, ingress_ifindex: int = 0, mark: int = 0) -> Result:
        """A frame that is about to leave by an interface."""
        work = self._read(frame, ifindex, mark)
        on_tap = ifindex == self.environment.tap
        if work is not None:
            work.egress = True
            result = self._leave(work, ingress_ifindex)
            if result is not None:
                return result
        if on_tap:
            stray = work is not None and self._ours(work.packet)
            return self._dropped(Reason.STRAY if stray else Reason.NONE)
        return Result(Outcome.PASSED, frame if work is None else bytes(work.frame), mark=mark)

    # Decisions

    def _read(self, frame: bytes, ifindex: int, mark: int) -> _Work | None:
        family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[12:14])
        if family is None:
            return None
        packet = parse_packet(frame, ETHERNET, len(frame), family)
        return None if packet is None else _Work(bytearray(frame), packet, ifindex, mark)

    @staticmethod
    def _ours(packet: Packet) -> bool:
        return not (
            stays_on_link(packet.destination) or stays_on_link(packet.source) or neighbour_discovery(packet)
        )

    def _leave(self, work: _Work, ingress_ifindex: int) -> Result | None:
        packet = work.packet
        if packet.source in self._endpoints and parse_tunnel(work.frame, packet) is not None:
            return None
        if work.ifindex == self.environment.tap and work.mark & maps.MARK_MASK == maps.MARK_COPY:
            return self._copy(work)
        if not self._ours(packet):
            return None
        if packet.source in self._flow_homes:
            key = _flow_key(
                packet.source, packet.destination, packet.source_port, packet.destination_port, packet
            )
            if self._flows.get(key) is FlowVerdict.SUSPEND:
                return self._dropped(Reason.SUSPENDED)
        return self._by_binding(work) or self._by_source(work, ingress_ifindex)

    def _copy(self, work: _Work) -> Result:
        entry = self._bindings.get(work.packet.destination)
        number = work.mark & 0xFFFF
        if entry is None or not 1 <= number < len(entry.tunnels):
            return self._dropped(Reason.STRAY)
        return self._encapsulate(work, entry.tunnels[number], self.binding_count, work.packet.destination)

    def _accept(self, work: _Work) -> TunnelAcceptance | Result | None:
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
        for home, side in (
            (inner.destination, Side.TO_HOME_ADDRESS),
            (inner.source, Side.FROM_HOME_ADDRESS),
        ):
            key = maps.ACCEPTANCE_KEY.pack(outer.source, home, maps.SIDES.index(side), 0)
            acceptance = self._acceptances.get(key)
            if acceptance is not None:
                work.packet, work.strip, work.outer_tos = inner, shape.inner - outer.offset, outer.tos
                self._count(self.acceptance_count, key, inner)
                return acceptance
        found = self.translator.back(work.frame, inner, in_tunnel=True)
        if found is not None:
            key = maps.ACCEPTANCE_KEY.pack(
                outer.source, found.key[0], maps.SIDES.index(Side.FROM_HOME_ADDRESS), 0
            )
            acceptance = self._acceptances.get(key)
            if acceptance is not None:
                self.translator.translate_back(work.frame, inner, found)
                work.packet, work.strip, work.outer_tos = inner, shape.inner - outer.offset, outer.tos
                self._count(self.acceptance_count, key, inner)
                return acceptance
        return self._dropped(Reason.UNREGISTERED_SOURCE)

    def _from_tunnel(self, work: _Work) -> Result | None:
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
        if not _copy_congestion(work):
            return self._dropped(Reason.CONGESTED)
        if accepted.link is not None:
            return self._deliver(work, self.environment.links[accepted.link])
        if self._ours(work.packet):
            result = self._by_binding(work)
            if result is not None:
                return result
        return self._passed(work)

    def _by_binding(self, work: _Work) -> Result | None:
        packet = work.packet
        if packet.destination not in self._bindings:
            return self._to_interface(work)
        entry = self._bindings[packet.destination]
        guarded = entry is not None and entry.verdict is Verdict.GUARD
        if not work.egress and (guarded or packet.destination in self._flow_homes):
            result = self._by_flow(work)
            if result is not None:
                return result
        if entry is None:
            return self._to_interface(work)
        if entry.peer is not None and maps.address(entry.peer) == packet.source:
            if entry.peer_tunnel is None:
                return self._dropped(Reason.PEER_UNREACHABLE)
            return self._encapsulate(work, entry.peer_tunnel, self.binding_count, packet.destination)
        result = self._by_verdict(work, entry) or self._to_interface(work)
        return result or (None if work.egress or not guarded else self._guard(work))

    def _to_interface(self, work: _Work) -> Result | None:
        """What is delivered to this host, at the stand-in's own address (R12)."""
        packet = work.packet
        local = None if work.egress else self.translator.interface(packet.destination)
        if local not in self.environment.own or (local == packet.destination and not work.strip):
            return None
        done = self.translator.towards(work.frame, packet, None)
        if isinstance(done, Reason):
            return self._dropped(done)
        return self._passed(work) if done else None

    def _guard(self, work: _Work) -> Result:
        if work.packet.protocol in (ICMP, ICMPV6) or self._has_socket(work):
            return self._passed(work)
        return self._dropped(Reason.NO_SESSION)

    def _has_socket(self, work: _Work) -> bool:
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
        whole = packet.payload + 20 <= packet.offset + packet.length
        return offered and whole and work.frame[packet.payload + 13] & 0x16 == 0x02

    def _by_flow(self, work: _Work) -> Result | None:
        packet = work.packet
        key = _flow_key(
            packet.destination, packet.source, packet.destination_port, packet.source_port, packet
        )
        verdict = self._flows.get(key)
        if verdict is None:
            return None
        if verdict is FlowVerdict.DELIVER or work.from_tap:
            return self._passed(work)
        return self._hold(work, HeldReason.FLOW)

    def _by_verdict(self, work: _Work, entry: BindingEntry) -> Result | None:
        match entry.verdict:
            case Verdict.ENCAPSULATE:
                return self._to_tunnels(work, entry)
            case Verdict.HOLD | Verdict.REPORT:
                if work.from_tap or work.mark & maps.MARK_MASK == maps.MARK_RELEASED:
                    return None
                reported = entry.verdict is Verdict.REPORT
                return self._hold(work, HeldReason.REPORT if reported else HeldReason.BINDING)
            case Verdict.DROP:
                return self._dropped(Reason.BINDING_DROP)
        return None

    def _by_source(self, work: _Work, ifindex: int) -> Result | None:
        packet = work.packet
        own = packet.destination in self._endpoints or packet.destination in self.environment.own
        if packet.registration or own:
            return None
        found = self.translator.back(work.frame, packet, in_tunnel=False)
        if found is not None:
            self.translator.translate_back(work.frame, packet, found)
        elif self.translator.is_own_name(packet.source):
            return None
        key = maps.OUTBOUND_KEY.pack(packet.source, ifindex, 0)
        tunnel = self._outbound.get(key)
        if tunnel is None:
            return None
        return self._encapsulate(work, tunnel, self.outbound_count, key)

    # What is done with a packet

    def _dropped(self, reason: Reason) -> Result:
        if reason is not Reason.NONE:
            self.reasons[reason] += 1
        return Result(Outcome.DROPPED, reason=reason)

    def _passed(self, work: _Work, outcome: Outcome = Outcome.PASSED) -> Result:
        _decapsulate(work)
        return Result(outcome, bytes(work.frame), mark=work.mark)

    def _hold(self, work: _Work, reason: HeldReason) -> Result:
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

    def _deliver(self, work: _Work, ifindex: int) -> Result:
        packet = work.packet
        if packet.hops <= 1 or stays_on_link(packet.destination):
            return self._passed(work)
        conflict = self.translator.towards(work.frame, packet, None)
        if isinstance(conflict, Reason):
            return self._dropped(conflict)
        _decapsulate(work)
        if len(work.frame) > self.environment.link_mtu(ifindex) + ETHERNET:
            return self._passed(work)
        _decrement_hops(work)
        return Result(Outcome.DELIVERED, bytes(work.frame), mark=work.mark, ifindex=ifindex)

    def _to_tunnels(self, work: _Work, entry: BindingEntry) -> Result | None:
        if len(entry.tunnels) > 1:
            if work.forwarded and work.packet.hops <= 1:
                return self._passed(work)
            _decapsulate(work)
            if work.forwarded:
                _decrement_hops(work)
                work.forwarded = False
            for number in range(1, len(entry.tunnels)):
                self.egress(bytes(work.frame), self.environment.tap, 0, maps.MARK_COPY | number)
            work.mark = 0
        return self._encapsulate(work, entry.tunnels[0], self.binding_count, work.packet.destination)

    def _encapsulate(self, work: _Work, tunnel: Tunnel, counter: Counter[bytes], key: bytes) -> Result:
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
            _decrement_hops(work)
        conflict = self.translator.towards(work.frame, packet, tunnel.destination)
        if isinstance(conflict, Reason):
            return self._dropped(conflict)
        _decapsulate(work)
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


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a tunnel packet: where the inner packet starts and its family; family 0 is malformed."""

    inner: int
    family: int


def parse_tunnel(frame: bytes | bytearray, packet: Packet) -> Shape | None:
    """The shape of what is addressed to an end point, None when it is no tunnel packet."""
    at = packet.payload
    match packet.protocol:
        case protocol if protocol == IPIP:
            return Shape(at, 4)
        case protocol if protocol == IPV6_IN:
            return Shape(at, 6)
        case protocol if protocol == GRE:
            return _parse_gre(frame, at)
        case protocol if protocol == UDP and packet.type == MIP_TUNNEL_DATA:
            family = {IPIP: 4, IPV6_IN: 6}.get(frame[at + 9], 0) if at + 12 <= len(frame) else 0
            return Shape(at + 12, family)
    return None


def _parse_gre(frame: bytes | bytearray, at: int) -> Shape:
    if at + 4 > len(frame):
        return Shape(at, 0)
    flags = int.from_bytes(frame[at : at + 2], "big")
    if flags & 0x4007:
        return Shape(at, 0)
    length = 4 + sum(4 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(bytes(frame[at + 2 : at + 4]), 0)
    return Shape(at + length, family)


def outer_headers(tunnel: Tunnel, packet: Packet) -> bytes:
    """The headers that this tunnel puts before the inner packet (RFC 2003, 2473, 2784, 3519)."""
    inner = IPIP if packet.family == 4 else IPV6_IN
    protocol, shim = inner, b""
    if tunnel.encapsulation is Encapsulation.GRE:
        protocol = GRE
        keyed = tunnel.gre_key is not None
        shim = (b"\x20\x00" if keyed else b"\x00\x00") + ETHERTYPES[packet.family]
        shim += (tunnel.gre_key or 0).to_bytes(4, "big") if keyed else b""
    elif tunnel.encapsulation is Encapsulation.UDP:
        protocol = UDP
        ports = maps.port(tunnel.source_port) + maps.port(tunnel.destination_port)
        shim = ports + (packet.length + 12).to_bytes(2, "big") + bytes((0, 0, MIP_TUNNEL_DATA, inner, 0, 0))
    length = packet.length + len(shim)
    if isinstance(tunnel.destination, IPv4Address):
        head = bytes((0x45, packet.tos)) + (length + 20).to_bytes(2, "big") + b"\x00\x00\x40\x00"
        head += bytes((OUTER_HOPS, protocol))
        addresses = tunnel.source.packed + tunnel.destination.packed
        return head + (ones_sum(head + addresses) ^ 0xFFFF).to_bytes(2, "big") + addresses + shim
    word = 0x60000000 | packet.tos << 20
    head = word.to_bytes(4, "big") + length.to_bytes(2, "big") + bytes((protocol, OUTER_HOPS))
    return head + tunnel.source.packed + tunnel.destination.packed + shim


def _flow_key(local: bytes, peer: bytes, local_port: int, peer_port: int, packet: Packet) -> bytes:
    return maps.FLOW_KEY.pack(local, peer, maps.port(local_port), maps.port(peer_port), packet.protocol)


def _decapsulate(work: _Work) -> None:
    if work.strip:
        del work.frame[ETHERNET : ETHERNET + work.strip]
        work.frame[12:14] = ETHERTYPES[work.packet.family]
        work.packet.payload -= work.strip
        work.packet.offset = ETHERNET
        work.strip = 0


def _add16(one: int, other: int) -> int:
    total = one + other
    return (total & 0xFFFF) + (total >> 16)


def _replace(work: _Work, at: int, new: bytes) -> None:
    """Replace two bytes of an IPv4 header and its checksum (RFC 1624)."""
    place = work.packet.offset + 10
    old = int.from_bytes(work.frame[at : at + 2], "little")
    check = int.from_bytes(work.frame[place : place + 2], "little")
    total = _add16(_add16(check ^ 0xFFFF, old ^ 0xFFFF), int.from_bytes(new, "little"))
    work.frame[place : place + 2] = (total ^ 0xFFFF).to_bytes(2, "little")
    work.frame[at : at + 2] = new


def _decrement_hops(work: _Work) -> None:
    packet = work.packet
    if packet.family == 6:
        work.frame[packet.offset + 7] = packet.hops - 1
        return
    at = packet.offset + 8
    _replace(work, at, bytes((packet.hops - 1, work.frame[at + 1])))


def _copy_congestion(work: _Work) -> bool:
    """RFC 6040 section 4.2; False: the packet must be dropped."""
    packet = work.packet
    if work.outer_tos & 3 != 3 or packet.tos & 3 == 3:
        return True
    if not packet.tos & 3:
        return False
    packet.tos |= 3
    at = packet.offset
    if packet.family == 6:
        work.frame[at + 1] |= 0x30
    else:
        _replace(work, at, bytes((work.frame[at], work.frame[at + 1] | 3)))
    return True
