"""The program runs while its session is away: it reads, writes, shuts and closes, and then the session comes back."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from locum.sessions.record import TcpState
from locum.sessions.tcp import drop, repair
from tests.sessions.ends import Peer, connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import HOME4, World

MEG = 1 << 20
both = pytest.mark.parametrize("version", [4, 6])
mostly_four = pytest.mark.parametrize("version", [4, pytest.param(6, marks=pytest.mark.exhaustive)])


@contextmanager
def slow_timers(world: World) -> Iterator[None]:
    """The device's first retransmission comes after a second, so that the one after the next takes seconds."""
    four = ("route", "replace", "default", "via", "10.77.2.1", "src", "10.99.0.5")
    six = ("-6", "route", "replace", "default", "via", "fd77:2::1", "src", "fd99::5")
    for route in (four, six):
        world.network.ip("device", *route, "rto_min", "1s")
    try:
        yield
    finally:
        for route in (four, six):
            world.network.ip("device", *route)


@both
def test_bytes_written_meanwhile_are_sent_at_once(world: World, version: int) -> None:
    with slow_timers(world):
        program, peer = connect(world, version)
        program.ask("send", 1, 100)
        world.until(lambda: peer.receive() == 100)
        world.sleep()
        live = world.away[0].live
        with world.loose():
            program.ask("send", 2, 30_000)
            world.until(lambda: repair.info(live.socket).backoff == 2)
        world.wake()
        started = time.monotonic()
        world.until(lambda: peer.receive() == 30_100)
        assert time.monotonic() - started < 3.5, "the kernel's timer alone takes four seconds"
    assert peer.received.hexdigest() == digest((1, 100), (2, 30_000))
    assert peer.send(payload(3, 1000))
    assert program.ask("receive", 1000) == f"1000 {digest((3, 1000))} more"


@mostly_four
def test_bytes_written_behind_captured_ones(world: World, version: int) -> None:
    """The stand-in sends captured data; the device's retransmissions of it have backed off until then."""
    with slow_timers(world):
        program, peer = connect(world, version)
        world.network.block("device", "out")
        program.ask("send", 1, 5000)
        (record,) = world.sleep()
        assert len(record.unacked) + len(record.unsent) == 5000
        live = world.away[0].live
        with world.loose():
            world.until(lambda: repair.info(live.socket).backoff == 2)
            program.ask("send", 2, 30_000)
            world.until(lambda: peer.receive() == 5000)
        (last,) = world.wake()
        assert last.acked == 5000
        started = time.monotonic()
        world.until(lambda: peer.receive() == 35_000)
        assert time.monotonic() - started < 3.5, "the kernel's timer alone takes four seconds"
    assert peer.received.hexdigest() == digest((1, 5000), (2, 30_000))


