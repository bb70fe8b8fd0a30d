"""The configuration of one node as values. Made by `locum.node.config.load`, read by everything that starts.

All times are seconds, all sizes bytes, all keys raw bytes. Values only: nothing here touches files.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from locum.node.config.policy_settings import PolicySettings, PoolSettings
from locum.roles.action_values.flows import Filter
from locum.roles.home_agent.binding import AuthorisedStandIn
from locum.roles.mobile_node.handover import OwnStandIn
from locum.roles.profile import Policing
from locum.roles.registrant.configuration import ListeningPort
from locum.roles.registrant.routing import NO_ROUTING, Routing
from locum.roles.rules import KeptRule
from locum.security.association import Association
from locum.sessions.datagrams.keep_alive import KeepAliveRule
from locum.sessions.datagrams.spool import DatagramBounds
from locum.sessions.programs.exclusions import THE_DEFAULT, Exclusions
from locum.wire.control import MAX_SESSIONS

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

_PROFILES = 2048  # home addresses that profiles may add to those that are configured
COAP_PORT = 5683  # RFC 7252 section 12.6 and RFC 8323 section 11.2: the same number on UDP and TCP


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Name and paths of this node."""

    name: str
    interfaces: tuple[str, ...]
    state_dir: Path
    run_dir: Path
    bpf_dir: Path
    log_events: Path | None
    event_bytes: int  # size at which the event file is rotated once
    max_bindings: int | None  # home addresses of both families in the data plane; None: as the roles need
    max_flows: int | None  # connections that are held or guarded at once; None: the same
    hold_packets: int  # that wait in the daemon for all home addresses together
    hold_bytes: int

    @property
    def socket(self) -> Path:
        """The Unix control socket."""
        return self.run_dir / f"{self.name}.sock"

    @property
    def database(self) -> Path:
        """The store."""
        return self.state_dir / f"{self.name}.db"


@dataclass(frozen=True, slots=True)
class ControlAssociation:
    """One OSCORE security context (RFC 8613 section 3) with one peer, tied to home addresses (feature C9)."""

    peer: Address
    sender_id: bytes
    recipient_id: bytes
    secret: bytes = field(repr=False)
    salt: bytes
    home_addresses: tuple[Address, ...]  # that the peer may speak for; empty: none
    may_trigger: bool = False  # whether it may make the stand-in take and release them (C8)
    access_node: bool = (
        False  # another access node: contexts are exchanged with it (C4), of all unless some are named
    )

    @property
    def key(self) -> str:
        """Name of this association in the store and in events."""
        return f"{self.sender_id.hex()}-{self.recipient_id.hex()}-{self.peer}"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """The CoAP end point of this node."""

    address: Address
    port: int
    associations: tuple[ControlAssociation, ...]


@dataclass(frozen=True, slots=True)
class MobileSettings:
    """A home address served by the home agent, with its MN-HA association and its default CoA (R3)."""

    home_address: IPv4Address
    home_address_v6: IPv6Address | None
    association: Association
    default_coa: IPv4Address | None
    mnps: IPv4Address | None
    mnps_v6: IPv6Address | None
    default_coa_by_registration: bool
    default_coa_ruled: bool  # only flow rules send packets there (R6)
    stand_ins: tuple[AuthorisedStandIn, ...]
    rules: tuple[KeptRule, ...]


@dataclass(frozen=True, slots=True)
class AgentKey:
    """The FA-HA association with the agent at `address`."""

    address: IPv4Address
    association: Association


@dataclass(frozen=True, slots=True)
class TraversalSettings:
    """Request of a node behind a NAT for a UDP tunnel (RFC 3519)."""

    mode: str = "off"  # "off", "auto" or "force"
    keepalive: float | None = None  # seconds between keepalives; None: as the home agent says


