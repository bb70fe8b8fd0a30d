"""Forwarding values and the actions that install and remove them (features R1, R4, R11, R17). Values only."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, get_args

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.flows import FlowForwarding, Rule, Tunnel
from locum.roles.action_values.paging import DropPaged, ReleasePaged
from locum.wire.control import Flow
from locum.wire.values import value


class Verdict(Enum):
    """Action for a packet to a home address."""

    NATIVE = "native"
    ENCAPSULATE = "encapsulate"
    HOLD = "hold"
    REPORT = "report"
    DROP = "drop"
    GUARD = "guard"  # flows of the flow table and ICMP pass; the rest is dropped and counted "no-session"


class Stage(Enum):
    """Stage of an entry on one host: each part that roles play there has its own table (R17).

    A packet meets the stages in this order and each at most once, so that it cannot go round: HOME, then, if it came
    out of a tunnel for the home address or would go into one that ends on this host, VISITED, then LOCAL.
    """

    __hash__ = object.__hash__  # part of many keys; Enum would hash the name each time

    HOME = "home"  # home agent: the choice of care-of address
    VISITED = "visited"  # access node: a visitor that is elsewhere (620) or not there yet; no rules, no copies, no peer
    LOCAL = "local"  # stand-in or device: packets that end on this host, beside its flow table


@value
class BindingEntry:
    """Packets *to* a home address: at most four tunnels (simultaneous bindings, RFC 5944 section 3.6.1.1).

    Packets whose source is `peer` take `peer_tunnel` instead: the stand-in that talks to the home address means
    the device. Then `rules`, at most MAX_RULES, the first that matches (R5); packets that match none go by verdict and
    tunnels. With `weights`, one a tunnel, flows are shared among the tunnels by weight; without, all get a copy.
    The key of an entry is its home address and `stage`; GUARD is always at LOCAL, ENCAPSULATE never.
    """

    home_address: Addr
    verdict: Verdict
    tunnels: tuple[Tunnel, ...] = ()
    peer: Addr | None = None
    peer_tunnel: Tunnel | None = None
    rules: tuple[Rule, ...] = ()
    weights: tuple[int, ...] = ()
    at: Stage = field(default=Stage.HOME, compare=False)  # tables are compared, each with its own kind

    @property
    def stage(self) -> Stage:
        """The table that the entry belongs to."""
        return Stage.LOCAL if self.verdict is Verdict.GUARD else self.at


class Side(Enum):
    """The inner address of a tunnelled packet that must be the home address."""

    __hash__ = object.__hash__  # part of many keys; Enum would hash the name each time

    TO_HOME_ADDRESS = "to"  # inner destination: at a FA, at a MN or stand-in with a co-located CoA
    FROM_HOME_ADDRESS = "from"  # inner source: at the HA, reverse tunnel (R10)


@value
class TunnelAcceptance:
    """Permission to decapsulate; with `link`, deliver to `next_hop` there, else look the inner packet up again.

    With `source_port` only packets in UDP from that port (RFC 3519), for others may have the NAT's address too.
    With `end` only packets to that end point of ours. It goes before the one that takes it anywhere, and stands beside
    that one, another role's (R17): a stand-in's before the visitor's that it stands in for. It has no link.
    With `gre_key` only GRE packets with this key, else only packets without one (RFC 2890 section 2.1).
    With `link` the home address may send there; `hardware` is the link-layer address that its packets have then.
    With `by_route` that is all that `link` says: the inner packet is looked up again.
    """

    outer_source: Addr
    home_address: Addr
    side: Side
    link: str | None = None
    next_hop: Addr | None = None
    source_port: int = 0
    end: Addr | None = None
    hardware: bytes | None = None
    gre_key: int | None = None
    by_route: bool = False

    @property
    def delivers_on(self) -> str | None:
        """The link on which the inner packet is delivered."""
        return None if self.by_route else self.link


@dataclass(frozen=True, slots=True)
class OutboundEntry:
    """Packets *from* a home address that enter on `link` (FA), or of this host (None): encapsulate."""

    home_address: Addr
    link: str | None
    tunnel: Tunnel


class FlowVerdict(Enum):
    """Action for a flow's packets on the host that owns, takes or leaves it."""

    DELIVER = "deliver"
    HOLD = "hold"
    SUSPEND = "suspend"  # hold incoming packets, drop outgoing ones


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """One flow, seen from its local end, and its verdict."""

    flow: Flow
    verdict: FlowVerdict


@value
class InstallBinding:
    """Add or replace the entry of `entry.home_address` at `entry.stage`."""

    entry: BindingEntry


@dataclass(frozen=True, slots=True)
class RemoveBinding:
    home_address: Addr
    stage: Stage = Stage.HOME


@value
class AcceptTunnel:
    """Add or replace: the key is (outer source, home address, side)."""

    acceptance: TunnelAcceptance


@value
class RefuseTunnel:
    acceptance: TunnelAcceptance


@dataclass(frozen=True, slots=True)
class InstallOutbound:
    entry: OutboundEntry


@dataclass(frozen=True, slots=True)
class RemoveOutbound:
    home_address: Addr
    link: str | None = None  # as of the entry: roles of one host have entries of their own (R17)


@dataclass(frozen=True, slots=True)
class SetFlow:
    entry: FlowEntry


@dataclass(frozen=True, slots=True)
class ClearFlow:
    flow: Flow


@dataclass(frozen=True, slots=True)
class ReleaseHeld:
    """Deliver held packets of this address, in order, that are now allowed (verdict DELIVER or no entry).

    With `ahead` also what is not yet: it leaves by the host's routes while newcomers still wait behind it.
    """

    home_address: Addr
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """`address` is an end point of tunnels on this host."""

    address: Addr


@dataclass(frozen=True, slots=True)
class RemoveLocalEndpoint:
    address: Addr


@dataclass(frozen=True, slots=True)
class NeighbourEntry:
    """FA: `address` is reached on `link` at this link-layer address."""

    link: str
    address: Addr
    link_layer: bytes


@dataclass(frozen=True, slots=True)
class RemoveNeighbour:
    link: str
    address: Addr


@dataclass(frozen=True, slots=True)
class UseAgent:
    """MN: send the packets of its home addresses by this agent on this link (`care_of` is the CoA in use)."""

    link: str
    agent: Addr
    link_layer: bytes | None
    home_addresses: tuple[Addr, ...]
    care_of: Addr
    colocated: bool


@dataclass(frozen=True, slots=True)
class LeaveAgent:
    link: str


# Performed by the data plane. A node gives it those that follow each other together.
ForwardingAction: TypeAlias = (
    InstallBinding | RemoveBinding | AcceptTunnel | RefuseTunnel | InstallOutbound | RemoveOutbound
    | SetFlow | ClearFlow | ReleaseHeld | DropHeld | ReleasePaged | DropPaged | LocalEndpoint | RemoveLocalEndpoint
    | FlowForwarding
)  # fmt: skip
FORWARDING: frozenset[type] = frozenset(get_args(ForwardingAction))

# Performed by the host: its neighbour tables, addresses and routes.
HostAction: TypeAlias = NeighbourEntry | RemoveNeighbour | UseAgent | LeaveAgent
