"""Many connections of few programs, most of them idle, for scenarios that count them.

`python -m locum.lab.programs.crowd serve PORT COUNT ACTIVE RATE` accepts COUNT connections and sends each of the first ACTIVE RATE bytes a
second. It takes lines: "some N" sends a line to N idle ones, "all" sends one to every idle one, "end" sends the rest and closes.
`python -m locum.lab.programs.crowd visit HOST PORT COUNT ACTIVE PROCESSES OUT` opens them from several processes, answers every line, checks
every byte, and writes a line of figures to OUT.
"""

import contextlib
import hashlib
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_NUMBER = struct.Struct("!I")
_BLOCK = 1 << 16
_TICK = 0.05
LINE = b"are you there?\n"
ANSWER = b"yes\n"
DESCRIPTORS = 8192


def content(number: int) -> Iterator[bytes]:
    """The bytes that an active connection carries, which its number decides."""
    state = hashlib.sha256(_NUMBER.pack(number)).digest()
    while True:
        yield state
        state = hashlib.sha256(state).digest()


def allow_descriptors() -> None:
    """Let this process have as many descriptors as a crowd needs."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(slots=True)
class Host:
    """The server's side: its connections by number, and how much of the active ones' bytes is out."""

    active: int
    rate: int
    connections: dict[int, socket.socket] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)
    _streams: dict[int, Iterator[bytes]] = field(default_factory=dict)
    _waiting: dict[int, bytearray] = field(default_factory=dict)

    def accept(self, listener: socket.socket, count: int) -> None:
        """Accept all of them; each sends its number first."""
        while len(self.connections) < count:
            connection, _ = listener.accept()
            number = _NUMBER.unpack(connection.recv(_NUMBER.size, socket.MSG_WAITALL))[0]
            connection.setblocking(False)
            self.connections[number] = connection
            if number < self.active:
                self._streams[number], self._waiting[number] = content(number), bytearray()

    def feed(self, seconds: float) -> None:
        """Send due data on the active ones; a connection with a closed window gets it later."""
        for number, stream in self._streams.items():
            waiting = self._waiting[number]
            wanted = int(self.rate * seconds)
            while len(waiting) < wanted:
                waiting += next(stream)
            with contextlib.suppress(BlockingIOError):
                del waiting[: self.connections[number].send(waiting)]

    def ask(self, count: int) -> None:
        """A line to so many idle ones."""
        for number in range(self.active, self.active + count):
            self.connections[number].send(LINE)

    def hear(self) -> int:
        """Read answers; how many there were in all."""
        for number, connection in self.connections.items():
            if number >= self.active:
                with contextlib.suppress(BlockingIOError):
                    self.answers[number] = self.answers.get(number, 0) + len(connection.recv(_BLOCK))
        return sum(self.answers.values()) // len(ANSWER)

    def end(self) -> None:
        """Everything that waits goes out, then all are closed."""
        for number, waiting in self._waiting.items():
            self.connections[number].setblocking(True)
            self.connections[number].sendall(waiting)
        for connection in self.connections.values():
            connection.close()


def serve(port: int, count: int, active: int, rate: int) -> None:
    """Play the host; prints "listening", "ready", and for each query of idle ones the number of answers."""
    allow_descriptors()
    host, idle, expected, told = Host(active, rate), count - active, 0, 0
    with socket.create_server(("", port), backlog=4096) as listener:
        print("listening", flush=True)
        host.accept(listener, count)
    print("ready", flush=True)
    last, buffer = time.monotonic(), b""
    while True:
        if select.select([0], [], [], _TICK)[0]:
            buffer += os.read(0, _BLOCK)
        now = time.monotonic()
        host.feed(min(now - last, 1.0))
        last = now
        line, mark, rest = buffer.partition(b"\n")
        if mark:
            buffer = rest
            if line == b"end":
                host.end()
                return
            asked = idle if line == b"all" else int(line.split()[1])
            expected += asked
            host.ask(asked)
        if host.hear() >= expected > told:
            told = expected
            print(told, flush=True)


@dataclass(slots=True)
class Visitor:
    """The client's side of one connection."""

    number: int
    connection: socket.socket
    active: bool
    _stream: Iterator[bytes] = field(init=False)
    _ahead: bytes = b""
    received: int = 0
    wrong: int = 0
    lines: int = 0

    def __post_init__(self) -> None:
        self._stream = content(self.number)

    def read(self) -> bool:
        """Read available data; return whether the connection has ended."""
        try:
            block = self.connection.recv(_BLOCK)
        except OSError:
            self.wrong += 1
            return True
        self.received += len(block)
        if self.active:
            self.wrong += not self._expected(block)
        elif block:
            self.lines += block.count(b"\n")
            self.connection.send(ANSWER * block.count(b"\n"))
        return not block

    def _expected(self, block: bytes) -> bool:
        while len(self._ahead) < len(block):
            self._ahead += next(self._stream)
        right, self._ahead = self._ahead[: len(block)] == block, self._ahead[len(block) :]
        return right


def visit(host: str, port: int, numbers: range, active: int) -> dict[str, int]:
    """Open these connections and serve them to their ends; figures of them all."""
    visitors: dict[int, Visitor] = {}
    ended: list[Visitor] = []
    with select.epoll() as poller:
        for number in numbers:
            connection = socket.create_connection((host, port))
            connection.sendall(_NUMBER.pack(number))
            visitors[connection.fileno()] = Visitor(number, connection, number < active)
            poller.register(connection, select.EPOLLIN)
        while visitors:
            for descriptor, _events in poller.poll():
                if visitors[descriptor].read():
                    ended.append(visitors.pop(descriptor))
                    poller.unregister(descriptor)
    return {
        "wrong": sum(visitor.wrong for visitor in ended),
        "bytes": sum(visitor.received for visitor in ended if visitor.active),
        "lines": sum(visitor.lines for visitor in ended),
    }


def visit_all(host: str, port: int, count: int, active: int, processes: int, out: Path) -> None:
    """The visitors, shared among processes; their figures are added up."""
    allow_descriptors()
    pipes = []
    for process in range(processes):
        reading, writing = os.pipe()
        if os.fork() == 0:
            figures = visit(host, port, range(process, count, processes), active)
            os.write(writing, json.dumps(figures).encode())
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    totals: dict[str, int] = {}
    for reading in pipes:
        with os.fdopen(reading, "rb") as pipe:
            for name, figure in json.loads(pipe.read() or b"{}").items():
                totals[name] = totals.get(name, 0) + figure
    out.write_text(json.dumps(totals))


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    if role == "serve":
        serve(*(int(word) for word in words))
    else:
        at, connections, carrying, shared = (int(word) for word in words[1:5])
        visit_all(words[0], at, connections, carrying, shared, Path(words[5]))
