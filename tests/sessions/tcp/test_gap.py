"""Segments that came before the capture behind a lost one: they are not the stream's any more once the gap is filled."""

import socket
import struct
import time

import pytest

from locum.sessions.tcp import receiving, repair, synthesis
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.live import LiveSocket
from tests.sessions.ends import Peer, Program, connect
from tests.sessions.sleepworld import Away, World

MEG, GIB = 1 << 20, 1 << 30
SO_MEMINFO = 55


def receive_memory(sock: socket.socket) -> int:
    """Bytes of the kernel's memory that received segments take, those behind a gap too."""
    return int(struct.unpack_from("=I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[0])


def asleep_with_a_gap(world: World) -> tuple[Program, Peer, Away]:
    """1,000 bytes of the peer are lost on the path; the 1,000 behind them, of the letter S, are there."""
    program, peer = connect(world, 4)
    (candidate,) = world.candidates()
    live = LiveSocket.open(candidate)
    repair.set_repair(live.socket, repair.REPAIR_ON)
    expected = repair.queue_sequence(live.socket, repair.RECEIVE_QUEUE)
    written = repair.queue_sequence(live.socket, repair.SEND_QUEUE)
    repair.set_repair(live.socket, repair.REPAIR_OFF_NO_PROBE)
    behind = (expected + 1000) & 0xFFFFFFFF
    world.network.deliver(synthesis.data_segments(live.flow, behind, written, b"S" * 1000))
    world.until(lambda: receive_memory(live.socket) > 0)
    live.close()
    world.sleep()
    return program, peer, world.away[0]


def give(world: World, away: Away, total: int, piece: memoryview) -> None:
    """`total` bytes come back, the program reading between the rounds."""
    deadline = time.monotonic() + 500
    while (rest := total - away.live.position()) > 0:
        assert time.monotonic() < deadline
        wanted = away.live.position()
        done = away.live.inject(piece[:rest])
        wanted += done.accepted
        world.network.deliver(done.packets)
        until = time.monotonic() + 1
        while done.packets and away.live.position() < wanted and time.monotonic() < until:
            time.sleep(0.001)
        if done.accepted and not done.packets:
            continue
        away.live.let_go()
        world.freezer.thaw(away.candidate.processes)
        while away.live.unread():
            time.sleep(0.001)
        world.freezer.freeze(away.candidate.processes)
        away.live.hold()


def test_bytes_behind_a_gap_are_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "PURGE_EVERY", 1 * MEG)
    program, _, away = asleep_with_a_gap(world)
    before = receive_memory(away.live.socket)
    assert before > 0
    program.begin("receive", 3 * MEG)
    give(world, away, 3 * MEG, memoryview(bytes(1 * MEG)))
    away.live.let_go()
    world.freezer.thaw(away.candidate.processes)
    assert program.answer().startswith(f"{3 * MEG} ")
    assert receive_memory(away.live.socket) == 0


@pytest.mark.exhaustive
def test_more_than_four_gigabytes_come_back(world: World) -> None:
    """Sequence numbers come round; the peer's windows and acknowledgements count all the same."""
    program, _, away = asleep_with_a_gap(world)
    total = 4 * GIB + 500
    program.begin("count", total + 500, "S")
    give(world, away, total, memoryview(b"n" * (16 * MEG)))
    assert away.live.position() == total
    world.network.unblock("device", "in")
    live = away.live
    expected = repair.queue_sequence(live.socket, repair.RECEIVE_QUEUE)
    written = repair.queue_sequence(live.socket, repair.SEND_QUEUE)
    world.network.deliver(live.finish(FinalTcp(received=total)))
    small = synthesis.acknowledgement(live.flow, (expected + 500) & 0xFFFFFFFF, written, 3)
    world.network.deliver((*synthesis.data_segments(live.flow, expected, written, b"n" * 500), small))
    world.freezer.thaw(away.candidate.processes)
    assert program.answer() == f"{total + 500} 0"
    scale = (repair.info(live.socket).window_scale or (0, 0))[0]
    assert repair.info(live.socket).send_window == 3 << scale
