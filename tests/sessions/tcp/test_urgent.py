"""Urgent bytes (MSG_OOB) for a sleeping device: they keep their place in the stream, and nothing stands still."""

import hashlib
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from locum.sessions.tcp import repair
from locum.sessions.tcp.spool import Budget
from tests.sessions.ends import connect
from tests.sessions.program import payload
from tests.sessions.sleepworld import World

both = pytest.mark.parametrize("version", [4, 6])
MEG = 1 << 20


@both
def test_an_urgent_byte_comes_in_its_place(world: World, version: int) -> None:
    program, peer = connect(world, version)
    program.begin("receive", 2003)
    world.sleep()
    away = world.away[0]
    peer.socket.send(b"a" * 1000)
    peer.socket.send(b"!", socket.MSG_OOB)
    world.until(lambda: away.spool.total == 1001)
    peer.socket.send(b"b" * 1000)
    peer.socket.send(b"?", socket.MSG_OOB)
    peer.socket.send(b"c")
    world.until(lambda: away.spool.total == 2003)
    assert away.spool.drain(away.socket) == 0
    (last,) = world.wake()
    assert last.received == 2003
    wanted = sha(b"a" * 1000 + b"!" + b"b" * 1000 + b"?c")
    assert program.answer() == f"2003 {wanted} more"
    assert peer.send(payload(1, 10))
    assert program.ask("receive", 10).startswith("10 ")


def test_urgent_byte_among_data_without_room(world: World) -> None:
    """They are copied when the connection stops, past the mark."""
    world.budget = Budget(memory_bound=MEG, total_bound=1000)
    program, peer = connect(world, 4)
    program.begin("receive", 4001)
    world.sleep()
    away = world.away[0]
    peer.socket.send(b"a" * 2000)
    peer.socket.send(b"!", socket.MSG_OOB)
    peer.socket.send(b"b" * 2000)
    world.until(lambda: repair.unread(away.socket) == 3001)
    assert away.spool.total == 1000
    if not looks_past_a_mark():
        with pytest.raises(OSError, match=r"Linux 6\.10"):
            away.spool.stop(away.socket)
        return
    (last,) = world.wake()
    assert last.received == 4001
    assert program.answer() == f"4001 {sha(b'a' * 2000 + b'!' + b'b' * 2000)} more"


def test_a_socket_of_an_earlier_version_is_drained_too(world: World, tmp_path: Path) -> None:
    _, peer = connect(world, 4)
    (record,) = world.sleep()
    away = world.away[0]
    away.spool.close()
    away.socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
    away.spool = world.new_spool(record, "s1")
    away.spool.recover(away.socket)
    peer.socket.send(b"!", socket.MSG_OOB)
    peer.socket.send(b"b" * 10)
    world.until(lambda: away.spool.total == 11)
    assert away.spool.read(0, 100) == b"!" + b"b" * 10


def looks_past_a_mark() -> bool:
    """Linux has SO_PEEK_OFF for TCP since 6.10."""
    with socket.socket() as sock, suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, repair.SO_PEEK_OFF, 0)
        return True
    return False


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
