"""Makes again what other programs of the host take away from this node, within a second: rules, routes, addresses,
neighbours, sysctls, and the place of its programs on interfaces.

Losses that the kernel tells of are mended at once. Sysctls and programs are looked at every half second: one small file or
one system call for each. A setting that is taken away again and again is contested, and gets its time (`contests.py`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from inspect import isawaitable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from locum.dataplane.kernel.host.lost import Key, LossSocket
from locum.node.events import EventStream
from locum.node.host.contests import Contests
from locum.node.host.network import HostNetwork
from locum.node.translated.untracked import TableLosses

if TYPE_CHECKING:
    from locum.dataplane.kernel.attach import Displacement
    from locum.dataplane.plane import DataPlane

PERIOD = 0.5  # seconds between two looks at sysctls and programs
_PAUSE = 0.05  # seconds until a loss is mended: `ip route flush` goes on for as long as it finds routes
_RETRY = 1.0  # seconds until a failed repair is tried again
_FIRST: dict[object, int] = {"device": 0, "address": 1}  # routes need them
_SHOWN = 5  # settings that an event names

log = logging.getLogger("locum.host")


class Keeper:
    """Keeps the settings of one node."""

    def __init__(self, plane: "DataPlane", network: HostNetwork, events: EventStream) -> None:
        self._plane, self._network, self._events = plane, network, events
        self._contests = Contests()
        self._lost: set[Key] = set()
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._sockets: list[LossSocket | TableLosses] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._filters = True  # clsact has to be looked at
        self._failed: dict[str, str] = {}  # looks that fail, and why
        self.displaced: tuple[str, ...] = ()  # programs that are not where they belong

    def open(self) -> None:
        """Begin. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._sockets.append(LossSocket())
        if any(key[0] == "table" for key in self._network.kept()):
            self._sockets.append(TableLosses())
        for found in self._sockets:
            loop.add_reader(found.fileno(), self._read, found)
        self._tasks = [
            loop.create_task(self._mend_losses(), name="losses"),
            loop.create_task(self._look(), name="keeper"),
        ]

    async def close(self) -> None:
        """End; nothing is made again from now on."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        for found in self._sockets:
            asyncio.get_running_loop().remove_reader(found.fileno())
            found.close()
        self._sockets.clear()

    def contested(self) -> list[str]:
        """Settings that another program takes away again and again, as text."""
        now = asyncio.get_running_loop().time()
        return sorted({_said(setting) for setting in self._contests.contested(now)})

    # Losses that the kernel tells of

    def _read(self, losses: LossSocket | TableLosses) -> None:
        keys, missed = losses.read()
        if missed:
            keys.update(self._plane.kept.all(), self._network.kept())
            self._filters = True
        self._filters |= any(key[0] == "filter" for key in keys)
        found = {key for key in keys if self._plane.kept.keeps(key) or self._network.keeps(key)}
        if found:
            if any([self._plane.kept.lost(key) for key in found]):
                self._events.count("renewal-lost")
            self._lost |= found
            self._wake.set()

    async def _mend_losses(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_PAUSE)
            self._wake.clear()
            lost, self._lost = self._lost, set()
            restored: dict[str, list[str]] = {}
            for key in sorted(lost, key=lambda key: _FIRST.get(key[0], len(_FIRST))):
                if await self._mend(key):
                    restored.setdefault(str(key[0]), []).append(_said(key))
            for setting, texts in restored.items():
                self._tell(setting, texts)

    async def _mend(self, key: Key) -> bool:
        wait = self._wait(key)
        if wait > 0:
            if key not in self._later:
                self._events.emit(
                    "setting-contested", detail={"setting": _said(key), "seconds": round(wait, 1)}
                )
                log.warning(
                    "another program removes %s again and again; waiting for %.0f s", _said(key), wait
                )
                self._retry(key, wait)
            return False
        results = [
            await self._attempt(key, partial(owner.make_again, key))
            for owner in (self._plane.kept, self._network)
        ]
        if None in results:
            self._retry(key, max(_RETRY, self._wait(key)))
        return True in results

    def _retry(self, key: Key, wait: float) -> None:
        if key not in self._later:
            self._later[key] = asyncio.get_running_loop().call_later(wait, self._again, key)

    def _again(self, key: Key) -> None:
        del self._later[key]
        self._lost.add(key)
        self._wake.set()

    def _wait(self, key: Key) -> float:
        return self._contests.wait(key, asyncio.get_running_loop().time())

    async def _attempt(self, key: Key, make: Callable[[], bool | Awaitable[bool]]) -> bool | None:
        """The result of `make`: true if it was made again. A failure is an event; its result is None."""
        try:
            made = make()
            result = await made if isawaitable(made) else made
        except Exception as problem:  # whatever it is, the other settings are to be kept
            self._events.emit("setting-lost", detail={"setting": _said(key), "reason": str(problem)})
            log.warning("%s is lost: %s", _said(key), problem)
            result = None
        if result is not False:
            self._contests.repaired(key, asyncio.get_running_loop().time())
        return result

    def _tell(self, setting: str, texts: Iterable[str]) -> None:
        which = sorted(texts)
        self._events.emit(
            "setting-restored", detail={"setting": setting, "number": len(which), "which": which[:_SHOWN]}
        )

    # Sysctls and programs

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            await self._look_once("sysctls", self._look_at_sysctls)
            await self._look_once("programs", self._look_at_programs)

    async def _look_once(self, what: str, look: Callable[[], Awaitable[None]]) -> None:
        """Look; a look that fails is counted, told of when its reason is new, and not the last one."""
        try:
            await look()
        except Exception as problem:  # file descriptors may be short, or an interface have gone meanwhile
            reason = str(problem) or type(problem).__name__
            self._events.count("look-failed")
            if self._failed.get(what) != reason:
                self._failed[what] = reason
                self._events.emit("look-failed", detail={"of": what, "reason": reason})
                log.warning("cannot look at %s: %s", what, reason)
        else:
            self._failed.pop(what, None)

    async def _look_at_sysctls(self) -> None:
        sysctls, network = self._plane.sysctls, self._network
        lost = {name: partial(sysctls.again, name) for name in sysctls.lost()}
        lost |= {
            f"net/ipv4/conf/{link}/accept_local": partial(network.set_again, link)
            for link in network.lost_settings()
        }
        restored = []
        for name, make in lost.items():
            key: Key = ("sysctl", name)
            if self._wait(key) == 0 and await self._attempt(key, make):
                restored.append(_dotted(name))
        if restored:
            self._tell("sysctl", restored)

    async def _look_at_programs(self) -> None:
        filters, self._filters = self._filters, False
        remaining = []
        try:
            found = tuple(self._plane.displaced(filters=filters))
        except Exception:
            self._filters |= filters  # not seen: the next look does it
            raise
        for displaced in found:
            remaining += [] if await self._put_back(displaced) else [str(displaced)]
        self._filters |= bool(remaining)
        self.displaced = tuple(remaining)

    async def _put_back(self, displaced: "Displacement") -> bool:
        key: Key = ("program", displaced.interface, displaced.direction)
        if self._wait(key) > 0:
            if str(displaced) not in self.displaced:
                self._events.emit("program-displaced", detail=_place(displaced))
            return False

        if not await self._attempt(key, partial(self._plane.put_back, displaced)):
            return False
        self._events.emit("program-restored", detail=_place(displaced))
        return True


def _place(displaced: "Displacement") -> dict[str, object]:
    return {
        "link": displaced.interface,
        "direction": displaced.direction,
        "behind": list(displaced.behind),
    }


def _dotted(name: str) -> str:
    return name.replace("/", ".")


def _said(key: Key) -> str:
    """A key as text for people."""
    kind = key[0]
    rest: tuple[Any, ...] = key[1:]
    match kind:
        case "rule":
            _, preference, table, mark, iif, source, destination, *ports = rest
            words = [f"rule {preference}:"]
            words += [f"from {ip_address(source)}"] if source else []
            words += [f"to {ip_address(destination)}"] if destination else []
            words += [f"iif {iif}"] if iif else []
            words += [f"fwmark {mark:#x}"] if mark else []
            words += [f"ports {ports[0]} {ports[1]}"] if any(ports) else []
            return " ".join([*words, f"lookup {table}"])
        case "route":
            _, table, destination, length = rest
            prefix = f"{ip_address(destination)}/{length}" if length else "default"
            return f"route {prefix} in table {table}"
        case "address" | "neighbour":
            return f"{kind} {ip_address(rest[0])}"
        case "sysctl":
            return f"sysctl {_dotted(str(rest[0]))}"
        case "program":
            return f"program of {rest[0]}, {rest[1]}"
    return " ".join(map(str, key))
