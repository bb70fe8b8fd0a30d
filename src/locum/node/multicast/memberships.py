"""Members of multicast groups among the visitors of an access node (C4), by their reports.

Tells the foreign agent (`MembershipChanged`); whether a group is joined and forwarded is its decision. A visitor is known
by its link-layer address. Members are asked when a visitor arrives, and every QUERY_INTERVAL.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from locum.node.clock import boot_seconds
from locum.node.events import EventStream
from locum.node.host.link_watch import LinkWatch
from locum.node.multicast.membership_socket import MembershipSocket
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import MembershipChanged
from locum.roles.action_values.forwarding import NeighbourEntry, RemoveNeighbour
from locum.wire.ip.membership import Group, Membership

QUERY_INTERVAL = 125.0  # seconds (RFC 3376 section 8.2)
MEMBERSHIP_LIFE = 260.0  # seconds (RFC 3376 section 8.4)
MOST_GROUPS = 64  # of one visitor

Visitor = tuple[str, bytes]  # link and link-layer address


class Memberships:
    """Watches `links`. `feed` is called with changes."""

    def __init__(
        self,
        links: tuple[str, ...],
        watch: LinkWatch,
        events: EventStream,
        feed: Callable[[MembershipChanged], None],
    ) -> None:
        self._links, self._watch, self._events, self._feed = links, watch, events, feed
        self._sockets: dict[str, MembershipSocket] = {}
        self._visitors: dict[Visitor, dict[Addr, None]] = {}
        self._members: dict[
            Visitor, dict[Group, float]
        ] = {}  # group -> when it was last reported, seconds since boot
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen on the links that are there. Raises OSError."""
        for link in self._links:
            if self._watch.find(link) is not None:
                self.open_link(link)
        self._turn()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for link in tuple(self._sockets):
            self.close_link(link)

    def open_link(self, link: str) -> None:
        """Listen on a link that exists now, and send a query; no action if it is not one of ours."""
        if link not in self._links:
            return
        if link not in self._sockets:
            opened = MembershipSocket(
                link, lambda layer, found: self._reported(link, layer, found), self._events.count
            )
            self._sockets[link] = opened
            for fileno in opened.filenos():
                asyncio.get_running_loop().add_reader(fileno, opened.read)
        self._query(link)

    def close_link(self, link: str) -> None:
        """The link vanished."""
        closed = self._sockets.pop(link, None)
        if closed is not None:
            for fileno in closed.filenos():
                asyncio.get_running_loop().remove_reader(fileno)
            closed.close()

    # Visitors

    def neighbour(self, entry: NeighbourEntry) -> None:
        """This home address is at that link-layer address; a visitor that is new is asked."""
        visitor = (entry.link, entry.link_layer)
        known = visitor in self._visitors
        self._visitors.setdefault(visitor, {})[entry.address] = None
        if not known:
            self._query(entry.link)

    def remove_neighbour(self, entry: RemoveNeighbour) -> None:
        """The visitor has gone; its groups are handled by the caller."""
        for visitor in [
            v for v, homes in self._visitors.items() if v[0] == entry.link and entry.address in homes
        ]:
            del self._visitors[visitor][entry.address]
            if not self._visitors[visitor]:
                del self._visitors[visitor]
                self._members.pop(visitor, None)

    def _reported(self, link: str, link_layer: bytes, found: tuple[Membership, ...]) -> None:
        homes = self._visitors.get((link, link_layer))
        if homes is None:
            self._events.count("membership-no-visitor")
            return
        home_address = next((home for home in homes if isinstance(home, IPv4Address)), next(iter(homes)))
        members = self._members.setdefault((link, link_layer), {})
        for membership in found:
            known = membership.group in members
            if membership.joined and not known and len(members) >= MOST_GROUPS:
                self._events.count("membership-overflow")
                continue
            if membership.joined:
                members[membership.group] = boot_seconds()
            else:
                members.pop(membership.group, None)
            if not (membership.joined and known):
                self._feed(MembershipChanged(link, home_address, membership.group, membership.joined))

    # Queries

    def _turn(self) -> None:
        """Drop groups without a report for long, and query again."""
        self._timer = asyncio.get_running_loop().call_later(QUERY_INTERVAL, self._turn)
        oldest = boot_seconds() - MEMBERSHIP_LIFE
        for (link, link_layer), members in tuple(self._members.items()):
            gone = tuple(Membership(group, False) for group, seen in members.items() if seen < oldest)
            if gone:
                self._reported(link, link_layer, gone)
        for link in self._sockets:
            self._query(link)

    def _query(self, link: str) -> None:
        opened, known = self._sockets.get(link), self._watch.find(link)
        if opened is None or known is None or not known.up:
            return
        v4 = next((address for address in known.addresses if isinstance(address, IPv4Address)), None)
        v6 = next((e for e in known.addresses if isinstance(e, IPv6Address) and e.is_link_local), None)
        with suppress(OSError):  # the link goes down, or its address is not ready yet
            opened.query(v4, v6)