@dataclass(frozen=True, slots=True)
class HomeAgentSettings:
    address: IPv4Address
    home_prefixes: tuple[Prefix, ...]
    max_lifetime: int
    short_lifetime: int
    max_simultaneous: int
    reverse_tunnel_required: bool
    multipath: bool  # binding identifiers are taken (RFC 7629)
    mobiles: tuple[MobileSettings, ...]
    foreign_agents: tuple[AgentKey, ...]
    pools: tuple[PoolSettings, ...] = ()
    nat_traversal: bool = True  # UDP tunnels to nodes behind a NAT (RFC 3519)
    nat_forced: bool = True  # also to those that ask for one without a NAT
    keepalive_interval: int = 0  # seconds that they are told; 0: their own default
    revocation: bool = True  # RFC 3543, with agents that share an association and co-located nodes
    trigger_on_expiry: bool = (
        False  # stand-ins with an association are asked to take over when a binding has run out
    )


@dataclass(frozen=True, slots=True)
class VisitorKey:
    """The MN-FA association of a visitor, when there is one."""

    home_address: IPv4Address
    association: Association


@dataclass(frozen=True, slots=True)
class StaticVisitor:
    """A home address bound in advance at this access node and delivered to a stand-in (R11)."""

    home_address: IPv4Address
    home_address_v6: IPv6Address | None
    home_agent: IPv4Address
    link: str
    next_hop: IPv4Address
    next_hop_v6: IPv6Address | None
    translate: bool = False  # the home address becomes the next hop's here (R12)
    translated: bool = False  # the home agent has done so


@dataclass(frozen=True, slots=True)
class VisitorProfile:
    """Data about a visitor known in advance at an access node (R20, P16); it moves with the device (C4)."""

    home_address: IPv4Address
    to_visitor: Policing
    from_visitor: Policing
    paging: Policing


@dataclass(frozen=True, slots=True)
class ForeignAgentSettings:
    care_of_address: IPv4Address
    links: tuple[str, ...]
    advertise_interval: float
    registration_lifetime: int
    max_visitors: int
    short_lifetime: int  # of the home agents: a lifetime up to this makes the device not responsible (618)
    challenge: bool
    home_agents: tuple[AgentKey, ...]
    mobiles: tuple[VisitorKey, ...]
    static: tuple[StaticVisitor, ...]
    probe_interval: float = (
        0.0  # seconds between probes of a visitor; 0: none, and nobody is ever taken for lost
    )
    probe_misses: int = 3  # in a row that make a visitor lost
    mnps: tuple[Address, ...] = ()  # stand-ins that are asked to take a lost visitor over, in this order
    open: bool = False  # home agents without an association are served although there are some with one
    revocation: bool = True  # RFC 3543, with home agents that share an association
    traversal: TraversalSettings = TraversalSettings()
    filters: tuple[Filter, ...] = ()  # what visitors may receive and send (R20)
    multicast_link: str | None = None  # where groups of visitors are joined; None: none are (C4)
    profiles: tuple[VisitorProfile, ...] = ()
    tunnel_silence: float = 5.0  # seconds without a packet after which a tunnel 620 ends
    hold_patience: float = 10.0  # seconds that packets wait for a visitor between two access nodes
    registration_required: bool = False  # also of devices with a care-of address of their own (R bit)
    nai: str | None = None  # its own, for advertisements (RFC 3846)
    prefix_lengths: bool = True  # advertisements tell the network of each access link


@dataclass(frozen=True, slots=True)
class MobileNodeSettings:
    home_address: IPv4Address
    home_address_v6: IPv6Address | None
    home_agent: IPv4Address
    links: tuple[str, ...]
    mode: str  # "fa" or "colocated"
    care_of_address: IPv4Address | None  # None: found on the link ("auto"), or the agent's
    lifetime: int
    brief_lifetime: int  # asked for on the way to sleep and back; at most the home agent's short_lifetime
    association: Association
    mnps: Address | None
    foreign_agents: tuple[AgentKey, ...]  # MN-FA associations
    freeze: str  # "auto", "cgroup" or "stop"
    sleep_seconds: float  # bound on a whole takeover or reclaim
    stranded_seconds: float = 5.0  # that a wake may keep programs waiting for the network or the stand-in
    nai: str | None = None  # with it `home_address` may be 0.0.0.0: the home agent assigns one (RFC 2794)
    traversal: TraversalSettings = TraversalSettings()
    stand_ins: tuple[OwnStandIn, ...] = ()  # the one for sleep first
    context_transfer: bool = False  # tells access nodes where its context is (C4)
    routing: Routing = NO_ROUTING  # binding identifier, weight and default CoA that it registers (R3, R8)
    exclusions: Exclusions = THE_DEFAULT  # programs that are never frozen
    listening: tuple[ListeningPort, ...] = ()  # ports, and what new connections meet while it sleeps
    keep_alive: tuple[KeepAliveRule, ...] = ()  # UDP flows whose last datagram the stand-in repeats


