"""Settings of the host that eat this node's packets without a word: packet filters, reverse path filters, forwarding.

Each is found with the command that ends it. Nothing is changed here. Only tables with chains that this node's packets meet are
read, each by a program with its time, and without elements of sets other than those of interfaces: a blocklist may have
hundreds of thousands. A filter that cannot be read is an obstacle as well.
"""

import asyncio
import errno
import json
import shutil
import socket
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

from locum.dataplane.kernel.device import device_name
from locum.node.config.settings import Settings
from locum.node.host.arrivals import ARRIVALS, Arrival, expecting
from locum.node.host.packet_filter import (
    Chain,
    Table,
    Transit,
    devices_of_ingress,
    drops,
    drops_packet,
    has_flags,
    is_dormant,
    of_iptables,
    of_nft,
    sets_of_interfaces,
)

_PATIENCE = 10.0  # seconds for one program
_NFT_PACKAGE = "nftables"
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_STRICT = "1"
_EVERYWHERE = "net/ipv4/conf/all/rp_filter"
_MOST_NETWORKS = 1024  # of home addresses, that a route is asked for
_SEGMENT_ROUTING = Path("/proc/sys/net/ipv6/conf/all/seg6_enabled")
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_NETFILTER, _DUMP = 12, 0x301
_NEW_CHAIN, _GET_CHAIN = 10 << 8 | 3, 10 << 8 | 4
_FAMILIES = ("ip", "ip6", "inet", "netdev")
# Hooks on the way of packets in transit, and of those to sockets of this host. The programs stand before all of them
_IN_TRANSIT, _TO_SOCKETS = ("ingress", "prerouting", "forward"), ("ingress", "prerouting", "input")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A setting that eats packets: its place, its effect, and the command that ends it.

    `unread`: its place could not be read, and nothing is known.
    """

    where: str
    problem: str
    remedy: str
    unread: bool = False

    def hides(self, other: "Obstacle") -> bool:
        """True if the other may still be there: its place could not be read."""
        return (
            self.unread and not other.unread and other.where.startswith((f"{self.where}:", f"{self.where} "))
        )

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class _Way:
    """The interfaces between which packets are in transit, and those on which packets for sockets come."""

    transit: tuple[str, ...]
    expected_on: tuple[str, ...]

    @property
    def hooks(self) -> frozenset[str]:
        """Those of a packet filter that these packets meet."""
        met = (_IN_TRANSIT if self.transit else ()) + (_TO_SOCKETS if self.expected_on else ())
        return frozenset(met)


class _UnreadError(Exception):
    """A program has not told; the text is the reason."""


async def find(
    interfaces: Collection[str],
    device: str,
    *,
    forwards: bool,
    running: bool = True,
    homes: Collection[IPv4Address] = (),
    expected_on: Collection[str] = (),
) -> list[Obstacle]:
    """Obstacles to a node with these interfaces and this re-injection device.

    `forwards`: it is a router. `running`: it has set its sysctls, so that others have been changed by another program.
    `homes`: home addresses that it serves. `expected_on`: interfaces on which its sockets expect packets (`arrivals.py`).
    """
    names = (*interfaces, device)
    way = _Way(names if forwards else (), tuple(expected_on))
    found = _strict_filters(names) if running else []
    found += _loose_filters(homes)
    if forwards and running:
        found += _no_forwarding()
    if way.hooks:
        found += await _nftables(way)
        for version, tool in ((4, "iptables-legacy"), (6, "ip6tables-legacy")):
            found += await _legacy(way, version, tool)
    return found


async def examine(settings: Settings) -> list[Obstacle]:
    """Obstacles to a node that does not run."""
    node = settings.node
    device = device_name(node.name)
    homes = served(settings)
    found = await find(
        node.interfaces,
        device,
        forwards=settings.is_router,
        running=False,
        homes=homes,
        expected_on=expecting(settings),
    )
    return found + lacks_renewal("" if _SEGMENT_ROUTING.exists() else "it has no IPv6")


def served(settings: Settings) -> tuple[IPv4Address, ...]:
    """Home addresses of a home agent, and for those of pools and profiles one of each home prefix."""
    home = settings.home_agent
    if home is None:
        return ()
    prefixes = [prefix for prefix in home.homes.prefixes if isinstance(prefix, IPv4Network)]
    inside = [prefix[min(1, prefix.num_addresses - 1)] for prefix in prefixes]
    return (*(mobile.home_address for mobile in home.mobiles), *inside)


def lacks_renewal(missing: str) -> list[Obstacle]:
    """The obstacle of a kernel on which segmentation state cannot be renewed; `missing`: the reason, empty if it can."""
    problem = "segmented packets that leave one tunnel for another of a different shape are lost"
    remedy = (
        "use a kernel with IPv6 (not ipv6.disable=1) and CONFIG_IPV6_SEG6_LWTUNNEL, and start the node again"
    )
    return [Obstacle("kernel: segment routing", f"{problem} ({missing})", remedy)] if missing else []


def _strict_filters(interfaces: Collection[str]) -> list[Obstacle]:
    """Interfaces that drop packets out of tunnels because their sources are reached another way."""
    everywhere = _sysctl(_EVERYWHERE)
    return [
        Obstacle(
            f"net.ipv4.conf.{interface}.rp_filter",
            f"the kernel drops packets on {interface} whose source is reached by another interface",
            f"sysctl -w net.ipv4.conf.{interface}.rp_filter=2",
        )
        for interface in interfaces
        if max(everywhere, _sysctl(f"net/ipv4/conf/{interface}/rp_filter")) == _STRICT
    ]


def _loose_filters(homes: Collection[IPv4Address]) -> list[Obstacle]:
    """The filter of all interfaces: the node's are loose at best, and drop what is of no route at all.

    A home agent forwards by bindings, and may have no route to its home network.
    """
    if _sysctl(_EVERYWHERE) in ("", "0"):
        return []
    networks = {int(address) >> 8: address for address in homes}  # one address of each /24
    lost = sorted(address for address in islice(networks.values(), _MOST_NETWORKS) if not _routed(address))
    if not lost:
        return []
    more = "" if len(lost) == 1 else f" and in {len(lost) - 1} other networks"
    remedy = (
        "sysctl -w net.ipv4.conf.all.rp_filter=0 (net.ipv4.conf.NAME.rp_filter filters on other interfaces),"
        " or give the host a route to the home network"
    )
    return [
        Obstacle(
            "net.ipv4.conf.all.rp_filter",
            f"the kernel drops IPv4 packets from home addresses that it has no route to ({lost[0]}{more})",
            remedy,
        )
    ]


def _routed(address: IPv4Address) -> bool:
    """True if the kernel has a route to this address: a connected UDP socket asks for one, and sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            asking.connect((str(address), 9))
    except OSError as error:
        return error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
    return True


