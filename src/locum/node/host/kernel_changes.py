"""Makes and undoes one recorded change of the host's network: an address, route, rule, neighbour or setting of a link.

A record is JSON; "do" says which of these it is. It must not know why a change is made.
"""

import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane.kernel.host import lost
from locum.node.translated import untracked

Record = dict[str, Any]

_PERMANENT = 0x80  # NUD_PERMANENT
_MULTICAST_JOIN = 0x402  # IFA_F_MCAUTOJOIN, IFA_F_NODAD
_INVERT = 2  # FIB_RULE_INVERT
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1
_GONE = (
    errno.ESRCH,
    errno.ENOENT,
    errno.ENODEV,
    errno.EADDRNOTAVAIL,
    errno.ENETUNREACH,
    errno.EINVAL,
    errno.ENXIO,
)


class KernelChanges:
    """Makes changes by one netlink socket. `inherit(name, found)` is true if another node needs a sysctl as it is."""

    def __init__(self, kernel: AsyncIPRoute, inherit: Callable[[str, str], bool]) -> None:
        self._kernel, self._inherit = kernel, inherit

    async def change(self, record: Record, *, undo: bool, anew: bool = False) -> None:
        """Make or undo it. Raises OSError, and FileExistsError where it is there and would be replaced (`anew`)."""
        index, command = 0, "del" if undo else "add" if anew else "replace"
        try:
            if "link" in record:
                index = socket.if_nametoindex(record["link"])
        except OSError:
            if undo:
                return  # the link is gone, with its addresses and routes
            raise OSError(errno.ENODEV, f"there is no interface {record['link']}") from None
        try:
            await getattr(self, f"_change_{record['do']}")(record, index, command)
        except NetlinkError as problem:
            if undo and problem.code in _GONE:
                return
            if not undo and problem.code == errno.EEXIST:
                raise FileExistsError(record["do"]) from None
            raise OSError(problem.code, f"{'undo ' if undo else ''}{record}: {problem.args[-1]}") from None

    async def _change_address(self, record: Record, index: int, command: str) -> None:
        # noprefixroute and nodad: an address of lo that no other host may have
        undo = command == "del"
        await self._kernel.addr(
            "del" if undo else "add",
            index=index,
            address=record["address"],
            prefixlen=record["prefixlen"],
            family=_family(IPv6Address if ":" in record["address"] else IPv4Address),
            **({} if undo or ":" not in record["address"] else {"flags": 2}),
            # the kernel then takes packets to it as broadcasts, on every link
            **({"broadcast": record["broadcast"]} if "broadcast" in record and not undo else {}),
        )

    async def _change_group(self, record: Record, index: int, command: str) -> None:
        # an address of the link that is the group: the kernel's way to join without a socket that has to stay open
        await self._kernel.addr(
            command,
            index=index,
            address=record["group"],
            prefixlen=record["prefixlen"],
            family=_family(IPv6Address if ":" in record["group"] else IPv4Address),
            **({} if command == "del" else {"flags": _MULTICAST_JOIN}),
        )

    async def _change_route(self, record: Record, index: int, command: str) -> None:
        arguments: dict[str, Any] = {
            "dst": record["dst"], "table": record["table"],
            "family": socket.AF_INET6 if record["version"] == 6 else socket.AF_INET,
        }  # fmt: skip
        if index:
            arguments["oif"] = index
        if "type" in record:
            arguments["type"] = record["type"]
            if record["version"] == 4 and index:
                arguments["scope"] = 254  # RT_SCOPE_HOST
        if "gateway" in record:
            arguments["gateway"] = record["gateway"]
        elif record["version"] == 4 and "type" not in record:
            arguments["scope"] = 253  # RT_SCOPE_LINK
        if "priority" in record:
            arguments["priority"] = record["priority"]
        if command != "del":
            if "proto" in record:
                arguments["proto"] = record["proto"]
            if "prefsrc" in record:
                arguments["prefsrc"] = record["prefsrc"]
            if "advmss" in record:
                arguments["metrics"] = {"advmss": record["advmss"]}
            if record.get("onlink"):
                arguments["flags"] = 4  # RTNH_F_ONLINK
        await self._kernel.route(command, **arguments)

    async def _change_rule(self, record: Record, _: int, command: str) -> None:
        arguments: dict[str, Any] = {
            "priority": record["priority"],
            "family": socket.AF_INET6 if record["version"] == 6 else socket.AF_INET,
        }  # fmt: skip
        if "table" in record:
            arguments["table"] = record["table"]
        if "goto" in record:
            arguments |= {"action": "goto", "goto": record["goto"]}
        elif "table" not in record:
            arguments["action"] = "nop"
        if "mark" in record:
            arguments |= {"fwmark": record["mark"], "fwmask": 0xFFFFFFFF}
        if record.get("invert"):
            arguments["flags"] = _INVERT
        if "proto" in record:
            arguments["protocol"] = record["proto"]
        if "iifname" in record:
            arguments["iifname"] = record["iifname"]
        if "src" in record:
            source, _, bits = record["src"].partition("/")
            arguments |= {"src": source, "src_len": int(bits) if bits else _bits(record)}
        if "dst" in record:
            destination, _, bits = record["dst"].partition("/")
            arguments |= {"dst": destination, "dst_len": int(bits) if bits else _bits(record)}
        if "ports" in record:
            near, far = record["ports"]
            arguments |= {
                "ip_proto": record["protocol"],
                "sport_range": f"{near}:{near}",
                "dport_range": f"{far}:{far}",
            }
        if "suppress" in record:
            arguments["FRA_SUPPRESS_PREFIXLEN"] = record["suppress"]
        await self._kernel.rule("del" if command == "del" else "add", **arguments)

    async def _change_accept_local(self, record: Record, _: int, command: str) -> None:
        path, found = accept_local(record["link"]), record["found"]
        if command == "del" and self._inherit(str(path.relative_to("/proc/sys")), found):
            return
        path.write_text(found if command == "del" else "1")

    async def _change_untracked(self, record: Record, _: int, command: str) -> None:
        await (untracked.remove if command == "del" else untracked.make)(
            record["device"], anew=command == "add"
        )

    async def _change_neighbour(self, record: Record, index: int, command: str) -> None:
        arguments: dict[str, Any] = {
            "dst": record["address"], "ifindex": index,
            "family": socket.AF_INET6 if record["version"] == 6 else socket.AF_INET,
        }  # fmt: skip
        if command != "del":
            arguments |= {"lladdr": record["lladdr"], "state": _PERMANENT}
        await self._kernel.neigh(command, **arguments)


