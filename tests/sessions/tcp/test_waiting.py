"""Every method by which programs wait for a socket: each notices data of its sleep, without new data."""

import ctypes
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sessions.ends import Peer
from tests.sessions.program import payload
from tests.sessions.sleepworld import PEER4, World
from tests.sessions.waiter import WAYS

MEG = 1 << 20
WAITER = Path(__file__).parent.with_name("waiter.py")
READERS = [way for way in WAYS if way != "epoll-out"]


class Waiter:
    """One program that waits by its method, and its peer."""

    def __init__(self, world: World, listener: socket.socket, way: str, size: int) -> None:
        self.way = way
        command = (sys.executable, str(WAITER), way, PEER4, "7000", str(size))
        self.process = world.network.start("device", *command, stdout=subprocess.PIPE)
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        self.peer = Peer(accepted)
        assert self.line() == "connected"
        world.programs += [self, self.peer]

    def line(self, seconds: float = 20) -> str:
        assert self.process.stdout
        ready = select.select([self.process.stdout], [], [], seconds)[0]
        return self.process.stdout.readline().decode().strip() if ready else "still waits"

    def sleeps(self) -> bool:
        """All its threads wait for something."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return all((task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "S" for task in tasks)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def waiters(world: World, ways: list[str], size: int) -> Iterator[list[Waiter]]:
    """Connected, and all in their waits. The device's receive buffers are those of Debian 12."""
    world.network.sysctl("device", "net.ipv4.tcp_rmem=4096 131072 6291456")
    try:
        with world.network.inside("peer"), socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((PEER4, 7000))
            listener.listen(64)
            listener.settimeout(120)
            made = [Waiter(world, listener, way, size) for way in ways]
        ended = [program for program in made if not wait_for(lambda waiter=program: waiter.sleeps())]
        assert not ended
        yield made
    finally:
        world.network.sysctl("device", "net.ipv4.tcp_rmem=4096 131072 33554432")


def wait_for(done: object) -> bool:
    assert callable(done)
    until = time.monotonic() + 120
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def usable(ways: list[str]) -> list[str]:
    """Without io_uring's, where the kernel refuses it to this process too."""
    ring = ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120))
    if ring >= 0:
        os.close(ring)
        return ways
    return [way for way in ways if not way.startswith("uring")]


def everything_comes(world: World, size: int, ways: list[str]) -> None:
    data = payload(1, size)
    with waiters(world, usable(ways), size) as made:
        world.sleep()
        assert len(world.away) == len(made)
        waiting = list(made)
        while waiting:
            waiting = [waiter for waiter in waiting if not waiter.peer.send(data)]
            world.drain()
        world.until(lambda: all(session.spool.total == size for session in world.away))
        world.wake()
        said = {program.way: program.line() for program in made}
    assert said == dict.fromkeys(said, f"{size} {sum(data)}")


def test_data_that_fits_the_receive_buffer(world: World) -> None:
    everything_comes(world, 5000, READERS)


def test_more_than_the_receive_buffer_of_debian(world: World) -> None:
    """Every round before the last one has to be signalled too: else the program would not make room."""
    everything_comes(world, 7 * MEG, ["epoll-edge", "signal", "uring-poll"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", READERS)
def test_more_than_the_receive_buffer_with_every_reader(world: World, way: str) -> None:
    everything_comes(world, 14 * MEG, [way])


def test_a_program_that_waits_to_write(world: World) -> None:
    """The peer acknowledges while the device sleeps, and room for more is the program's to learn of."""
    with waiters(world, ["epoll-out"], 24 * MEG) as (writer,):
        (record,) = world.sleep()
        captured = len(record.unacked) + len(record.unsent)
        world.until(lambda: writer.peer.receive() >= captured)
        world.wake()
        world.until(lambda: writer.peer.receive() == 24 * MEG)
        assert writer.line() == f"{24 * MEG} 0"
