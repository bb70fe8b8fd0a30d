"""A device whose decapsulation makes the kernel forget the tunnel that a GSO packet has left; bpf/renew.h says why.

A veth pair that carries nothing: its first end has a route with a segment action (RFC 8986 section 4.10, End.DX2) that
leads back to itself, and a program at its egress. It must not know of tunnels. It persists when the daemon dies.
"""

from collections.abc import Mapping
from socket import AF_INET6

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane.kernel.attach import Attachments
from locum.dataplane.kernel.device import device_name
from locum.dataplane.kernel.host.lost import KERNEL, Key, device_key, route_key
from locum.dataplane.kernel.host.sysctls import Sysctls
from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import maps

LARGEST_MTU = 65535
SOURCE, SEGMENT = "fe80::4c01", "fe80::4c02"  # LOCUM_RENEWAL_SOURCE and LOCUM_RENEWAL_SEGMENT
IFF_UP, IFF_NOARP = 0x1, 0x80
EXISTS = 17
_MAIN = 254  # RT_TABLE_MAIN
_ONLY = maps.WORD.pack(0)


class Renewal:
    """The device of one node. `ifindex` is 0 where the kernel has no IPv6 or no segment actions; `missing` says so.

    While another program has it down or away, the programs do not send into it.
    """

    def __init__(
        self, node: str, route: IPRoute, table: Map, sysctls: Sysctls, attachments: Attachments
    ) -> None:
        self.name = device_name(node, "lr")
        self._peer = device_name(node, "lp")
        self._route, self._table, self._sysctls = route, table, sysctls
        self.attachments = attachments
        self.missing = ""
        self.ifindex = 0
        self._kept: frozenset[Key] = frozenset()
        try:
            self._make()
        except NetlinkError as error:
            self.missing = f"device {self.name}: {error}"
            self._offer(0)

    # Other programs of the host

    def kept(self) -> frozenset[Key]:
        """Keys of both ends and of the routes."""
        return self._kept

    def lost(self, key: Key) -> bool:
        """True if this one of those is gone now: no packet is sent there until `make_again`."""
        if key[0] == "device" and self._is_up(key[1]):
            return False  # a notification of its beginning
        self._close()
        return True

    def _is_up(self, index: object) -> bool:
        try:
            return bool(self._route.link("get", index=index)[0]["flags"] & IFF_UP)
        except NetlinkError:
            return False

    def _close(self) -> None:
        self.missing = f"device {self.name}: another program has it down or away"
        self._offer(0)

    def make_again(self) -> bool:
        """Make what is missing of it; true if something was. Raises NetlinkError or DataPlaneError."""
        try:
            return self._make()
        except Exception:
            self._close()
            raise

    def _offer(self, ifindex: int) -> None:
        """Let the programs use the device with this index; 0: none."""
        address = b""
        if ifindex:
            link = self._route.link("get", index=ifindex)[0]
            address = bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
        self._table.put(_ONLY, maps.RENEWAL.pack(ifindex, address))

    def _make(self) -> bool:
        """Make all of it that is not there, and use it; true if something was missing."""
        ends, made = self._ends()
        for name, value in self._settings():
            self._sysctls.set(name, value)
        for end in ends:
            made = made or not self._is_up(end)
            self._route.link(
                "set", index=end, mtu=LARGEST_MTU, flags=IFF_UP | IFF_NOARP, change=IFF_UP | IFF_NOARP
            )
        index = ends[0]
        self.attachments.attach(self.name)
        segment = {"type": "seg6local", "action": "End.DX2", "oif": index}
        for address, how in ((SOURCE, {}), (SEGMENT, {"encap": segment})):
            made = self._add_route(f"{address}/128", index, how) or made
        self._kept = frozenset(
            (*map(device_key, ends), *(route_key(AF_INET6, _MAIN, f"{to}/128") for to in (SOURCE, SEGMENT)))
        )
        self.ifindex, self.missing = index, ""
        self._offer(index)
        return made

    def _ends(self) -> tuple[tuple[int, ...], bool]:
        """Indices of both ends, and whether they had to be made."""
        names = (self.name, self._peer)
        there = [index for name in names for index in self._route.link_lookup(ifname=name)]
        if len(there) == len(names):
            return tuple(there), False
        for index in there:  # its other end has another name, or is in another namespace
            self._route.link("del", index=index)
        self._route.link("add", ifname=self.name, kind="veth", peer={"ifname": self._peer})
        return tuple(self._route.link_lookup(ifname=name)[0] for name in names), True

    def _settings(self) -> tuple[tuple[str, str], ...]:
        own = f"net/ipv6/conf/{self.name}"
        return (
            (f"net/ipv6/conf/{self._peer}/disable_ipv6", "1"),
            (f"{own}/accept_ra", "0"),
            (f"{own}/autoconf", "0"),
            (f"{own}/accept_dad", "0"),
            (f"{own}/addr_gen_mode", "1"),
            (f"{own}/disable_ipv6", "0"),
        )

    def _add_route(self, destination: str, index: int, how: Mapping[str, object]) -> bool:
        """True if it was missing; one that another program or an earlier daemon made is replaced."""
        route = {"family": AF_INET6, "dst": destination, "oif": index, "proto": KERNEL, **how}
        try:
            self._route.route("add", **route)
        except NetlinkError as error:
            if error.code != EXISTS:
                raise
            self._route.route("replace", **route)
            return False
        return True

    def remove(self) -> None:
        """Take the device away, with its routes."""
        self.attachments.detach(self.name)
        for index in self._route.link_lookup(ifname=self.name):
            self._route.link("del", index=index)