def _no_forwarding() -> list[Obstacle]:
    return [
        Obstacle(name, "the kernel forwards no packets", f"sysctl -w {name}=1")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
        if _sysctl(name.replace(".", "/")) == "0"
    ]


def _sysctl(name: str) -> str:
    """Its value; empty where the kernel does not have it."""
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return ""


async def _nftables(way: _Way) -> list[Obstacle]:
    tool = shutil.which("nft", path=_PATH)
    if tool is None:
        return [_unread("nftables", "nft", _NFT_PACKAGE)] if _has_nftables() else []
    try:
        headers = of_nft(_json(await _output(tool, "-t", "-j", "list", "chains")))
    except _UnreadError as problem:
        return [_failed("nftables", problem, "nft -t list chains")]
    obstacles = []
    for (family, name), chains in headers.items():
        if family not in _FAMILIES or not any(chain.hook in way.hooks for chain in chains.values()):
            continue
        try:
            table = await _table(tool, family, name)
        except _UnreadError as problem:
            if await _is_there(tool, family, name):
                where, command = f"nftables: {family} {name}", f"nft -t list table {family} {name}"
                obstacles.append(_failed(where, problem, command))
            continue
        obstacles += [
            found
            for chain in table.values()
            if chain.hook in way.hooks
            for found in _in_chain(table, chain, way, "nft")
        ]
    return obstacles


async def _table(tool: str, family: str, name: str) -> Table:
    """The table; without chains if the kernel does not use it. Raises _UnreadError."""
    listing = _json(await _output(tool, "-t", "-j", "list", "table", family, name))
    if has_flags(listing) and is_dormant(await _output(tool, "-t", "list", "table", family, name)):
        return {}
    sets = [
        _json(await _output(tool, "-j", "list", kind, family, name, own))
        for kind, own in sets_of_interfaces(listing)
    ]
    table = of_nft(listing, *sets).get((family, name), {})
    if any(chain.hook == "ingress" and not chain.devices for chain in table.values()):
        text = await _output(tool, "-t", "list", "table", family, name)
        for chain, devices in devices_of_ingress(text).items():
            table[chain].devices = devices
    return table


async def _is_there(tool: str, family: str, name: str) -> bool:
    """False if the table is gone: another program has removed it while it was read."""
    try:
        return (family, name) in of_nft(_json(await _output(tool, "-t", "-j", "list", "chains")))
    except _UnreadError:
        return True


