"""Changes to the host's network (addresses, routes, rules, neighbours), each written down before it is made.

The record in the store says how to undo a change; `undo_all` leaves the network as it was found, also when the run that
made the changes was killed. Routes of the mobile node and of the stand-in live in tables of their own, chosen by rules,
so that nothing of the host's is replaced, nor anything of another node on this host: numbers of tables contain the node's.
Rules and routes have the protocol "kernel", which systemd-networkd leaves alone. Others decide about changes.
"""

import errno
import socket
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from pyroute2 import AsyncIPRoute

from locum.dataplane.kernel.host import lost
from locum.dataplane.layout.maps import MARK_LOCAL
from locum.node.config.settings import Address, Prefix
from locum.node.host.kernel_changes import (
    KernelChanges,
    accept_local,
    accepts_local,
    is_up,
    key_of,
    stands_beside,
)
from locum.node.tables import HostStore, HostTable
from locum.wire.control import Flow

# Tables of the first node of a namespace; each further one adds _TABLES.
TABLE_STAND_IN = 435  # home prefixes that are local here for what arrives on the stand-in's links
TABLE_HOME = 434  # home prefixes for packets of a stand-in on the home agent's host
TABLE_MOBILE = 436  # the way to the agent
_PREFERENCE_MARKED = 432  # outer packets of WireGuard: they must not enter the tunnel again
_PREFERENCE_LOCAL_PEER = 433  # flows between a program of this host and a session that lives here
_PREFERENCE_DECIDED = 433  # packets for this host by the programs' decision, before home prefixes go to them
_PREFERENCE_HOME = 434
_PREFERENCE_STAND_IN = 435
_PREFERENCE_SPECIFIC = 436  # main table without its default route, before ours
_PREFERENCE_MOBILE = 437  # the two of a further node come behind
_DECIDED = MARK_LOCAL | 1  # the mark of such packets
_TABLES = 1000
NEXT_HOP_V6 = IPv6Address("fe80::434")  # stands for the agent, whose IPv6 address is unknown; see `use_agent`
_TABLE_MAIN = 254
_LINK_MTU = 1500  # bytes, of the links between home agent and access node, which the device cannot see
_TUNNEL = 20  # bytes: IP in IP over IPv4
_HEADERS = {
    4: 40,
    6: 60,
}  # bytes of IP and TCP; peers then send what fits the tunnel from their first segment on
_ROUTE_LOCAL = 2  # RTN_LOCAL


