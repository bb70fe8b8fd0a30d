"""The configuration of a foreign agent as values. The role goes by them; nothing here imports its machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter
from locum.roles.foreign_agent.ways.settings import NO_WAYS, WaysConfiguration
from locum.roles.nat import TraversalMode
from locum.roles.room import FilterPlaces

if TYPE_CHECKING:
    from locum.wire.control.context_blocks import BlockContent

SILENCE = 5.0  # seconds without a packet after which a tunnel ends
PATIENCE = 10.0  # seconds that packets wait for a device


@dataclass(frozen=True, slots=True)
class AccessLink:
    """A link on which the agent serves visitors, and its own address there."""

    name: str
    address: IPv4Address
    prefix_length: int | None = None  # bits of its network there; None: not known, or not to be said


@dataclass(frozen=True, slots=True)
class StaticVisitor:
    """A home address bound in advance: its packets are delivered to the stand-in at `next_hop` (R11).

    `here`: that is an address of this very host (R17). The stand-in's packets come by no link then.
    """

    home_address: IPv4Address
    home_agent: IPv4Address
    link: str
    next_hop: IPv4Address
    home_address_v6: IPv6Address | None = None
    next_hop_v6: IPv6Address | None = None
    translate: bool = False  # the home address becomes the next hop's here (R12)
    translated: bool = False  # the home agent has done so: packets come for the next hop's address
    here: bool = False

    @property
    def sends_on(self) -> str | None:
        """The link of its outbound entries."""
        return None if self.here else self.link

    def next_hop_of(self, home_address: Addr) -> Addr | None:
        """The next hop for one of its home addresses; None: none is given for its family."""
        return self.next_hop if home_address.version == 4 else self.next_hop_v6


class KeyMode(Enum):
    """Keys with mobile nodes that follow from AAA associations; the value is the configuration's spelling."""

    OFF = "off"
    OFFERED = "offered"  # to mobile nodes that ask
    REQUIRED = "required"  # no other mobile node is served, unless its key is configured


@dataclass(frozen=True, slots=True)
class ProbingConfiguration:
    """`interval` in seconds, 0: no probes at all; `misses` in a row make a visitor lost; `stand_ins` in order.

    A visitor whose lifetime is at most `short_lifetime` seconds is on its way to sleep or back: it is let be.
    """

    interval: float = 0.0
    misses: int = 3
    stand_ins: tuple[Addr, ...] = ()
    short_lifetime: int = 10


NO_PROBES = ProbingConfiguration()


@dataclass(frozen=True, slots=True)
class ReportingConfiguration:
    """Location server that is told of visitors (1212); `own` is this node's address for pages: its end point of CoAP."""

    server: Addr | None = None
    own: Addr | None = None


NO_REPORTS = ReportingConfiguration()


@dataclass(frozen=True, slots=True)
class ForeignAgentConfiguration:
    """Times in seconds. `notified` are the addresses of nodes that share an association for 618 with this one."""

    care_of_address: IPv4Address
    links: tuple[AccessLink, ...]
    advertise_interval: float = 1.0
    registration_lifetime: int = 1800
    max_visitors: int = 1024
    challenge: bool = False
    registration_required: bool = False  # R bit: also of devices that have a co-located care-of address
    minimal_encapsulation: bool = True  # M bit (RFC 2004)
    short_lifetime: int = 10  # of the home agents: up to this lifetime a visitor is on its way to sleep (618)
    notified: frozenset[Addr] = frozenset()
    open: bool = False  # home agents without an association are served although there are some with one
    revocation: bool = True  # RFC 3543, with home agents that share an association
    nat_traversal: TraversalMode = TraversalMode.OFF  # RFC 3519, the same
    keepalive: float | None = None  # overrides what home agents say
    probing: ProbingConfiguration = NO_PROBES
    # Others, and the home addresses for which they may speak.
    access_nodes: Mapping[Addr, frozenset[Addr]] = field(default_factory=dict)
    tunnel_silence: float = SILENCE  # after which a tunnel 620 ends
    hold_patience: float = PATIENCE  # that packets wait for a device which is between access nodes
    upstream: str | None = None  # link on which groups are joined for visitors (C4)
    contexts: Mapping[IPv4Address, Sequence["BlockContent"]] = field(default_factory=dict)  # known in advance
    filters: tuple[Filter, ...] = ()  # what visitors may receive and send (R20)
    nai: str | None = None  # the agent's own, for advertisements (RFC 3846)
    assigns: IPv4Address | None = None  # the home agent of devices that name none (RFC 4433)
    visitor_keys: KeyMode = KeyMode.OFFERED  # that follow from AAA associations (RFC 3957)
    reporting: ReportingConfiguration = NO_REPORTS  # of locations of visitors
    answers_pages: bool = False  # for devices that were visitors, once they are called (P11)
    ways: WaysConfiguration = NO_WAYS  # to reach sleeping devices
    policy: bool = False  # a policy server is asked about visitors
    policy_servers: frozenset[Addr] = frozenset()  # to which pages may point (P8)
    room: int | None = None  # the most visitors that the data plane has room for; None: any number
    filter_room: FilterPlaces | None = None  # the data plane's places for their filters; None: any number

    @property
    def may_filter(self) -> bool:
        """True if a visitor may have filters: of the configuration, a profile or a context."""
        return bool(self.policy or self.contexts or self.access_nodes or self.filters)
