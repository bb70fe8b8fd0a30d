"""A program gets other bytes than its peer has sent, more or fewer, and the connection goes on with both."""

import errno
import hashlib
import socket
from pathlib import Path

import pytest

from locum.sessions.record import TcpState
from locum.sessions.tcp import renumbering, repair
from locum.sessions.tcp.consumed import Replacement
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.live import LiveSocket
from locum.sessions.tcp.parked import Parked
from locum.sessions.tcp.renumbering import Begun
from tests.sessions.ends import Peer, Program, connect
from tests.sessions.program import payload
from tests.sessions.sleepworld import Away, World

EDITS = {
    "fewer": (Replacement(100, 60_000, b"short"),),
    "more": (Replacement(0, 3, payload(77, 200_000)),),
    "none": (Replacement(0, 100_000, b""),),
    "mixed": (
        Replacement(5, 1, b"x" * 500),
        Replacement(90_000, 500, b""),
        Replacement(95_000, 10, b"0123456789"),
    ),
}


def _send(world: World, peer: Peer, data: bytes) -> None:
    world.until(lambda: peer.send(data))
    (away,) = world.away
    world.until(lambda: away.spool.total == len(data))


def _hears(world: World, peer: Peer, count: int) -> None:
    world.until(lambda: peer.receive() >= count)


def _agree(away: Away, kept: list[Begun] | None = None) -> None:
    away.live.agree(
        away.spool.said.data, away.spool.consumed.surplus, (kept if kept is not None else []).append
    )


def _replaced(data: bytes, edits: tuple[Replacement, ...]) -> bytes:
    for edit in reversed(edits):
        data = data[: edit.start] + edit.data + data[edit.end :]
    return data


def _receives(program: Program, data: bytes) -> None:
    assert program.ask("receive", len(data)) == f"{len(data)} {hashlib.sha256(data).hexdigest()} more"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", EDITS)
def test_both_ends_go_on_after_three_sleeps(world: World, version: int, kind: str) -> None:
    """In each one the proxy also speaks; afterwards the program sends and receives as before."""
    program, peer = connect(world, version)
    heard = b""
    for number in range(3):
        world.sleep()
        (away,) = world.away
        data = payload(number, 100_000)
        _send(world, peer, data)
        for edit in EDITS[kind]:
            away.spool.consumed.replace(edit)
        if number != 1:
            away.spool.said.say(away.socket, b"spoken")
            heard += b"spoken"
        _agree(away)
        _agree(away)  # a daemon that was killed does it again
        world.wake()
        if expected := _replaced(data, EDITS[kind]):
            _receives(program, expected)
        heard += payload(number, 300_000)
        assert program.ask("send", number, 300_000) == "done"
        _hears(world, peer, len(heard))
        world.until(lambda: peer.send(payload(9, 700_000)))
        _receives(program, payload(9, 700_000))
    assert peer.received.hexdigest() == hashlib.sha256(heard).hexdigest()
    peer.socket.shutdown(socket.SHUT_WR)
    assert program.ask("receive", 1).endswith("eof")


def test_unread_and_unsent_bytes_stay(world: World) -> None:
    """The program has not read for a while, and what it has sent was not acknowledged."""
    program, peer = connect(world, 4)
    world.until(lambda: peer.send(payload(1, 60_000)))
    world.stay(0.2)
    world.network.block("device", "out")
    assert program.ask("send", 3, 30_000) == "done"
    world.sleep()
    (away,) = world.away
    assert away.record.unread == 60_000
    _send(world, peer, payload(2, 50_000))
    away.spool.consumed.replace(Replacement(10_000, 30_000, b"instead"))
    _agree(away)
    world.wake()
    data = payload(1, 60_000) + _replaced(payload(2, 50_000), (Replacement(10_000, 30_000, b"instead"),))
    _receives(program, data)
    world.until(lambda: peer.receive() == 30_000)
    assert peer.received.hexdigest() == hashlib.sha256(payload(3, 30_000)).hexdigest()


def test_program_that_has_closed_its_side_gets_the_replacement(world: World) -> None:
    program, peer = connect(world, 4)
    assert program.ask("shutdown") == "done"
    world.sleep()
    (away,) = world.away
    assert away.record.fin_sent
    _send(world, peer, payload(1, 5000))
    away.spool.consumed.replace(Replacement(0, 4000, b"little"))
    _agree(away)
    world.wake()
    _receives(program, b"little" + payload(1, 5000)[4000:])
    world.until(lambda: peer.receive() == 0 and peer.eof)
    world.until(lambda: peer.send(b"late"))
    _receives(program, b"late")
    peer.socket.shutdown(socket.SHUT_WR)
    assert program.ask("receive", 1).endswith("eof")


def test_end_of_the_peer_comes_behind_the_replacement(world: World) -> None:
    program, peer = connect(world, 6)
    world.sleep()
    (away,) = world.away
    _send(world, peer, payload(1, 5000))
    peer.socket.shutdown(socket.SHUT_WR)
    world.until(lambda: away.spool.drain(away.socket) == 0 and away.spool.peer_closed)
    away.spool.consumed.replace(Replacement(1000, 4000, b""))
    _agree(away)
    world.wake()
    data = payload(1, 5000)[:1000]
    assert program.ask("receive", 5000) == f"1000 {hashlib.sha256(data).hexdigest()} eof"
    assert program.ask("send", 4, 1000) == "done"
    world.until(lambda: peer.receive() == 1000)


