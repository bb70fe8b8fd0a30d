"""Routes with a locked MTU, one table for each MTU, and the rules that lead to them.

Tables and marks contain the node's number: rules of other nodes in the namespace are theirs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from socket import AF_INET, AF_INET6, AddressFamily
from time import CLOCK_BOOTTIME, clock_gettime

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane.kernel.host.lost import KERNEL, Key, route_key, rule_key
from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import maps
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel

TABLE_BASE = 43400  # plus 256 for each number before the node's, plus the place of the MTU
_TABLES = 256  # of a node
RULE_MARK = 100
RULE_SOURCE = 101
MTU_LOCKED = 1 << 2  # 1 << RTAX_MTU
MIN_MTU = {AF_INET: 68, AF_INET6: 1280}
# What the narrowest paths that are believed leave to IPv4 packets; the least of IPv6.
SMALLEST = (1280, 500)
MOST_MTUS = 16  # LOCUM_INNER_MTUS
SLOTS = range(100, 256)  # earlier versions had the overheads of tunnels there
ASKED_AGE = 600.0  # seconds for which an MTU that a packet needed has a route
REST = 10.0  # seconds for which such a route stays at least, for making one costs milliseconds
COARSE = 64  # bytes: MTUs are rounded down to multiples while there is no room for all
MOST_TOLD = 64  # destinations of which an MTU is remembered
IPV6_HEADER = 40  # bytes; a tunnel over IPv4 has less overhead
_ONLY = maps.WORD.pack(0)


def boot_time() -> float:
    """Seconds since boot."""
    return clock_gettime(CLOCK_BOOTTIME)


def mtu_table(slot: int, number: int = 0) -> int:
    """Number of the table in this place, at the node with that number."""
    return TABLE_BASE + _TABLES * number + slot


def _families(mtu: int) -> tuple[AddressFamily, ...]:
    """Families of packets for which there is a route of this MTU."""
    return (AF_INET, AF_INET6) if mtu >= MIN_MTU[AF_INET6] else (AF_INET,)


@dataclass(slots=True)
class _Wanted:
    """An MTU for packets into tunnels to these destinations: until this many seconds since boot."""

    until: float
    destinations: dict[Addr, None] = field(default_factory=dict)


class MtuRoutes:
    """Tables whose default route goes to the re-injection device with an MTU that a tunnel leaves.

    A packet that is too big for its tunnel is routed by such a table: the stack says so to the sender, or fragments.
    Packets that this host sends from a home address with an outbound entry take one as well, so that its own
    sockets know the MTU. The programs choose among the MTUs in `found`, which outlives the daemon.
    """

    def __init__(
        self,
        route: IPRoute,
        device: int,
        number: int,
        found: Map,
        told: Map,
        limit: Callable[[Addr], int | None],
    ) -> None:
        """`limit` gives the MTU of the path to the end of a tunnel, where routers have told of one.

        `told` has the paths of which the programs have told; they tell again of those that are not in it.
        """
        self._route = route
        self._device = device
        self._number = number
        self._found, self._told = found, told
        self._limit = limit
        self._kept: dict[Key, Callable[[], bool]] = {}  # functions that make it, and tell if it was missing
        self._overheads: set[int] = set()
        self._link_mtu = {AF_INET: 1500, AF_INET6: 1500}
        self._met: dict[Addr, tuple[int, float]] = {}  # MTUs that packets met, and the end of each
        self._homes: dict[Addr, tuple[Tunnel, int]] = {}  # tunnel, and MTU of the table
        value = found.get(_ONLY) or maps.INNER_MTUS.pack(*[0] * MOST_MTUS)
        self._written = {word & 0xFFFF: word >> 16 for word in maps.INNER_MTUS.unpack(value) if word}
        self._slots = dict(self._written)  # the place of each MTU's table
        self._present: set[int] = set()
        # MTUs beside the usual ones, that needed longest ago first: those that packets needed, and those that
        # packets may need, for a router said so. The latter take no route from the former.
        self._asked = {mtu: _Wanted(boot_time() + ASKED_AGE) for mtu in self._written}
        self._expected: dict[int, _Wanted] = {}
        self._made_at: dict[int, float] = {}  # seconds since boot
        told.delete_many([key for key, _ in told.items()])

    @property
    def mtus(self) -> dict[int, int]:
        """MTUs among which the programs choose, with the places of their tables."""
        return dict(self._written)

    def need(self, overhead: int) -> None:
        """There is a tunnel with this overhead."""
        if overhead not in self._overheads:
            self._overheads.add(overhead)
            self.settle()

    def keeps(self, key: Key) -> bool:
        """True if this node made it, and needs it."""
        return key in self._kept

    def kept(self) -> tuple[Key, ...]:
        """All of it."""
        return tuple(self._kept)

    def make_again(self, key: Key) -> bool:
        """Make it unless it is there; true if it was missing. Raises NetlinkError."""
        make = self._kept.get(key)
        return make is not None and make()

    def set_mtu(self, mtu4: int, mtu6: int) -> None:
        """Set the smallest MTU of the attached interfaces for packets of each family."""
        self._link_mtu = {AF_INET: mtu4, AF_INET6: mtu6}
        self.settle()

    def ask(self, destination: Addr, mtu: int, overhead: int) -> None:
        """A packet was too big for a tunnel of this overhead, whose path to `destination` takes `mtu` bytes."""
        if mtu - overhead >= MIN_MTU[AF_INET]:
            self._want(self._asked, mtu - overhead, destination)
        if any(tunnel.destination == destination for tunnel, _ in self._homes.values()):
            self._met[destination] = (mtu, boot_time() + ASKED_AGE)
        self.settle()

    def widen(self, destination: Addr) -> None:
        """The path to the end of a tunnel takes more than packets met there before."""
        self._met.pop(destination, None)
        self._told.delete(maps.address(destination))
        self.settle()

    def expect(self, destination: Addr, mtu: int) -> None:
        """The path to the end of a tunnel takes `mtu` bytes: packets that are too big for it will be answered."""
        for overhead in self._overheads:
            if (overhead < IPV6_HEADER) is isinstance(destination, IPv4Address):
                self._want(self._expected, mtu - overhead, destination)
        self.settle()

    def _want(self, among: dict[int, _Wanted], mtu: int, destination: Addr) -> None:
        """Packets into tunnels to `destination` need a route of this MTU."""
        if len(self._written) >= MOST_MTUS and mtu not in self._slots:
            mtu -= mtu % COARSE
        until = boot_time() + ASKED_AGE
        wanted = among.pop(mtu, None) or _Wanted(until)
        wanted.until = until
        wanted.destinations.pop(destination, None)
        wanted.destinations[destination] = None
        if len(wanted.destinations) > MOST_TOLD:
            oldest = next(iter(wanted.destinations))
            del wanted.destinations[oldest]
            self._told.delete(maps.address(oldest))
        among[mtu] = wanted

    def _choose(self, room: int) -> list[int]:
        """At most `room` MTUs beside the usual ones, and forget the others: the programs ask again for those."""
        at = boot_time()

        def rests(mtu: int) -> bool:
            made = self._made_at.get(mtu)
            return made is not None and at < made + REST

        for mtu in self._asked.keys() & self._expected.keys():
            del self._expected[mtu]
        ranked = [
            mtu
            for among in (self._asked, self._expected)
            for mtu in sorted(reversed(among), key=rests, reverse=True)
        ]
        for mtu in ranked[room:]:
            forgotten = self._asked.pop(mtu, None) or self._expected.pop(mtu)
            self._told.delete_many([maps.address(destination) for destination in forgotten.destinations])
        return ranked[:room]

    def _left(self, overhead: int) -> int:
        """Bytes that our links leave to a packet in a tunnel of this overhead."""
        family = AF_INET if overhead < IPV6_HEADER else AF_INET6
        return max(self._link_mtu[family] - overhead, MIN_MTU[AF_INET])

    def _forget_old(self) -> None:
        at, before = boot_time(), len(self._asked) + len(self._met)
        self._asked = {mtu: wanted for mtu, wanted in self._asked.items() if wanted.until > at}
        self._expected = {mtu: wanted for mtu, wanted in self._expected.items() if wanted.until > at}
        self._met = {end: met for end, met in self._met.items() if met[1] > at}
        if len(self._asked) + len(self._met) < before:
            self._told.delete_many([key for key, _ in self._told.items()])

    def settle(self) -> None:
        """Make the kernel's rules and routes those that are needed now."""
        self._forget_old()
        for home, (tunnel, _) in list(self._homes.items()):
            self.local(home, tunnel)
        links = {self._left(overhead) for overhead in self._overheads}
        usual = {*SMALLEST, *links, *(mtu for _, mtu in self._homes.values())}
        for mtu in usual:
            self._asked.pop(mtu, None)
            self._expected.pop(mtu, None)
        wanted = {*sorted(usual)[:MOST_MTUS], *self._choose(max(0, MOST_MTUS - len(usual)))}
        for mtu in wanted:
            self._add(mtu)
        written = {mtu: self._slots[mtu] for mtu in sorted(wanted, reverse=True)}
        if written != self._written:
            words = [slot << 16 | mtu for mtu, slot in written.items()]
            self._found.put(_ONLY, maps.INNER_MTUS.pack(*words, *[0] * (MOST_MTUS - len(words))))
            self._written = written
        for mtu in self._slots.keys() - wanted:
            self._take_away(mtu)

    def _add(self, mtu: int) -> None:
        """Make the table with this MTU, and the rule that leads to it."""
        if mtu in self._present:
            return
        self._present.add(mtu)
        self._made_at[mtu] = boot_time()
        if mtu not in self._slots:
            self._slots[mtu] = next(slot for slot in SLOTS if slot not in self._slots.values())
        for family in _families(mtu):
            table, mark = self._table(mtu), maps.too_big_mark(self._number, self._slots[mtu])
            self._route_to_device("replace", family, mtu)
            self._kept[route_key(family, table, "default")] = partial(
                self._route_to_device, "add", family, mtu
            )
            self._keep_rule(
                rule_key(family, RULE_MARK, table, mark=mark),
                family=family,
                fwmark=mark,
                fwmask=0xFFFFFFFF,
                table=table,
                priority=RULE_MARK,
            )

    def _take_away(self, mtu: int) -> None:
        table, slot = self._table(mtu), self._slots.pop(mtu)
        self._present.discard(mtu)
        self._made_at.pop(mtu, None)
        mark = maps.too_big_mark(self._number, slot)
        for family in (AF_INET, AF_INET6):
            self._kept.pop(route_key(family, table, "default"), None)
            self._kept.pop(rule_key(family, RULE_MARK, table, mark=mark), None)
            self._made(
                self._route.rule, "del", family=family, fwmark=mark, fwmask=0xFFFFFFFF, table=table,
                priority=RULE_MARK,
            )  # fmt: skip

    def _table(self, mtu: int) -> int:
        return mtu_table(self._slots[mtu], self._number)

    def _route_to_device(self, command: str, family: AddressFamily, mtu: int) -> bool:
        return self._made(
            self._route.route,
            command,
            family=family,
            dst="default",
            oif=self._device,
            table=self._table(mtu),
            metrics={"mtu": mtu, "lock": MTU_LOCKED},
            proto=KERNEL,
        )

    @staticmethod
    def _made(request: Callable[..., object], command: str, **fields: object) -> bool:
        """True if the kernel did it; false if it is there already, is not there, the device is down, or there is no IPv6."""
        try:
            request(command, **fields)
        except NetlinkError as error:
            if error.code not in (17, 2, 97, 100):
                raise
            return False
        return True

    def _keep_rule(self, key: Key, **rule: object) -> None:
        make = partial(self._made, self._route.rule, "add", **rule, protocol=KERNEL)
        make()
        self._kept[key] = make

    def local(self, home_address: Addr, tunnel: Tunnel) -> None:
        """This host's packets from the home address go into this tunnel: their route has the MTU that it leaves."""
        overhead = maps.overhead(tunnel)
        mtu = self._left(overhead)
        met = self._met.get(tunnel.destination)
        for limit in (self._limit(tunnel.destination), met and met[0]):
            if limit:
                mtu = min(mtu, max(limit - overhead, MIN_MTU[AF_INET]))
        if not isinstance(home_address, IPv4Address):
            mtu = max(mtu, MIN_MTU[AF_INET6])
        before = self._homes.get(home_address)
        self._homes[home_address] = (tunnel, mtu)
        if before is not None and before[1] == mtu:
            return
        self._add(mtu)
        self._source("add", home_address, mtu)
        if before is not None:
            self._source("del", home_address, before[1])

    def not_local(self, home_address: Addr) -> None:
        """This host sends no packets from the home address into a tunnel any more."""
        before = self._homes.pop(home_address, None)
        if before is not None:
            self._source("del", home_address, before[1])

    def _source(self, command: str, home_address: Addr, mtu: int) -> None:
        v4 = isinstance(home_address, IPv4Address)
        family, table = AF_INET if v4 else AF_INET6, self._table(mtu)
        key = rule_key(family, RULE_SOURCE, table, iif="lo", source=home_address.packed)
        rule: dict[str, object] = {
            "family": family, "src": str(home_address), "src_len": 32 if v4 else 128, "iifname": "lo",
            "table": table, "priority": RULE_SOURCE,
        }  # fmt: skip
        if command == "add":
            self._keep_rule(key, **rule)
        else:
            self._kept.pop(key, None)
            self._made(self._route.rule, "del", **rule)

    def tidy(self) -> None:
        """Take away rules of an earlier version of this node, which had no protocol: ours stand beside them."""
        self._remove(lambda protocol: protocol != KERNEL)

    def remove(self) -> None:
        """Take away every rule into a table of this node; the routes go with the device."""
        self._kept.clear()
        self._remove(lambda _protocol: True)

    def _remove(self, chosen: Callable[[int], bool]) -> None:
        tables = range(mtu_table(0, self._number), mtu_table(0, self._number + 1))
        for family in (AF_INET, AF_INET6):
            for rule in self._route.get_rules(family=family):
                protocol = rule.get_attr("FRA_PROTOCOL") or 0
                if (
                    rule.get_attr("FRA_TABLE") in tables
                    and rule.get_attr("FRA_PRIORITY") in (RULE_MARK, RULE_SOURCE)
                    and chosen(protocol)
                ):
                    self._delete(family, rule, dict(rule["attrs"]), protocol)

    def _delete(self, family: int, rule: dict[str, int], fields: dict[str, object], protocol: int) -> None:
        request: dict[str, object] = {
            "family": family,
            "table": fields["FRA_TABLE"],
            "priority": fields["FRA_PRIORITY"],
        }
        if protocol:
            request["protocol"] = protocol
        if "FRA_FWMARK" in fields:
            request |= {"fwmark": fields["FRA_FWMARK"], "fwmask": fields.get("FRA_FWMASK", 0xFFFFFFFF)}
        if "FRA_SRC" in fields:
            request |= {"src": fields["FRA_SRC"], "src_len": rule["src_len"], "iifname": "lo"}
        self._made(self._route.rule, "del", **request)


def smallest_mtus(route: IPRoute, interfaces: Iterable[int]) -> tuple[int, int]:
    """The smallest MTU of these interfaces for IPv4 and for IPv6 (less after some router advertisements), in bytes.

    1500 without any.
    """
    links = [link for index in interfaces for link in route.link("get", index=index)]
    values = [link.get_attr("IFLA_MTU") for link in links]
    values6 = [_mtu6(link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU")) for link in links]
    return min(values, default=1500), min(values6, default=1500)


def _mtu6(name: str, mtu: int) -> int:
    path = Path("/proc/sys/net/ipv6/conf") / name / "mtu"
    return min(int(path.read_text()), mtu) if path.exists() else mtu
