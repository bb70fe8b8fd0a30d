"""A proxy's connection at the stand-in becomes a held session, and then a socket of the device's program."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from locum.sessions.handed import taking
from locum.sessions.handed.restoring import Restored
from locum.sessions.record import SessionRecord
from locum.sessions.tcp import repair, stand_in
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.live import LiveSocket
from locum.sessions.tcp.spool import Budget, Spool
from locum.wire.control import FinalState
from tests.sessions.listening.test_accepting import receive
from tests.sessions.program import payload
from tests.sessions.sleepworld import HOME4, HOME6, PEER4, PEER6, Network

PORT = 7200


class Conversation:
    """A connection of a proxy, from the home address to the peer."""

    def __init__(self, network: Network, version: int, directory: Path) -> None:
        self.network, self.directory = network, directory
        self.family = socket.AF_INET if version == 4 else socket.AF_INET6
        network.route("standin")
        with network.inside("peer"):
            listener = socket.create_server((PEER4 if version == 4 else PEER6, PORT), family=self.family)
        with listener, network.inside("standin"):
            self.proxy = socket.socket(self.family)
            if version == 4:
                self.proxy.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
            else:
                self.proxy.setsockopt(socket.IPPROTO_IPV6, repair.IPV6_TRANSPARENT, 1)
            self.proxy.bind((str(HOME4 if version == 4 else HOME6), 0))
            self.proxy.settimeout(10)
            self.proxy.connect((PEER4 if version == 4 else PEER6, PORT))
            self.peer, _ = listener.accept()
        self.peer.settimeout(20)
        self.open: list[socket.socket] = [self.proxy, self.peer]

    def take(self, unread: bytes = b"") -> tuple[socket.socket, SessionRecord, Spool]:
        """The stand-in holds it, with its spool."""
        self.network.block("standin", "in")
        with self.network.inside("standin"):
            held, record = taking.take(self.proxy, unread)
        self.open.append(held)
        record = SessionRecord.from_cbor(record.to_cbor())  # as it travels
        spool = Spool(
            "one", record, memory_dir=self.directory, disk_dir=self.directory, budget=Budget(1 << 24, 1 << 24)
        )
        self.network.unblock("standin", "in")
        return held, record, spool

    def give(self, held: socket.socket, record: SessionRecord, spool: Spool) -> socket.socket:
        """The device has it."""
        self.network.block("standin", "in")
        self.network.block("device", "in")
        final = spool.stop(held)
        self.network.route("device")
        data = spool.read(0, spool.total)
        state = FinalState(
            0, final.timestamp, final.received, 0, final.peer_closed, acked=final.acked, tail=data
        )
        with self.network.inside("device"):
            restored = Restored(record, state, data)
        self.open.append(restored.socket)
        stand_in.drop(held)
        self.network.deliver(restored.ending())
        self.network.unblock("device", "in")
        self.network.unblock("standin", "in")
        self.network.deliver(restored.nudge())
        restored.socket.settimeout(20)
        return restored.socket

    def close(self) -> None:
        for sock in self.open:
            with suppress(OSError):
                stand_in.stop(sock)
            sock.close()
        for name in ("device", "standin"):
            self.network.unblock(name, "in")
        self.network.route("device")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(params=[4, 6])
def talk(network: Network, request: pytest.FixtureRequest, directory: Path) -> Iterator[Conversation]:
    made = Conversation(network, request.param, directory)
    yield made
    made.close()


def test_bytes_of_every_moment_reach_the_program(talk: Conversation) -> None:
    talk.proxy.sendall(b"hello")
    assert receive(talk.peer, 5) == b"hello"
    early = payload(1, 300_000)
    talk.peer.sendall(b"read" + early[:100_000])
    assert receive(talk.proxy, 4) == b"read"
    given_back = receive(talk.proxy, 50_000)
    held, record, spool = talk.take(given_back)
    talk.peer.sendall(early[100_000:])
    while spool.total < 300_000:
        spool.drain(held)
    program = talk.give(held, record, spool)
    talk.peer.sendall(b"late")
    assert receive(program, 300_004) == early + b"late"
    answer = payload(2, 2_000_000)
    writing = threading.Thread(target=program.sendall, args=(answer,))
    writing.start()
    assert receive(talk.peer, len(answer)) == answer
    writing.join()
    program.shutdown(socket.SHUT_WR)
    assert talk.peer.recv(1) == b""
    talk.peer.close()
    assert program.recv(1) == b""


def test_bytes_without_acknowledgement_go_along(talk: Conversation) -> None:
    talk.network.block("standin", "in")
    said = payload(3, 200_000)
    talk.proxy.setblocking(False)
    sent = talk.proxy.send(said)
    held, record, spool = talk.take()
    assert len(record.unacked) + len(record.unsent) == sent
    program = talk.give(held, record, spool)
    program.sendall(said[sent:])
    assert receive(talk.peer, len(said)) == said


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_the_peers_end_comes_behind_its_last_byte(talk: Conversation, when: str) -> None:
    talk.peer.sendall(b"goodbye")
    if when == "before":
        talk.peer.shutdown(socket.SHUT_WR)
        while repair.info(talk.proxy).state.name == "ESTABLISHED":
            pass
    held, record, spool = talk.take(b"say ")
    if when == "meanwhile":
        talk.peer.shutdown(socket.SHUT_WR)
        while not spool.peer_closed:
            spool.drain(held)
    program = talk.give(held, record, spool)
    assert receive(program, 100) == b"say goodbye"
    program.sendall(b"you too")
    program.close()
    assert receive(talk.peer, 100) == b"you too"


def test_the_next_sleep_captures_it_like_any_other(talk: Conversation) -> None:
    held, record, spool = talk.take()
    program = talk.give(held, record, spool)
    talk.peer.sendall(b"now")
    assert receive(program, 3) == b"now"
    assert program.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
    live = LiveSocket(program, record.flow)
    again = live.capture()
    assert again.rcv_seq == (record.rcv_seq + 3) & 0xFFFFFFFF
    live.resume()
    talk.peer.sendall(b"and then")
    assert receive(program, 8) == b"and then"


def test_connection_that_ends_is_reset(talk: Conversation) -> None:
    talk.proxy.shutdown(socket.SHUT_WR)
    with pytest.raises(SessionError, match="FIN_WAIT"):
        talk.take()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while talk.peer.recv(1) or talk.peer.send(b"x"):
            pass


def test_too_much_without_acknowledgement_is_not_taken(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "MAX_UNACKNOWLEDGED", 1000)
    talk.network.block("standin", "in")
    talk.proxy.sendall(bytes(1001))
    assert taking.is_large(talk.proxy)
    with pytest.raises(SessionError, match="more than 1000 unacknowledged"):
        talk.take()
    with pytest.raises(ConnectionResetError):
        while talk.peer.recv(1000):
            pass


def test_last_states_that_do_not_fit_are_refused(talk: Conversation) -> None:
    held, record, spool = talk.take()
    for final in (FinalState(0, None, 5, 5), FinalState(0, None, 0, 0, acked=1)):
        with pytest.raises(SessionError, match="does not fit"):
            Restored(record, final, b"")
    with pytest.raises(SessionError, match="state FIN_WAIT1"):
        Restored(replace(record, state=record.state.FIN_WAIT1), FinalState(0, None, 0, 0), b"")
    talk.give(held, record, spool)
