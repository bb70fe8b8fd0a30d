"""Data received for a sleeping device: more than fits, up to the bounds, and across the daemon's death."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from locum.sessions.holder import FdStore
from locum.sessions.tcp import LiveSocket, Parked, SessionError, drop, restore, resume
from locum.sessions.tcp.spool import Budget
from locum.wire import cbor
from tests.sessions.ends import connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import World

MEG = 1 << 20
ROOT = Path(__file__).parents[3]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "holder"
    process = subprocess.Popen([sys.executable, "-m", "locum.sessions.holder", str(path)], stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": "src"})  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    yield path
    process.terminate()
    assert process.wait(5) == 0
    assert not path.exists()


@pytest.mark.parametrize("version", [4, 6])
def test_more_than_the_receive_buffer(world: World, version: int) -> None:
    world.network.sysctl("device", "net.ipv4.tcp_rmem=4096 131072 1048576")
    try:
        program, peer = connect(world, version)
        program.begin("receive", 20 * MEG)
        world.sleep()
        data = payload(1, 20 * MEG)
        world.until(lambda: peer.send(data))
        world.until(lambda: world.away[0].spool.total == 20 * MEG)
        world.wake()
        assert world.rounds > 3
        assert program.answer() == f"{20 * MEG} {digest((1, 20 * MEG))} more"
    finally:
        world.network.sysctl("device", "net.ipv4.tcp_rmem=4096 131072 33554432")


def test_spool_spills_to_disk_and_then_closes_the_window(world: World) -> None:
    world.budget = Budget(memory_bound=MEG, total_bound=3 * MEG)
    world.receive_buffer = 256 << 10
    program, peer = connect(world, 4)
    program.begin("receive", 32 * MEG)
    world.sleep()
    data = payload(2, 32 * MEG)
    world.until(lambda: peer.send(data), 1.0, must=False)
    spool, sock = world.away[0].spool, world.away[0].socket
    assert spool.total == world.budget.total == 3 * MEG
    assert spool.spilled == 2 * MEG
    assert world.budget.memory == MEG
    assert spool.waiting(sock)
    assert spool.read(MEG - 10, 20) == data[MEG - 10 : MEG + 10]
    assert peer.sent < 12 * MEG
    stalled = peer.sent
    world.until(lambda: peer.send(data), 0.3, must=False)
    assert peer.sent == stalled
    world.wake()
    assert world.budget.total == world.budget.memory == 0
    assert not list((world.directory / "disk").iterdir())
    world.until(lambda: peer.send(data))
    assert program.answer() == f"{32 * MEG} {digest((2, 32 * MEG))} more"


def test_peer_with_a_closed_window_continues_after_the_wake(world: World) -> None:
    """Not only with its next probe, for which it waits the longer, the longer the window was closed."""

    def probes() -> int:
        with world.network.inside("peer"):
            text = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        names, values = (line.split() for line in text if line.startswith("TcpExt:"))
        return int(values[names.index("TCPWinProbe")])

    world.budget = Budget(memory_bound=MEG, total_bound=MEG)
    world.receive_buffer = 256 << 10
    program, peer = connect(world, 4)
    program.begin("receive", 12 * MEG)
    world.sleep()
    before, data = probes(), payload(2, 12 * MEG)
    # 0.2, 0.4, 0.8 and 1.6 seconds; the next one would come after 3.2
    world.until(lambda: peer.send(data) or probes() >= before + 4)
    sent, known = peer.sent, probes()
    world.wake()
    world.until(lambda: peer.send(data) or peer.sent > sent + MEG)
    assert probes() == known
    world.until(lambda: peer.send(data))
    assert program.answer() == f"{12 * MEG} {digest((2, 12 * MEG))} more"


def test_full_disk_closes_the_window_without_loss(world: World) -> None:
    world.budget = Budget(memory_bound=MEG, total_bound=1 << 30)
    world.receive_buffer = 256 << 10
    disk = world.directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], check=True)
    try:
        program, peer = connect(world, 4)
        program.begin("receive", 12 * MEG)
        world.sleep()
        data = payload(2, 12 * MEG)
        spool, sock = world.away[0].spool, world.away[0].socket
        with pytest.raises(OSError, match="No space"):
            world.until(lambda: peer.send(data))
        held = spool.total
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                spool.drain(sock)
        assert spool.total == held == world.budget.total
        final = spool.stop(sock)  # data that the disk does not take is still given out
        assert final.received == spool.total > held
        assert spool.read(held - 1000, 1 << 30) == data[held - 1000 : final.received]
        spool.resume(sock)
        assert spool.total == held == world.budget.total
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        world.until(lambda: peer.send(data))
        world.wake()
        assert world.budget.total == world.budget.memory == 0
        assert program.answer() == f"{12 * MEG} {digest((2, 12 * MEG))} more"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_when_memory_is_full_it_goes_on_on_disk(world: World) -> None:
    """Other programs use the tmpfs too, so it may be full long before the memory bound."""
    memory = world.directory / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(memory)], check=True)
    try:
        program, peer = connect(world, 4)
        program.begin("receive", 4 * MEG)
        world.sleep()
        data = payload(3, 4 * MEG)
        world.until(lambda: peer.send(data))
        spool = world.away[0].spool
        world.until(lambda: spool.total == 4 * MEG)
        assert 3 * MEG <= spool.spilled < 4 * MEG
        assert world.budget.memory == 4 * MEG - spool.spilled
        assert spool.read(0, 4 * MEG) == data
        world.wake()
        assert world.budget.total == world.budget.memory == 0
        assert program.answer() == f"{4 * MEG} {digest((3, 4 * MEG))} more"
    finally:
        subprocess.run(["umount", "-l", str(memory)], check=True)


def test_killing_the_draining_process_loses_no_byte(world: World, holder: Path) -> None:
    chance = random.Random(11)
    program, peer = connect(world, 4)
    size = 48 * MEG
    program.begin("receive", size)
    (record,) = world.sleep()
    away = world.away[0]
    store = FdStore.holder(holder)
    store.store("s1", away.socket.fileno())
    away.socket.close()
    away.spool.close()
    (world.directory / "record").write_bytes(cbor.encode(record.to_cbor()))
    data = payload(3, size)
    at_kill = []
    for _ in range(12):
        drainer = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/sessions/drainer.py"), str(holder), "s1", str(world.directory / "record"), str(world.directory)],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert drainer.stdout
        assert drainer.stdout.readline() == b"ready\n"
        end = time.monotonic() + chance.uniform(0.01, 0.15)
        while time.monotonic() < end and peer.sent < size - MEG:
            peer.send(data)
        drainer.kill()
        drainer.wait()
        at_kill.append(peer.sent)
    away.socket = socket.socket(fileno=store.take()["s1"])
    away.socket.setblocking(False)
    away.spool = world.new_spool(record, "s1")
    away.spool.recover(away.socket)
    assert at_kill[-1] > 8 * MEG
    world.until(lambda: peer.send(data))
    store.remove("s1")
    (last,) = world.wake()
    assert program.answer() == f"{size} {digest((3, size))} more"
    assert last.received > size // 2
    assert store.take() == {}


def test_killing_after_the_stop_and_after_a_fin(world: World, holder: Path) -> None:
    program, peer = connect(world, 4)
    program.begin("receive", 9 * MEG)
    (record,) = world.sleep()
    away = world.away[0]
    world.until(lambda: peer.send(payload(1, 100_000)))
    world.stay(0.1)
    peer.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    before = away.spool.stop(away.socket)
    away.spool.close()
    away.spool = world.new_spool(record, "s1")
    away.spool.recover(away.socket)  # as a restarted daemon finds it: in repair
    assert replace(away.spool.stop(away.socket), timestamp=before.timestamp) == before
    assert before.peer_closed
    away.spool.resume(away.socket)
    assert away.spool.stop(away.socket).received == 100_000
    away.spool.resume(away.socket)
    world.wake()
    assert program.answer() == f"100000 {digest((1, 100_000))} eof"


def test_a_stopped_stand_in_can_go_on(world: World) -> None:
    program, peer = connect(world, 6)
    program.begin("receive", 200_000)
    world.sleep()
    away = world.away[0]
    world.until(lambda: peer.send(payload(1, 100_000)))
    world.stay(0.1)
    world.network.block("standin", "in")
    assert away.spool.stop(away.socket).received == 100_000
    away.spool.resume(away.socket)
    world.network.unblock("standin", "in")
    world.until(lambda: peer.send(payload(2, 100_000)))
    world.stay(0.3)
    assert world.wake()[0].received == 200_000
    assert program.answer() == f"200000 {digest((1, 100_000), (2, 100_000))} more"


def test_a_capture_can_be_undone(world: World) -> None:
    program, peer = connect(world, 4)
    program.ask("buffer", 4 * MEG)
    program.ask("send", 1, 500_000)
    world.sleep()
    away = world.away.pop()
    drop(away.socket)
    world.network.route("device")
    away.live.resume()
    world.network.unblock("device", "out")
    world.network.unblock("device", "in")
    assert not world.candidates()  # we hold it too
    away.live.close()
    world.freezer.thaw(away.candidate.processes)
    keepalive, patience = program.ask("options").split()
    assert (
        keepalive == "1" and 77000 <= int(patience) < 200_000
    )  # longer where the kernel has retransmitted meanwhile
    world.until(lambda: peer.receive() == 500_000)
    assert peer.received.hexdigest() == digest((1, 500_000))
    assert peer.send(payload(2, 1000))
    assert program.ask("receive", 1000) == f"1000 {digest((2, 1000))} more"
    assert len(world.candidates()) == 1


def test_the_devices_daemon_comes_back_to_a_captured_socket(world: World) -> None:
    program, peer = connect(world, 4)
    program.begin("receive", 50_000)
    world.sleep()
    assert peer.send(payload(4, 50_000))
    world.stay(0.2)
    away = world.away[0]
    stored = away.live.parked.to_json()
    away.live.close()
    (candidate,) = world.candidates()
    away.live = LiveSocket.open(candidate, Parked.from_json(stored))
    world.wake()
    assert program.answer() == f"50000 {digest((4, 50_000))} more"
    assert program.ask("options") == "1 77000"


def test_a_flow_that_is_open_already_is_refused(world: World) -> None:
    _, peer = connect(world, 4)
    (record,) = world.sleep()
    with world.network.inside("standin"), pytest.raises(SessionError, match=r"cannot be restored"):
        restore(record)
    resume(world.away[0].socket)
    assert peer.send(b"x")
    world.stay(0.1)
    assert world.away[0].spool.total == 1
    world.wake()


@pytest.mark.parametrize("fin", [False, True])
def test_a_reset_while_the_daemon_is_dead(world: World, fin: bool) -> None:
    program, peer = connect(world, 4)
    program.begin("receive", 9 * MEG)
    (record,) = world.sleep()
    away = world.away[0]
    world.until(lambda: peer.send(payload(1, 100_000)))
    world.stay(0.1)
    away.spool.close()
    peer.send(payload(2, 7000))
    if fin:
        peer.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.socket.close()
    time.sleep(0.1)
    away.spool = world.new_spool(record, "s1")
    away.spool.recover(away.socket)
    world.stay(0.1)
    (last,) = world.wake()
    assert (last.received, last.peer_closed, last.error) == (107_000, fin, 32 if fin else 104)
    end = "eof" if fin else "ConnectionResetError"
    assert program.answer() == f"107000 {digest((1, 100_000), (2, 7000))} {end}"


def test_a_program_that_does_not_read_gets_what_fits(world: World) -> None:
    world.network.sysctl("device", "net.ipv4.tcp_rmem=4096 131072 1048576")
    program, peer = connect(world, 4)
    try:
        world.sleep()
        world.until(lambda: peer.send(payload(1, 6 * MEG)))
        away = world.away[0]
        world.until(lambda: away.spool.total == 6 * MEG)
        first = away.live.inject(away.spool.read(0, 6 * MEG)).accepted
        assert 0 < first < 4 * MEG
        assert away.live.inject(away.spool.read(first, MEG)).accepted == 0
        away.live.let_go()
        world.freezer.thaw(away.candidate.processes)
        time.sleep(0.05)
        assert away.live.unread() == first
        program.begin("receive", 6 * MEG)
        world.until(lambda: away.live.unread() == 0)
        world.freezer.freeze(away.candidate.processes)
        away.live.hold()
        world.wake()
        assert program.answer() == f"{6 * MEG} {digest((1, 6 * MEG))} more"
    finally:
        world.network.sysctl("device", "net.ipv4.tcp_rmem=4096 131072 33554432")
