"""The programs on interfaces: tcx links that are pinned, or clsact filters where the kernel has no tcx.

A pinned link keeps its program when the daemon dies; the next daemon puts its own program into the same link, without
a packet in between that meets none. The programs go before those of others, in both directions: arriving packets are
judged as they came, and others see leaving packets as they are on the wire. A packet that is not ours goes on to them.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from locum.dataplane.kernel.hooks import tcx as links
from locum.dataplane.kernel.hooks.clsact import Filters
from locum.dataplane.kernel.libbpf import (
    DataPlaneError,
    link_ifindex,
    pin,
    pinned,
    update_link,
)

BPFFS_MAGIC = 0xCAFE4A11
WITH_ETHERNET = (1,)
"""ARPHRD_ETHER; tap devices, bridges and Wi-Fi have it too."""
BARE = (512, 519, 0xFFFE)
"""ARPHRD_PPP, ARPHRD_RAWIP (WWAN) and ARPHRD_NONE (TUN, WireGuard): packets begin with their IP header."""
TCX = {"ingress": links.INGRESS, "egress": links.EGRESS}


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


@dataclass(frozen=True, slots=True)
class Displacement:
    """A program of ours that is not where it was put. `behind`: foreign programs before it; none: it was detached."""

    interface: str
    direction: str
    behind: tuple[str, ...]

    def __str__(self) -> str:
        place = f"{self.interface} {self.direction}"
        return f"{place}: behind {', '.join(self.behind)}" if self.behind else f"{place}: detached"


class Attachments:
    """The interfaces that have the programs. `programs` are file descriptors by direction.

    `bare` gives those for links without link-layer headers (WireGuard, TUN, PPP, WWAN); it is called with the first such link.
    """

    def __init__(
        self,
        directory: Path,
        programs: dict[str, int],
        route: IPRoute,
        *,
        number: int = 0,
        tcx: bool = True,
        bare: Callable[[], dict[str, int]] | None = None,
    ) -> None:
        self._directory = directory
        self._programs = programs
        self._route = route
        self._bare = bare
        self._filters = Filters(route, number)
        self._tcx = tcx
        self._links: dict[tuple[str, str], int] = {}  # kernel's numbers of links, by interface and direction
        self._names: dict[int, str] = {}  # of programs, by the kernel's numbers, which are not used again
        self.interfaces: dict[str, int] = {}  # name -> ifindex
        self.deferred = False  # links keep the programs of an earlier daemon, until `exchange`
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
        text = self._route.link("get", index=index)[0].get_attr("IFLA_ADDRESS") or "00:00:00:00:00:00"
        return index, bytes.fromhex(text.replace(":", ""))

    def attach(self, interface: str) -> int:
        """Put the programs on the interface, new or again; returns its index."""
        index = self.find(interface)
        if index is None:
            raise DataPlaneError(f"there is no interface {interface}")
        programs = self._programs_for(interface, index)
        for direction, program in programs.items():
            self._attach(interface, index, direction, program)
        self.interfaces[interface] = index
        return index

    def _programs_for(self, interface: str, index: int) -> dict[str, int]:
        """The programs for the kind of this link. Raises DataPlaneError."""
        kind = self._route.link("get", index=index)[0]["ifi_type"]
        if kind in WITH_ETHERNET:
            return self._programs
        if kind in BARE and self._bare is not None:
            return self._bare()
        raise DataPlaneError(
            f"interface {interface} has link-layer headers of kind {kind}, which the programs cannot read: "
            "they know Ethernet, and links without such headers (WireGuard, TUN, PPP)"
        )

    def _attach(self, interface: str, index: int, direction: str, program: int) -> None:
        if self._tcx and self._attach_link(interface, index, direction, program):
            return
        if not (self.deferred and self._filters.has(index, direction)):
            self._filters.attach(index, direction, program)

    def _pin(self, interface: str, direction: str) -> Path:
        return self._directory / f"{pin_name(interface)}-{direction}"

    def _attach_link(self, interface: str, index: int, direction: str, program: int) -> bool:
        path = self._pin(interface, direction)
        if path.exists():
            link = pinned(path)
            try:
                if link_ifindex(link) == index:
                    if not self.deferred:
                        update_link(link, program)
                    self._links[interface, direction] = links.link_identifier(link)
                    return True
            finally:
                os.close(link)
            path.unlink()  # of an interface of this name that is gone, or of a link that was detached
        created = links.create_first(program, index, TCX[direction])
        if created is None:
            return False
        try:
            pin(created, path)
            self._links[interface, direction] = links.link_identifier(created)
        finally:
            os.close(created)
        return True

    def exchange(self) -> None:
        """Put our programs into the links of an earlier daemon: of each link's packets one meets the old, the next the new."""
        self.deferred = False
        for interface, index in self.interfaces.items():
            if self.find(interface) == index:
                self.attach(interface)

    def detach(self, interface: str) -> None:
        """Take the programs off; a missing interface is no error."""
        pins = [self._pin(interface, direction) for direction in self._programs]
        linked = [path for path in pins if path.exists()]
        for path in linked:
            path.unlink()
        for direction in self._programs:
            self._links.pop((interface, direction), None)
        index = self.interfaces.pop(interface, None) or self.find(interface)
        if index is None or linked:
            return
        for direction in self._programs:
            self._filters.detach(index, direction)

    def known(self) -> set[str]:
        """Interfaces with pinned links, of this daemon or an earlier one."""
        names = {path.name.rsplit("-", 1)[0].replace(":", ".") for path in self._directory.iterdir()}
        return names | self.interfaces.keys()

    # Programs of others

    def displaced(self, *, filters: bool = True) -> Iterator[Displacement]:
        """Programs of ours that were detached, or have foreign ones before them; `filters`: clsact's, too."""
        for interface, index in tuple(self.interfaces.items()):
            for direction in self._programs:
                kind = TCX[direction]
                link = self._links.get((interface, direction))
                if link is not None:
                    found = links.order(index, kind)
                    yield from (
                        self._judge(interface, direction, link, found)
                        if found or self.find(interface) == index
                        else ()
                    )
                elif filters and self.find(interface) == index:
                    before = self._filters.before(index, direction)
                    if before is None or before:
                        yield Displacement(interface, direction, tuple(before or ()))

    def _judge(
        self, interface: str, direction: str, link: int, found: list[links.Attached]
    ) -> Iterator[Displacement]:
        numbers = [attached.link for attached in found]
        if link not in numbers:
            yield Displacement(interface, direction, ())
            return
        before = found[: numbers.index(link)]
        foreign = [attached for attached in before if not self._name(attached.program).startswith("locum_")]
        if foreign:
            texts = (
                f"program {self._name(one.program) or 'without a name'} ({one.program})" for one in foreign
            )
            yield Displacement(interface, direction, tuple(texts))

    def _name(self, program: int) -> str:
        if program not in self._names:
            self._names[program] = links.program_name(program)
        return self._names[program]

    def put_back(self, displaced: Displacement) -> bool:
        """Attach the program again, before all others; false if the interface is gone. Raises DataPlaneError."""
        interface, direction = displaced.interface, displaced.direction
        index = self.find(interface)
        if index is None:
            return False
        path = self._pin(interface, direction)
        if path.exists() and displaced.behind:
            # A program is at an interface once: the next packets meet none until the call after this one.
            link = pinned(path)
            try:
                links.detach(link)
            finally:
                os.close(link)
        self._attach(interface, index, direction, self._programs_for(interface, index)[direction])
        return True
