"""Removes sessions that were dropped: descriptors, sockets and files, once the store has forgotten their rows.

A store that fails, as on a full disk, is asked again: until then a daemon that is killed finds the sessions as they were, and
nobody waits. This module must not know why a session was dropped.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from locum.node.sessions.draining import HeldSocket
from locum.node.tables import HostStore, StoreError
from locum.sessions import either
from locum.sessions.holder import FdStore
from locum.sessions.tcp.errors import SessionError

log = logging.getLogger("locum.standin")
STORE_AGAIN = 1.0
"""Seconds until a store that has failed is asked again."""


@contextlib.contextmanager
def alone(held: HeldSocket, step: str) -> Iterator[None]:
    """A session that fails here fails alone: the others of its handover go on."""
    try:
        yield
    except (OSError, SessionError) as problem:
        log.warning("%s could not be %s: %s", held.name, step, problem)


class Removing:
    """Sessions whose sockets are still, or reset."""

    def __init__(self, store: HostStore, keeper: FdStore | None) -> None:
        self._store, self._keeper = store, keeper
        self._later: set[asyncio.Task[None]] = set()

    async def remove(self, gone: Sequence[HeldSocket], *, reset: bool) -> None:
        """Remove them when their rows are forgotten: now, or later if the store fails now."""
        try:
            await self._store.durable()
        except StoreError as problem:
            log.warning(
                "%d dropped sessions are removed when the store can be written: %s", len(gone), problem
            )
            task = asyncio.get_running_loop().create_task(
                self._again(lambda: self._remove(gone, reset=reset))
            )
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        else:
            self._remove(gone, reset=reset)

    async def _again(self, then: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(STORE_AGAIN)
            with contextlib.suppress(StoreError):
                await self._store.durable()
                break
        then()

    def _remove(self, gone: Sequence[HeldSocket], *, reset: bool) -> None:
        for held in gone:
            if self._keeper is not None:
                self._keeper.remove(held.kept_as)
            with alone(held, "closed"):
                if not reset:
                    either.drop(held.socket)
            with alone(held, "removed"):
                held.spool.remove()

    def close(self) -> None:
        """The daemon ends; the next run removes what is left."""
        for task in self._later:
            task.cancel()