@dataclass(frozen=True, slots=True)
class MnpsDevice:
    """A device that the stand-in registers for, under an association of its own with that home agent (R4)."""

    home_address: IPv4Address
    home_address_v6: IPv6Address | None
    home_agent: IPv4Address
    association: Association
    bid: int
    weight: int  # share among equals (R8)


_DATAGRAMS = DatagramBounds()


@dataclass(frozen=True, slots=True)
class MnpsSettings:
    address: IPv4Address
    address_v6: IPv6Address | None
    access_node: IPv4Address
    home_prefixes: tuple[Prefix, ...]
    links: tuple[str, ...]
    memory_bound: int
    disk_bound: int
    max_sessions: int
    spool_dir: Path
    holder: Path | None  # Unix socket of a minimal holder; None: systemd's descriptor store, if there is one
    datagrams: DatagramBounds = _DATAGRAMS  # kept for one UDP session at most
    translate: tuple[Address, ...] = ()  # home addresses that become the stand-in's own address here (R12)
    emission: tuple[Filter, ...] = ()  # what programs of this host may send from home addresses (R20)
    register_via: str = "fa"  # or "colocated"
    lifetime: int = 300  # of its own registrations
    devices: tuple[MnpsDevice, ...] = ()  # that it registers for; none: it gets packets by default CoAs alone
    services: tuple[
        tuple[int, int], ...
    ] = ()  # protocol, port of programs here that may answer for an absent device
    session_least: int = 4 << 20  # bytes that any session may hold ahead of its device
    session_most: int = 1 << 30  # bytes that none may exceed
    device_bytes: int = 1 << 62  # bytes that the sessions of one device may hold
    device_sessions: int = MAX_SESSIONS
    max_held: int = 7 * 86400  # seconds without a byte from the peer after which a session is ended


@dataclass(frozen=True, slots=True)
class Settings:
    """One whole configuration file."""

    file: Path
    node: NodeSettings
    control: ControlSettings | None
    home_agent: HomeAgentSettings | None
    foreign_agent: ForeignAgentSettings | None
    mobile_node: MobileNodeSettings | None
    mnps: MnpsSettings | None
    policy: PolicySettings | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the roles that this host plays."""
        present = {
            "home_agent": self.home_agent,
            "foreign_agent": self.foreign_agent,
            "mobile_node": self.mobile_node,
            "mnps": self.mnps,
        }
        return tuple(name for name, value in present.items() if value is not None)

    @property
    def ends_tunnels(self) -> bool:
        """True if tunnels of the network end at this host; with a foreign agent a mobile node's end there."""
        colocated = self.mobile_node is not None and self.mobile_node.mode == "colocated"
        agent = self.home_agent is not None or self.foreign_agent is not None
        return agent or self.mnps is not None or colocated

    @property
    def asks_policy_from(self) -> IPv4Address | None:
        """The address that policy servers are asked from, and know this node by (NAS-IP-Address)."""
        if self.home_agent is not None:
            return self.home_agent.address
        if self.foreign_agent is not None:
            return self.foreign_agent.care_of_address
        return None if self.mnps is None else self.mnps.address

    @property
    def home_addresses(self) -> int:
        """Largest number of home addresses, of both families, in the data plane."""
        home, foreign = self.home_agent, self.foreign_agent
        mobiles = sum(1 if each.home_address_v6 is None else 2 for each in home.mobiles) if home else 0
        if home is not None:
            mobiles += sum(int(each.last) - int(each.first) + 1 for each in home.pools)
            mobiles += _PROFILES if self.policy is not None else 0
        return mobiles + (2 * (foreign.max_visitors + len(foreign.static)) if foreign else 0)
