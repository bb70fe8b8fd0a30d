"""Settings of the host's network for the data plane: sysctls, and routes with a locked MTU.

Every sysctl is recorded as it was found, in a pinned map, so that `restore` works after the daemon died.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path
from socket import AF_INET, AF_INET6
from time import CLOCK_BOOTTIME, clock_gettime

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane.kernel.libbpf import DataPlaneError, Map
from locum.dataplane.layout.maps import MARK_OVERHEAD
from locum.roles.action_values.addresses import Addr

TABLE_BASE = 43400  # plus the overhead of the tunnel
RULE_MARK = 100
RULE_SOURCE = 101
MTU_LOCKED = 1 << 2  # 1 << RTAX_MTU
MIN_MTU = {AF_INET: 68, AF_INET6: 1280}
MIN_PATH_MTU = {AF_INET: 552, AF_INET6: 1280}  # net.ipv4.route.min_pmtu; less is not believed
PATH_MTU_AGE = 600.0  # seconds; net.ipv4.route.mtu_expires


def mtu_table(overhead: int) -> int:
    return TABLE_BASE + overhead


class Sysctls:
    """Sysctls that this node changed."""

    def __init__(self, found: Map) -> None:
        self._found = found

    def set(self, name: str, value: str) -> None:
        """`name` as "net/ipv4/ip_forward". One that the kernel does not have is left out."""
        path = Path("/proc/sys") / name
        try:
            now = path.read_text().strip()
            if now == value:
                return
            self._found.put(name.encode().ljust(96, b"\x00"), now.encode().ljust(32, b"\x00"), 1)
            path.write_text(value)
        except FileNotFoundError:
            return
        except OSError as error:
            raise DataPlaneError(f"sysctl {name.replace('/', '.')}: {error.strerror}") from error

    def restore(self, only: str = "") -> None:
        """Restore the found values (of the names that contain `only`)."""
        entries = sorted(
            self._found.items(), key=lambda item: b"/all/" not in item[0] and b"ip_forward" not in item[0]
        )
        for key, value in entries:
            name = key.rstrip(b"\x00").decode()
            if only not in name:
                continue
            path = Path("/proc/sys") / name
            if path.exists():
                path.write_text(value.rstrip(b"\x00").decode())
            self._found.delete(key)

    def loosen(self, interface: str) -> None:
        """No reverse path filter (tunnelled packets arrive from anywhere), no redirects."""
        strict = Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip() != "0"
        self.set(f"net/ipv4/conf/{interface}/rp_filter", "2" if strict else "0")
        self.set(f"net/ipv4/conf/{interface}/send_redirects", "0")

    def forward(self) -> None:
        self.set("net/ipv4/ip_forward", "1")
        self.set("net/ipv6/conf/all/forwarding", "1")


class MtuRoutes:
    """Tables whose default route goes to the re-injection device with the MTU that a tunnel leaves.

    A packet that is too big for its tunnel is routed by such a table: the stack says so to the sender, or fragments.
    Packets that this host sends from a home address with an outbound entry take one as well, so that its own
    sockets know the MTU.
    """

    def __init__(self, route: IPRoute, device: int) -> None:
        self._route = route
        self._device = device
        self._overheads: set[int] = set()
        self._link_mtu = self._mtu = 1500
        self._paths: dict[
            Addr, tuple[int, float]
        ] = {}  # MTU, and the seconds since boot at which it is forgotten

    def need(self, overhead: int) -> None:
        """There is a tunnel with this overhead."""
        if overhead in self._overheads:
            return
        self._overheads.add(overhead)
        self._write(overhead)
        for family in (AF_INET, AF_INET6):
            self._rule(
                "add",
                family=family,
                fwmark=MARK_OVERHEAD | overhead,
                fwmask=0xFFFFFFFF,
                table=mtu_table(overhead),
                priority=RULE_MARK,
            )

    def set_mtu(self, mtu: int) -> None:
        """The smallest MTU of the attached interfaces."""
        self._link_mtu = mtu
        self._settle()

    def path_mtu(self, destination: Addr, mtu: int) -> None:
        """The path to a tunnel's end is narrower than our links; as the kernel does, believe it for PATH_MTU_AGE."""
        least = MIN_PATH_MTU[AF_INET if isinstance(destination, IPv4Address) else AF_INET6]
        self._paths[destination] = (max(mtu, least), clock_gettime(CLOCK_BOOTTIME) + PATH_MTU_AGE)
        self._settle()

    def _settle(self) -> None:
        """Lock the MTU of all routes to that of the narrowest tunnel: other packets fit as well."""
        now = clock_gettime(CLOCK_BOOTTIME)
        self._paths = {end: known for end, known in self._paths.items() if known[1] > now}
        mtu = min((self._link_mtu, *(known[0] for known in self._paths.values())))
        if mtu != self._mtu:
            self._mtu = mtu
            for overhead in self._overheads:
                self._write(overhead)

    def _write(self, overhead: int) -> None:
        for family in (AF_INET, AF_INET6):
            mtu = max(self._mtu - overhead, MIN_MTU[family])
            self._route.route(
                "replace",
                family=family,
                dst="default",
                oif=self._device,
                table=mtu_table(overhead),
                metrics={"mtu": mtu, "lock": MTU_LOCKED},
            )

    def _rule(self, command: str, **rule: object) -> None:
        try:
            self._route.rule(command, **rule)
        except NetlinkError as error:
            if error.code not in (17, 2, 97):  # is there already; is not there; no IPv6
                raise

    def local(self, command: str, home_address: Addr, overhead: int) -> None:
        """`add` or `del`: this host's packets from the home address go by the table of this overhead."""
        v4 = isinstance(home_address, IPv4Address)
        self._rule(
            command,
            family=AF_INET if v4 else AF_INET6,
            src=str(home_address),
            src_len=32 if v4 else 128,
            iifname="lo",
            table=mtu_table(overhead),
            priority=RULE_SOURCE,
        )

    def remove(self) -> None:
        """Take away every rule into such a table; the routes go with the device."""
        tables = range(TABLE_BASE, TABLE_BASE + 128)
        for family in (AF_INET, AF_INET6):
            for rule in self._route.get_rules(family=family):
                if rule.get_attr("FRA_TABLE") in tables and rule.get_attr("FRA_PRIORITY") in (
                    RULE_MARK,
                    RULE_SOURCE,
                ):
                    fields = {name: value for name, value in rule["attrs"] if name != "FRA_PROTOCOL"}
                    self._delete(family, rule, fields)

    def _delete(self, family: int, rule: dict[str, int], fields: dict[str, object]) -> None:
        request: dict[str, object] = {
            "family": family,
            "table": fields["FRA_TABLE"],
            "priority": fields["FRA_PRIORITY"],
        }
        if "FRA_FWMARK" in fields:
            request |= {"fwmark": fields["FRA_FWMARK"], "fwmask": fields.get("FRA_FWMASK", 0xFFFFFFFF)}
        if "FRA_SRC" in fields:
            request |= {"src": fields["FRA_SRC"], "src_len": rule["src_len"], "iifname": "lo"}
        self._rule("del", **request)


def smallest_mtu(route: IPRoute, interfaces: Iterable[int]) -> int:
    """The smallest MTU of these interfaces, in bytes; 1500 without any."""
    values = [link.get_attr("IFLA_MTU") for index in interfaces for link in route.link("get", index=index)]
    return min(values, default=1500)