def test_data_behind_a_gap_is_asked_for_again(world: World) -> None:
    """It has numbers of its peer: among bytes of other numbers it would be in the wrong place."""
    program, peer = connect(world, 4)
    for rule in ("add chain inet hold gap { type filter hook prerouting priority -310; }", "add rule inet hold gap ip daddr 10.99.0.5 tcp sport 7000 meta length 700-1400 drop"):  # fmt: skip
        world.network.nft("device", rule)
    first, second = payload(1, 1000), payload(2, 300)
    peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.socket.send(first)  # lost on its way
    peer.socket.send(second)  # arrives
    world.sleep()
    world.network.nft("device", "delete chain inet hold gap")
    (away,) = world.away
    assert away.record.unread == 0
    world.until(lambda: away.spool.total == 1300)
    away.spool.consumed.replace(Replacement(0, 10, b"."))
    _agree(away)
    world.wake()
    _receives(program, b"." + first[10:] + second)
    world.until(lambda: peer.send(b"more"))
    _receives(program, b"more")


def test_next_run_of_the_daemon_ends_what_was_begun(world: World, tmp_path: Path) -> None:
    """It was killed when the socket had no connection any more."""
    program, peer = connect(world, 4)
    world.until(lambda: peer.send(payload(1, 40_000)))
    world.stay(0.2)
    world.sleep()
    (away,) = world.away
    _send(world, peer, payload(2, 50_000))
    away.spool.consumed.replace(Replacement(0, 49_000, b"gone"))
    path: list[Path] = []

    def killed(begun: Begun) -> None:
        path.append(renumbering.store(tmp_path, begun))
        repair.disconnect(away.live.socket)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        away.live.agree(b"", away.spool.consumed.surplus, killed)
    assert away.live.state() is TcpState.CLOSE
    begun = renumbering.from_bytes(path[0].read_bytes())
    assert not begun.is_done(away.live.socket)
    begun.carry_out(away.live.socket)
    assert begun.is_done(away.live.socket)
    stored = Parked.from_json(begun.parked.to_json())
    away.live = LiveSocket(away.live.socket, away.live.flow, stored)
    away.live.agree(b"", away.spool.consumed.surplus, lambda _: pytest.fail("it was done"))
    world.wake()
    _receives(program, payload(1, 40_000) + b"gone" + payload(2, 50_000)[49_000:])
    assert program.ask("send", 4, 1000) == "done"
    world.until(lambda: peer.receive() == 1000)


