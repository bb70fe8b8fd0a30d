"""The device's side of connections that its stand-in accepted: each is put into the queue of the program that listens.

Those that a proxy opened wait for their programs (`waiting.py`).

A program may take its time to read, so every connection has a thread of its own, few at once, and nothing waits for it.
The role decides when to do it.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from locum.node.events import flow_text
from locum.node.performer import Handler
from locum.node.sessions.waiting import SECONDS, WaitingConnections
from locum.roles.action_values.listeners import ReplayAccepted, Replayed
from locum.roles.actions import Event
from locum.roles.registrant.configuration import ListeningPort
from locum.sessions.listening.replay import Accepted, Interrupted, impossible, replay
from locum.sessions.tcp.errors import SessionError
from locum.wire.control import Policy

log = logging.getLogger("locum.replaying")
# Seconds that a program may take to accept others, and to read what does not fit its receive buffer
PATIENCE = 5.0
_AT_ONCE = 4


class Replaying:
    """`deliver` puts packets into this host; `feed` calls the role; `frozen` are the frozen processes.

    `waiting` has those that proxies opened; each waits `accept_seconds` for its program, with `emit` for their events.
    """

    def __init__(
        self,
        feed: Callable[[Event], None],
        deliver: Callable[[bytes], None],
        frozen: Callable[[], Collection[int]],
        emit: Callable[..., None] = lambda *_, **__: None,
        accept_seconds: float = SECONDS,
    ) -> None:
        self.waiting = WaitingConnections(feed, deliver, emit, accept_seconds)
        self._feed, self._deliver, self._frozen = feed, deliver, frozen
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="replays")
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = threading.Event()

    @staticmethod
    def tell_impossible(ports: Iterable[ListeningPort], emit: Callable[..., None]) -> None:
        """Say so if the configuration wants connections accepted that this host's kernel could not take."""
        reason = impossible(os.uname().release)
        if reason is not None and any(port.policy is Policy.ACCEPT for port in ports):
            emit("accept-impossible", detail={"reason": reason})

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {ReplayAccepted: self._begin, **self.waiting.handlers()}

    def _begin(self, action: ReplayAccepted) -> None:
        task = asyncio.get_running_loop().create_task(self._replay(action))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replay(self, action: ReplayAccepted) -> None:
        accepted = Accepted(action.flow, action.handshake, action.data, action.peer_closed)
        try:
            error = await asyncio.get_running_loop().run_in_executor(self._workers, self._put, accepted)
        except Interrupted:
            return
        self._feed(Replayed(action.flow, error))

    def _put(self, accepted: Accepted) -> str | None:
        """Reason why the connection could not be given to a program; None: it was. Raises Interrupted."""
        if self._stopping.is_set():
            raise Interrupted
        try:
            replay(
                accepted,
                self._deliver,
                patience=PATIENCE,
                frozen=self._frozen,
                stopping=self._stopping.is_set,
            )
        except (SessionError, OSError) as problem:
            log.warning("%s: %s", flow_text(accepted.flow), problem)
            return str(problem)
        return None

    async def close(self) -> None:
        """Stop waiting for programs, and start no replay: the next run does it."""
        self._stopping.set()
        self.waiting.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, partial(self._workers.shutdown, cancel_futures=True))
        await asyncio.gather(*self._tasks, return_exceptions=True)
