"""Values and actions that decide for one flow of a home address, not for all of it.

Flow rules (R5 to R8), filters (R20, P16), translation (R12) and multicast groups (C4). Nothing here decides or sends.
A selector describes a packet as it is: towards a home address that is its destination, from one it is its source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

Address: TypeAlias = IPv4Address | IPv6Address
Selector: TypeAlias = Ipv4Selector | Ipv6Selector

MAX_RULES = 64  # of one home address and family (feature R6; design: rules are bounded and matched in order)
MAX_CANDIDATES = 4  # of one rule, or of a binding
OTHERWISE_RULE = 0xFEBF  # identifier of the rule for packets to a sleeper that no other rule names


class Encapsulation(Enum):
    """Encapsulation of a tunnel: IP in IP of either family, GRE, UDP (RFC 3519), or minimal (RFC 2004).

    A minimal one takes whole IPv4 packets without options; others go through it as IP in IP.
    """

    __hash__ = object.__hash__  # part of every tunnel; Enum would hash the name each time

    IPIP = "ipip"
    GRE = "gre"
    UDP = "udp"
    MINIMAL = "minimal"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One tunnel as its entrance sees it; ports are used with UDP, the key with GRE.

    A destination that is an end point of tunnels on this very host means no tunnel at all: the packet goes on as if
    it had just been decapsulated there (R17).
    """

    source: Address
    destination: Address
    encapsulation: Encapsulation = Encapsulation.IPIP
    source_port: int = 0
    destination_port: int = 0
    gre_key: int | None = None


class RuleVerdict(Enum):
    """Action for packets that match a flow rule.

    PAGE, AGENT and HOLD are in force while the device is asleep (P14). The kernel has no AGENT: it gets FORWARD.
    """

    FORWARD = "forward"
    DROP = "drop"
    PAGE = "page"  # first paging information (P1): held with the rule's identifier, and the device is paged
    AGENT = "agent"  # second paging information (P2): to an application agent, that is a stand-in
    HOLD = "hold"  # held as by PAGE, and nobody is paged


WAITING = (RuleVerdict.PAGE, RuleVerdict.HOLD)  # their packets wait until the device is awake (P17)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target of a rule. Equal candidates share flows by weight; a flow keeps its candidate (R8)."""

    tunnel: Tunnel
    weight: int = 1  # 1 to 65535


@dataclass(frozen=True, slots=True)
class Rule:
    """A flow rule as the kernel has it: only candidates that are registered, at most MAX_CANDIDATES.

    Rules of a binding are matched in the order given, which is that of their priorities.
    """

    identifier: int  # 1 to 65535, unique for its home address and family
    selector: Selector
    verdict: RuleVerdict
    candidates: tuple[Candidate, ...] = ()


class FilterPlace(Enum):
    """Place of a filter on the path of a home address's packets."""

    TO_VISITOR = "to-visitor"  # access node: about to be delivered on an access link (R20, P16)
    FROM_VISITOR = "from-visitor"  # access node: entered on an access link (R20)
    EMISSION = "emission"  # stand-in: leaves this host, made by a program of this host (R20)


class FilterVerdict(Enum):
    """Action for packets that match a rule of a filter. Those that page are for packets to a visitor alone (P16).

    The data plane reports one of their packets a second (`PageAsked`), for each rule.
    """

    ALLOW = "allow"
    DROP = "drop"
    PAGE = "page"  # a page is asked for, and the packet goes on
    PAGE_AND_DROP = "page-and-drop"

    @property
    def pages(self) -> bool:
        """True if the packets ask for a page."""
        return self in (FilterVerdict.PAGE, FilterVerdict.PAGE_AND_DROP)

    @property
    def drops(self) -> bool:
        """True if the packets end there."""
        return self in (FilterVerdict.DROP, FilterVerdict.PAGE_AND_DROP)


PLAIN_VERDICTS = (FilterVerdict.ALLOW, FilterVerdict.DROP)  # that every filter can have


@dataclass(frozen=True, slots=True)
class FilterRule:
    identifier: int  # 1 to 65535, unique within its filter
    selector: Selector
    verdict: FilterVerdict


@dataclass(frozen=True, slots=True)
class Filter:
    """Rules for one home address at one place, first match wins, at most MAX_RULES; `otherwise` for the rest."""

    home_address: Address
    place: FilterPlace
    rules: tuple[FilterRule, ...]
    otherwise: FilterVerdict = FilterVerdict.ALLOW


@dataclass(frozen=True, slots=True)
class Translation:
    """Packets to the home address get the stand-in's interface address as destination, and answers back (R12).

    With `tunnel` (at the home agent) only packets that go into the tunnel to that address; without it (access node,
    stand-in) those that are delivered here. Addresses are of one family. Only flows that were seen in this direction
    are translated back: flows of the stand-in's host itself are not translated.
    """

    home_address: Address
    interface_address: Address
    tunnel: Address | None = None


@dataclass(frozen=True, slots=True)
class InstallFilter:
    """Add or replace: the key is (home address, place)."""

    filter: Filter


@dataclass(frozen=True, slots=True)
class RemoveFilter:
    home_address: Address
    place: FilterPlace


@dataclass(frozen=True, slots=True)
class InstallTranslation:
    """Add or replace: the key is (home address, tunnel)."""

    translation: Translation


@dataclass(frozen=True, slots=True)
class RemoveTranslation:
    home_address: Address
    tunnel: Address | None = None


@dataclass(frozen=True, slots=True)
class WatchPort:
    """The daemon decides on new TCP connections to this port of a guarded home address."""

    home_address: Address
    port: int


@dataclass(frozen=True, slots=True)
class UnwatchPort:
    home_address: Address
    port: int


@dataclass(frozen=True, slots=True)
class OfferService:
    """Stand-in: a service of this host may answer for every guarded home address (protocol 6 or 17, its port).

    Datagrams and new connections reach it; a live connection of the device, of which this host has no socket, does not.
    """

    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class WithdrawService:
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class ForwardGroup:
    """Access node: forward packets to this multicast group to these links; without links, no more (C4).

    `upstream` is the link on which the host joins the group (IGMP, MLD).
    """

    group: Address
    upstream: str
    links: Sequence[str]


@dataclass(frozen=True, slots=True)
class MembershipChanged:
    """Event at an access node: a visitor of `link` joined or left this multicast group (IGMP, MLD; feature C4).

    `home_address` is the visitor's IPv4 home address, whatever the family of the group: it is identified by the
    link-layer address, for reports have no useful source where the link has no address. A join is reported once, a leave
    whenever it is heard, known or not: after a change of access node the group may have been joined elsewhere.
    """

    link: str
    home_address: Address
    group: Address
    joined: bool


FlowForwarding: TypeAlias = (
    InstallFilter
    | RemoveFilter
    | InstallTranslation
    | RemoveTranslation
    | ForwardGroup
    | OfferService
    | WatchPort
    | UnwatchPort
    | WithdrawService
)
