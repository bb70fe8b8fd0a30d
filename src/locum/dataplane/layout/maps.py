"""Layouts of map keys and values: values of `roles.action_values` <-> bytes. The same as bpf/locum.h; a test compares by BTF.

Knows no system call and no policy. Interfaces are indices here; the caller has the names.
"""

import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Rule, Tunnel
from locum.roles.action_values.forwarding import (
    BindingEntry,
    FlowVerdict,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.control import Flow

MAPPED = b"\x00" * 10 + b"\xff\xff"
NO_ADDRESS = b"\x00" * 16
MAX_TUNNELS = 4

ENCAPSULATIONS = (Encapsulation.IPIP, Encapsulation.GRE, Encapsulation.UDP, Encapsulation.MINIMAL)
VERDICTS = (
    Verdict.NATIVE,
    Verdict.ENCAPSULATE,
    Verdict.HOLD,
    Verdict.REPORT,
    Verdict.DROP,
    Verdict.GUARD,
)
FLOW_VERDICTS = (FlowVerdict.DELIVER, FlowVerdict.HOLD, FlowVerdict.SUSPEND)
SIDES = (Side.TO_HOME_ADDRESS, Side.FROM_HOME_ADDRESS)

FLAG_FLOWS, FLAG_PEER, FLAG_PEER_TUNNEL, FLAG_IMPLICIT = 1, 2, 4, 8
FLAG_RULES, FLAG_SHARED, FLAG_LOCAL, FLAG_VISITED = 16, 32, 64, 128
ENDPOINT, OWN = 1, 2
HERE, ENDS, BY_ROUTE = 1, 2, 4  # flags of an acceptance
SERVED, CHECKED, BY_HARDWARE = 1, 2, 4  # flags of an access link
TO_END = 2  # beside SIDES

# Tables that are used besides those whose size `Limits` sets.
FIXED_TABLES = (
    "settings",
    "own_addresses",
    "reasons",
    "found_sysctls",
    "services",
    "logged",
    "groups",
    "group_values",
    "changes",
    "renewal",
    "renewed_flows",
    "inner_mtus",
)

MARK_MASK = 0xFFFF0000
MARK_MTU = 0x10C00000
MARK_RELEASED = 0x10C10000
MARK_COPY = 0x10C20000
MARK_LOCAL = 0x10C30000
MARK_ANSWER = 0x10C40000
MARK_VOID = 0x10C50000
MARK_SIGNALLING = 0x10C60000
MARK_RENEWED = 0x10C70000
MARK_SENT = 0x10C80000
MARK_PROXY = 0x10C90000


def too_big_mark(number: int, slot: int) -> int:
    """Mark of packets too big for a tunnel: at the node with this number in its namespace, by the table in this place."""
    return MARK_MTU | number << 8 | slot


TUNNEL = struct.Struct("<16s16sI2s2sBBB5x")
BINDING_HEAD = struct.Struct("<BBBB4x")
WEIGHTS = struct.Struct("<4H")
ACCEPTANCE_KEY = struct.Struct("<16s16sHHI")
ACCEPTANCE = struct.Struct("<16sIH2s")
OUTBOUND_KEY = struct.Struct("<16sII")
FLOW_KEY = struct.Struct("<16s16s2s2sB3x")
SOURCE = struct.Struct("<QQ")
SENDER = struct.Struct("<6s2x")
LINK_NETWORK = struct.Struct("<II16s")
COUNTER = struct.Struct("<QQ")
SETTINGS = struct.Struct("<II")
OWN_ADDRESSES = struct.Struct("<Q")
RENEWAL = struct.Struct("<I6s2x")
HELD = struct.Struct("<40sQIIIHH")
LOGGED = struct.Struct("<QQII")
WORD = struct.Struct("<I")
PATH = struct.Struct("<QII")
INNER_MTUS = struct.Struct("<16I")


class Outcome(IntEnum):
    """Result of the program for a packet (`enum locum_outcome`)."""

    PASSED = 0
    DROPPED = 1
    HELD = 2
    DELIVERED = 3
    ENCAPSULATED = 4
    TOO_BIG = 5
    LOCAL = 6
    RENEWING = 7


class Reason(IntEnum):
    """Reason of a drop (`enum locum_reason`). TUNNEL_FRAGMENT and FRAGMENT_FOLLOWS are counted, but are no drops.

    GROUP_NOT_FORWARDED is one copy for one link; the packet itself passes.
    """

    NONE = 0
    UNREGISTERED_SOURCE = 1
    MALFORMED_TUNNEL = 2
    NO_SESSION = 3
    PEER_UNREACHABLE = 4
    BINDING_DROP = 5
    SUSPENDED = 6
    HOLD_OVERFLOW = 7
    NO_ROUTE = 8
    TOO_LARGE = 9
    ENCAPSULATION_FAILED = 10
    DECAPSULATION_FAILED = 11
    CONGESTED = 12
    STRAY = 13
    TUNNEL_FRAGMENT = 14
    TRANSLATION_CONFLICT = 15
    TRANSLATION_FAILED = 16
    GROUP_NOT_FORWARDED = 17
    RULE_DROPPED = 18
    FILTERED_TO_VISITOR = 19
    FILTERED_FROM_VISITOR = 20
    FILTERED_EMISSION = 21
    FRAGMENT_FOLLOWS = 22
    FRAGMENT_UNKNOWN = 23
    UNCLAIMED = 24
    FROM_ACCESS_LINK = 25
    UNREAD_HEADERS = 26
    LINK_BROADCAST = 27
    LINK_SCOPE = 28
    FRAGMENT_CONFLICT = 29
    SPOOFED_SOURCE = 30
    MAPPED_ADDRESS = 31
    ROUTING_HEADER = 32
    TUNNEL_FRAGMENT_LIMIT = 33
    HOLD_SHARE = 34
    TUNNEL_LOOP = 35
    NESTING_LIMIT = 36
    BAD_CHECKSUM = 37

    @property
    def label(self) -> str:
        """The displayed name, "unregistered-source"."""
        return self.name.lower().replace("_", "-")


class HeldReason(IntEnum):
    """Reason why a packet came up (`enum locum_held_reason`)."""

    BINDING = 0
    FLOW = 1
    REPORT = 2
    OPENING = 3  # a SYN to a watched port
    PATH = 4  # no packet: the path to the end of a tunnel is narrow
    PIECES = 5  # a tunnel packet that leaves in fragments
    LARGE = 6  # no packet: inner addresses of one that is large in its tunnel
    HEADERS = 7  # first bytes of a packet to a guarded home address that nothing takes
    PAGE = 8  # a flow rule pages the device
    CLASSIFIED = 9  # first bytes of a packet whose rule of a filter asks for a page


@dataclass(frozen=True, slots=True)
class Counter:
    """Packets and their bytes, inner headers included."""

    packets: int = 0
    bytes: int = 0


_MAPPED = int.from_bytes(MAPPED + bytes(4), "big")


def address(value: Addr) -> bytes:
    """16 bytes, IPv4 mapped."""
    number = int(value) | _MAPPED if isinstance(value, IPv4Address) else int(value)
    return number.to_bytes(16, "big")


def own_bits(addresses: Iterable[Addr]) -> int:
    """A set bit for each address, as `own_address` in bpf/tables.h computes it: the value of "own_addresses"."""
    bits = 0
    for found in addresses:
        high, low = struct.unpack("<QQ", address(found))
        bits |= 1 << ((high ^ low) * 0x9E3779B97F4A7C15 % 2**64 >> 58)
    return bits


def address_of(data: bytes) -> Addr:
    return IPv4Address(data[12:]) if data[:12] == MAPPED else IPv6Address(data)


def port(value: int) -> bytes:
    return value.to_bytes(2, "big")


def tunnel(value: Tunnel, endpoints: Collection[Addr] = ()) -> bytes:
    """The tunnel of the value, None for a tunnel to one of this host's own `endpoints`."""
    return TUNNEL.pack(
        address(value.source),
        address(value.destination),
        value.gre_key or 0,
        port(value.source_port),
        port(value.destination_port),
        ENCAPSULATIONS.index(value.encapsulation),
        value.gre_key is not None,
        value.destination in endpoints,
    )


@lru_cache(4096)
def tunnel_of(data: bytes) -> Tunnel:
    """Many entries have one tunnel."""
    source, destination, key, source_port, destination_port, encapsulation, has_key, _ = TUNNEL.unpack(data)
    return Tunnel(
        address_of(source),
        address_of(destination),
        ENCAPSULATIONS[encapsulation],
        int.from_bytes(source_port, "big"),
        int.from_bytes(destination_port, "big"),
        key if has_key else None,
    )


NO_TUNNEL = b"\x00" * TUNNEL.size


def overhead(value: Tunnel) -> int:
    """Bytes that this tunnel may put before a packet; a minimal one those of IP in IP, as before fragments."""
    size = 20 if isinstance(value.destination, IPv4Address) else 40
    if value.encapsulation is Encapsulation.GRE:
        return size + (4 if value.gre_key is None else 8)
    return size + 12 if value.encapsulation is Encapsulation.UDP else size


@dataclass(frozen=True, slots=True)
class Beside:
    """Entries of a home address beside its home agent's entry."""

    flows: bool = False
    local: Verdict | None = None
    visited: bool = False

    @property
    def flags(self) -> int:
        return (
            (FLAG_FLOWS if self.flows else 0)
            | (FLAG_LOCAL if self.local is not None else 0)
            | (FLAG_VISITED if self.visited else 0)
        )


NOTHING_BESIDE = Beside()


def binding(entry: BindingEntry | None, beside: Beside = NOTHING_BESIDE, first: bytes | None = None) -> bytes:
    """Value of the binding table; without an entry, the implicit one that only has others beside it.

    `first` is the entry's first tunnel, where it has been packed already.
    """
    flags = beside.flags
    local = 0 if beside.local is None else VERDICTS.index(beside.local)
    if entry is None:
        return BINDING_HEAD.pack(0, 0, flags | FLAG_IMPLICIT, local) + NO_TUNNEL
    if entry.peer is not None:
        flags |= FLAG_PEER | (FLAG_PEER_TUNNEL if entry.peer_tunnel is not None else 0)
    flags |= (FLAG_RULES if entry.rules else 0) | (FLAG_SHARED if entry.weights else 0)
    head = BINDING_HEAD.pack(VERDICTS.index(entry.verdict), len(entry.tunnels), flags, local)
    if first is None:
        first = tunnel(entry.tunnels[0]) if entry.tunnels else NO_TUNNEL
    return head + first


def binding_more(entry: BindingEntry, endpoints: Collection[Addr] = ()) -> bytes | None:
    """The rarer half of a binding, or None when it has none."""
    if entry.peer is None and len(entry.tunnels) < 2 and not entry.weights:
        return None
    others = [tunnel(value, endpoints) for value in entry.tunnels[1:]]
    others += [NO_TUNNEL] * (MAX_TUNNELS - 1 - len(others))
    peer = NO_ADDRESS if entry.peer is None else address(entry.peer)
    peer_tunnel = NO_TUNNEL if entry.peer_tunnel is None else tunnel(entry.peer_tunnel, endpoints)
    weights = WEIGHTS.pack(*entry.weights, *(0,) * (MAX_TUNNELS - len(entry.weights)))
    return peer + peer_tunnel + b"".join(others) + weights


def binding_of(
    key: bytes, value: bytes, more: bytes | None, rules: tuple[Rule, ...] = ()
) -> BindingEntry | None:
    """The home agent's entry that was written, or None for an implicit one."""
    verdict, count, flags, _ = BINDING_HEAD.unpack_from(value)
    if flags & FLAG_IMPLICIT:
        return None
    tunnels = [value[BINDING_HEAD.size :]] if count else []
    peer, peer_tunnel = None, None
    weights: tuple[int, ...] = ()
    if more is not None:
        parts = [more[16 + i * TUNNEL.size : 16 + (i + 1) * TUNNEL.size] for i in range(MAX_TUNNELS)]
        tunnels += parts[1:count] if count > 1 else []
        peer = address_of(more[:16]) if flags & FLAG_PEER else None
        peer_tunnel = tunnel_of(parts[0]) if flags & FLAG_PEER_TUNNEL else None
        if flags & FLAG_SHARED:
            weights = WEIGHTS.unpack(more[16 + MAX_TUNNELS * TUNNEL.size :])[:count]
    return BindingEntry(
        address_of(key),
        VERDICTS[verdict],
        tuple(tunnel_of(t) for t in tunnels),
        peer,
        peer_tunnel,
        rules if flags & FLAG_RULES else (),
        weights,
    )


def local_end_of(key: bytes, value: bytes) -> BindingEntry | None:
    """Decode the part of the value about packets that end on this host."""
    _, _, flags, local = BINDING_HEAD.unpack_from(value)
    return BindingEntry(address_of(key), VERDICTS[local], at=Stage.LOCAL) if flags & FLAG_LOCAL else None


def acceptance_key(value: TunnelAcceptance) -> bytes:
    side = SIDES.index(value.side) if value.end is None else TO_END
    return packed_acceptance_key(
        address(value.outer_source), address(value.home_address), side, value.gre_key
    )


def packed_acceptance_key(outer_source: bytes, home_address: bytes, side: int, gre_key: int | None) -> bytes:
    """Key of the acceptances of a tunnel; `gre_key` is None for one without a key."""
    return ACCEPTANCE_KEY.pack(outer_source, home_address, side, gre_key is not None, gre_key or 0)


_ANYWHERE = bytes(ACCEPTANCE.size)  # decapsulated from any port, and looked up again


def acceptance(value: TunnelAcceptance, ifindex: int, *, here: bool = False, ends: bool = False) -> bytes:
    """`here`: the next hop is this host itself. `ends`: there is one for an end point as well."""
    next_hop = value.end or value.next_hop
    if next_hop is None and not ifindex and not ends and not value.source_port:
        return _ANYWHERE
    by_route = BY_ROUTE if value.by_route and ifindex else 0
    flags = by_route | (HERE if here else 0) | (ENDS if ends else 0)
    packed = NO_ADDRESS if next_hop is None else address(next_hop)
    return ACCEPTANCE.pack(packed, ifindex, flags, port(value.source_port))


def acceptance_of(
    key: bytes, value: bytes, names: dict[int, str], hardware: Callable[[Addr, int], bytes | None]
) -> TunnelAcceptance:
    """`hardware` gives the hardware address that a visitor has on the link of an index."""
    outer, home, side, keyed, number = ACCEPTANCE_KEY.unpack(key)
    gre_key = number if keyed else None
    next_hop, ifindex, flags, source_port = ACCEPTANCE.unpack(value)
    hop = None if next_hop == NO_ADDRESS else address_of(next_hop)
    if side == TO_END:
        return TunnelAcceptance(
            address_of(outer),
            address_of(home),
            Side.TO_HOME_ADDRESS,
            source_port=int.from_bytes(source_port, "big"),
            end=hop,
            gre_key=gre_key,
        )
    return TunnelAcceptance(
        address_of(outer),
        address_of(home),
        SIDES[side],
        names.get(ifindex) if ifindex else None,
        hop,
        int.from_bytes(source_port, "big"),
        hardware=hardware(address_of(home), ifindex)
        if ifindex and SIDES[side] is Side.TO_HOME_ADDRESS
        else None,
        gre_key=gre_key,
        by_route=bool(flags & BY_ROUTE),
    )


def link_network(ifindex: int, network: IPv4Network | IPv6Network) -> bytes:
    """A network on a link, as a key of the prefixes there."""
    bits = network.prefixlen + (96 if isinstance(network, IPv4Network) else 0)
    return LINK_NETWORK.pack(32 + bits, ifindex, address(network.network_address))


def outbound_key(home_address: Addr, ifindex: int) -> bytes:
    return OUTBOUND_KEY.pack(address(home_address), ifindex, 0)


def flow_key(flow: Flow) -> bytes:
    return FLOW_KEY.pack(
        address(flow.local), address(flow.peer), port(flow.local_port), port(flow.peer_port), flow.protocol
    )


def flow_of(key: bytes) -> Flow:
    local, peer, local_port, peer_port, protocol = FLOW_KEY.unpack(key)
    return Flow(
        protocol,
        address_of(local),
        int.from_bytes(local_port, "big"),
        address_of(peer),
        int.from_bytes(peer_port, "big"),
    )


def flow_verdict(value: FlowVerdict) -> bytes:
    return WORD.pack(FLOW_VERDICTS.index(value))


def counter_of(data: bytes | None) -> Counter:
    return Counter() if data is None else Counter(*COUNTER.unpack(data))


def path(destination: bytes, mtu: int, until: int) -> bytes:
    """Value of the table of paths, with its seal; `until` in nanoseconds since boot."""
    high, low = struct.unpack("<QQ", destination)
    mixed = (high ^ until) * 0x9E3779B97F4A7C15 ^ (low ^ mtu) * 0xFF51AFD7ED558CCD
    return PATH.pack(until, mtu, mixed >> 32 & 0xFFFFFFFF)
