"""A process of a puppet (`puppet.py`) whose outlet is on this host's loopback, and everything that it reports."""

import asyncio
import json
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from locum.node.apps.outlet import Outlet
from locum.node.apps.process import AppProcess
from locum.node.config.settings import AppLimits
from locum.roles.action_values.addresses import Addr

HERE = IPv4Address("127.0.0.1")


class LoopbackOutlet(Outlet):
    """Peers on the loopback are reached."""

    async def _addresses(self, host: str) -> list[Addr]:
        if host.endswith(".test"):
            return [HERE]
        return [IPv4Address(host)] if host[:1].isdigit() else await Outlet._addresses(self, host)


class Driven:
    """One process. `settings` are those of its kind, mostly the puppet's."""

    def __init__(
        self,
        directory: Path,
        limits: AppLimits | None = None,
        outlet: Outlet | None = None,
        kind: str = "puppet",
        **settings: Any,
    ) -> None:
        limits = limits or AppLimits()
        directory.mkdir(exist_ok=True)
        self.outlet = outlet or LoopbackOutlet((HERE,), 1, directory, limits)
        self.happened: list[tuple[str, Mapping[str, Any]]] = []
        self.others: list[Any] = []
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ready = asyncio.Event()
        self._settings = settings
        self.process = AppProcess(
            kind, limits, self._told, self._ready.set, self._gone, self.outlet
        )  # fmt: skip

    def _gone(self, reason: str) -> None:
        self.reason.set_result(reason)
        self.outlet.close()

    def _told(self, effects: list[Any]) -> None:
        for effect in effects:
            if effect[0] == "tell":
                self.happened.append((effect[1], effect[3]))
            else:
                self.others.append(effect)

    async def process_ready(self) -> None:
        await asyncio.wait_for(self._ready.wait(), 60)
        assert self.process.send("begin", self._settings, {})

    async def begin(self) -> "Driven":
        await self.process_ready()
        await self.wait("Files")
        return self

    def do(self, *script: list[Any]) -> None:
        """Have it return these effects."""
        assert self.process.send("received", 0, json.dumps(script).encode())

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(180):
            while not done():
                if self.reason.done():
                    raise AssertionError(self.reason.result())
                await asyncio.sleep(0.01)

    async def wait(self, kind: str, **wanted: Any) -> Mapping[str, Any]:
        """The first happening of this kind with these values that was not waited for yet."""
        found: list[int] = []

        def there() -> bool:
            found[:] = [
                place
                for place, (name, detail) in enumerate(self.happened)
                if name == kind and wanted.items() <= detail.items()
            ]
            return bool(found)

        await self.until(there)
        return self.happened.pop(found[0])[1]

    async def end(self) -> Mapping[str, Any]:
        """Its state."""
        state = await self.process.end()
        self.outlet.close()
        return state
