"""Starts processes of proxies, a few of each kind at a time: by the kind's fork server, or anew where that is not possible.

A process of a fork server says its number in its own channel; a channel that ends before has no process, and the start is
repeated. Therefore no process is left unseen, whichever of the two dies. This module must not know proxies or sessions.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cbor2

from locum.node import words
from locum.node.apps.starts.fork_server import ForkServer
from locum.node.apps.starts.spawning import Ends, end, spawn

log = logging.getLogger("locum.apps")
AT_ONCE = 8
"""Processes of one kind that are not ready yet; others of that kind wait."""
BIRTH = 30.0
"""Seconds in which a fork server imports its kind and makes a process."""
TRIES = 2
"""Of fork servers, for one process; then it is started anew."""
ANEW = 60.0
"""Seconds in which no other fork server is tried, when one could not begin."""
IDLE = 600.0
"""Seconds without a start after which a fork server ends."""
_PACKET = 4096


@dataclass(frozen=True, slots=True)
class Started:
    """A child of this process. Who gets it owns the descriptors."""

    pid: int
    ends: Ends


Then = Callable[[Started | str], None]


class Start:
    """A process that is asked for; `then` gets it or a reason, once, in another turn of the event loop."""

    def __init__(self, queue: "_Queue", arguments: Sequence[str], then: Then) -> None:
        self.arguments, self.then = arguments, then
        self._queue = queue
        self.wanted = True
        self.tries = 0
        self.ends: Ends | None = None
        self.server: ForkServer | None = None
        self.timer: asyncio.TimerHandle | None = None

    def done(self) -> None:
        """It is ready to work, or has ended: the next ones have their turn."""
        self._queue.leave(self)

    def cancel(self) -> None:
        """End it, or do not begin it; `then` is not called."""
        self.wanted = False
        if self.ends is None:  # it has not begun, or is somebody else's already
            self._queue.leave(self)


class Starts:
    """Of all kinds. `fork` is false where each process is to be started anew."""

    def __init__(self, *, fork: bool = True) -> None:
        self._fork = fork
        self._queues: dict[str, _Queue] = {}

    def start(self, kind: str, arguments: Sequence[str], then: Then) -> Start:
        """Have a process run a proxy of this kind. `arguments`: those of `locum.apps.host` after the kind."""
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = _Queue(kind, fork=self._fork)
        start = Start(queue, arguments, then)
        queue.add(start)
        return start

    def servers(self) -> dict[str, int]:
        """Process numbers of fork servers, by their kind."""
        return {kind: queue.server.pid for kind, queue in self._queues.items() if queue.server is not None}

    def close(self) -> None:
        """The daemon ends."""
        for queue in self._queues.values():
            queue.close()
        self._queues.clear()


class _Queue:
    """The starts of one kind."""

    def __init__(self, kind: str, *, fork: bool) -> None:
        self._kind, self._fork = kind, fork
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Start] = deque()
        self._begun: set[Start] = set()
        self._called = False
        self._anew_until = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self.server: ForkServer | None = None

    def add(self, start: Start) -> None:
        self._waiting.append(start)
        self._call()

    def leave(self, start: Start) -> None:
        self._begun.discard(start)
        self._call()

    def _call(self) -> None:
        """Begin the next one in a turn of its own: a start takes a while, and longer on a busy host."""
        if self._waiting and len(self._begun) < AT_ONCE and not self._called:
            self._called = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._called = False
        while self._waiting and not self._waiting[0].wanted:
            self._waiting.popleft()
        if self._waiting and len(self._begun) < AT_ONCE:
            start = self._waiting.popleft()
            self._begun.add(start)
            self._begin(start)
        self._call()

    def _begin(self, start: Start) -> None:
        try:
            ends = start.ends = Ends.made()
            try:
                if not self._ask(start, ends):
                    pid = spawn("locum.apps.host", [self._kind, *start.arguments], ends)
                    ends.give()
                    self._born(start, ends, pid)
            except OSError:
                ends.close()
                raise
        except OSError as problem:
            self._fail(start, words.reason(problem))

    def _ask(self, start: Start, ends: Ends) -> bool:
        """True if a fork server has taken it."""
        while self._fork and start.tries < TRIES and self._loop.time() >= self._anew_until:
            start.tries += 1
            try:
                if self.server is None:
                    self.server = ForkServer(self._kind, self._retire)
                self.server.ask(start.arguments, ends)
            except OSError:
                if self.server is not None:
                    self._retire(self.server)
                continue
            ends.give()
            start.server = self.server
            start.timer = self._loop.call_later(BIRTH, self._retire, self.server)
            self._loop.add_reader(ends.channel, self._hear, start, ends)
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self._loop.call_later(IDLE, self._retire, self.server)
            return True
        return False

    def _hear(self, start: Start, ends: Ends) -> None:
        """The first packet of its channel has come, or its end."""
        try:
            data = ends.channel.recv(_PACKET)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._loop.remove_reader(ends.channel)
        if start.timer is not None:
            start.timer.cancel()
        match cbor2.loads(data) if data else None:
            case ["born", int(pid)]:
                self._born(start, ends, pid)
            case ["unborn", str(reason)]:
                ends.close()
                self._fail(start, reason)
            case _:
                ends.close()
                if start.server is not None:
                    self._retire(start.server)
                start.ends = None
                if start.wanted:
                    self._waiting.appendleft(start)
                self.leave(start)

    def _born(self, start: Start, ends: Ends, pid: int) -> None:
        start.ends = None
        if start.wanted:
            start.then(Started(pid, ends))
            return
        end(pid)
        ends.close()
        self.leave(start)

    def _fail(self, start: Start, reason: str) -> None:
        start.ends = None
        self.leave(start)
        if start.wanted:
            start.then(reason)

    def _retire(self, server: ForkServer) -> None:
        """It has died, does not answer, or is not needed any more: the next start has another one."""
        if server is not self.server:
            return
        why, self.server = server.why(), None
        if not server.is_ready:
            self._anew_until = self._loop.time() + ANEW
            log.info("proxies of the kind %s are started without a fork server: %s", self._kind, why)
        server.retire()

    def close(self) -> None:
        for start in self._begun:
            if start.ends is not None:
                self._loop.remove_reader(start.ends.channel)
                start.ends.close()
            if start.timer is not None:
                start.timer.cancel()
        self._waiting.clear()
        if self._idle is not None:
            self._idle.cancel()
        if self.server is not None:
            self.server.close()
            self.server = None
