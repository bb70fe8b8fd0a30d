"""The programs on interfaces: tcx links that are pinned, or clsact filters where the kernel has no tcx.

A pinned link keeps its program when the daemon dies; the next daemon puts its own program into the same link, without
a packet in between that meets none.
"""

import ctypes
import os
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane.kernel.libbpf import (
    TCX_EGRESS,
    TCX_INGRESS,
    DataPlaneError,
    create_link,
    link_ifindex,
    pin,
    pinned,
    update_link,
)

BPFFS_MAGIC = 0xCAFE4A11
ARPHRD_ETHER = 1
CLSACT = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}
TCX = {"ingress": TCX_INGRESS, "egress": TCX_EGRESS}
FILTER_PRIORITY = 434


def pin_name(name: str) -> str:
    """bpffs allows no dots; interfaces allow no colons."""
    return name.replace(".", ":")


def check_bpffs(root: Path) -> None:
    """Raise DataPlaneError unless `root` is in a bpffs."""
    buffer = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(root), buffer) != 0:
        raise DataPlaneError(
            f"{root}: {os.strerror(ctypes.get_errno())}; make it and `mount -t bpf bpf {root}`"
        )
    if buffer[0] & 0xFFFFFFFF != BPFFS_MAGIC:
        raise DataPlaneError(f"{root} is not a bpffs: mount one with `mount -t bpf bpf {root}`")


class Attachments:
    """The interfaces that have the programs. `programs` are file descriptors by direction."""

    def __init__(
        self, directory: Path, programs: dict[str, int], route: IPRoute, *, tcx: bool = True
    ) -> None:
        self._directory = directory
        self._programs = programs
        self._route = route
        self._tcx = tcx
        self.interfaces: dict[str, int] = {}  # name -> ifindex
        directory.mkdir(parents=True, exist_ok=True)

    def find(self, interface: str) -> int | None:
        """Index of an interface that is there."""
        found = self._route.link_lookup(ifname=interface)
        return found[0] if found else None

    def find_with_address(self, interface: str) -> tuple[int, bytes] | None:
        """Index and link-layer address of an interface that is there."""
        index = self.find(interface)
        if index is None:
            return None
        text = self._route.link("get", index=index)[0].get_attr("IFLA_ADDRESS")
        return index, bytes.fromhex(text.replace(":", ""))

    def attach(self, interface: str) -> int:
        """Put the programs on the interface, new or again; returns its index."""
        index = self.find(interface)
        if index is None:
            raise DataPlaneError(f"there is no interface {interface}")
        if self._route.link("get", index=index)[0]["ifi_type"] != ARPHRD_ETHER:
            raise DataPlaneError(
                f"interface {interface} is not Ethernet: its packets have no link-layer header"
            )
        for direction in ("ingress", "egress"):
            if not (self._tcx and self._attach_link(interface, index, direction)):
                self._attach_filter(index, direction)
        self.interfaces[interface] = index
        return index

    def _pin(self, interface: str, direction: str) -> Path:
        return self._directory / f"{pin_name(interface)}-{direction}"

    def _attach_link(self, interface: str, index: int, direction: str) -> bool:
        path, program = self._pin(interface, direction), self._programs[direction]
        if path.exists():
            link = pinned(path)
            try:
                if link_ifindex(link) == index:
                    update_link(link, program)
                    return True
            finally:
                os.close(link)
            path.unlink()  # of an interface of this name that is gone
        created = create_link(program, index, TCX[direction])
        if created is None:
            return False
        try:
            pin(created, path)
        finally:
            os.close(created)
        return True

    def _attach_filter(self, index: int, direction: str) -> None:
        try:
            self._route.tc("add", "clsact", index=index)
        except NetlinkError as error:
            if error.code != 17:  # there is one
                raise DataPlaneError(f"clsact on interface {index}: {error}") from error
        self._route.tc(
            "replace-filter",
            "bpf",
            index=index,
            handle=1,
            prio=FILTER_PRIORITY,
            fd=self._programs[direction],
            name=f"locum_{direction}",
            parent=CLSACT[direction],
            direct_action=True,
        )

    def detach(self, interface: str) -> None:
        """Take the programs off; a missing interface is no error."""
        pins = [self._pin(interface, direction) for direction in ("ingress", "egress")]
        linked = [path for path in pins if path.exists()]
        for path in linked:
            path.unlink()
        index = self.interfaces.pop(interface, None) or self.find(interface)
        if index is None or linked:
            return
        for direction in ("ingress", "egress"):
            self._remove_filter(index, direction)

    def _remove_filter(self, index: int, direction: str) -> None:
        try:
            filters = self._route.get_filters(index=index, parent=CLSACT[direction])
            ours = any((f["info"] >> 16) == FILTER_PRIORITY for f in filters)
            if ours:
                self._route.tc(
                    "del-filter", "bpf", index=index, handle=1, prio=FILTER_PRIORITY, parent=CLSACT[direction]
                )
        except NetlinkError:
            return  # no clsact, or the interface went meanwhile

    def known(self) -> set[str]:
        """Interfaces with pinned links, of this daemon or an earlier one."""
        names = {path.name.rsplit("-", 1)[0].replace(":", ".") for path in self._directory.iterdir()}
        return names | self.interfaces.keys()
