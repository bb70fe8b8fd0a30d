"""Configuration of a mobile node, or of a stand-in that registers. Values only."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import AppOrder
from locum.roles.action_values.direct_pages import NOT_DIRECTED, DirectedDevice
from locum.roles.action_values.flows import Encapsulation
from locum.roles.nat import TraversalMode
from locum.roles.registrant.routing import NO_ROUTING, Routing
from locum.security.association import Association
from locum.wire.control import Listener, Policy

BRIEF_LIFETIME = 10  # seconds asked for when the default CoA is to have the packets (R2)
STRANDED = 5.0  # seconds; longer than a hand-over, shorter than a user waits for a program


@dataclass(frozen=True, slots=True)
class ListeningPort:
    """A TCP port of the device's programs, at each of its home addresses: see `Listener`."""

    port: int
    policy: Policy
    most: int
    window: int


@dataclass(frozen=True, slots=True)
class OwnWayConfiguration:
    """The way to reach a device while it sleeps, by name, and its slots in milliseconds (P13)."""

    name: str = "link"
    cycle: int = 0  # 0: it always listens
    length: int = 0
    wake_link: str | None = None  # whose card is armed for Wake-on-LAN
    password: bytes = b""  # of SecureOn


ALWAYS_LISTENS = OwnWayConfiguration()


@dataclass(frozen=True, slots=True)
class MobileNodeConfiguration:
    """Times in seconds. With `colocated` the care-of address is `care_of_address`, or the link's own.

    `on_behalf`: a stand-in registers (601'', feature R4). Its requests come from that address, its own, and only its
    care-of address is taken back; how this host sends is not changed by it.
    """

    home_address: IPv4Address
    home_agent: IPv4Address
    links: tuple[str, ...]
    association: Association
    home_address_v6: IPv6Address | None = None
    colocated: bool = False
    care_of_address: IPv4Address | None = None
    broadcasts: bool = False  # those of the home network are wanted (B bit, section 4.3)
    home_network: IPv4Network | None = None  # whose broadcasts are wanted beside those to all hosts
    # Of tunnels, where their end supports it; IP in IP elsewhere (G and M bits)
    encapsulation: Encapsulation = Encapsulation.IPIP
    lifetime: int = 300
    brief_lifetime: int = BRIEF_LIFETIME
    nat_traversal: TraversalMode = TraversalMode.OFF  # with a co-located care-of address (RFC 3519)
    keepalive: float | None = None  # overrides the home agent's value
    on_behalf: IPv4Address | None = None
    routing: Routing = NO_ROUTING
    context_transfer: bool = False  # tells access nodes where its context is, and where it goes (C4)
    boot: str = ""  # names this boot of the host: frozen processes of an earlier one are gone
    # Seconds that a wake may keep programs waiting for the network or the stand-in
    stranded: float = STRANDED
    # Bytes of a session, and of all, that a wake puts into sockets beyond their receive buffers, for programs that do not
    # read. The total is half of the memory for TCP at which a kernel of a host with 1 GiB feels pressure (tcp_mem).
    unread_beyond: int = 16 << 20
    unread_beyond_total: int = 64 << 20
    dynamic: bool = False  # the home agent is assigned; `home_agent` is the proposal (RFC 4433)
    fixed: bool = False  # with an NAI: the home address is the node's own, and is not assigned
    # Keys with foreign agents follow from the association with the AAA server (RFC 3957)
    agent_keys: bool = False
    nai: str | None = None  # identifies a node whose home agent assigns the home address (RFC 2794)
    listening: tuple[ListeningPort, ...] = ()  # and what new connections meet while it sleeps

    location_server: Addr | None = None  # is told where the device is (1212)
    sip_uris: tuple[str, ...] = ()  # by which the location server knows the device too
    directed: DirectedDevice = NOT_DIRECTED  # decisions about direct pages (1172A)
    own_way: OwnWayConfiguration = ALWAYS_LISTENS
    apps: tuple[AppOrder, ...] = ()  # proxies that attend its sessions at the stand-in while it sleeps

    @property
    def broadcast_addresses(self) -> tuple[IPv4Address, ...]:
        """Destinations of the broadcasts that are wanted."""
        if not self.broadcasts:
            return ()
        own = () if self.home_network is None else (self.home_network.broadcast_address,)
        return (IPv4Address("255.255.255.255"), *own)

    @property
    def only_home_agent(self) -> IPv4Address | None:
        """The home agent, unless one is assigned."""
        return None if self.dynamic else self.home_agent

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Policies of a stand-in for new connections while the device sleeps."""
        return tuple(
            Listener(address, port.port, port.policy, port.most, port.window)
            for port in self.listening
            for address in self.home_addresses
        )

    @property
    def home_addresses(self) -> tuple[Addr, ...]:
        """Of both families."""
        if self.home_address_v6 is None:
            return (self.home_address,)
        return (self.home_address, self.home_address_v6)
