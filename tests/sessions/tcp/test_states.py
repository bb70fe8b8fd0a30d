"""Every state a connection can be in when its device falls asleep, and everything its peer can do meanwhile."""

import socket
import struct
import time
from pathlib import Path

import pytest

from locum.sessions.record import TcpState
from locum.sessions.tcp import LiveSocket, repair
from locum.sessions.tcp.synthesis import acknowledgement
from tests.sessions.ends import connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import World

MEG = 1 << 20
both = pytest.mark.parametrize("version", [4, 6])


@both
def test_an_idle_connection_works_after_two_sleeps(world: World, version: int) -> None:
    program, peer = connect(world, version)
    for seed in (1, 2):
        program.begin("receive", 1000)
        world.sleep()
        world.stay(0.3)
        world.wake()
        assert peer.send(payload(seed, 1000))
        assert program.answer() == f"1000 {digest((seed, 1000))} more"
        program.ask("send", seed, 500)
        world.until(lambda seed=seed: peer.receive() == 500 * seed)  # type: ignore[misc]
    assert peer.received.hexdigest() == digest((1, 500), (2, 500))
    assert program.ask("options") == "1 77000"


@both
def test_unread_bytes_stay_with_the_program(world: World, version: int) -> None:
    program, peer = connect(world, version)
    assert peer.send(payload(1, 30000))
    time.sleep(0.1)
    (record,) = world.sleep()
    assert record.unread == 30000
    assert peer.send(payload(2, 30000))
    world.stay(0.3)
    assert world.wake()[0].received == 30000
    assert program.ask("receive", 60000) == f"60000 {digest((1, 30000), (2, 30000))} more"


