"""A download proxy on a virtual clock: its files in memory, and scripted servers at the other end of its connections."""

import errno
import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from locum.apps.download.proxy import Download
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Effect, Keep, Leave, Note, Tell, checked_state
from locum.roles.app_network import (
    Abort,
    Append,
    Connect,
    Data,
    Ended,
    Failed,
    Files,
    Finish,
    Happening,
    Load,
    Loaded,
    Opened,
    Remove,
    Rename,
    Send,
    Sync,
    Synced,
    Truncate,
)

FIN, RESET = "fin", "reset"
Reply: TypeAlias = "bytes | float | str"
"""Bytes, seconds to wait, FIN or RESET."""
Server: TypeAlias = Callable[[bytes], Iterable[Reply]]
"""Answers one request. An endless one is asked for more while the connection lives."""


@dataclass
class World:
    """`server` answers at every address; `room` bytes are there for files."""

    table: Mapping[str, JSON]
    server: Server = lambda _request: ()
    sessions: tuple[AppSession, ...] = ()
    room: int = 1 << 40
    now: float = 1000.0
    files: dict[str, bytearray] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    events: list[Tell] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    connects: list[Connect] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    left: list[Leave] = field(default_factory=list)
    state: Mapping[str, object] = field(default_factory=dict)
    largest: int = 0

    def __post_init__(self) -> None:
        self._order = itertools.count()
        self.begin()

    def begin(self) -> None:
        """A process with the files and the state of the one before."""
        self._open: dict[int, Iterable[Reply]] = {}
        self._queue: list[tuple[float, int, Happening]] = []
        self._turns: list[tuple[float, int, int]] = []
        self.app = Download(Download.settings(self.table), Random(1))
        self._perform(self.app.begin(self.sessions, self.state, now=self.now))
        self._later(Files([(name, len(content)) for name, content in self.files.items()]))

    def lose_power(self) -> None:
        """Bytes that were not made durable are gone; then a new process begins."""
        for name, content in self.files.items():
            del content[self.durable.get(name, 0) :]
        self.begin()

    def run(
        self, seconds: float = 1e6, *, until: Callable[[], bool] = lambda: False, steps: int = 200_000
    ) -> None:
        """Until nothing is left to do, so many seconds have passed, or the condition holds."""
        end = self.now + seconds
        for _ in range(steps):
            if until():
                return
            times = [queue[0][0] for queue in (self._queue, self._turns) if queue]
            if (deadline := self.app.deadline()) is not None:
                times.append(deadline)
            if not times or min(times) > end:
                self.now = end if times else self.now
                return
            self.now = max(self.now, min(times))
            if self._queue and self._queue[0][0] <= self.now:
                event = heapq.heappop(self._queue)[2]
                if not self._stale(event):
                    self._perform(self.app.happened(event, now=self.now))
            elif self._turns and self._turns[0][0] <= self.now:
                self._turn(heapq.heappop(self._turns)[2])
            else:
                self._perform(self.app.timeout(now=self.now))
        raise AssertionError("the proxy does not come to an end")

    def told(self, kind: str) -> list[Mapping[str, JSON]]:
        """Details of the events of this kind."""
        return [event.detail for event in self.events if event.kind == kind]

    def content(self, name: str) -> bytes:
        """Of a file."""
        return bytes(self.files[name])

    # inside

    def _later(self, event: Happening) -> None:
        heapq.heappush(self._queue, (self.now, next(self._order), event))

    def _stale(self, event: Happening) -> bool:
        return isinstance(event, Data) and event.connection not in self._open

    def _turn(self, connection: int) -> None:
        """The server's next word."""
        replies = self._open.get(connection)
        if replies is None:
            return
        at = self.now
        match next(iter(replies), None):
            case float(seconds):
                at += seconds
            case bytes(data):
                self._later(Data(connection, data))
            case "fin":
                self._later(Data(connection, b""))
                return
            case "reset":
                del self._open[connection]
                self._later(Ended(connection, "Connection reset by peer"))
                return
            case _:
                return
        heapq.heappush(self._turns, (at, next(self._order), connection))

    def _perform(self, effects: list[Effect]) -> None:
        written = 0
        for effect in effects:
            match effect:
                case Tell():
                    self.events.append(effect)
                case Note(text):
                    self.notes.append(text)
                case Leave():
                    self.left.append(effect)
                case Keep(state):
                    self.state = checked_state(state)
                case Connect(connection):
                    assert connection not in self._open
                    self.connects.append(effect)
                    self._open[connection] = ()
                    self._later(Opened(connection, "192.0.2.1"))
                case Send(connection, data):
                    self.requests.append(data)
                    self._open[connection] = iter(self.server(data))
                    heapq.heappush(self._turns, (self.now, next(self._order), connection))
                case Abort(connection) | Finish(connection):
                    if self._open.pop(connection, None) is not None:
                        self._later(Ended(connection))
                case _:
                    written += self._file(effect)
        self.largest = max(self.largest, written)

    def _file(self, effect: Effect) -> int:
        """Bytes written."""
        match effect:
            case Append(name, data):
                if sum(map(len, self.files.values())) + len(data) > self.room:
                    self._later(Failed(name, errno.ENOSPC))
                    return 0
                self.files.setdefault(name, bytearray()).extend(data)
                return len(data)
            case Truncate(name, size):
                content = self.files.setdefault(name, bytearray())
                del content[size:]
                content.extend(bytes(size - len(content)))
                self.durable[name] = min(self.durable.get(name, 0), size)
            case Rename(name, to):
                self.files[to] = self.files.pop(name)
                self.durable[to] = self.durable.pop(name, 0)
            case Remove(name):
                self.files.pop(name, None)
                self.durable.pop(name, None)
            case Load(name, offset, length):
                if name not in self.files:
                    self._later(Failed(name, errno.ENOENT))
                else:
                    self._later(Loaded(name, offset, bytes(self.files[name][offset : offset + length])))
            case Sync(name):
                self.durable[name] = len(self.files[name])
                self._later(Synced(name, len(self.files[name])))
            case _:
                raise AssertionError(effect)
        return 0
