"""Carries registration and agent discovery messages between links and roles (RFC 5944).

`receivers.py` has the table of which role gets a message; this file opens the sockets and chooses the one by which an
answer leaves. Messages are bytes here.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address

from locum.node.config.settings import Settings
from locum.node.events import EventStream
from locum.node.host.link_watch import LinkWatch
from locum.node.performer import Handler
from locum.node.registration.access_link import ALL_MOBILITY_AGENTS, ALL_ROUTERS, ALL_SYSTEMS, LinkSocket
from locum.node.registration.datagrams import ANY
from locum.node.registration.home_links import HomeLinks
from locum.node.registration.receivers import REGISTRATION, Receivers, places
from locum.node.registration.udp_434 import UDP_PORT, RegistrationSocket
from locum.roles import actions as do
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.paging import SendMagicPacket
from locum.roles.actions import Event
from locum.wire.wake_on_lan import ETHERTYPE, PORT, magic_packet

_TUNNEL_DATA = b"\x04"  # RFC 3519 section 3.3
_NOWHERE = IPv4Address(0)
_BROADCAST = IPv4Address(
    "255.255.255.255"
)  # for a visitor without an address, sent to its link-layer address
_EVERYBODY = frozenset((ALL_MOBILITY_AGENTS, _BROADCAST))

# Few hosts send most messages: access nodes, and the home agents behind them.
_parsed = lru_cache(4096)(IPv4Address)
_unpacked = lru_cache(256)(IPv4Address)


@lru_cache(4096)
def _source(address: str, port: int, link: str, destination: bytes) -> Source:
    return Source(_parsed(address), port, link, None, _unpacked(destination))


_text = lru_cache(4096)(str)


def _destination(to: Source) -> tuple[str, int, bytes, int]:
    """Of an answer: address and port, the address that was asked, and no interface."""
    return _text(to.address), to.port, to.local.packed if to.local else ANY, 0


Deliver = Callable[[str, bytes, Source], None]  # (role, message, source)


class RegistrationIo:
    """Sockets of port 434 and of the access links of one host. `deliver` gives a message to a role."""

    def __init__(
        self,
        settings: Settings,
        watch: LinkWatch,
        events: EventStream,
        deliver: Deliver,
        reassembled: Callable[[bytes, int], object],
        feed: Callable[[str, Event], None],
    ) -> None:
        """`feed` gives an event to a role. `reassembled` gets UDP tunnel packets (RFC 3519) that came in fragments, whole, from their IP header on, and
        the index of the link that they came on.
        """
        self._reassembled = reassembled
        self._watch, self._events, self._deliver, self._feed = watch, events, deliver, feed
        foreign, mobile, stand_in = settings.foreign_agent, settings.mobile_node, settings.mnps
        self._receivers = Receivers(places(settings))
        self._links: dict[str, LinkSocket] = {}
        self._names: dict[int, str] = {}  # link names by index, kept while links do not change
        self._care_of = foreign.configuration.care_of_address if foreign else None
        self._mobile_links = mobile.configuration.links if mobile else ()
        self.home_address = mobile.configuration.home_address if mobile else _NOWHERE  # may be assigned later
        self._socket: RegistrationSocket | None = None
        self._home_link_names = settings.home_agent.broadcast_links if settings.home_agent else ()
        self._broadcast_addresses = settings.home_agent.broadcast_addresses if settings.home_agent else ()
        self._home_links: HomeLinks | None = None
        self._wanted = (foreign.links if foreign else ()) + self._mobile_links
        registration = stand_in.configuration.registration if stand_in else None
        if registration is not None and not registration.colocated:
            self._wanted += registration.links

    def open(self) -> None:
        """Bind everything. Raises OSError."""
        unreachable = self._unreachable if self._receivers.hears_errors else None
        self._socket = RegistrationSocket(self._datagram, self._oversized, unreachable=unreachable)
        if self._home_link_names:
            self._home_links = HomeLinks(self._home_link_names, self._broadcast, self._broadcast_addresses)
        for link in self._wanted:
            if self._watch.find(link) is not None:
                self.open_link(link)

    def filenos(self) -> Mapping[int, Callable[[], None]]:
        """Descriptors to read; none at a node that takes part in no registration."""
        own = {self._socket.fileno(): self._socket.read} if self._socket is not None else {}
        if self._home_links is not None:
            own[self._home_links.fileno()] = self._home_links.read
        return own | {link.fileno(): link.read for link in self._links.values()}

    def open_link(self, link: str) -> LinkSocket | None:
        """Listen on an access link that exists now; None if it is not one of ours or is open already."""
        if link not in self._wanted or link in self._links:
            return None
        opened = self._links[link] = LinkSocket(
            link,
            lambda *message: self._from_link(link, *message),
            lambda *message: self._discovered(link, *message),
            self._events.count,
        )
        return opened

    def close_link(self, link: str) -> LinkSocket | None:
        """The link vanished; the caller closes the result once its watch has ended."""
        return self._links.pop(link, None)

    def links_changed(self) -> None:
        """Forget names of links."""
        self._names.clear()

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        if self._socket is not None:
            self._socket.close()
        if self._home_links is not None:
            self._home_links.close()

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {
            do.Reply: self._reply,
            do.SendRegistration: self._send,
            do.SendPacket: self._send_packet,
            do.Advertise: self._advertise,
            do.Solicit: self._solicit,
            SendMagicPacket: self._wake,
        }

    # in

    def _broadcast(self, packet: bytes) -> None:
        self._feed("home_agent", do.HomeBroadcast(packet))

    def _oversized(self) -> None:
        self._events.count("registration-oversized")

    def _unreachable(self, quoted: bytes, address: str, port: int, icmp_type: int, icmp_code: int) -> None:
        """Give an ICMP error about a message to port 434 to the role that handles such errors."""
        role = self._receivers.unreachable(quoted) if port == UDP_PORT else None
        if role is not None:
            self._feed(role, do.RegistrationUnreachable(_parsed(address), icmp_type, icmp_code, quoted))

    def _datagram(
        self, message: bytes, address: str, port: int, destination: bytes, index: int, traffic_class: int
    ) -> None:
        if message[:1] == _TUNNEL_DATA:  # a fragment has passed the programs
            from locum.dataplane.kernel.reassembly import udp_packet

            self._reassembled(udp_packet(address, port, destination, message, traffic_class), index)
            return
        link = self._names.get(index)
        if link is None:
            link = self._names[index] = self._watch.name(index)
        if link in self._links:
            if not self._watch.is_local(_parsed(address)):
                return  # it came by the link's own socket as well, with its link-layer address
            # It is of another role of this host: the kernel names the link that has the destination (R17).
            link = "lo"
        role = self._role(message, destination)
        if role is not None:
            self._deliver(role, message, _source(address, port, link, destination))

    def _role(self, message: bytes, destination: bytes) -> str | None:
        """The role for a message; None, and counted, without one."""
        kind = message[0] if message else None
        role = self._receivers.registration(kind, destination)
        if role is None:
            self._events.count(
                "registration-not-for-us" if kind in REGISTRATION else "registration-no-such-type"
            )
        return role

    def _from_link(
        self,
        link: str,
        message: bytes,
        source: IPv4Address,
        port: int,
        destination: IPv4Address,
        layer: bytes,
    ) -> None:
        if destination not in _EVERYBODY and not self._watch.is_local(destination):
            return  # passes through this host
        role = self._role(message, destination.packed)
        if role is not None:
            self._deliver(role, message, Source(source, port, link, layer, destination))

    def _discovered(
        self, link: str, message: bytes, source: IPv4Address, layer: bytes, local: IPv4Address
    ) -> None:
        role = self._receivers.discovery(message[0] if message else None, link)
        if role is not None:
            self._deliver(role, message, Source(source, 0, link, layer, local))

    # out

    def answer(self, replies: Sequence[do.Reply]) -> list[tuple[do.Reply, OSError]]:
        """Send these; those that did not leave come back, each with the reason."""
        assert self._socket is not None
        failed: list[tuple[do.Reply, OSError]] = []
        together: list[do.Reply] = []
        for reply in replies:
            link = self._links.get(reply.to.link)
            if link is None or reply.to.link_layer is None:
                together.append(reply)
                continue
            try:
                self._reply_on(link, reply)
            except OSError as problem:
                failed.append((reply, problem))
        lost = self._socket.send_all([(reply.message, *_destination(reply.to)) for reply in together])
        return failed + [(together[place], problem) for place, problem in lost]

    def _reply(self, action: do.Reply) -> None:
        for _, problem in self.answer((action,)):
            raise problem

    def _reply_on(self, link: LinkSocket, reply: do.Reply) -> None:
        """Send to a visitor's link-layer address: it may have no address that we could resolve."""
        to = reply.to
        source = to.local if isinstance(to.local, IPv4Address) and not to.local.is_multicast else None
        assert isinstance(to.address, IPv4Address) and to.link_layer is not None
        address = _BROADCAST if to.address == _NOWHERE else to.address
        link.send_registration(
            reply.message, source or self._address(to.link), address, to.port, to.link_layer
        )

    def _send(self, action: do.SendRegistration) -> None:
        assert isinstance(action.to, IPv4Address) and self._socket is not None
        link = self._links.get(action.link) if action.link is not None else None
        if link is not None and action.link_layer is not None:
            source = action.source if isinstance(action.source, IPv4Address) else self._address(link.link)
            link.send_registration(action.message, source, action.to, action.port, action.link_layer)
            return
        known = self._watch.find(action.link) if action.link is not None else None
        self._socket.send(
            action.message,
            str(action.to),
            action.port,
            action.source.packed if action.source is not None else ANY,
            known.index if known is not None else 0,
        )

    def _send_packet(self, action: do.SendPacket) -> None:
        assert self._home_links is not None
        try:
            self._home_links.send(action.packet)
        except OSError:
            self._events.count("broadcast-not-sent")

    def _advertise(self, action: do.Advertise) -> None:
        link = self._links.get(action.link)
        if link is None:
            return  # vanished; the role is told
        to = action.to if isinstance(action.to, IPv4Address) else ALL_SYSTEMS
        with suppress(OSError):  # the link goes down; the role is told
            link.send_discovery(action.message, self._address(action.link), to, action.link_layer)

    def _solicit(self, action: do.Solicit) -> None:
        link = self._links.get(action.link)
        if link is None:
            return
        with suppress(OSError):
            link.send_discovery(action.message, self._address(action.link), ALL_ROUTERS, None)

    def _wake(self, action: SendMagicPacket) -> None:
        """Both forms: cards take either, and some switches pass on only the one."""
        link = self._links.get(action.link)
        if link is None:
            return
        magic = magic_packet(action.card, action.password)
        link.send_frame(magic, ETHERTYPE)
        link.send_registration(magic, self._address(action.link), _BROADCAST, PORT, None, PORT)

    def _address(self, link: str) -> IPv4Address:
        """Our IPv4 address for a link: its own, else the home address, else none (RFC 1256 section 4)."""
        known = self._watch.find(link)
        for address in known.addresses if known is not None else ():
            if isinstance(address, IPv4Address):
                return address
        if link in self._mobile_links:
            return self.home_address
        return self._care_of or _NOWHERE