async def _legacy(way: _Way, version: int, tool: str) -> list[Obstacle]:
    names = Path(f"/proc/thread-self/net/{'ip' if version == 4 else 'ip6'}_tables_names")
    try:
        if "filter" not in names.read_text().split():
            return []
    except OSError:
        return []
    path = shutil.which(tool, path=_PATH)
    if path is None:
        return [_unread("iptables (legacy)", tool, "iptables")]
    family = "ip" if version == 4 else "ip6"
    try:
        table = of_iptables(await _output(path, "-S"), family)
    except _UnreadError as problem:
        return [_failed(f"iptables (legacy): {family} filter", problem, f"{tool} -S")]
    chains = [chain for chain in table.values() if chain.hook in way.hooks]
    return [found for chain in chains for found in _in_chain(table, chain, way, tool)]


def _in_chain(table: Table, chain: Chain, way: _Way, tool: str) -> list[Obstacle]:
    """The obstacle that the chain is: packets in transit that it drops, or packets for sockets alone."""
    leaving = way.transit if chain.hook == "forward" else ()  # not known before
    transit = way.transit if chain.hook in _IN_TRANSIT else ()
    dropped = [name for name in transit if drops(table, chain, name, leaving)]
    problems = [f"packets in transit that arrive on {', '.join(dropped)}"] if dropped else []
    remedies = [_remedy(table, chain, dropped, tool)] if dropped else []
    for arrival in ARRIVALS if chain.hook in _TO_SOCKETS else ():
        expected = [
            name
            for name in way.expected_on
            if name not in dropped
            and drops_packet(table, chain, Transit(name, (), 4, arrival.protocol, arrival.port))
        ]
        if expected:
            problems.append(f"{arrival.name} that arrive on {', '.join(expected)}")
            remedies.append(_remedy(table, chain, expected, tool, arrival))
    if not problems:
        return []
    by = "iptables (legacy)" if tool.endswith("legacy") else "nftables"
    where = f"{by}: {chain.family} {chain.table} {chain.name}"
    return [Obstacle(where, f"it drops {', '.join(problems)}", " && ".join(remedies))]


def _remedy(
    table: Table, chain: Chain, interfaces: Sequence[str], tool: str, arrival: Arrival | None = None
) -> str:
    """The command that admits these packets, by the tool that made the chain."""
    iptables = {("filter", "FORWARD"), ("filter", "INPUT")}
    if tool != "nft" or (chain.family != "inet" and (chain.table, chain.name) in iptables):
        command = (
            tool if tool != "nft" else {"ip": "iptables", "ip6": "ip6tables"}.get(chain.family, "iptables")
        )
        # Docker keeps that chain
        target = "DOCKER-USER" if "DOCKER-USER" in table and arrival is None else chain.name
        kind = "" if arrival is None else f" {arrival.iptables}"
        return " && ".join(f"{command} -I {target} -i {name}{kind} -j ACCEPT" for name in interfaces)
    names, kind = ", ".join(interfaces), "" if arrival is None else f" {arrival.nft}"
    rule = f"iifname '{{ {names} }}'{kind} accept"
    return f"nft insert rule {chain.family} {chain.table} {chain.name} {rule}"


def _unread(what: str, tool: str, package: str) -> Obstacle:
    problem = f"its rules cannot be read: {tool} is missing"
    return Obstacle(what, problem, f"apt-get install {package}", unread=True)


def _failed(where: str, problem: _UnreadError, command: str) -> Obstacle:
    text = f"its rules could not be read, and may drop packets in transit: {problem}"
    return Obstacle(where, text, f"see why this fails: {command}", unread=True)


def _has_nftables() -> bool:
    """True if the kernel has chains of nftables, asked without the program nft (a dump of nfnetlink)."""
    request = _MESSAGE.pack(_MESSAGE.size + 4, _GET_CHAIN, _DUMP, 0, 0) + bytes(4)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as kernel:
            kernel.settimeout(1.0)
            kernel.send(request)
            return int(_MESSAGE.unpack_from(kernel.recv(1 << 16))[1]) == _NEW_CHAIN
    except (OSError, struct.error):
        return False


def _json(text: str) -> dict[str, object]:
    """The listing of a program. Raises _UnreadError."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise _UnreadError(f"unknown output: {error}") from error
    return value if isinstance(value, dict) else {}


async def _output(*command: str) -> str:
    """The output of a program. Raises _UnreadError when it fails or takes too long."""
    tool = Path(command[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise _UnreadError(f"{tool} does not start: {error.strerror}") from error
    try:
        async with asyncio.timeout(_PATIENCE):
            output, said = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise _UnreadError(f"{tool} took more than {_PATIENCE:g} seconds") from error
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise _UnreadError(f"{tool} failed" + (f" ({lines[0]})" if lines else ""))
    return output.decode(errors="replace")
