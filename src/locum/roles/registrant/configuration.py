"""Configuration of a mobile node, or of a stand-in that registers. Values only."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.roles.action_values.addresses import Addr
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
    nai: str | None = None  # identifies a node whose home agent assigns the home address (RFC 2794)
    listening: tuple[ListeningPort, ...] = ()  # and what new connections meet while it sleeps

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
