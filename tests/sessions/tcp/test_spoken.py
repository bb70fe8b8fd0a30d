"""Bytes that a proxy says at the stand-in: the peer gets them, and the device's numbers agree with the peer's afterwards."""

import errno
import hashlib
import resource
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from locum.sessions.record import TcpState
from locum.sessions.tcp import repair
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.spoken import MAX_SPOKEN, Spoken
from tests.sessions.ends import Peer, connect
from tests.sessions.program import payload
from tests.sessions.sleepworld import Away, World


def _hear(world: World, peer: Peer, count: int) -> None:
    world.until(lambda: peer.receive() >= count)


def _store(world: World, away: Away, count: int) -> None:
    world.until(lambda: away.spool.total == count)


@pytest.mark.parametrize("version", [4, 6])
def test_both_ends_agree_after_three_sleeps(world: World, version: int) -> None:
    """In each one the proxy speaks and the peer answers; afterwards the program sends and receives as before."""
    program, peer = connect(world, version)
    heard = b""
    for number in range(3):
        word = b"word %d of the proxy\n" % number
        world.sleep()
        (away,) = world.away
        away.spool.said.say(away.socket, word)
        heard += word
        _hear(world, peer, len(heard))
        world.until(lambda: peer.send(b"answer"))
        _store(world, away, len(b"answer"))
        away.live.agree(away.spool.said.data, 0, lambda _: None)
        away.live.agree(away.spool.said.data, 0, lambda _: None)  # a daemon that was killed does it again
        world.wake()
        world.away.clear()
        assert program.ask("receive", len(b"answer")).endswith("more")
        heard += payload(number, 50_000)
        assert program.ask("send", number, 50_000) == "done"
        _hear(world, peer, len(heard))
    assert peer.received.hexdigest() == hashlib.sha256(heard).hexdigest()


def test_device_repeats_words_without_acknowledgement(world: World) -> None:
    """The way out of the stand-in is blocked, so its word is lost; the device's kernel repeats it."""
    program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    world.network.block("standin", "out")
    away.spool.said.say(away.socket, b"lost at first")
    world.stay(0.3)
    assert peer.receive() == 0
    away.live.agree(away.spool.said.data, 0, lambda _: None)
    world.wake()
    world.network.unblock("standin", "out")
    world.until(lambda: peer.receive() == len(b"lost at first"))
    assert program.ask("send", 1, 1000) == "done"
    world.until(lambda: peer.receive() == len(b"lost at first") + 1000)


def test_restarted_daemon_knows_what_was_sent(world: World) -> None:
    _program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    away.spool.said.say(away.socket, b"one")
    world.until(lambda: peer.receive() == 3)
    again = Spoken("s1", away.record, world.directory / "disk")
    again.recover(away.socket)
    assert again.data == b"one" and again.waiting == 0
    again.say(away.socket, b"two")
    world.until(lambda: peer.receive() == 6)
    away.spool.said.recover(away.socket)
    away.live.agree(away.spool.said.data, 0, lambda _: None)
    world.wake()


def test_bounds(world: World) -> None:
    program, _peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    with pytest.raises(SessionError, match="at most"):
        away.spool.said.say(away.socket, bytes(MAX_SPOKEN + 1))
    assert away.spool.said.data == b""
    away.live.agree(b"", 0, lambda _: None)
    world.wake()
    world.away.clear()
    assert program.ask("shutdown") == "done"
    world.sleep()
    with pytest.raises(SessionError, match="closed its side"):
        world.away[0].spool.said.say(world.away[0].socket, b"x")


def test_disk_that_takes_a_part_of_a_word_leaves_none_of_it(world: World) -> None:
    """A next run of the daemon would say the part, and in front of a word that came later."""
    _program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    said = away.spool.said
    said.say(away.socket, b"first")
    with room_in_files(8), pytest.raises(OSError):
        said.say(away.socket, b"no room")
    for recovered in (b"first", b"firstlast"):
        again = Spoken("s1", away.record, world.directory / "disk")
        again.recover(away.socket)
        assert (again.data, again.waiting) == (recovered, 0)
        if recovered == b"first":
            said.say(away.socket, b"last")
    _hear(world, peer, 9)


@contextmanager
def room_in_files(count: int) -> Iterator[None]:
    """As much as any file takes, in the place of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_word_after_a_reset_leaves_the_error_to_the_program(world: World) -> None:
    """The kernel tells an error once: the program would read the end of a FIN, and a byte too many."""
    _program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    peer.socket.shutdown(socket.SHUT_WR)
    world.until(lambda: away.spool.drain(away.socket) == 0 and away.spool.peer_closed)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    world.until(lambda: repair.info(away.socket).state is TcpState.CLOSE)
    with pytest.raises(OSError, match="has ended"):
        away.spool.said.say(away.socket, b"word")
    assert away.spool.said.data == b""
    away.spool.drain(away.socket)
    assert away.spool.error == errno.EPIPE


def test_kernel_goes_on_to_tune_the_send_buffer(world: World) -> None:
    """A program that has not fixed its size would send slowly from then on."""
    connect(world, 4)
    world.sleep()
    (away,) = world.away
    sock = away.live.socket
    before = [sock.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_SNDBUF, repair.SO_BUF_LOCK)]
    away.live.agree(b"word", 0, lambda _: None)
    after = [sock.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_SNDBUF, repair.SO_BUF_LOCK)]
    assert after == before and not after[1] & 1
    world.wake()


@pytest.mark.parametrize("version", [4, 6])
def test_as_much_as_proxies_may_say_is_appended(world: World, version: int) -> None:
    """Behind bytes that the peer has not acknowledged."""
    program, peer = connect(world, version)
    world.network.block("device", "out")
    assert program.ask("send", 3, 10_000) == "done"
    world.sleep()
    (away,) = world.away
    word = payload(9, MAX_SPOKEN)
    away.live.agree(word, 0, lambda _: None)
    world.wake()
    _hear(world, peer, 10_000 + MAX_SPOKEN)
    assert peer.received.hexdigest() == hashlib.sha256(payload(3, 10_000) + word).hexdigest()
