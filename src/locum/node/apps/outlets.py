"""The outlets of all proxies of a stand-in that run: their numbers, their directories, and the room of their files."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from locum.node.apps.awake.leads import Leads
from locum.node.apps.data import AppData
from locum.node.apps.emitting import Emitting
from locum.node.apps.outlet import Handed, NoPorts, Outlet, Ports, number_besides, reset
from locum.node.apps.process import AppProcess
from locum.node.apps.room import Watch
from locum.node.apps.silence import silence
from locum.node.config.settings import AppLimits
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import AppOrder


@dataclass(slots=True)
class Outlets:
    """`emitting` limits what their sockets send, `handed` is called with each connection that a device takes over.

    Addresses that `is_local` are this host's: no proxy reaches them.
    """

    data: AppData
    limits: AppLimits
    ports: Ports = field(default_factory=NoPorts)
    emitting: Emitting = field(default_factory=Emitting)
    handed: Callable[[Outlet], Handed] = lambda _outlet: reset
    is_local: Callable[[Addr], bool] = lambda _address: False
    leads: Leads = field(default_factory=Leads)
    _used: dict[int, Outlet] = field(default_factory=dict)
    _last: int = 0
    _watches: dict[int, Watch] = field(default_factory=dict)

    def open(self, device: Addr, homes: Sequence[Addr], order: AppOrder, *, led: bool = False) -> Outlet:
        """For the proxy of this order; `led` if its device may be awake. Raises OSError: no directory can be made, no filter, too many proxies."""
        number = number_besides(self._used, self._last)
        directory = self.data.directory(device, order.name, make=True)
        outlet = Outlet(homes or (device,), number, directory, self.limits, self.ports)
        outlet.is_local, outlet.leads = self.is_local, self.leads if led else None
        outlet.policy, outlet.handed = self.emitting.policy(order.emission), self.handed(outlet)
        self._last, self._used[number] = number, outlet
        return outlet

    def watch(self, outlet: Outlet, process: AppProcess) -> None:
        """Stop this process with a reason if its files take more room than they may."""
        self._watches[outlet.number] = Watch(
            outlet.directory, lambda: process.pid, self.limits.disk, process.stop
        )

    def close(self, outlet: Outlet) -> None:
        """The process has ended."""
        outlet.close()
        self._used.pop(outlet.number, None)
        if (watch := self._watches.pop(outlet.number, None)) is not None:
            watch.close()

    async def silence(self, numbers: Iterable[int]) -> None:
        """The device goes on: nothing may be sent any more by connections that ended processes have left."""
        ended = frozenset(numbers) - self._used.keys()  # not of another proxy by now
        if ended:
            await asyncio.to_thread(silence, ended)

    @property
    def directories(self) -> set[Path]:
        """Those of running proxies."""
        return {outlet.directory for outlet in self._used.values()}
