"""The two ends of one connection, driven by a test: a program on the device, a socket at the peer."""

import hashlib
import select
import socket
import subprocess
import sys
from pathlib import Path

from tests.sessions.program import payload
from tests.sessions.sleepworld import PEER4, PEER6, World


class Program:
    """program.py on the device; `ask` waits for the answer, `begin` and `answer` do not."""

    def __init__(self, world: World) -> None:
        path = Path(__file__).with_name("program.py")
        self.process = world.network.start(
            "device", sys.executable, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._text = b""

    def begin(self, *words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()

    def answered(self) -> bool:
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def answer(self) -> str:
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], 60)[0], "the program gives no answer"
        return self.process.stdout.readline().decode().strip()

    def ask(self, *words: object) -> str:
        self.begin(*words)
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Peer:
    """The correspondent's socket, in this process; it never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.sent = 0
        self.received = hashlib.sha256()
        self.count = 0
        self.eof = False

    def send(self, data: bytes) -> bool:
        """A step of sending all of `data`; true when it is done. Give the same data each time."""
        try:
            self.sent += self.socket.send(memoryview(data)[self.sent : self.sent + (1 << 20)])
        except BlockingIOError:
            return False
        if self.sent < len(data):
            return False
        self.sent = 0
        return True

    def receive(self) -> int:
        """A step of receiving; the count of bytes so far."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return self.count
        self.eof = not data
        self.received.update(data)
        self.count += len(data)
        return self.count

    def info(self) -> bytes:
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 240)

    def close(self) -> None:
        self.socket.close()

    @property
    def state(self) -> int:
        return self.info()[0]


def connect(world: World, version: int) -> tuple[Program, Peer]:
    address, family = (PEER4, socket.AF_INET) if version == 4 else (PEER6, socket.AF_INET6)
    with world.network.inside("peer"), socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 7000))
        listener.listen()
        listener.settimeout(60)
        program = Program(world)
        world.programs.append(program)
        program.begin("connect", address, 7000)
        accepted, _ = listener.accept()
    accepted.setblocking(False)
    assert program.answer() == "done"
    peer = Peer(accepted)
    world.programs.append(peer)
    return program, peer


def digest(*parts: tuple[int, int]) -> str:
    """Of the payloads with these seeds and sizes, in this order."""
    whole = hashlib.sha256()
    for seed, size in parts:
        whole.update(payload(seed, size))
    return whole.hexdigest()
