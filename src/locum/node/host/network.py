"""Changes to the host's network (addresses, routes, rules, neighbours), each written down before it is made.

The record in the store says how to undo a change; `undo_all` leaves the network as it was found, also when the run that
made the changes was killed. Routes of the mobile node and of the stand-in live in tables of their own, chosen by rules,
so that nothing of the host's is replaced. Others decide about changes.
"""

import errno
import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.node.config.settings import Address, Prefix
from locum.node.tables import HostStore, HostTable
from locum.wire.control import Flow

TABLE_STAND_IN = 435  # home prefixes that are local here for what arrives on the stand-in's links
TABLE_HOME = 434  # home prefixes for packets of a stand-in on the home agent's host
TABLE_MOBILE = 436  # the way to the agent
_PREFERENCE_LOCAL_PEER = 433  # flows between a program of this host and a session that lives here
_PREFERENCE_STAND_IN = 435
_PREFERENCE_SPECIFIC = 436  # main table without its default route, before ours
_PREFERENCE_MOBILE = 437
NEXT_HOP_V6 = IPv6Address("fe80::434")  # stands for the agent, whose IPv6 address is unknown; see `use_agent`
_TABLE_MAIN = 254
_LINK_MTU = 1500  # bytes, of the links between home agent and access node, which the device cannot see
_TUNNEL = 20  # bytes: IP in IP over IPv4
_HEADERS = {
    4: 40,
    6: 60,
}  # bytes of IP and TCP; peers then send what fits the tunnel from their first segment on
_ROUTE_LOCAL = 2  # RTN_LOCAL
_PERMANENT = 0x80  # NUD_PERMANENT
_MULTICAST_JOIN = 0x402  # IFA_F_MCAUTOJOIN, IFA_F_NODAD
_GONE = (
    errno.ESRCH,
    errno.ENOENT,
    errno.ENODEV,
    errno.EADDRNOTAVAIL,
    errno.ENETUNREACH,
    errno.EINVAL,
    errno.ENXIO,
)