@both
def test_an_upload_with_a_full_send_queue(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("send", 5, 24 * MEG)
    (candidate,) = world.candidates()
    watched = LiveSocket.open(candidate)
    # The peer does not read: its window closes, then the program's send buffer fills.
    world.until(lambda: repair.unsent(watched.socket) > 100_000)
    watched.close()
    (record,) = world.sleep()
    assert len(record.unsent) > 100_000
    first = len(record.unacked) + len(record.unsent)
    world.until(
        lambda: peer.receive() >= first + 1_000_000 or world.away[0].live.unread() < 0, 1.5, must=False
    )
    seen = peer.count
    assert seen >= first
    assert not program.answered()
    world.wake()
    started = time.monotonic()
    world.until(lambda: peer.receive() == 24 * MEG)
    assert time.monotonic() - started < 10, "no timer was waited for"
    assert program.answer() == "done"
    assert peer.received.hexdigest() == digest((5, 24 * MEG))


@both
def test_sleep_and_wake_while_the_peer_reads_nothing(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("send", 6, 16 * MEG)
    time.sleep(0.3)
    world.sleep()
    world.stay(0.6)
    (last,) = world.wake()
    assert last.acked < 16 * MEG
    world.until(lambda: peer.receive() == 16 * MEG)
    assert peer.received.hexdigest() == digest((6, 16 * MEG))


@both
def test_the_program_has_shut_its_side_and_downloads(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.ask("send", 1, 100)
    program.ask("shutdown")
    world.until(lambda: peer.receive() == 100 and peer.eof)
    time.sleep(0.1)  # the FIN is acknowledged
    program.begin("receive", 100 * MEG)
    (record,) = world.sleep()
    assert record.state is TcpState.FIN_WAIT2
    data = payload(2, 6 * MEG)
    world.until(lambda: peer.send(data))
    world.stay(0.3)
    world.wake()
    world.until(lambda: peer.send(data))
    world.sleep()
    world.stay(0.1)
    world.wake()
    peer.socket.close()
    assert program.answer() == f"{12 * MEG} {digest((2, 6 * MEG), (2, 6 * MEG))} eof"


@both
def test_a_fin_behind_unsent_bytes(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.ask("buffer", 16 * MEG)
    program.ask("send", 3, 2 * MEG)
    program.ask("shutdown")
    (record,) = world.sleep()
    assert record.state is TcpState.FIN_WAIT1
    assert record.unsent or record.unacked
    world.until(lambda: peer.receive() == 2 * MEG and peer.eof)
    assert peer.received.hexdigest() == digest((3, 2 * MEG))
    assert peer.send(payload(4, 5000))
    world.stay(0.2)
    world.wake()
    peer.socket.close()
    assert program.ask("receive", 10000) == f"5000 {digest((4, 5000))} eof"


@both
def test_the_peer_has_shut_its_side(world: World, version: int) -> None:
    program, peer = connect(world, version)
    assert peer.send(payload(1, 5000))
    peer.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    program.ask("buffer", 16 * MEG)
    program.ask("send", 2, 2 * MEG)
    (record,) = world.sleep()
    assert record.state is TcpState.CLOSE_WAIT
    world.until(lambda: peer.receive() == 2 * MEG)
    world.stay(0.1)
    (last,) = world.wake()
    assert last.peer_closed
    assert last.received == 0
    program.ask("send", 3, 2 * MEG)
    world.until(lambda: peer.receive() == 4 * MEG)
    assert program.ask("receive", 10000) == f"5000 {digest((1, 5000))} eof"
    program.ask("close")
    world.until(lambda: peer.receive() == 4 * MEG and peer.eof)
    assert peer.received.hexdigest() == digest((2, 2 * MEG), (3, 2 * MEG))


@both
def test_both_sides_are_shut(world: World, version: int) -> None:
    program, peer = connect(world, version)
    peer.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    program.ask("buffer", 16 * MEG)
    program.ask("send", 2, 4 * MEG)
    program.ask("shutdown")
    (record,) = world.sleep()
    assert record.state is TcpState.LAST_ACK
    world.until(lambda: peer.receive() == 4 * MEG and peer.eof)
    world.stay(0.1)
    world.wake()
    assert program.ask("receive", 10) == f"0 {digest()} eof"
    assert peer.received.hexdigest() == digest((2, 4 * MEG))
    assert not world.candidates()  # the last acknowledgement has closed it


@both
def test_the_peer_closes_during_sleep(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("receive", 100 * MEG)
    world.sleep()
    data = payload(7, 3 * MEG)
    world.until(lambda: peer.send(data))
    peer.socket.shutdown(socket.SHUT_WR)
    world.stay(0.3)
    (last,) = world.wake()
    assert (last.received, last.peer_closed, last.error) == (3 * MEG, True, 0)
    assert program.answer() == f"{3 * MEG} {digest((7, 3 * MEG))} eof"
    program.ask("send", 8, 1000)
    program.ask("close")
    world.until(lambda: peer.receive() == 1000 and peer.eof)
    assert peer.state == TcpState.CLOSE


@both
def test_the_peer_closes_during_sleep_after_the_program(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.ask("shutdown")
    world.until(lambda: peer.receive() == 0 and peer.eof)
    program.begin("receive", 100 * MEG)
    world.sleep()
    world.until(lambda: peer.send(payload(7, 100_000)))
    peer.socket.close()
    world.stay(0.3)
    (last,) = world.wake()
    assert (last.received, last.peer_closed, last.error) == (100_000, True, 0)
    assert program.answer() == f"100000 {digest((7, 100_000))} eof"


@both
def test_the_peer_resets_during_sleep(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("receive", 100 * MEG)
    world.sleep()
    data = payload(9, 3 * MEG)
    world.until(lambda: peer.send(data))
    world.stay(0.3)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    world.stay(0.3)
    (last,) = world.wake()
    assert (last.received, last.error) == (3 * MEG, 104)
    assert program.answer() == f"{3 * MEG} {digest((9, 3 * MEG))} ConnectionResetError"


@both
def test_a_fin_then_a_reset_during_sleep(world: World, version: int) -> None:
    program, peer = connect(world, version)
    world.sleep()
    assert peer.send(payload(9, 3000))
    peer.socket.shutdown(socket.SHUT_WR)
    world.stay(0.2)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    world.stay(0.2)
    (last,) = world.wake()
    assert (last.received, last.peer_closed, last.error) == (3000, True, 32)
    assert program.ask("receive", 9000) == f"3000 {digest((9, 3000))} eof"
    assert program.ask("send", 1, 10) == "BrokenPipeError"


def test_no_timer_ends_a_sleeping_connection(world: World) -> None:
    """With three retransmissions and one keep-alive allowed, each of these would be gone in about three seconds."""
    world.network.sysctl("device", "net.ipv4.tcp_retries2=3")
    try:
        (idle, idle_peer), (full, full_peer), (late, late_peer) = (connect(world, 4) for _ in range(3))
        idle.ask("keepalive")
        full.begin("send", 1, 8 * MEG)  # into a window that closes
        time.sleep(0.3)
        port = late_peer.socket.getpeername()[1]
        world.network.nft("device", f"add rule inet hold out tcp sport {port} drop")
        late.ask("send", 2, 3000)  # never reaches the peer, unless the stand-in sends it
        world.sleep()
        world.stay(4.5)
        assert late_peer.receive() == 3000
        world.wake()
    finally:
        world.network.sysctl("device", "net.ipv4.tcp_retries2=15")
    world.until(lambda: full_peer.receive() == 8 * MEG)
    assert full.answer() == "done"
    for seed, (program, peer) in enumerate(((idle, idle_peer), (late, late_peer))):
        assert peer.send(payload(seed, 10))
        assert program.ask("receive", 10) == f"10 {digest((seed, 10))} more"
    assert late_peer.received.hexdigest() == digest((2, 3000))


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("what", ["unacked", "a FIN alone"])
def test_no_timer_ends_one_whose_peer_has_closed_its_window(world: World, version: int, what: str) -> None:
    """Two times the longest timeout after it began to retransmit into a closed window, the kernel gives up."""
    world.network.sysctl("device", "net.ipv4.tcp_retries2=2")
    longest = Path("/proc/sys/net/ipv4/tcp_rto_max_ms").exists()  # else (before Linux 6.15) two minutes
    try:
        if longest:
            world.network.sysctl("device", "net.ipv4.tcp_rto_max_ms=1000")
        program, peer = connect(world, version)
        (candidate,) = world.candidates()
        live = LiveSocket.open(candidate)
        world.network.block("device", "out")
        if what == "unacked":
            program.ask("send", 1, 500)
        repair.set_repair(live.socket, repair.REPAIR_ON)
        seq = repair.queue_sequence(live.socket, repair.RECEIVE_QUEUE)
        ack = repair.queue_sequence(live.socket, repair.SEND_QUEUE) - 500 * (what == "unacked")
        repair.set_repair(live.socket, repair.REPAIR_OFF_NO_PROBE)
        closed = acknowledgement(candidate.flow, (seq - 1) & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0)
        world.network.deliver((closed, acknowledgement(candidate.flow, seq, ack & 0xFFFFFFFF, 0)))
        world.until(lambda: repair.info(live.socket).send_window == 0)
        if what != "unacked":
            program.ask("shutdown")
        live.close()
        (record,) = world.sleep()
        assert record.window.snd_wnd == 0
        world.stay(4)
        assert world.away[0].live.state() is record.state
        assert repair.info(world.away[0].live.socket).send_window >= record.mss
    finally:
        world.network.sysctl("device", "net.ipv4.tcp_retries2=15")
        if longest:
            world.network.sysctl("device", "net.ipv4.tcp_rto_max_ms=120000")
    assert peer.send(payload(2, 50))
    world.until(lambda: world.away[0].spool.total == 50)
    world.wake()
    assert program.ask("receive", 50).startswith("50 ")
    if what == "unacked":
        world.until(lambda: peer.receive() == 500)
    else:
        world.until(lambda: peer.receive() == 0 and peer.eof)


@both
def test_the_stand_in_offers_the_window_that_the_device_offered(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("receive", 8 * MEG)
    world.until(lambda: peer.send(payload(1, 8 * MEG)))
    assert program.answer().startswith(str(8 * MEG))
    program.begin("receive", 1)
    (record,) = world.sleep()
    assert record.window.rcv_wnd > 200_000
    raw = world.away[0].socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 240)
    assert struct.unpack_from("=I", raw, 64)[0] >= record.window.rcv_wnd  # tcpi_rcv_ssthresh
    world.wake()
