"""Multicast groups (C4) in the kernel's maps: on which link each comes in, and to which it is copied.

Links are named; one that is gone is left out and written when it is back.
"""

import struct
from collections.abc import Callable

from locum.dataplane.kernel.entries import Entries
from locum.dataplane.kernel.settings import GROUPS, Uses
from locum.dataplane.layout import maps
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import ForwardGroup

MAX_LINKS = 16
KEY = struct.Struct("<16sII")
LINK = struct.Struct("<I6s2x")
HEAD = struct.Struct("<I")
SIZE = HEAD.size + MAX_LINKS * LINK.size

Found = Callable[[str], tuple[int, bytes] | None]  # index and link-layer address of a link that is there


def read(found: dict[str, Entries], names: dict[int, str]) -> dict[Addr, ForwardGroup]:
    """Read the kernel's map; entries of links without a name are left out."""
    groups = {}
    for key, value in found["groups"].items():
        group, upstream, _ = KEY.unpack(key)
        (count,) = HEAD.unpack_from(value)
        links = [LINK.unpack_from(value, HEAD.size + i * LINK.size)[0] for i in range(count)]
        address = maps.address_of(group)
        groups[address] = ForwardGroup(
            address,
            names.get(upstream, f"#{upstream}"),
            tuple(names.get(index, f"#{index}") for index in links),
        )
    return groups


class GroupTable:
    """Writes the kernel's map to match `state.groups`."""

    def __init__(self, found: dict[str, Entries], uses: Uses, find: Found) -> None:
        self._maps, self._uses, self._find = found, uses, find
        self._keys: dict[Addr, bytes] = {}

    def adopt(self) -> None:
        """Take over the keys that an earlier daemon wrote."""
        self._keys = {maps.address_of(KEY.unpack(key)[0]): key for key, _ in self._maps["groups"].items()}

    def install(self, state: ForwardingState, wanted: ForwardGroup) -> None:
        """Add or replace; without links the group goes. ValueError for more than MAX_LINKS links."""
        if not wanted.links:
            state.groups.pop(wanted.group, None)
            self._forget(wanted.group)
            self._uses.set(GROUPS, bool(state.groups))
            return
        if len(wanted.links) > MAX_LINKS:
            raise ValueError(f"{wanted.group}: more than {MAX_LINKS} links")
        state.groups[wanted.group] = ForwardGroup(wanted.group, wanted.upstream, tuple(wanted.links))
        self._write(state.groups[wanted.group])
        self._uses.set(GROUPS, True)

    def _write(self, wanted: ForwardGroup) -> None:
        upstream = self._find(wanted.upstream)
        if upstream is None:
            return
        key = KEY.pack(maps.address(wanted.group), upstream[0], 0)
        links = [found for name in wanted.links if (found := self._find(name)) is not None]
        value = HEAD.pack(len(links)) + b"".join(LINK.pack(*found) for found in links)
        if self._keys.get(wanted.group) != key:
            self._forget(wanted.group)
        self._keys[wanted.group] = key
        self._maps["groups"].put(key, value.ljust(SIZE, b"\0"))

    def _forget(self, group: Addr) -> None:
        key = self._keys.pop(group, None)
        if key is not None:
            self._maps["groups"].delete(key)

    def link_changed(self, state: ForwardingState, link: str) -> None:
        """The link has another index than before: groups that name it are written again."""
        for wanted in state.groups.values():
            if link in (wanted.upstream, *wanted.links):
                self._write(wanted)

    def counter(self, group: Addr) -> maps.Counter:
        """Copies and their bytes."""
        key = self._keys.get(group)
        return maps.Counter() if key is None else maps.counter_of(self._maps["groups"].counter(key))