def test_next_run_of_the_daemon_sets_the_options(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed when the socket had a connection with the right numbers, and nothing else."""
    program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    _send(world, peer, payload(2, 50_000))
    away.spool.consumed.replace(Replacement(0, 49_000, b"gone"))
    kept: list[Begun] = []

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(renumbering, "_set_options", killed)
        _agree(away, kept)
    begun = renumbering.from_bytes(renumbering.to_bytes(kept[0]))
    assert not begun.is_done(away.live.socket)
    begun.carry_out(away.live.socket)
    assert begun.is_done(away.live.socket)
    wanted, found = kept[0], repair.info(away.live.socket)
    assert isinstance(wanted, renumbering.Renumbering)
    assert found.timestamps and found.sack == wanted.record.sack
    away.live = LiveSocket(away.live.socket, away.live.flow, begun.parked)
    world.wake()
    _receives(program, b"gone" + payload(2, 50_000)[49_000:])
    assert program.ask("send", 4, 1000) == "done"
    world.until(lambda: peer.receive() == 1000)


@pytest.mark.parametrize("appended", [0, 4, 10])
def test_next_run_of_the_daemon_appends_the_rest(world: World, tmp_path: Path, appended: int) -> None:
    """It was killed when a part of a word was in the send queue; the program writes afterwards."""
    program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    away.spool.said.say(away.socket, b"0123456789")
    path: list[Path] = []

    def killed(begun: Begun) -> None:
        path.append(renumbering.store(tmp_path, begun))
        repair.mark_all_sent(away.live.socket)
        repair.select_queue(away.live.socket, repair.SEND_QUEUE)
        away.live.socket.send(b"0123456789"[:appended])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        away.live.agree(away.spool.said.data, 0, killed)
    begun = renumbering.from_bytes(path[0].read_bytes())
    assert begun.is_done(away.live.socket) is (appended == 10)
    begun.carry_out(away.live.socket)
    stored = Parked.from_json(begun.parked.to_json())
    away.live = LiveSocket(away.live.socket, away.live.flow, stored)
    with world.loose():
        assert program.ask("send", 5, 1000) == "done"
    _agree(away)
    world.wake()
    _hears(world, peer, 1010)
    assert peer.received.hexdigest() == hashlib.sha256(b"0123456789" + payload(5, 1000)).hexdigest()


@pytest.mark.parametrize("surplus", [0, -90])
def test_words_of_a_proxy_go_before_those_of_the_program(world: World, surplus: int) -> None:
    """It has run while it was not known that a proxy had spoken; the peer has the proxy's words already."""
    program, peer = connect(world, 4)
    world.network.block("device", "out")
    assert program.ask("send", 1, 3000) == "done"
    world.sleep()
    world.network.unblock("device", "out")
    world.network.block("device", "out")
    (away,) = world.away
    away.spool.said.say(away.socket, b"words of the proxy")
    _hears(world, peer, 3018)
    _send(world, peer, payload(2, 100))
    if surplus:
        away.spool.consumed.replace(Replacement(0, 100, b"0123456789"))
    with world.loose():
        assert program.ask("send", 3, 5000) == "done"
    _agree(away)
    world.wake()
    _receives(program, b"0123456789" if surplus else payload(2, 100))
    assert program.ask("send", 4, 700) == "done"
    _hears(world, peer, 8718)
    heard = payload(1, 3000) + b"words of the proxy" + payload(3, 5000) + payload(4, 700)
    assert peer.received.hexdigest() == hashlib.sha256(heard).hexdigest()


def test_program_waits_in_vain_for_nothing(world: World) -> None:
    """It sleeps in recv() all the while; the first byte after waking reaches it."""
    program, peer = connect(world, 4)
    program.begin("receive", 5)
    world.sleep()
    (away,) = world.away
    _send(world, peer, payload(2, 5000))
    away.spool.consumed.replace(Replacement(0, 5000, b""))
    _agree(away)
    world.wake()
    world.stay(0.3)
    assert not program.answered()
    world.until(lambda: peer.send(b"hello"))
    assert program.answer() == f"5 {hashlib.sha256(b'hello').hexdigest()} more"


def test_peer_waits_for_a_program_that_does_not_read(world: World) -> None:
    """The window closes as before, and everything arrives once the program reads."""
    program, peer = connect(world, 4)
    world.until(lambda: peer.send(payload(1, 100_000)))
    world.stay(0.2)
    world.sleep()
    (away,) = world.away
    _send(world, peer, payload(2, 20_000))
    away.spool.consumed.replace(Replacement(0, 19_000, b"x" * 25_000))
    _agree(away)
    world.wake()
    data = payload(3, 12 << 20)
    world.until(lambda: peer.send(data), 2, must=False)
    assert 0 < peer.sent < len(data), "the peer waits"
    program.begin("receive", 126_000 + len(data))
    world.until(lambda: peer.send(data))
    expected = payload(1, 100_000) + b"x" * 25_000 + payload(2, 20_000)[19_000:] + data
    assert program.answer() == f"{len(expected)} {hashlib.sha256(expected).hexdigest()} more"


def test_urgent_byte_among_replaced_ones_is_gone(world: World) -> None:
    program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    peer.socket.send(b"urgent", socket.MSG_OOB)
    world.until(lambda: away.spool.total == 6)
    away.spool.consumed.replace(Replacement(0, 6, b"calm"))
    _agree(away)
    world.wake()
    world.until(lambda: peer.send(b"and on"))
    _receives(program, b"calmand on")


def test_options_of_the_program_stay(world: World) -> None:
    connect(world, 4)
    world.sleep()
    (away,) = world.away
    sock = away.live.socket
    names = [
        (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.SOL_SOCKET, socket.SO_SNDBUF),
        (socket.SOL_SOCKET, repair.SO_BUF_LOCK),
        (socket.SOL_SOCKET, socket.SO_LINGER),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        (socket.IPPROTO_TCP, socket.TCP_MAXSEG),
        (socket.IPPROTO_IP, socket.IP_TOS),
    ]
    before = [sock.getsockopt(*name) for name in names]
    info = repair.info(sock)
    away.live.agree(b"", -7, lambda _: None)
    assert [sock.getsockopt(*name) for name in names] == before
    now = repair.info(sock)
    assert (now.timestamps, now.sack, now.window_scale) == (info.timestamps, info.sack, info.window_scale)
    assert (now.state, repair.in_repair(sock)) == (TcpState.ESTABLISHED, True)


def test_connection_that_has_ended_is_not_renumbered(world: World) -> None:
    connect(world, 4)
    world.sleep()
    (away,) = world.away
    repair.disconnect(away.live.socket)
    with pytest.raises(SessionError, match="has ended"):
        away.live.agree(b"", 5, lambda _: None)


def test_reset_of_the_peer_reaches_the_program(world: World) -> None:
    program, peer = connect(world, 4)
    world.sleep()
    (away,) = world.away
    _send(world, peer, payload(2, 5000))
    away.spool.consumed.replace(Replacement(0, 5000, b"x"))
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    world.until(lambda: away.spool.drain(away.socket) == 0 and away.spool.error != 0)
    assert away.spool.error == errno.ECONNRESET
    _agree(away)
    world.wake()
    assert program.ask("receive", 100).endswith("ConnectionResetError")


@pytest.mark.parametrize("data", [b"", b"\x80", bytes(100)])
def test_damaged_file_is_an_error(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        renumbering.from_bytes(data)