def stands_beside(before: Record, now: Record) -> bool:
    """True if the kernel would keep the former setting beside the new one, and not replace it."""
    return before["do"] in ("address", "neighbour", "rule") or before.get("table") != now.get("table")


def key_of(record: Record) -> lost.Key | None:
    """Key by which the kernel's notification of its loss is known."""
    family = socket.AF_INET6 if record.get("version") == 6 else socket.AF_INET
    match record["do"]:
        case "address":
            return lost.address_key(record["address"])
        case "group":
            return lost.address_key(record["group"])
        case "neighbour":
            return lost.neighbour_key(record["address"])
        case "route":
            return lost.route_key(family, record["table"], record["dst"])
        case "rule":
            source, destination = record.get("src"), record.get("dst")
            return lost.rule_key(
                family, record["priority"], record.get("table", 0), iif=record.get("iifname", ""),
                mark=record.get("mark", 0), source=_packed(source), destination=_packed(destination),
                ports=tuple(record.get("ports", (0, 0))),
            )  # fmt: skip
        case "untracked":
            return untracked.table_key(record["device"])
    return None


def accepts_local(link: str) -> str:
    """The setting `accept_local` of a link, "0" or "1"; empty when the link is gone."""
    try:
        return accept_local(link).read_text().strip()
    except OSError:
        return ""


def is_up(link: str) -> bool:
    """True if a link is there and administratively up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH22x", link.encode(), 0))
        except OSError:
            return False
    return bool(struct.unpack("16sH22x", answer)[1] & _IFF_UP)


def _packed(address: str | None) -> bytes:
    """The address of a rule, without the length of its prefix; none is empty."""
    return ip_address(address.partition("/")[0]).packed if address else b""


def _bits(record: Record) -> int:
    return 128 if record["version"] == 6 else 32


def accept_local(link: str) -> Path:
    """The file of the setting."""
    return Path(f"/proc/sys/net/ipv4/conf/{link}/accept_local")


def _family(kind: type[IPv4Address] | type[IPv6Address]) -> int:
    return socket.AF_INET6 if kind is IPv6Address else socket.AF_INET