@mostly_four
def test_a_full_send_queue_goes_on_filling(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("send", 5, 24 * MEG)
    time.sleep(0.3)
    (record,) = world.sleep()
    size = len(record.unacked) + len(record.unsent)
    with world.loose():
        world.stay(0.3)
        world.until(lambda: peer.receive() >= size and not repair.unacknowledged(world.away[0].socket))
        world.stay(0.3)
    (last,) = world.wake()
    assert last.acked == size
    world.until(lambda: peer.receive() == 24 * MEG)
    assert program.answer() == "done"
    assert peer.received.hexdigest() == digest((5, 24 * MEG))


@mostly_four
def test_the_program_reads_what_comes_back_in_rounds(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("receive", 200_000)
    world.sleep()
    away = world.away[0]
    for seed in (1, 2):
        assert peer.send(payload(seed, 50_000))
        world.until(lambda seed=seed: away.spool.total == 50_000 * seed)  # type: ignore[misc]
        assert away.live.inject(away.spool.read(away.live.position(), MEG)).accepted == 50_000
        with world.loose():
            world.until(lambda: away.live.unread() == 0)
    world.until(lambda: peer.send(payload(3, 100_000)))
    world.until(lambda: away.spool.total == 200_000)
    world.wake()
    assert program.answer() == f"200000 {digest((1, 50_000), (2, 50_000), (3, 100_000))} more"


@mostly_four
def test_the_program_shuts_its_side_meanwhile(world: World, version: int) -> None:
    program, peer = connect(world, version)
    world.sleep()
    world.until(lambda: peer.send(payload(1, 100_000)))
    with world.loose():
        program.ask("send", 2, 3000)
        program.ask("shutdown")
        world.until(lambda: world.away[0].spool.total == 100_000)
    program.begin("receive", 100_001)
    world.wake()
    world.until(lambda: peer.receive() == 3000 and peer.eof)
    assert peer.received.hexdigest() == digest((2, 3000))
    peer.socket.close()
    assert program.answer() == f"100000 {digest((1, 100_000))} eof"


@both
def test_program_closes_while_loose_without_unsent_data(world: World, version: int) -> None:
    program, peer = connect(world, version)
    world.sleep()
    with world.loose():
        program.ask("send", 2, 3000)
        program.ask("close")
    world.wake()
    world.until(lambda: peer.receive() == 3000 and peer.eof)
    assert peer.received.hexdigest() == digest((2, 3000))
    peer.socket.shutdown(socket.SHUT_WR)
    world.until(lambda: peer.state == TcpState.CLOSE)
    assert not world.candidates()


@both
@pytest.mark.parametrize("how", ["close", "shutdown-both"])
def test_program_closes_while_loose_with_unsent_data(world: World, version: int, how: str) -> None:
    program, peer = connect(world, version)
    world.sleep()
    world.until(lambda: peer.send(payload(1, 100_000)))
    world.until(lambda: world.away[0].spool.total == 100_000)
    with world.loose():
        program.ask(how)
    world.wake()
    assert is_reset(world, peer)
    if how == "close":
        assert not world.candidates()
    else:
        assert program.ask("receive", 1).endswith(" ConnectionResetError")


@mostly_four
def test_the_program_closes_in_a_round(world: World, version: int) -> None:
    """As `curl | head -c` does: it has read enough."""
    program, peer = connect(world, version)
    program.begin("receive", 60_000)
    world.sleep()
    data = payload(1, 8 * MEG)
    world.until(lambda: peer.send(data))
    away = world.away[0]
    away.live.inject(data[:100_000])
    away.live.let_go()
    world.freezer.thaw(world.freezer.frozen)
    assert program.answer().startswith("60000 ")
    program.ask("close")
    world.freezer.freeze(away.candidate.processes)
    away.live.hold()
    world.wake()
    assert is_reset(world, peer)
    assert not world.candidates()


@pytest.mark.parametrize("way", ["lost", "none"])
def test_no_timer_ends_a_loose_connection(world: World, way: str) -> None:
    """With three retransmissions or probes allowed, each of these would be gone in about three seconds."""
    world.network.sysctl("device", "net.ipv4.tcp_retries2=3")
    try:
        (idle, idle_peer), (full, full_peer) = (connect(world, 4) for _ in range(2))
        full.begin("send", 1, 8 * MEG)  # into a window that closes
        time.sleep(0.3)
        world.sleep()
        if way == "none":  # the host itself refuses to send
            world.network.nft("device", f"insert rule inet hold out ip saddr {HOME4} drop")
        with world.loose():
            idle.ask("send", 2, 3000)
            end = time.monotonic() + 3.5
            while time.monotonic() < end:
                world.stay(0.3)
                for session in world.away:
                    world.network.deliver(session.live.reassurance())
            assert [session.live.state() for session in world.away] == [TcpState.ESTABLISHED] * 2
    finally:
        world.network.sysctl("device", "net.ipv4.tcp_retries2=15")
        world.network.nft("device", "flush chain inet hold out")
    world.wake()
    world.until(lambda: full_peer.receive() == 8 * MEG)
    assert full.answer() == "done"
    world.until(lambda: idle_peer.receive() == 3000)
    assert full_peer.received.hexdigest() == digest((1, 8 * MEG))


def is_reset(world: World, peer: Peer) -> bool:
    world.until(lambda: peer.state == TcpState.CLOSE)
    return peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (104, 32)


def test_program_with_a_shut_receiving_side_continues(world: World) -> None:
    """A kernel still accepts data for it."""
    program, peer = connect(world, 4)
    program.ask("shutdown-receiving")
    world.sleep()
    assert peer.send(payload(1, 5000))
    world.until(lambda: world.away[0].spool.total == 5000)
    world.wake()
    program.ask("send", 2, 3000)
    world.until(lambda: peer.receive() == 3000)
    assert peer.state == TcpState.ESTABLISHED


def test_undone_capture_restarts_a_short_user_timeout(world: World) -> None:
    """The program's data was lost before, and the stand-in got no answer beyond the user timeout."""
    program, peer = connect(world, 4)
    program.ask("option", socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
    world.network.block("device", "out")
    program.ask("send", 1, 3000)
    world.sleep()
    away = world.away.pop()
    drop(away.socket)
    world.until(lambda: repair.info(away.live.socket).backoff >= 3)
    world.network.route("device")
    world.network.unblock("device", "in")
    away.live.resume()
    time.sleep(0.1)
    world.network.unblock("device", "out")
    world.freezer.thaw(away.candidate.processes)
    world.until(lambda: peer.receive() == 3000)
    away.live.close()
