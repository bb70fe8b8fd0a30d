"""Access links in the kernel's maps: where visitors are served, and who may send there under which address (RFC 2827).

A permission to deliver a home address's packets on a link says that its visitor is there; other hosts have addresses of
the link's own networks. It must not know why a visitor was admitted.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network

from locum.dataplane.kernel.entries import Entries
from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import maps
from locum.dataplane.state import acceptance_key
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import Side, TunnelAcceptance

Network = IPv4Network | IPv6Network
ANY_LINK = 0  # as a link's index: there is a visitor with this home address
ANY_HARDWARE = bytes(6)


class AccessLinks:
    """The maps about access links. `index_of` gives the index of a link, None while it is gone.

    `use` is called with whether source addresses are checked.
    """

    def __init__(
        self,
        found: Mapping[str, Entries],
        networks: Map,
        index_of: Callable[[str], int | None],
        use: Callable[[bool], None],
    ) -> None:
        self._links, self._senders = found["access_links"], found["senders"]
        self._networks = networks
        self._index_of, self._use = index_of, use
        self._served: frozenset[str] = frozenset()
        self._flags = maps.SERVED
        self._indices: dict[str, int] = {}
        self._allowed: tuple[Network, ...] = ()
        self._own_networks: Mapping[int, Collection[Network]] = {}
        self._written: set[bytes] = {key for key, _ in self._networks.items()}
        self._known: dict[tuple[Addr, str], dict[object, bytes | None]] = {}
        self._written_senders: dict[Addr, dict[str, int]] = {}

    # Links

    def serve(
        self, links: Collection[str], *, checked: bool, by_hardware: bool, allowed: Iterable[Network]
    ) -> None:
        """Set the links on which packets are never taken for a home agent's, and how their sources are checked."""
        self._served, self._allowed = frozenset(links), tuple(allowed)
        check = maps.CHECKED | (maps.BY_HARDWARE if by_hardware else 0)
        self._flags = maps.SERVED | (check if checked else 0)
        self._indices.clear()
        self._write_networks()  # before they are asked for
        for link in self._served:
            self._write_link(link)
        wanted = {maps.WORD.pack(index) for index in self._indices.values()}
        self._links.delete_many([key for key, _ in self._links.items() if key not in wanted])
        self._use(checked and bool(self._served))

    def serves(self, index: int) -> bool:
        """True if visitors are served on the link of that index.

        As it was written to the map: it is looked up for every tunnelled packet, and to ask the
        kernel each time let a few hundred a second stop the node.
        """
        return index in self._indices.values()

    def _write_link(self, link: str) -> None:
        index = self._index_of(link)
        if index is None:
            self._indices.pop(link, None)
            return
        self._indices[link] = index
        self._links.put(maps.WORD.pack(index), maps.WORD.pack(self._flags))

    def link_changed(self, link: str) -> None:
        """The link has another index than before."""
        for home_address, known in self._known:
            if known == link:
                self._write_sender(home_address, link)
        if link in self._served:
            self._write_link(link)
            self._write_networks()

    # Networks of links

    def set_networks(self, networks: Mapping[int, Collection[Network]]) -> None:
        """The networks of this host's addresses on its links, by the links' indices."""
        if networks != self._own_networks:
            self._own_networks = networks
            self._write_networks()

    def _write_networks(self) -> None:
        """Networks of a link that is not served may stand there: they are not looked up."""
        wanted = {
            maps.link_network(index, network)
            for index, found in self._own_networks.items()
            for network in found
        }
        indices = [index for link in self._served if (index := self._index_of(link)) is not None]
        wanted |= {maps.link_network(index, network) for index in indices for network in self._allowed}
        for key in wanted - self._written:
            self._networks.put(key, maps.WORD.pack(1))
        for key in self._written - wanted:
            self._networks.delete(key)
        self._written = wanted

    # Visitors

    def accepted(self, acceptance: TunnelAcceptance) -> None:
        """Let the visitor send that packets are delivered to."""
        if acceptance.link is None or acceptance.side is not Side.TO_HOME_ADDRESS:
            return
        at = (acceptance.home_address, acceptance.link)
        self._known.setdefault(at, {})[acceptance_key(acceptance)] = acceptance.hardware
        self._write_sender(*at)

    def refused(self, acceptance: TunnelAcceptance) -> None:
        """Let it send no more, unless another permission is for it as well."""
        if acceptance.link is None:
            return
        at = (acceptance.home_address, acceptance.link)
        known = self._known.get(at)
        if known is None or known.pop(acceptance_key(acceptance), known) is known:
            return
        self._write_sender(*at)

    def _write_sender(self, home_address: Addr, link: str) -> None:
        known, index = self._known.get((home_address, link)), self._index_of(link)
        written = self._written_senders.setdefault(home_address, {})
        old = written.pop(link, None)
        if known and index is not None:
            hardware = {found or ANY_HARDWARE for found in known.values()}
            only = hardware.pop() if len(hardware) == 1 else ANY_HARDWARE
            written[link] = index  # before it is written: what fails can then be taken away
            self._senders.put(maps.outbound_key(home_address, index), maps.SENDER.pack(only))
            self._senders.put(maps.outbound_key(home_address, ANY_LINK), maps.SENDER.pack(ANY_HARDWARE))
        if old is not None and old != written.get(link):
            self._senders.delete(maps.outbound_key(home_address, old))
        if not known:
            self._known.pop((home_address, link), None)
        if not written:
            del self._written_senders[home_address]
            self._senders.delete(maps.outbound_key(home_address, ANY_LINK))

    def adopt(self, acceptances: Iterable[TunnelAcceptance]) -> None:
        """Take over the maps as they are: with visitors of these permissions, and no others."""
        self._known.clear()
        self._written_senders.clear()
        for acceptance in acceptances:
            self.accepted(acceptance)
        wanted = {
            maps.outbound_key(home_address, index)
            for home_address, written in self._written_senders.items()
            for index in (*written.values(), ANY_LINK)
        }
        self._senders.delete_many([key for key, _ in self._senders.items() if key not in wanted])

    def hardware(self, home_address: Addr, index: int) -> bytes | None:
        """The hardware address that was written for a visitor."""
        value = self._senders.get(maps.outbound_key(home_address, index))
        found = ANY_HARDWARE if value is None else maps.SENDER.unpack(value)[0]
        return None if found == ANY_HARDWARE else found
