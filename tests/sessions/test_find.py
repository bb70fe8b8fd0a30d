"""Which connections are captured, and which are left alone and why."""

import os
import socket
import time

import pytest

from locum.sessions.find import find
from locum.sessions.record import TcpState
from locum.sessions.tcp import LiveSocket, SessionError
from tests.sessions.ends import connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import HOME4, PEER4, World


def test_a_shared_socket_names_every_holder(world: World) -> None:
    program, peer = connect(world, 4)
    program.ask("fork")
    (candidate,) = world.candidates()
    assert len(candidate.pids) == 2
    assert candidate.flow.local == HOME4
    program.begin("receive", 10)
    world.sleep()
    assert world.freezer.frozen == set(candidate.processes)
    assert peer.send(payload(1, 10))
    world.stay(0.1)
    world.wake()
    assert program.answer() == f"10 {digest((1, 10))} more"
    os.kill(next(pid for pid in candidate.pids if pid != program.process.pid), 9)


def test_several_sessions_of_several_programs(world: World) -> None:
    ends = [connect(world, version) for version in (4, 6, 4, 6)]
    for program, _ in ends:
        program.begin("receive", 300_000)
    assert len(world.sleep()) == 4
    for seed, (_, peer) in enumerate(ends):
        world.until(lambda seed=seed, peer=peer: peer.send(payload(seed, 200_000)))  # type: ignore[misc]
    world.wake()
    for seed, (program, peer) in enumerate(ends):
        world.until(lambda seed=seed, peer=peer: peer.send(payload(seed, 100_000)))  # type: ignore[misc]
        assert program.answer() == f"300000 {digest((seed, 200_000), (seed, 100_000))} more"


def test_a_dual_stack_socket_that_speaks_ipv4(world: World) -> None:
    with world.network.inside("peer"):
        listener = socket.create_server((PEER4, 7100))
    with world.network.inside("device"), listener, socket.socket(socket.AF_INET6) as mapped:
        mapped.connect((f"::ffff:{PEER4}", 7100))
        accepted, _ = listener.accept()
        candidates, _ = find((HOME4,))
        assert [each.flow.peer.version for each in candidates] == [4]
        record = LiveSocket.open(candidates[0]).capture()
        assert record.flow.local == HOME4
        assert record.state is TcpState.ESTABLISHED
        accepted.close()


def test_a_connection_that_ended_is_not_captured(world: World) -> None:
    program, peer = connect(world, 4)
    (candidate,) = world.candidates()
    live = LiveSocket.open(candidate)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.socket.close()
    time.sleep(0.1)
    with pytest.raises(SessionError, match="CLOSE"):
        live.capture()
    live.close()
    program.close()
    with pytest.raises(SessionError, match="no process holds"):
        LiveSocket.open(candidate)
