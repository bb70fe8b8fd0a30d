"""Performs what devices ask about files of their orders, without keeping the event loop from its work (A4, A5).

Requests of one kind are done one after the other, in the order in which they come: a device may have several pieces of a
file on their way. Directories that were of no use for a long time are removed.
"""

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from locum.node import words
from locum.node.apps.data import AppData, DataError
from locum.node.config.settings import AppLimits
from locum.node.performer import Handler
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import AppDataUsed, UseAppData
from locum.roles.actions import Event
from locum.roles.app_results import RESULT
from locum.wire import cbor
from locum.wire.control.answer import Status
from locum.wire.control.order import MAX_FILES, Operation, OrderAnswer, OrderRequest

log = logging.getLogger("locum.apps")
MAX_PENDING = 64
"""Requests of all devices that wait; each may have 1 MiB of data."""
SWEEP = 3600.0
"""Seconds between two looks for directories without use."""
DAY = 86400.0
_SLOW = (Operation.DIGEST, Operation.COMMIT)  # they read whole files


class AppTransfers:
    """`running` are devices and names of the proxies that run: their files stay. `state` is what one of them has kept.

    `uploaded` is called when a file has come.
    """

    def __init__(
        self,
        data: AppData,
        limits: AppLimits,
        feed: Callable[[Event], None],
        running: Callable[[], Iterable[tuple[Addr, str]]],
        state: Callable[[Addr, str], Mapping[str, object] | None] = lambda _device, _name: None,
        uploaded: Callable[[Addr, str], None] = lambda _device, _name: None,
    ) -> None:
        self._state, self._uploaded = state, uploaded
        self._data, self._limits, self._feed, self._running = data, limits, feed, running
        self._quick = ThreadPoolExecutor(1, "app-files")
        self._slow = ThreadPoolExecutor(1, "app-digests")
        self._pending = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {UseAppData: self._use}

    def begin(self) -> None:
        """Look for directories without use, now and again and again."""
        self._sweep()

    def close(self) -> None:
        """End; requests under way get no answer."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        for executor in (self._quick, self._slow):
            executor.shutdown(cancel_futures=True)

    def _use(self, action: UseAppData) -> None:
        if self._pending >= MAX_PENDING:
            busy = OrderAnswer(Status.BUSY, "the stand-in has too many requests about files; ask again")
            # The role is in the middle of a step.
            asyncio.get_running_loop().call_soon(
                self._feed, AppDataUsed(action.exchange, action.request, busy)
            )
            return
        self._pending += 1
        task = asyncio.get_running_loop().create_task(self._answer(action))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, action: UseAppData) -> None:
        request = action.request
        executor = self._slow if request.operation in _SLOW else self._quick
        try:
            answer = await asyncio.get_running_loop().run_in_executor(executor, self.perform, request)
        finally:
            self._pending -= 1
        if request.operation is Operation.COMMIT and answer.status is Status.OK:
            self._uploaded(request.home_address, request.name)
        self._feed(AppDataUsed(action.exchange, request, answer))

    def perform(self, request: OrderRequest) -> OrderAnswer:
        """The answer to a request; it waits for the disk."""
        try:
            return self._perform(request)
        except DataError as problem:
            return OrderAnswer(Status.REFUSED, str(problem))
        except OSError as problem:
            log.warning("files of %s, order %s: %s", request.home_address, request.name, problem)
            full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
            said = words.reason(problem)
            return OrderAnswer(Status.LIMIT if full else Status.BUSY, f"the stand-in's disk: {said}")

    def _perform(self, request: OrderRequest) -> OrderAnswer:
        device, name, file, data = request.home_address, request.name, request.file, self._data
        match request.operation:
            case Operation.STATE:
                if (state := self._state(device, name)) is None:
                    return OrderAnswer(Status.WRONG_STATE, "no proxy of this order runs")
                return OrderAnswer(Status.OK, data=cbor.encode({RESULT: state.get(RESULT)}))
            case Operation.REMOVE:
                data.remove(device, name)
                return OrderAnswer(Status.OK)
            case Operation.WRITE:
                if (refusal := self._over(device, len(request.data))) is not None:
                    return refusal
                size = data.stage(device, name, file, request.offset, request.data)
                return OrderAnswer(Status.OK, size=size)
        data.touch(device, name)
        match request.operation:
            case Operation.LIST:
                return OrderAnswer(Status.OK, files=tuple(data.files(device, name)[:MAX_FILES]))
            case Operation.READ:
                content, size = data.read(device, name, file, request.offset, request.size)
                return OrderAnswer(Status.OK, data=content, size=size)
            case Operation.DIGEST:
                digest, size = data.digest(device, name, file)
                return OrderAnswer(Status.OK, digest=digest, size=size)
            case Operation.COMMIT:
                data.commit(device, name, file, request.size, request.digest)
                return OrderAnswer(Status.OK)
        return OrderAnswer(Status.MALFORMED)

    def _over(self, device: Addr, more: int) -> OrderAnswer | None:
        """The refusal of so many more bytes, if the files of the device would have too many."""
        most = self._limits.disk
        if self._data.used(device) + more <= most:
            return None
        return OrderAnswer(
            Status.LIMIT, f"the stand-in keeps at most {most} bytes of files for a device (app_disk)"
        )

    # Directories without use

    def _sweep(self) -> None:
        kept = frozenset(self._data.directory(device, name) for device, name in self._running())
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(SWEEP, self._sweep)
        task = loop.create_task(self._swept(kept))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _swept(self, kept: frozenset[Path]) -> None:
        loop = asyncio.get_running_loop()
        removed = await loop.run_in_executor(self._quick, self.sweep, kept)
        for directory in removed:
            log.info("%s was of no use for %d days and is removed", directory, self._limits.days)

    def sweep(self, kept: frozenset[Path]) -> list[Path]:
        """Remove directories without use; those in `kept` are of use now. It waits for the disk."""
        with contextlib.suppress(OSError):
            return self._data.sweep(self._limits.days * DAY, kept)
        return []
