"""Which connections are captured, and which are left alone and why."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from locum.sessions.programs.freezer import Freezer
from locum.sessions.programs.process import holds, stat_fields
from locum.sessions.record import TcpState
from locum.sessions.search.find import find
from locum.sessions.tcp import LiveSocket, SessionError
from tests.sessions.ends import connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import HOME4, PEER4, World

EXIT = 60 if os.uname().machine == "x86_64" else 93  # exit(2), of one thread


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
        assert [candidate.flow.peer.version for candidate in candidates] == [4]
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


@pytest.mark.parametrize("signals", [False, True])
def test_a_program_whose_first_thread_has_ended(world: World, tmp_path: Path, signals: bool) -> None:
    """Linux shows no descriptors at such a process, only at its threads; nor does its new cgroup list it."""
    code = f"""
import ctypes, socket, sys, threading, time
def serve():
    s = socket.create_connection(('{PEER4}', 7100))
    while ctypes.CDLL(None) and (data := s.recv(100)):
        s.send(data)
threading.Thread(target=serve).start()
ctypes.CDLL(None).syscall({EXIT}, 0)
"""
    with world.network.inside("peer"):
        listener = socket.create_server((PEER4, 7100))
    program = world.network.start("device", sys.executable, "-c", code)
    freezer = Freezer(f"z{os.getpid()}", tmp_path, signals=signals)
    with listener, listener.accept()[0] as peer:
        peer.settimeout(60)
        world.until(lambda: stat_fields(Path(f"/proc/{program.pid}/stat"))[0] == "Z")
        with world.network.inside("device"):
            (candidate,), _ = find((HOME4,))
        assert candidate.pids == (program.pid,) and holds(*candidate.holders[0], candidate.inode)
        assert not freezer.freeze(candidate.processes)
        peer.send(b"ping")
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.recv(100)
        freezer.thaw(candidate.processes)
        peer.settimeout(60)
        assert peer.recv(100) == b"ping"
    program.kill()
    program.wait()
