"""The network of Fig. 5 as a value: nodes, links, addresses and the routes that follow from them.

Nothing here touches the machine; `network.py` makes it real. Every link has MTU 1500. IPv6 runs on all wired
links, but every tunnel is drawn between IPv4 addresses, as the care-of addresses are IPv4.
"""

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

MTU = 1500
RADIO_RATE = 200_000_000
"""Bits per second of a radio link, in both directions: a token bucket at each end enforces it."""
ACCESS_RATE = 24_000_000
"""Bits per second of the correspondent's line. It is the slowest link, so that a sender's own queue, which
pushes back without loss, is where packets wait: loss would be counted against a hand-over that did not cause it."""

BROKEN = 100
"""Difference between the host parts of a stranger's second address and its first."""

_DOMAINS4 = ("10.10", "172.20", "192.168")
_DOMAINS6 = ("2001:db8", "fd20:1", "fd30:1")
DOMAIN_BITS = 16
"""Length of the IPv4 prefix that identifies an addressing domain."""


class Place(Enum):
    """Kind of a node in the source text, independent of its daemon's roles."""

    CORRESPONDENT = "correspondent"
    ROUTER = "router"
    HOME_AGENT = "home agent"
    ACCESS_NODE = "access node"
    MOBILE_NODE = "mobile node"
    STAND_IN = "stand-in (MNPS)"
    STRANGER = "stranger"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Node:
    """One host of the lab. `number` is its number in the source text's figures, empty where it has none."""

    name: str
    place: Place
    number: str = ""

    @property
    def forwards(self) -> bool:
        return self.place in (Place.ROUTER, Place.HOME_AGENT, Place.ACCESS_NODE)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: an interface of a node, with its addresses (none on a mobile node's radio)."""

    node: str
    interface: str
    host: int
    """The host part of this end's addresses; 0 for an interface without any."""


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair. `subnet` is the third octet of its IPv4 /24 and the third group of its IPv6 /64."""

    subnet: int
    near: End
    far: End
    rate: int | None = None
    """Bits per second that the near end sends at; a radio link has the same in both directions."""
    radio: bool = False
    private: bool = False
    """Behind an address translator: no other node has a route to it."""
    domain: int = 1
    """The addressing domain that its addresses are from, 1 to 3 (R18)."""

    @property
    def network4(self) -> IPv4Network:
        return IPv4Network(f"{_DOMAINS4[self.domain - 1]}.{self.subnet}.0/24")

    @property
    def network6(self) -> IPv6Network:
        return IPv6Network(f"{_DOMAINS6[self.domain - 1]}:{self.subnet}::/64")

    @property
    def ends(self) -> tuple[tuple[End, End], tuple[End, End]]:
        """Each end with its opposite."""
        return (self.near, self.far), (self.far, self.near)

    def address4(self, end: End) -> IPv4Interface:
        return IPv4Interface((int(self.network4.network_address) + end.host, 24))

    def address6(self, end: End) -> IPv6Interface:
        return IPv6Interface((int(self.network6.network_address) + end.host, 64))


Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Route:
    """A static route of one node; `prefix` None is the default route."""

    prefix: IPv4Network | IPv6Network | None
    via: Address


HOME_NETWORK4 = IPv4Network("10.10.100.0/24")
HOME_NETWORK6 = IPv6Network("2001:db8:100::/64")


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes and links, and the node that the home addresses are routed to."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    home: str | None
    """None: no route leads to the home addresses."""

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def links_of(self, name: str) -> Iterator[tuple[Link, End, End]]:
        """Links of a node as (link, own end, opposite end)."""
        for link in self.links:
            for own, opposite in link.ends:
                if own.node == name:
                    yield link, own, opposite

    def interfaces(self, name: str) -> list[str]:
        return [own.interface for _link, own, _opposite in self.links_of(name)]

    def address4(self, name: str, interface: str | None = None) -> IPv4Address:
        """The IPv4 address of a node's interface (its first one, when none is named)."""
        for link, own, _opposite in self.links_of(name):
            if own.host and interface in (None, own.interface):
                return link.address4(own).ip
        raise KeyError(f"{name} has no address on {interface or 'any interface'}")

    def address6(self, name: str, interface: str | None = None) -> IPv6Address:
        for link, own, _opposite in self.links_of(name):
            if own.host and interface in (None, own.interface):
                return link.address6(own).ip
        raise KeyError(f"{name} has no address on {interface or 'any interface'}")

    def broken4(self, name: str) -> IPv4Address:
        """The second address of a stranger, from which it sends malformed messages only."""
        link, own, _opposite = next(self.links_of(name))
        return link.address4(replace(own, host=own.host + BROKEN)).ip

    def broken6(self, name: str) -> IPv6Address:
        """The same over IPv6."""
        link, own, _opposite = next(self.links_of(name))
        return link.address6(replace(own, host=own.host + BROKEN)).ip

    def radio(self, access_node: str) -> Link:
        """The radio link between an access node and the mobile node."""
        return next(link for link in self.links if link.radio and link.near.node == access_node)

    def owner(self, address: str) -> str | None:
        """The node that has this address on an interface, in text form; None for a home address."""
        for link in self.links:
            for own, _opposite in link.ends:
                if own.host and address in (str(link.address4(own).ip), str(link.address6(own).ip)):
                    return own.node
        return None

    def routes(self, name: str) -> list[Route]:
        """Static routes: a default route for a node with one wired link, shortest paths for the others."""
        wired = [(own, opposite, link) for link, own, opposite in self.links_of(name) if own.host]
        towards = {opposite.node: (link, opposite) for _own, opposite, link in wired if opposite.host}
        if not towards:
            return []
        if len(towards) == 1:
            link, gateway = next(iter(towards.values()))
            return [Route(None, link.address4(gateway).ip), Route(None, link.address6(gateway).ip)]
        first_hop = self._first_hops(name)
        connected = {link.subnet for _own, _opposite, link in wired}
        routes = []
        for link in self.links:
            if link.subnet in connected or link.private:
                continue
            hops = [first_hop[end.node] for end, _ in link.ends if end.host and end.node in first_hop]
            via, gateway = towards[min(hops)[1]]
            routes.append(Route(link.network4, via.address4(gateway).ip))
            routes.append(Route(link.network6, via.address6(gateway).ip))
        if self.home is not None and name != self.home:
            via, gateway = towards[first_hop[self.home][1]]
            routes.append(Route(HOME_NETWORK4, via.address4(gateway).ip))
            routes.append(Route(HOME_NETWORK6, via.address6(gateway).ip))
        return routes

    def _first_hops(self, start: str) -> dict[str, tuple[int, str]]:
        """For every node that is reachable by wire: (distance, the neighbour of `start` to go through)."""
        found: dict[str, tuple[int, str]] = {}
        queue = deque([(start, 0, "")])
        while queue:
            name, distance, through = queue.popleft()
            for link, _own, opposite in self.links_of(name):
                if link.radio or opposite.node == start or opposite.node in found:
                    continue
                found[opposite.node] = (distance + 1, through or opposite.node)
                queue.append((opposite.node, distance + 1, through or opposite.node))
        return found


def _behind(subnet: int, near: End, far: End) -> Link:
    """A device's radio link to a router that translates addresses."""
    return Link(subnet, near, far, rate=RADIO_RATE, radio=True, private=True)


_EXTRAS: dict[str, tuple[tuple[Node, ...], tuple[Link, ...]]] = {
    # a second stand-in; its link to the access node is its own, its care-of address is co-located
    "mnps2": (
        (Node("mnps2", Place.STAND_IN, "502''"),),
        (Link(24, End("an3", "wire1", 1), End("mnps2", "eth0", 2)),),
    ),
    # the policy server, and a second one for when the first is down
    "aaa": (
        (Node("aaa", Place.SERVER), Node("aaa2", Place.SERVER)),
        (
            Link(5, End("hr", "aaa0", 1), End("aaa", "eth0", 2)),
            Link(6, End("hr", "aaa1", 1), End("aaa2", "eth0", 2)),
        ),
    ),
    # a second visitor of the first access node, on a radio link of its own: a stranger inside
    "guest": (
        (Node("guest", Place.STRANGER),),
        (Link(25, End("an1", "radio1", 1), End("guest", "radio0", 7), rate=RADIO_RATE, radio=True),),
    ),
    # a third radio link of the mobile node, behind a router that translates addresses
    "nat": (
        (Node("natr", Place.ROUTER),),
        (
            Link(31, End("mid", "nat0", 1), End("natr", "mid0", 2)),
            _behind(32, End("natr", "lan0", 1), End("mn", "radio2", 0)),
        ),
    ),
}
EXTRAS = tuple(_EXTRAS)


def figure_5(extras: Collection[str] = (), domains: int = 1) -> Topology:
    """Fig. 5: correspondent's network, home network, two radio access nodes, a wired one with the stand-in,
    a router in the middle, and a stranger on a network of its own; and a scenario's additional hosts (EXTRAS).

    The home addresses and the home network are in the first of `domains` (1 to 3) addressing domains, the stand-in's
    network is in the second, the device's access networks are in the last (R18).
    """
    nodes: tuple[Node, ...] = (
        Node("cn", Place.CORRESPONDENT, "542"),
        Node("cnr", Place.ROUTER, "546"),
        Node("mid", Place.ROUTER, "520"),
        Node("hr", Place.ROUTER, "536"),
        Node("ha", Place.HOME_AGENT, "532"),
        Node("an1", Place.ACCESS_NODE, "505"),
        Node("an2", Place.ACCESS_NODE, "505'"),
        Node("mn", Place.MOBILE_NODE, "504"),
        Node("an3", Place.ACCESS_NODE, "505''"),
        Node("mnps", Place.STAND_IN, "504''"),
        Node("evil", Place.STRANGER),
    )
    links: tuple[Link, ...] = (
        Link(1, End("cn", "eth0", 10), End("cnr", "cn0", 1), rate=ACCESS_RATE),
        Link(2, End("cnr", "mid0", 1), End("mid", "cnr0", 2)),
        Link(3, End("mid", "hr0", 1), End("hr", "mid0", 2)),
        Link(4, End("hr", "ha0", 1), End("ha", "eth0", 2)),
        Link(11, End("mid", "an1", 1), End("an1", "mid0", 2)),
        Link(12, End("mid", "an2", 1), End("an2", "mid0", 2)),
        Link(13, End("mid", "an3", 1), End("an3", "mid0", 2)),
        Link(21, End("an1", "radio0", 1), End("mn", "radio0", 0), rate=RADIO_RATE, radio=True),
        Link(22, End("an2", "radio0", 1), End("mn", "radio1", 0), rate=RADIO_RATE, radio=True),
        Link(23, End("an3", "wire0", 1), End("mnps", "eth0", 2)),
        Link(66, End("mid", "evil0", 1), End("evil", "eth0", 2)),
    )
    for name in EXTRAS:
        if name in extras:
            nodes += _EXTRAS[name][0]
            links += _EXTRAS[name][1]
    return Topology(nodes, tuple(replace(link, domain=_domain(link, domains)) for link in links), home="ha")


RENTED = "rented"
"""Name of the network of `rented`, in a plan."""


def rented() -> Topology:
    """One rented server with one public address, two networks behind routers that translate, and two devices.

    The devices get their addresses when they come into a network, as by DHCP.
    """
    return Topology(
        nodes=(
            Node("cn", Place.CORRESPONDENT),
            Node("net", Place.ROUTER),
            Node("srv", Place.SERVER),
            Node("hr", Place.ROUTER),
            Node("cr", Place.ROUTER),
            Node("mn", Place.MOBILE_NODE),
            Node("mn2", Place.MOBILE_NODE),
        ),
        links=(
            Link(1, End("cn", "eth0", 10), End("net", "cn0", 1), rate=ACCESS_RATE),
            Link(4, End("net", "srv0", 1), End("srv", "eth0", 2)),
            Link(31, End("net", "home0", 1), End("hr", "wan0", 2)),
            Link(32, End("net", "cafe0", 1), End("cr", "wan0", 2)),
            _behind(41, End("hr", "lan0", 1), End("mn", "radio0", 0)),
            _behind(42, End("cr", "lan0", 1), End("mn", "radio1", 0)),
            _behind(43, End("hr", "lan1", 1), End("mn2", "radio0", 0)),
        ),
        home=None,
    )


def _domain(link: Link, domains: int) -> int:
    """The addressing domain of a link in a plan of so many."""
    if link.radio or any(own.node in ("an1", "an2") for own, _opposite in link.ends):
        return domains
    return min(domains, 2) if any(own.node == "an3" for own, _opposite in link.ends) else 1