class HostNetwork:
    """The one place that changes the host."""

    def __init__(
        self, store: HostStore, inherit: Callable[[str, str], bool] = lambda _name, _found: False
    ) -> None:
        """`inherit(name, found)` tells if another node needs a sysctl, and will restore its value."""
        self._store = store
        self._number = 0
        self.home_network: IPv4Network | None = None  # whose broadcasts this host takes
        self._kernel = AsyncIPRoute()
        self._changes = KernelChanges(self._kernel, inherit)
        self._records: dict[str, dict[str, Any]] = store.rows(HostTable.NETWORK)
        self._keys: dict[lost.Key, set[str]] = {}  # of records that this run has asked for, and their names
        self._stale = set(self._records)  # made by an earlier run and not asked for again yet

    async def open(self) -> None:
        """Connect to the kernel. Raises OSError."""
        await self._kernel.setup_endpoint()

    async def close(self) -> None:
        """Leave the changes in place."""
        self._kernel.close()

    def place(self, number: int) -> None:
        """The node has this number among those of its namespace; to be called before any change."""
        self._number = number

    @property
    def number(self) -> int:
        """The number of the node among those of its namespace."""
        return self._number

    @property
    def mobile_table(self) -> int:
        """The table with the way to the agent."""
        return self._table(TABLE_MOBILE)

    def _table(self, first: int) -> int:
        return first + _TABLES * self._number

    # what roles ask for

    async def own_home_address(self, address: Address) -> None:
        """The home address belongs to this host wherever it is: on lo. So do broadcasts to its `home_network`."""
        record = {"do": "address", "address": str(address), "prefixlen": address.max_prefixlen, "link": "lo"}
        network = self.home_network
        if network is not None and isinstance(address, IPv4Address) and address in network:
            record["broadcast"] = str(network.broadcast_address)
        await self._make(f"address/{address}", record)

    async def disown_home_address(self, address: Address) -> None:
        """It is not this host's any more; no error if it never was."""
        await self._undo(f"address/{address}")

    async def use_agent(
        self,
        link: str,
        agent: Address,
        link_layer: bytes | None,
        home_addresses: Iterable[Address],
        *,
        rules: bool = True,
    ) -> None:
        """All packets of the home addresses go to this agent on this link (RFC 5944 section 4.2.1).

        Without `rules` others lead packets to its table.

        With the agent's link-layer address no ARP is needed; an IPv6 home address uses a next hop made up for it.
        """
        for address in home_addresses:
            if rules:
                await self._rules(address.version)
            hop: Address = agent if address.version == agent.version else NEXT_HOP_V6
            if link_layer is not None:
                await self.neighbour(link, hop, link_layer)
            await self._make(
                f"way/{address.version}",
                {
                    "do": "route", "dst": "default", "gateway": str(hop), "link": link, "prefsrc": str(address),
                    "table": self._table(TABLE_MOBILE), "onlink": True, "version": address.version,
                    "advmss": _LINK_MTU - _TUNNEL - _HEADERS[address.version],
                },
            )  # fmt: skip

    async def use_home_address(self, link: str, device: str, home_addresses: Iterable[Address]) -> None:
        """Co-located CoA: programs that choose no address use the home address, by the tunnel at `device`.

        What chooses its address, such as the tunnel itself, takes the host's routes as before. IPv6 has no rule for
        that, so a host with an IPv6 default route of its own keeps it, and programs choose the home address themselves.
        """
        for address in home_addresses:
            version = address.version
            if version == 6 and await self._has_default6():
                continue
            await self._rules(version, unbound=version == 4)
            await self._make(
                f"way/{version}",
                {
                    "do": "route", "dst": "default", "link": device, "for": link, "prefsrc": str(address),
                    "table": self._table(TABLE_MOBILE), "version": version,
                },
            )  # fmt: skip

    async def _has_default6(self) -> bool:
        routes = await self._kernel.get_routes(family=socket.AF_INET6, table=_TABLE_MAIN)
        return any([message["dst_len"] == 0 async for message in routes])

    async def leave_agent(self, link: str) -> None:
        """Undo `use_agent` or `use_home_address` for this link."""
        for key, record in tuple(self._records.items()):
            if key.startswith("way/") and link in (record["link"], record.get("for")):
                await self._undo(key)

    async def link_up(self, link: str) -> None:
        """Restore what the kernel dropped when the link went down: routes and neighbours."""
        for record in tuple(self._records.values()):
            if record["do"] in ("route", "neighbour", "group") and record["link"] == link:
                await self._changes.change(record, undo=False)

    async def _rules(self, version: int, *, unbound: bool = False) -> None:
        """Rules: main table first for specific routes, then our route (`unbound`: without a source)."""
        await self._make(
            f"rule/{version}/specific",
            {
                "do": "rule",
                "priority": _PREFERENCE_SPECIFIC + 2 * self._number,
                "table": _TABLE_MAIN,
                "suppress": 0,
                "version": version,
            },
        )
        await self._make(
            f"rule/{version}/mobile",
            {
                "do": "rule",
                "priority": _PREFERENCE_MOBILE + 2 * self._number,
                "table": self._table(TABLE_MOBILE),
                "version": version,
                **({"src": "0.0.0.0"} if unbound else {}),
            },
        )

    async def receive_for(
        self, prefixes: Iterable[Prefix], links: Collection[str], *, forwards: bool = False
    ) -> None:
        """AnyIP: every address of `prefixes` is local for packets that enter by `links` (R11); others leave as before.

        `forwards`: packets that come from such addresses by these links go on as well (R17).
        """
        if forwards:
            for link in links:
                await self._accept_local(link)
        for prefix in prefixes:
            await self._make(
                f"anyip/{prefix}",
                {
                    "do": "route", "dst": str(prefix), "link": "lo", "table": self._table(TABLE_STAND_IN),
                    "type": _ROUTE_LOCAL, "version": prefix.version,
                },
            )  # fmt: skip
            for link in links:
                await self._make(
                    f"rule/{prefix.version}/iif/{link}",
                    {
                        "do": "rule", "priority": _PREFERENCE_STAND_IN, "table": self._table(TABLE_STAND_IN),
                        "iifname": link, "version": prefix.version,
                    },
                )  # fmt: skip

    async def send_home(self, prefixes: Iterable[Prefix], device: str, links: Collection[str] = ()) -> None:
        """Send this host's packets to home addresses into their tunnels, which begin at `device` (R17).

        Packets that entered by `links` and that the programs have not seen under their home address as well: the host's own
        address translation has given it to them, behind the programs. They go to `device`, where the programs decide; a packet
        that they leave to this host has a mark, and comes back by `device` without a second look at its translation.
        """
        if links:
            await self._make(f"untracked/{device}", {"do": "untracked", "device": device})
        for prefix in prefixes:
            for link in links:
                rule = {"do": "rule", "iifname": link, "version": prefix.version}
                await self._make(
                    f"rule/{prefix.version}/decided/{link}",
                    {
                        **rule, "priority": _PREFERENCE_DECIDED, "mark": _DECIDED,
                        "table": self._table(TABLE_STAND_IN),
                    },
                )  # fmt: skip
            await self._make(
                f"way/home/{prefix}",
                {
                    "do": "route", "dst": str(prefix), "link": device, "table": self._table(TABLE_HOME),
                    "version": prefix.version,
                },
            )  # fmt: skip
            await self._make(
                f"rule/{prefix.version}/home",
                {
                    "do": "rule", "priority": _PREFERENCE_STAND_IN, "table": self._table(TABLE_HOME),
                    "iifname": "lo", "version": prefix.version,
                },
            )  # fmt: skip
            for link in links:
                await self._make(
                    f"rule/{prefix.version}/home/{link}",
                    {
                        "do": "rule", "priority": _PREFERENCE_HOME, "table": self._table(TABLE_HOME),
                        "iifname": link, "version": prefix.version,
                    },
                )  # fmt: skip

    async def lead_here(self, flow: Flow) -> None:
        """Lead packets of local programs to the home address on this flow to the socket here (AnyIP)."""
        await self._make(
            _peer_key(flow),
            {
                "do": "rule", "priority": _PREFERENCE_LOCAL_PEER, "table": self._table(TABLE_STAND_IN),
                "iifname": "lo", "version": flow.local.version, "src": str(flow.peer), "dst": str(flow.local),
                "protocol": flow.protocol, "ports": [flow.peer_port, flow.local_port],
            },
        )  # fmt: skip

    async def lead_away(self, flow: Flow) -> None:
        """It leaves the host again; no error if it never was led here."""
        await self._undo(_peer_key(flow))

    async def _accept_local(self, link: str) -> None:
        """Accept packets on this link from an address made local by AnyIP; IPv6 needs no setting."""
        key = f"accept-local/{link}"
        held = self._records.get(key)
        found = held["found"] if held is not None else accept_local(link).read_text().strip()
        if found != "1":
            await self._make(key, {"do": "accept_local", "link": link, "found": found})

    async def send_marked(self, mark: int) -> None:
        """Packets with this mark take the main table with its default route, before all rules of ours: they are outer ones."""
        for version in (4, 6):
            await self._make(
                f"rule/{version}/mark",
                {
                    "do": "rule", "priority": _PREFERENCE_MARKED, "table": _TABLE_MAIN, "mark": mark, "version": version,
                },
            )  # fmt: skip

    async def neighbour(self, link: str, address: Address, link_layer: bytes) -> None:
        """A permanent entry: `address` is at `link_layer` on `link`."""
        await self._make(
            f"neighbour/{link}/{address}",
            {
                "do": "neighbour", "address": str(address), "link": link,
                "lladdr": link_layer.hex(":"), "version": address.version,
            },
        )  # fmt: skip

    async def visitor(self, link: str, address: Address, link_layer: bytes) -> None:
        """Send this host's own packets to a home address to `link_layer` on `link`, not to its home."""
        await self.neighbour(link, address, link_layer)
        await self._make(
            f"visitor/{link}/{address}",
            {
                "do": "route", "dst": f"{address}/{address.max_prefixlen}", "link": link, "table": _TABLE_MAIN,
                "version": address.version,
            },
        )  # fmt: skip

    async def remove_visitor(self, link: str, address: Address) -> None:
        """Forget it; no error if it is not there."""
        await self._undo(f"visitor/{link}/{address}")
        await self._undo(f"neighbour/{link}/{address}")

    async def join_group(self, link: str, group: Address) -> None:
        """Make this host a member of the multicast group on `link`, until told otherwise (IGMP, MLD)."""
        await self._make(
            f"group/{link}/{group}",
            {"do": "group", "group": str(group), "link": link, "prefixlen": group.max_prefixlen},
        )

    async def leave_group(self, link: str, group: Address) -> None:
        """Forget it; no error if it is not there."""
        await self._undo(f"group/{link}/{group}")

    async def keep(self, key: str, record: dict[str, Any]) -> None:
        """Make this change and keep it, until `give_up`; the key begins with its kind (see `_order`)."""
        await self._make(key, record)

    async def give_up(self, key: str) -> None:
        """Undo it; no error if it was never made."""
        await self._undo(key)

    # leaving

    async def undo_stale(self) -> None:
        """Undo changes of an earlier run that this one has not repeated."""
        for key in sorted(self._stale, key=_order):
            await self._undo(key)
        self._stale.clear()

    async def undo_all(self) -> None:
        """Leave the network as it was found."""
        for key in sorted(self._records, key=_order):
            await self._undo(key)
        self._stale.clear()

    # losses

    def keeps(self, key: lost.Key) -> bool:
        """True if this node made it, and needs it."""
        return key in self._keys

    def kept(self) -> tuple[lost.Key, ...]:
        """All that it made and needs."""
        return tuple(self._keys)

    async def make_again(self, key: lost.Key) -> bool:
        """Make it unless it is there; true if it was missing. Raises OSError."""
        missing = False
        names = tuple(self._keys.get(key, ()))
        for name in (*names, *self._with_source(names)):
            record = self._records.get(name)
            if record is None or not is_up(record.get("link", "lo")):  # `link_up` makes it
                continue
            try:
                await self._changes.change(record, undo=False, anew=True)
                missing = True
            except FileExistsError:
                continue
            except OSError as problem:
                if problem.errno not in (errno.ENETDOWN, errno.ENODEV):
                    raise
                continue
            if self._records.get(name) != record:  # it was given up meanwhile
                await self._changes.change(record, undo=True)
        return missing

    def _with_source(self, names: Iterable[str]) -> list[str]:
        """Routes with one of these addresses as their source: they go with it, by some kernels without a word."""
        addresses = {self._records[name].get("address") for name in names} - {None}
        return [name for name, record in self._records.items() if record.get("prefsrc") in addresses]

    def lost_settings(self) -> list[str]:
        """Links on which another program has stopped the acceptance of packets from local addresses."""
        links = [record["link"] for record in self._records.values() if record["do"] == "accept_local"]
        return [link for link in links if accepts_local(link) == "0"]

    def set_again(self, link: str) -> bool:
        """Accept such packets again; true. Raises OSError."""
        accept_local(link).write_text("1")
        return True

    def _index(self, name: str, record: dict[str, Any], *, present: bool) -> None:
        key = key_of(record)
        if key is None:
            return
        names = self._keys.setdefault(key, set())
        if present:
            names.add(name)
            return
        names.discard(name)
        if not names:
            del self._keys[key]

    async def _make(self, key: str, record: dict[str, Any]) -> None:
        if record["do"] in ("rule", "route"):
            record["proto"] = lost.KERNEL
        self._stale.discard(key)
        before = self._records.get(key)
        if before is not None:
            self._index(key, before, present=False)
        self._index(key, record, present=True)
        if before != record:
            self._records[key] = record
            self._store.put(HostTable.NETWORK, key, record)
            await self._store.durable()
            if before is not None and stands_beside(before, record):
                await self._changes.change(before, undo=True)
        try:
            await self._changes.change(record, undo=False)
        except FileExistsError:
            if before is None:  # the host had it: not ours to take away
                self._index(key, record, present=False)
                del self._records[key]
                self._store.forget(HostTable.NETWORK, key)
        except OSError as problem:
            if problem.errno != errno.ENETDOWN:  # `link_up` makes it
                raise

    async def _undo(self, key: str) -> None:
        record = self._records.pop(key, None)
        self._stale.discard(key)
        if record is not None:
            self._index(key, record, present=False)
            await self._changes.change(record, undo=True)
            self._store.forget(HostTable.NETWORK, key)


def _peer_key(flow: Flow) -> str:
    ends = f"{flow.peer}/{flow.peer_port}/{flow.local}/{flow.local_port}"
    return f"rule/{flow.local.version}/peer/{flow.protocol}/{ends}"


def _order(key: str) -> tuple[int, str]:
    """Order of removal: rules first and addresses last, so that no rule points to a removed route."""
    kind = key.split("/")[0]
    return {"rule": 0, "way": 1, "anyip": 1, "visitor": 1, "neighbour": 2, "address": 3}.get(kind, 4), key
