"""Filters of clsact: the place of a program among those of an interface where the kernel has no tcx.

Filters of other programs are left alone. A filter before ours that accepts a packet hides it from ours, so ours goes before
it where the kernel allows that. A lower number goes first, and of one number the newest filter of the kind "bpf".
"""

import errno
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane.kernel.libbpf import DataPlaneError

PARENTS = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}
PREFERENCE = 434  # while nothing stands before it
_HANDLE = 434  # of the first node; others count from 1
_ALL = 0x0300  # ETH_P_ALL in network order, as it is read


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a place, in the kernel's order."""

    preference: int
    protocol: int
    kind: str
    handle: int
    name: str


class Filters:
    """The filters of one node, which have its number as their handle."""

    def __init__(self, route: IPRoute, number: int) -> None:
        self._route, self._handle = route, _HANDLE + number
        self._made: set[int] = set()  # interfaces whose clsact is ours
        # An earlier version had handle 1, and one node.
        self._handles = (self._handle, *((1,) if number == 0 else ()))

    def attach(self, index: int, direction: str, program: int) -> None:
        """Put the program (a file descriptor) there, new or again, before the filters of others where possible. Raises DataPlaneError."""
        try:
            self._route.tc("add", "clsact", index=index)
            self._made.add(index)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise DataPlaneError(f"clsact on interface {index}: {error}") from error
        found = self._list(index, direction)
        place = self._best(found, direction)
        try:
            self._route.tc(
                "replace-filter",
                "bpf",
                index=index,
                handle=self._handle,
                prio=place,
                fd=program,
                name=_name(direction),
                parent=PARENTS[direction],
                direct_action=True,
            )
        except NetlinkError as error:
            raise DataPlaneError(f"filter on interface {index}: {error}") from error
        for ours in found:
            if self._is_ours(ours, direction) and (ours.preference, ours.handle) != (place, self._handle):
                self._remove(index, direction, ours)

    def has(self, index: int, direction: str) -> bool:
        """True if a filter of this node is there."""
        return any(self._is_ours(found, direction) for found in self._list(index, direction))

    def detach(self, index: int, direction: str) -> None:
        """Take it off, and clsact with the last filter if that is ours; no error if it is not there."""
        for ours in self._list(index, direction):
            if self._is_ours(ours, direction):
                self._remove(index, direction, ours)
        if index in self._made and not any(self._list(index, way) for way in PARENTS):
            self._made.discard(index)
            with suppress(NetlinkError):
                self._route.tc("del", "clsact", index=index)

    def before(self, index: int, direction: str) -> list[str] | None:
        """Foreign filters that stand before ours, as text; None if ours is not there."""
        ahead: list[str] = []
        for found in self._list(index, direction):
            if self._is_ours(found, direction):
                return ahead
            if found.name != _name(direction):
                ahead.append(
                    f"{found.kind} filter {found.name}, preference {found.preference}".replace(" ,", ",")
                )
        return None

    def _best(self, found: list[Filter], direction: str) -> int:
        """The preference that is before all foreign filters, or as far before as the kernel allows."""
        foreign = [other for other in found if other.name != _name(direction)]
        ours = [one.preference for one in found if self._is_ours(one, direction)]
        first = min((other.preference for other in foreign), default=PREFERENCE + 1)
        if ours and (self.first_of(found, direction) or not foreign):
            return min(ours)
        if first > 1:
            return min(first - 1, PREFERENCE)
        same = [other for other in foreign if other.preference == 1]
        if all(
            other.kind == "bpf" and other.protocol == _ALL and other.handle != self._handle for other in same
        ):
            return 1
        taken = {other.preference for other in foreign}
        return next(place for place in range(2, 1 << 16) if place not in taken)

    def first_of(self, found: list[Filter], direction: str) -> bool:
        """True if ours is there, and only filters of other nodes before it."""
        for one in found:
            if self._is_ours(one, direction):
                return True
            if one.name != _name(direction):
                return False
        return False

    def _is_ours(self, found: Filter, direction: str) -> bool:
        return found.name == _name(direction) and found.handle in self._handles

    def _list(self, index: int, direction: str) -> list[Filter]:
        try:
            messages = self._route.get_filters(index=index, parent=PARENTS[direction])
        except NetlinkError:
            return []  # no clsact, or the interface went meanwhile
        return [found for found in map(_filter, messages) if found.handle]

    def _remove(self, index: int, direction: str, ours: Filter) -> None:
        try:
            self._route.tc(
                "del-filter",
                "bpf",
                index=index,
                handle=ours.handle,
                prio=ours.preference,
                parent=PARENTS[direction],
            )
        except NetlinkError:
            return  # it went meanwhile


def _name(direction: str) -> str:
    return f"locum_{direction}"


def _filter(message: Any) -> Filter:
    options = message.get_attr("TCA_OPTIONS")
    name = options.get_attr("TCA_BPF_NAME") if hasattr(options, "get_attr") else None
    info = message["info"]
    kind = message.get_attr("TCA_KIND")
    handle = message["handle"]
    return Filter(info >> 16, info & 0xFFFF, kind, handle, name or "")