class HostNetwork:
    """The one place that changes the host."""

    def __init__(self, store: HostStore) -> None:
        self._store = store
        self._kernel = AsyncIPRoute()
        self._records: dict[str, dict[str, Any]] = store.rows(HostTable.NETWORK)
        self._stale = set(self._records)  # made by an earlier run and not asked for again yet

    async def open(self) -> None:
        """Connect to the kernel. Raises OSError."""
        await self._kernel.setup_endpoint()

    async def close(self) -> None:
        """Leave the changes in place."""
        self._kernel.close()

    # what roles ask for

    async def own_home_address(self, address: Address) -> None:
        """The home address belongs to this host wherever it is: on lo."""
        await self._make(
            f"address/{address}",
            {"do": "address", "address": str(address), "prefixlen": address.max_prefixlen, "link": "lo"},
        )

    async def disown_home_address(self, address: Address) -> None:
        """It is not this host's any more; no error if it never was."""
        await self._undo(f"address/{address}")

    async def use_agent(
        self, link: str, agent: Address, link_layer: bytes | None, home_addresses: Iterable[Address]
    ) -> None:
        """All packets of the home addresses go to this agent on this link (RFC 5944 section 4.2.1).

        With the agent's link-layer address no ARP is needed; an IPv6 home address uses a next hop made up for it.
        """
        for address in home_addresses:
            await self._rules(address.version)
            hop: Address = agent if address.version == agent.version else NEXT_HOP_V6
            if link_layer is not None:
                await self.neighbour(link, hop, link_layer)
            await self._make(
                f"way/{address.version}",
                {
                    "do": "route", "dst": "default", "gateway": str(hop), "link": link, "prefsrc": str(address),
                    "table": TABLE_MOBILE, "onlink": True, "version": address.version,
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
                    "table": TABLE_MOBILE, "version": version,
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
                await self._change(record, undo=False)

    async def _rules(self, version: int, *, unbound: bool = False) -> None:
        """Rules: main table first for specific routes, then our route (`unbound`: without a source)."""
        await self._make(
            f"rule/{version}/specific",
            {
                "do": "rule",
                "priority": _PREFERENCE_SPECIFIC,
                "table": _TABLE_MAIN,
                "suppress": 0,
                "version": version,
            },
        )
        await self._make(
            f"rule/{version}/mobile",
            {
                "do": "rule",
                "priority": _PREFERENCE_MOBILE,
                "table": TABLE_MOBILE,
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
                    "do": "route", "dst": str(prefix), "link": "lo", "table": TABLE_STAND_IN, "type": _ROUTE_LOCAL,
                    "version": prefix.version,
                },
            )  # fmt: skip
            for link in links:
                await self._make(
                    f"rule/{prefix.version}/iif/{link}",
                    {
                        "do": "rule", "priority": _PREFERENCE_STAND_IN, "table": TABLE_STAND_IN, "iifname": link,
                        "version": prefix.version,
                    },
                )  # fmt: skip

    async def send_home(self, prefixes: Iterable[Prefix], device: str) -> None:
        """Send this host's packets to home addresses into their tunnels, which begin at `device` (R17)."""
        for prefix in prefixes:
            await self._make(
                f"way/home/{prefix}",
                {
                    "do": "route", "dst": str(prefix), "link": device, "table": TABLE_HOME,
                    "version": prefix.version,
                },
            )  # fmt: skip
            await self._make(
                f"rule/{prefix.version}/home",
                {
                    "do": "rule", "priority": _PREFERENCE_STAND_IN, "table": TABLE_HOME, "iifname": "lo",
                    "version": prefix.version,
                },
            )  # fmt: skip

    async def lead_here(self, flow: Flow) -> None:
        """Lead packets of local programs to the home address on this flow to the socket here (AnyIP)."""
        await self._make(
            _peer_key(flow),
            {
                "do": "rule", "priority": _PREFERENCE_LOCAL_PEER, "table": TABLE_STAND_IN, "iifname": "lo",
                "version": flow.local.version, "src": str(flow.peer), "dst": str(flow.local),
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
        found = held["found"] if held is not None else _accept_local(link).read_text().strip()
        if found != "1":
            await self._make(key, {"do": "accept_local", "link": link, "found": found})

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

    async def _make(self, key: str, record: dict[str, Any]) -> None:
        self._stale.discard(key)
        before = self._records.get(key)
        if before != record:
            self._records[key] = record
            self._store.put(HostTable.NETWORK, key, record)
            await self._store.durable()
            if before is not None and before["do"] in ("address", "neighbour", "rule"):
                await self._change(before, undo=True)
        try:
            await self._change(record, undo=False)
        except FileExistsError:
            if before is None:  # the host had it: not ours to take away
                del self._records[key]
                self._store.forget(HostTable.NETWORK, key)
        except OSError as problem:
            if problem.errno != errno.ENETDOWN:  # `link_up` makes it
                raise

    async def _undo(self, key: str) -> None:
        record = self._records.pop(key, None)
        self._stale.discard(key)
        if record is not None:
            await self._change(record, undo=True)
            self._store.forget(HostTable.NETWORK, key)

    async def _change(self, record: dict[str, Any], *, undo: bool) -> None:
        index = 0
        try:
            if "link" in record:
                index = socket.if_nametoindex(record["link"])
        except OSError:
            if undo:
                return  # the link is gone, with its addresses and routes
            raise OSError(errno.ENODEV, f"there is no interface {record['link']}") from None
        try:
            await getattr(self, f"_change_{record['do']}")(record, index, undo)
        except NetlinkError as problem:
            if undo and problem.code in _GONE:
                return
            if not undo and problem.code == errno.EEXIST:
                raise FileExistsError(record["do"]) from None
            raise OSError(problem.code, f"{'undo ' if undo else ''}{record}: {problem.args[-1]}") from None

    async def _change_address(self, record: dict[str, Any], index: int, undo: bool) -> None:
        # noprefixroute and nodad: an address of lo that no other host may have
        await self._kernel.addr(
            "del" if undo else "add",
            index=index,
            address=record["address"],
            prefixlen=record["prefixlen"],
            family=_family(IPv6Address if ":" in record["address"] else IPv4Address),
            **({} if undo or ":" not in record["address"] else {"flags": 2}),
        )

    async def _change_group(self, record: dict[str, Any], index: int, undo: bool) -> None:
        # an address of the link that is the group: the kernel's way to join without a socket that has to stay open
        await self._kernel.addr(
            "del" if undo else "replace",
            index=index,
            address=record["group"],
            prefixlen=record["prefixlen"],
            family=_family(IPv6Address if ":" in record["group"] else IPv4Address),
            **({} if undo else {"flags": _MULTICAST_JOIN}),
        )

    async def _change_route(self, record: dict[str, Any], index: int, undo: bool) -> None:
        arguments: dict[str, Any] = {
            "dst": record["dst"], "oif": index, "table": record["table"],
            "family": socket.AF_INET6 if record["version"] == 6 else socket.AF_INET,
        }  # fmt: skip
        if "type" in record:
            arguments["type"] = record["type"]
            if record["version"] == 4:
                arguments["scope"] = 254  # RT_SCOPE_HOST
        if "gateway" in record:
            arguments["gateway"] = record["gateway"]
        elif record["version"] == 4 and "type" not in record:
            arguments["scope"] = 253  # RT_SCOPE_LINK
        if not undo:
            if "prefsrc" in record:
                arguments["prefsrc"] = record["prefsrc"]
            if "advmss" in record:
                arguments["metrics"] = {"advmss": record["advmss"]}
            if record.get("onlink"):
                arguments["flags"] = 4  # RTNH_F_ONLINK
        await self._kernel.route("del" if undo else "replace", **arguments)

    async def _change_rule(self, record: dict[str, Any], _: int, undo: bool) -> None:
        arguments: dict[str, Any] = {
            "priority": record["priority"], "table": record["table"],
            "family": socket.AF_INET6 if record["version"] == 6 else socket.AF_INET,
        }  # fmt: skip
        if "iifname" in record:
            arguments["iifname"] = record["iifname"]
        if "src" in record:
            arguments |= {"src": record["src"], "src_len": _bits(record)}
        if "dst" in record:
            arguments |= {"dst": record["dst"], "dst_len": _bits(record)}
        if "ports" in record:
            source, destination = record["ports"]
            arguments |= {
                "ip_proto": record["protocol"],
                "sport_range": f"{source}:{source}",
                "dport_range": f"{destination}:{destination}",
            }
        if "suppress" in record:
            arguments["FRA_SUPPRESS_PREFIXLEN"] = record["suppress"]
        await self._kernel.rule("del" if undo else "add", **arguments)

    async def _change_accept_local(self, record: dict[str, Any], _: int, undo: bool) -> None:
        _accept_local(record["link"]).write_text(record["found"] if undo else "1")

    async def _change_neighbour(self, record: dict[str, Any], index: int, undo: bool) -> None:
        arguments: dict[str, Any] = {
            "dst": record["address"], "ifindex": index,
            "family": socket.AF_INET6 if record["version"] == 6 else socket.AF_INET,
        }  # fmt: skip
        if not undo:
            arguments |= {"lladdr": record["lladdr"], "state": _PERMANENT}
        await self._kernel.neigh("del" if undo else "replace", **arguments)


def _peer_key(flow: Flow) -> str:
    ends = f"{flow.peer}/{flow.peer_port}/{flow.local}/{flow.local_port}"
    return f"rule/{flow.local.version}/peer/{flow.protocol}/{ends}"


def _bits(record: dict[str, Any]) -> int:
    return 128 if record["version"] == 6 else 32


def _accept_local(link: str) -> Path:
    return Path(f"/proc/sys/net/ipv4/conf/{link}/accept_local")


def _family(kind: type[IPv4Address] | type[IPv6Address]) -> int:
    return socket.AF_INET6 if kind is IPv6Address else socket.AF_INET


def _order(key: str) -> tuple[int, str]:
    """Order of removal: rules first and addresses last, so that no rule points to a removed route."""
    kind = key.split("/")[0]
    return {"rule": 0, "way": 1, "anyip": 1, "visitor": 1, "neighbour": 2, "address": 3}.get(kind, 4), key
