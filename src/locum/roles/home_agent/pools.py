"""Home addresses from pools (feature R3; RFC 2794): assignments, which a device keeps.

An assignment is kept for its NAI until it is withdrawn: a device that comes back has the address that others know.
"""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from locum.roles.actions import Action, Forget, Persist
from locum.roles.parts import readable
from locum.roles.profile import Pool

TABLE: Final = "pool"


class UnknownPool(Exception):
    """There is no pool of that name."""


class PoolExhausted(Exception):
    """Every address of the pool is assigned."""


class NotAssigned(Exception):
    """The address that was asked for is another's, or in no such pool."""


class Pools:
    """The pools of one home agent."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._assigned: dict[str, IPv4Address] = {}  # by NAI
        self._owners: dict[IPv4Address, str] = {}
        self._next: dict[str, int] = {}  # where to look first, by pool

    def __contains__(self, address: object) -> bool:
        return any(address in pool for pool in self._pools.values())

    def restore(self, rows: Sequence[Persist]) -> list[Action]:
        """The assignments of an earlier run."""
        found, actions = readable(rows, TABLE, lambda row: IPv4Address(str(row.value["home_address"])))
        for row, address in found:
            self._assigned[row.key], self._owners[address] = address, row.key
        return actions

    def assign(
        self, name: str, nai: str, wanted: IPv4Address | None, taken: Callable[[IPv4Address], bool]
    ) -> tuple[IPv4Address, list[Action]]:
        """The address of that mobile node: the one it has, else `wanted`, else one that is free.

        `taken` tells addresses that are served otherwise. Raises UnknownPool, PoolExhausted, or NotAssigned when
        `wanted` is not available; then no state changes.
        """
        pool = self._pools.get(name)
        if pool is None:
            raise UnknownPool(name)
        held = self._assigned.get(nai)
        if held is not None and held in pool:
            if wanted not in (None, held):
                raise NotAssigned(str(wanted))
            return held, []
        if wanted is not None and (wanted not in pool or wanted in self._owners or taken(wanted)):
            raise NotAssigned(str(wanted))
        found = wanted or self._free(pool, taken)
        actions = self.release(nai)
        self._assigned[nai], self._owners[found] = found, nai
        return found, [*actions, Persist(TABLE, nai, {"home_address": str(found), "pool": name})]

    def _free(self, pool: Pool, taken: Callable[[IPv4Address], bool]) -> IPv4Address:
        """The next free one behind the last: released ones are unused for a while. Raises PoolExhausted."""
        size = int(pool.last) - int(pool.first) + 1
        start = self._next.get(pool.name, 0)
        for step in range(size):
            place = (start + step) % size
            address = pool.first + place
            if address not in self._owners and not taken(address):
                self._next[pool.name] = place + 1
                return address
        raise PoolExhausted(pool.name)

    def release(self, nai: str) -> list[Action]:
        """Its address is free again; nothing when it has none."""
        held = self._assigned.pop(nai, None)
        if held is None:
            return []
        del self._owners[held]
        return [Forget(TABLE, nai)]
