"""The configuration of one node as values. Made by `locum.node.config.load`, read by everything that starts.

The settings of a role hold its own configuration, which the reader of its table makes; beside it stands only what the
node needs for itself. All times are seconds, all sizes bytes, all keys raw bytes. Values only: nothing here touches files.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from locum.node.config.policy_settings import PolicySettings
from locum.node.config.uses.traffic import BOUND, UsesSettings
from locum.node.config.wireguard.values import WireGuardSettings
from locum.roles.action_values.emission import Permit
from locum.roles.action_values.flows import Filter
from locum.roles.foreign_agent.configuration import ForeignAgentConfiguration, StaticVisitor
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration, ProfileHomesConfiguration
from locum.roles.location.configuration import LocationConfiguration
from locum.roles.mnps.configuration import StandInConfiguration, StoodInFor
from locum.roles.mobile_node.handover import OwnStandIn
from locum.roles.mobile_node.paging.configuration import NO_PAGING, PagingConfiguration
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.security.association import Association
from locum.sessions.datagrams.keep_alive import KeepAliveRule
from locum.sessions.datagrams.spool import DatagramBounds
from locum.sessions.programs.exclusions import THE_DEFAULT, Exclusions

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
    hold_packets_each: int  # of one home address
    hold_bytes_each: int
    hold_age: int  # seconds; those that waited longer are dropped
    path_mtu_probes: bool  # whether paths of tunnels that large packets take are probed (RFC 8899)

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
    access_node: bool = False  # contexts are exchanged with it (C4), of all visitors unless some are named

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
class PeerKey:
    """An association for registrations with the node at `address`: an agent, or a mobile node by its home address."""

    address: IPv4Address
    association: Association


def by_address(keys: Iterable[PeerKey]) -> dict[Address, Association]:
    """The associations by the address of the peer, as roles take them."""
    return {key.address: key.association for key in keys}


@dataclass(frozen=True, slots=True)
class HomeAgentSettings:
    configuration: HomeAgentConfiguration
    mobiles: tuple[Mobile, ...]
    foreign_agents: tuple[PeerKey, ...]
    homes: ProfileHomesConfiguration  # home addresses beside those of `mobiles`
    broadcast_links: tuple[str, ...] = ()  # of the home network, whose broadcasts mobile nodes may ask for

    @property
    def broadcast_addresses(self) -> tuple[IPv4Address, ...]:
        """Those of the home networks."""
        return tuple(network.broadcast_address for network in self.configuration.networks)


class SourceCheck(Enum):
    """How an access node checks the source addresses of packets on its access links (RFC 2827)."""

    OFF = "off"
    ADDRESS = "address"
    HARDWARE = "hardware"  # visitors' packets by their hardware addresses too


@dataclass(frozen=True, slots=True)
class ForeignAgentSettings:
    configuration: ForeignAgentConfiguration  # its links have their addresses when the node starts
    home_agents: tuple[PeerKey, ...]
    mobiles: tuple[PeerKey, ...]  # MN-FA associations of visitors
    static: tuple[StaticVisitor, ...]
    prefix_lengths: bool  # advertisements tell the network of each access link
    source_check: SourceCheck
    source_networks: tuple[
        IPv4Network | IPv6Network, ...
    ] = ()  # of hosts behind access links, besides the links' own

    @property
    def links(self) -> tuple[str, ...]:
        """Names of its access links."""
        return tuple(link.name for link in self.configuration.links)


@dataclass(frozen=True, slots=True)
class MobileNodeSettings:
    configuration: MobileNodeConfiguration
    foreign_agents: tuple[PeerKey, ...]  # MN-FA associations
    freeze: str  # "auto", "cgroup" or "stop"
    sleep_seconds: float  # bound on a whole takeover or reclaim
    stand_ins: tuple[OwnStandIn, ...]  # the one for sleep first
    exclusions: Exclusions = THE_DEFAULT  # programs that are never frozen
    keep_alive: tuple[KeepAliveRule, ...] = ()  # UDP flows whose last datagram the stand-in repeats
    accept_seconds: float = 60.0  # that a connection of a proxy waits for its program
    paging: PagingConfiguration = NO_PAGING  # what shall wake it, besides wishes
    uses: UsesSettings = BOUND  # programs that use the home address
    suspend: bool = True  # asleep before the host is suspended, awake after it


_DATAGRAMS = DatagramBounds()


@dataclass(frozen=True, slots=True)
class AppLimits:
    """Of the process of one application proxy."""

    memory: int = 256 << 20  # bytes of address space
    processor: int = 3600  # seconds of processor time in its life
    disk: int = 1 << 30  # bytes of the files of one proxy, and of all that a device sends
    days: int = 30  # after which files without use are removed
    trust: Path | None = None  # certificates of authorities besides the host's
    emission: tuple[Permit, ...] | None = None  # that any proxy may send; None: all


@dataclass(frozen=True, slots=True)
class MnpsSettings:
    configuration: StandInConfiguration
    links: tuple[str, ...]
    memory_bound: int
    disk_bound: int
    spool_dir: Path
    holder: Path | None  # Unix socket of a minimal holder; None: systemd's descriptor store, if there is one
    datagrams: DatagramBounds = _DATAGRAMS  # kept for one UDP session at most
    session_least: int = 4 << 20  # bytes that any session may hold ahead of its device
    session_most: int = 1 << 30  # bytes that none may exceed
    app_limits: AppLimits = AppLimits()
    app_dir: Path = Path("/var/lib/locum/apps")  # files of proxies

    @property
    def devices(self) -> tuple[StoodInFor, ...]:
        """The devices that it registers for; none: it gets packets by default care-of addresses alone."""
        registration = self.configuration.registration
        return () if registration is None else registration.devices


@dataclass(frozen=True, slots=True)
class LocationSettings:
    configuration: LocationConfiguration


_ROLE = {"role": True}
"""Marks the settings of a role among the fields of `Settings`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One whole configuration file."""

    file: Path
    node: NodeSettings
    control: ControlSettings | None
    home_agent: HomeAgentSettings | None = field(metadata=_ROLE)
    foreign_agent: ForeignAgentSettings | None = field(metadata=_ROLE)
    mobile_node: MobileNodeSettings | None = field(metadata=_ROLE)
    mnps: MnpsSettings | None = field(metadata=_ROLE)
    location: LocationSettings | None = field(default=None, metadata=_ROLE)
    policy: PolicySettings | None = None
    wireguard: WireGuardSettings | None = None
    warnings: tuple[str, ...] = ()  # for the operator: it can be used, and should be changed

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the roles that this host plays."""
        return tuple(name for name in ROLES if getattr(self, name) is not None)

    @property
    def is_router(self) -> bool:
        """True if this host forwards packets of others."""
        return self.home_agent is not None or self.foreign_agent is not None

    @property
    def ends_tunnels(self) -> bool:
        """True if tunnels of the network end at this host; with a foreign agent a mobile node's end there."""
        colocated = self.mobile_node is not None and self.mobile_node.configuration.colocated
        agent = self.home_agent is not None or self.foreign_agent is not None
        return agent or self.mnps is not None or colocated

    @property
    def asks_policy_from(self) -> IPv4Address | None:
        """The address that policy servers are asked from, and know this node by (NAS-IP-Address)."""
        if self.home_agent is not None:
            return self.home_agent.configuration.address
        if self.foreign_agent is not None:
            return self.foreign_agent.configuration.care_of_address
        return None if self.mnps is None else self.mnps.configuration.address

    @property
    def bound_addresses(self) -> tuple[tuple[str, str, Address], ...]:
        """The addresses of this host that sockets are bound to, each with its table and key."""
        found: list[tuple[str, str, Address]] = []
        if self.control is not None:
            found.append(("control", "address", self.control.address))
        if self.home_agent is not None:
            found.append(("home_agent", "address", self.home_agent.configuration.address))
        if self.foreign_agent is not None:
            care_of_address = self.foreign_agent.configuration.care_of_address
            found.append(("foreign_agent", "care_of_address", care_of_address))
        if self.mnps is not None:
            found.append(("mnps", "address", self.mnps.configuration.address))
        return tuple(found)

    @property
    def carried_addresses(self) -> tuple[Address, ...]:
        """The addresses that this host has wherever it is: of a device, and of a home agent behind a 1:1 NAT."""
        mobile = () if self.mobile_node is None else self.mobile_node.configuration.home_addresses
        public = None if self.home_agent is None else self.home_agent.configuration.public_address
        found: tuple[Address | None, ...] = (*mobile, public)
        return tuple(address for address in found if address is not None and not address.is_unspecified)

    @property
    def home_network(self) -> IPv4Network | None:
        """The one whose broadcasts this device takes, wherever it is."""
        return None if self.mobile_node is None else self.mobile_node.configuration.home_network

    @property
    def home_addresses(self) -> int:
        """Largest number of home addresses, of both families, in the data plane."""
        home = self.home_agent
        mobiles = sum(1 if mobile.home_address_v6 is None else 2 for mobile in home.mobiles) if home else 0
        if home is not None:
            mobiles += sum(int(pool.last) - int(pool.first) + 1 for pool in home.homes.pools)
            mobiles += _PROFILES if self.policy is not None else 0
        return mobiles + self.visited_addresses

    @property
    def emitted(self) -> tuple[Filter, ...]:
        """Filters of what a stand-in's programs send."""
        return () if self.mnps is None else self.mnps.configuration.emission

    @property
    def visited_addresses(self) -> int:
        """Largest number of home addresses of both families that the foreign agent has entries for."""
        foreign = self.foreign_agent
        return 0 if foreign is None else 2 * foreign.configuration.max_visitors + self.static_addresses

    @property
    def static_addresses(self) -> int:
        """Largest number of home addresses of both families that are bound in advance."""
        return 0 if self.foreign_agent is None else 2 * len(self.foreign_agent.static)


ROLES = tuple(entry.name for entry in fields(Settings) if entry.metadata.get("role"))
"""Names of all roles, as in configuration, store and events."""
