"""A program that writes and does not read gets its connection back although its receive buffer is full (C3)."""

import socket
import time

import pytest

from locum.sessions.record import TcpState
from locum.sessions.tcp import repair
from locum.sessions.tcp.more_room import MOST_UNREAD
from tests.sessions.ends import Peer, Program, connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import World
from tests.sessions.tcp.test_waiting import waiters

MEG = 1 << 20
SIZE = 6 * MEG
SMALL = "4096 131072 1048576"  # as far as the kernel tunes a buffer that the program has not fixed


@pytest.fixture(autouse=True)
def small_buffers(world: World) -> object:
    world.network.sysctl("device", f"net.ipv4.tcp_rmem={SMALL}")
    yield
    world.network.sysctl("device", "net.ipv4.tcp_rmem=4096 131072 6291456")


def size_and_locks(sock: socket.socket) -> tuple[int, int]:
    size = repair.receive_memory(sock)[1]
    return size, sock.getsockopt(socket.SOL_SOCKET, repair.SO_BUF_LOCK)


def asleep(world: World, fixed: bool, *first: object) -> tuple[Program, Peer]:
    """Its peer has sent much more than its receive buffer takes."""
    program, peer = connect(world, 4)
    if fixed:
        program.ask("option", socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    if first:
        program.ask(*first)
        world.until(lambda: peer.receive() == 0 and peer.eof)
        time.sleep(0.1)  # the FIN is acknowledged
    world.sleep()
    world.until(lambda: peer.send(payload(1, SIZE)))
    world.until(lambda: world.away[0].spool.total == SIZE)
    return program, peer


def put_all(world: World, which: int = 0) -> None:
    away = world.away[which]
    with away.live.more_room(SIZE - away.live.position()):
        while (position := away.live.position()) < SIZE:
            done = away.live.inject(away.spool.read(position, MEG))
            assert done.accepted
            world.network.deliver(done.packets)
            world.until(lambda done=done, start=position: away.live.position() == start + done.accepted)  # type: ignore[misc]


@pytest.mark.parametrize("fixed", [True, False])
def test_written_data_leaves_while_the_program_does_not_read(world: World, fixed: bool) -> None:
    program, peer = asleep(world, fixed)
    live = world.away[0].live
    own = live.socket.dup()
    try:
        before = size_and_locks(own)
        assert bool(before[1] & 2) == fixed
        put_all(world)
        assert size_and_locks(own) == before
        world.wake()
        assert program.ask("send", 2, 300_000) == "done"
        world.until(lambda: peer.receive() == 300_000)
        assert peer.received.hexdigest() == digest((2, 300_000))
        assert repair.unread(own) == SIZE
        # Nothing is taken from the peer meanwhile, and everything in order afterwards.
        world.until(lambda: repair.info(peer.socket).send_window == 0)
        sent = peer.send(payload(3, MEG))
        world.stay(0.2)
        assert repair.unread(own) == SIZE
        program.begin("receive", SIZE + MEG)
        world.until(lambda: sent or peer.send(payload(3, MEG)))
        assert program.answer() == f"{SIZE + MEG} {digest((1, SIZE), (3, MEG))} more"
        assert bool(size_and_locks(own)[1] & 2) == fixed
        if fixed:
            assert size_and_locks(own) == before
    finally:
        own.close()


def test_half_closed_connection_gets_data_as_segments(world: World) -> None:
    program, peer = asleep(world, True, "shutdown")
    live = world.away[0].live
    assert live.state() is TcpState.FIN_WAIT2
    before = size_and_locks(live.socket)
    put_all(world)
    assert size_and_locks(live.socket) == before
    peer.socket.shutdown(socket.SHUT_WR)
    world.until(lambda: world.away[0].spool.peer_closed)
    world.wake()
    assert program.ask("receive", SIZE + 1) == f"{SIZE} {digest((1, SIZE))} eof"


def test_fin_behind_unread_data(world: World) -> None:
    program, peer = asleep(world, True)
    put_all(world)
    peer.socket.shutdown(socket.SHUT_WR)
    world.until(lambda: world.away[0].spool.peer_closed)
    world.wake()
    world.until(lambda: peer.state == TcpState.FIN_WAIT2)
    assert program.ask("send", 2, 1000) == "done"
    world.until(lambda: peer.receive() == 1000)
    assert program.ask("receive", SIZE + 1) == f"{SIZE} {digest((1, SIZE))} eof"


def test_programs_that_wait_are_woken(world: World) -> None:
    data = payload(1, SIZE)
    with waiters(world, ["epoll-level", "epoll-edge", "blocking"], SIZE) as made:
        world.network.sysctl("device", f"net.ipv4.tcp_rmem={SMALL}")
        world.sleep()
        waiting = list(made)
        while waiting:
            waiting = [waiter for waiter in waiting if not waiter.peer.send(data)]
            world.drain()
        world.until(lambda: all(session.spool.total == SIZE for session in world.away))
        for which in range(len(made)):
            put_all(world, which)
        world.wake()
        said = {waiter.way: waiter.line() for waiter in made}
    assert said == dict.fromkeys(said, f"{SIZE} {sum(data)}")


def test_receive_buffer_growth_is_bounded(world: World) -> None:
    program, _ = asleep(world, True)
    live = world.away[0].live
    before = size_and_locks(live.socket)
    with live.more_room(MOST_UNREAD + 1):
        assert size_and_locks(live.socket) == before
        assert live.inject(world.away[0].spool.read(0, SIZE)).accepted < MEG
    program.begin("receive", SIZE)
    world.wake()
    assert program.answer() == f"{SIZE} {digest((1, SIZE))} more"
