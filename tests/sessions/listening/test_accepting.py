"""Connections that a stand-in accepts for a sleeping device come into the accept queue of the device's own program."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

import pytest

from locum.sessions.listening import accepting
from locum.sessions.listening.replay import Accepted, replay
from locum.sessions.record import SessionRecord, TcpState
from locum.sessions.search.lookup import look
from locum.sessions.tcp import stand_in
from locum.sessions.tcp.errors import SessionError
from tests.sessions.program import payload
from tests.sessions.sleepworld import HOME4, HOME6, Network

PORT = 7100
both = pytest.mark.parametrize("version", [4, 6])


class Asleep:
    """A sleeping device, a stand-in that accepts for it at PORT, and their sockets; `close` ends all."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.open: list[socket.socket] = []
        self.records: list[SessionRecord] = []
        # The data plane takes these options out of a SYN; here is none.
        network.sysctl("standin", "net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_window_scaling=0")

    def program(
        self, host: str, *, backlog: int = 8, buffer: int = 0, options: tuple[int, ...] = ()
    ) -> socket.socket:
        """The device's listener."""
        with self.network.inside("device"):
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.open.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option in options:
            sock.setsockopt(socket.IPPROTO_TCP, option, 1)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.bind((host, PORT))
        sock.listen(backlog)
        sock.settimeout(10)
        return sock

    def listen(self, version: int, window: int = 32768) -> socket.socket:
        """The device sleeps, and the stand-in listens."""
        self.network.block("device", "in")
        self._silence("add")
        self.network.route("standin")
        with self.network.inside("standin"):
            listener = accepting.listen(HOME4 if version == 4 else HOME6, PORT, backlog=8, window=window)
        self.open.append(listener)
        return listener

    def connect(self, version: int) -> socket.socket:
        """The correspondent's."""
        with self.network.inside("peer"):
            sock = socket.create_connection((str(HOME4 if version == 4 else HOME6), PORT), timeout=10)
        self.open.append(sock)
        return sock

    def accept(self, listener: socket.socket) -> tuple[socket.socket, SessionRecord]:
        until = time.monotonic() + 10
        while (found := accepting.accept(listener)) is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        self.open.append(found[0])
        return found

    def give_back(
        self,
        sock: socket.socket,
        record: SessionRecord,
        patience: float = 10,
        frozen: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """Stop the stand-in's connection and repeat it at the device, whose packets stay blocked."""
        self.network.block("standin", "in")
        stand_in.stop(sock)
        self.network.route("device")
        now = stand_in.condition(sock, record)
        data = self.unread(sock, now.unread)
        accepted = Accepted(record.flow, accepting.handshake(record), data, now.peer_closed)
        with self.network.inside("device"):
            replay(accepted, self.deliver, patience=patience, frozen=frozen)

    @staticmethod
    def unread(sock: socket.socket, size: int) -> bytes:
        from locum.sessions.tcp import repair

        repair.select_queue(sock, repair.RECEIVE_QUEUE)
        return sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT) if size else b""

    def deliver(self, packet: bytes) -> None:
        self.network.deliver((packet,))

    def _silence(self, change: str) -> None:
        """Point where the data plane drops a suspended flow's packets: behind the host's own filters."""
        if change == "add":
            self.network.nft("device", "add table netdev quiet")
            self.network.nft(
                "device", "add chain netdev quiet out { type filter hook egress device e0 priority 0; }"
            )
            self.network.nft(
                "device", "add rule netdev quiet out meta protocol { ip, ip6 } meta l4proto tcp drop"
            )
        self.network.nft("device", "add table netdev quiet")
        if change == "delete":
            self.network.nft("device", "delete table netdev quiet")

    def wake(self) -> None:
        self.network.unblock("device", "in")
        self._silence("delete")

    def close(self) -> None:
        for sock in self.open:
            with suppress(OSError):
                stand_in.stop(sock)
            sock.close()
        self.wake()
        self.network.unblock("standin", "in")
        self.network.route("device")
        self.network.sysctl("standin", "net.ipv4.tcp_timestamps=1", "net.ipv4.tcp_window_scaling=1")


@pytest.fixture
def asleep(network: Network) -> Iterator[Asleep]:
    made = Asleep(network)
    yield made
    made.close()


def receive(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size and (part := sock.recv(size - len(parts))):
        parts += part
    return bytes(parts)


def exchange(asleep: Asleep, listener: socket.socket, peer: socket.socket, sent: bytes) -> None:
    """The program accepts an ordinary connection, which carries data in both directions and ends."""
    asleep.wake()
    connection, address = listener.accept()
    asleep.open.append(connection)
    assert address[1] == peer.getsockname()[1]
    assert receive(connection, len(sent)) == sent
    more, answer = payload(2, 200_000), payload(3, 200_000)
    peer.sendall(more[:50_000])
    assert receive(connection, 50_000) == more[:50_000]
    connection.sendall(answer[:50_000])
    assert receive(peer, 50_000) == answer[:50_000]
    peer.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    connection.close()
    assert peer.recv(1) == b""


@pytest.mark.parametrize(
    ("version", "host"),
    [(4, "0.0.0.0"), (4, str(HOME4)), (4, "::"), (6, "::"), (6, str(HOME6))],
    ids=["any4", "home4", "dual-stack", "any6", "home6"],
)
def test_a_connection_to_a_sleeper_comes_into_its_accept_queue(
    asleep: Asleep, version: int, host: str
) -> None:
    program = asleep.program(host)
    listener = asleep.listen(version)
    peer = asleep.connect(version)
    data = payload(1, 20_000)
    peer.sendall(data)
    time.sleep(0.05)
    asleep.give_back(*asleep.accept(listener))
    exchange(asleep, program, peer, data)


@both
def test_a_silent_peer_and_several_connections(asleep: Asleep, version: int) -> None:
    program = asleep.program("::")
    listener = asleep.listen(version)
    peers = [asleep.connect(version) for _ in range(3)]
    for sock, record in [asleep.accept(listener) for _ in peers]:
        asleep.give_back(sock, record)
    for peer in peers:
        exchange(asleep, program, peer, b"")


@both
def test_a_peer_that_closed_its_side_meanwhile(asleep: Asleep, version: int) -> None:
    program = asleep.program("::")
    listener = asleep.listen(version)
    peer = asleep.connect(version)
    peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
    peer.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    sock, record = asleep.accept(listener)
    assert record.state is TcpState.ESTABLISHED
    asleep.give_back(sock, record)
    asleep.wake()
    connection, _ = program.accept()
    asleep.open.append(connection)
    assert receive(connection, 1000) == b"GET / HTTP/1.0\r\n\r\n"
    connection.sendall(b"page")
    connection.close()
    assert receive(peer, 100) == b"page"


def test_a_peer_sends_no_more_than_the_device_takes_at_once(asleep: Asleep) -> None:
    program = asleep.program("0.0.0.0")
    listener = asleep.listen(4, window=32768)
    peer = asleep.connect(4)
    peer.setblocking(False)
    data, sent = payload(4, 400_000), 0
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            sent += peer.send(data[sent:])
    sock, record = asleep.accept(listener)
    held = stand_in.condition(sock, record).unread
    assert 8_000 < held <= 32768
    asleep.give_back(sock, record, patience=0)  # not accepted yet
    asleep.wake()
    connection, _ = program.accept()
    asleep.open.append(connection)
    got = receive(connection, held)
    while len(got) < len(data):
        with suppress(BlockingIOError):
            sent += peer.send(data[sent:])
        got += connection.recv(1 << 16)
    assert got == data


def test_small_receive_buffer_is_refilled_as_its_program_reads(asleep: Asleep) -> None:
    program = asleep.program("0.0.0.0", buffer=4096)
    listener = asleep.listen(4, window=60_000)
    peer = asleep.connect(4)
    data = payload(5, 24_000)
    peer.sendall(data)
    time.sleep(0.1)
    sock, record = asleep.accept(listener)
    reader = os.fork()
    if not reader:
        connection, _ = program.accept()
        good = receive(connection, len(data)) == data
        connection.sendall(b"good" if good else b"bad!")
        time.sleep(5)
        os._exit(0)
    try:
        asleep.give_back(sock, record)
        asleep.wake()
        assert receive(peer, 4) == b"good"
    finally:
        os.kill(reader, 9)
        os.waitpid(reader, 0)


def test_program_that_never_reads_loses_excess_data(asleep: Asleep) -> None:
    asleep.program("0.0.0.0", buffer=4096)
    listener = asleep.listen(4, window=60_000)
    asleep.connect(4).sendall(payload(5, 24_000))
    time.sleep(0.1)
    sock, record = asleep.accept(listener)
    with pytest.raises(SessionError, match=r"takes .* of 24000 bytes"):
        asleep.give_back(sock, record, patience=0.1)
    assert look_in(asleep, record) is None


def look_in(asleep: Asleep, record: SessionRecord) -> object:
    with asleep.network.inside("device"):
        return look(record.flow)


def test_a_program_that_waits_for_data_before_it_accepts(asleep: Asleep) -> None:
    program = asleep.program("0.0.0.0", options=(socket.TCP_DEFER_ACCEPT,))
    listener = asleep.listen(4)
    peer = asleep.connect(4)
    peer.sendall(b"request")
    time.sleep(0.05)
    asleep.give_back(*asleep.accept(listener))
    exchange(asleep, program, peer, b"request")


def test_closed_listener_refuses_the_connection(asleep: Asleep) -> None:
    listener = asleep.listen(4)
    asleep.connect(4)
    sock, record = asleep.accept(listener)
    with pytest.raises(SessionError, match=r"^no program listens on its port$"):
        asleep.give_back(sock, record)
    assert look_in(asleep, record) is None


def test_a_full_accept_queue(asleep: Asleep) -> None:
    asleep.program("0.0.0.0", backlog=0)  # takes one
    listener = asleep.listen(4)
    held = []
    for _ in range(3):
        asleep.connect(4)
        held.append(asleep.accept(listener))
    asleep.give_back(*held[0])
    for sock, record in held[1:]:
        with pytest.raises(SessionError, match="queue"):
            asleep.give_back(sock, record, patience=0.1)
        assert look_in(asleep, record) is None
    assert look_in(asleep, held[0][1]) is not None


def test_excess_connections_come_once_the_program_runs(asleep: Asleep) -> None:
    program = asleep.program("0.0.0.0", backlog=5)
    listener = asleep.listen(4)
    held = []
    for _ in range(20):
        asleep.connect(4)
        held.append(asleep.accept(listener))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        kept = [program.accept() for _ in held]
        os.write(writer, bytes([len(kept)]))
        signal.pause()
    frozen = {child}

    def thaw() -> None:
        frozen.clear()
        os.kill(child, signal.SIGCONT)

    os.kill(child, signal.SIGSTOP)
    thawing = threading.Timer(1.0, thaw)
    thawing.start()
    try:
        for sock, record in held:
            asleep.give_back(sock, record, patience=0.3 if frozen else 10, frozen=lambda: frozen)
        assert os.read(reader, 1) == bytes([20])
    finally:
        thawing.join()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_second_replay_changes_no_socket(asleep: Asleep) -> None:
    program = asleep.program("0.0.0.0")
    listener = asleep.listen(4)
    peer = asleep.connect(4)
    peer.sendall(b"once")
    time.sleep(0.05)
    sock, record = asleep.accept(listener)
    asleep.give_back(sock, record)
    asleep.give_back(sock, record)
    exchange(asleep, program, peer, b"once")


def test_syn_cookies_do_not_hinder_it(asleep: Asleep) -> None:
    for name in ("device", "standin"):
        asleep.network.sysctl(name, "net.ipv4.tcp_syncookies=2")
    try:
        program = asleep.program("0.0.0.0")
        listener = asleep.listen(4)
        peer = asleep.connect(4)
        peer.sendall(b"cookie")
        time.sleep(0.05)
        asleep.give_back(*asleep.accept(listener))
        exchange(asleep, program, peer, b"cookie")
    finally:
        for name in ("device", "standin"):
            asleep.network.sysctl(name, "net.ipv4.tcp_syncookies=1")


def test_a_connection_with_window_scaling_is_not_kept(asleep: Asleep) -> None:
    asleep.network.sysctl("standin", "net.ipv4.tcp_timestamps=1", "net.ipv4.tcp_window_scaling=1")
    listener = asleep.listen(4)
    asleep.connect(4)
    with pytest.raises(SessionError, match="timestamps or window scaling"):
        asleep.accept(listener)


def test_stand_in_listens_beside_a_session_of_the_port(
    asleep: Asleep,
) -> None:
    listener = asleep.listen(4)
    asleep.connect(4)
    sock, record = asleep.accept(listener)
    listener.close()
    stand_in.drop(sock)
    with asleep.network.inside("standin"):
        restored = stand_in.restore(record)
        asleep.open.append(restored)
        stand_in.stop(restored)
        stand_in.resume(restored)
        asleep.open.append(accepting.listen(HOME4, PORT, backlog=8, window=32768))


@both
def test_accepting_behind_a_stateful_packet_filter(asleep: Asleep, version: int) -> None:
    network = asleep.network
    network.nft("device", "add table inet wall")
    network.nft("device", "add chain inet wall in { type filter hook input priority 0; policy drop; }")
    for rule in (
        "ct state invalid drop",
        "ct state established,related accept",
        f"tcp dport {PORT} ct state new accept",
    ):
        network.nft("device", f"add rule inet wall in {rule}")
    network.nft("device", "add rule inet wall in meta l4proto icmpv6 accept")
    try:
        program = asleep.program("::")
        listener = asleep.listen(version)
        peers = [asleep.connect(version) for _ in range(2)]
        peers[0].sendall(b"request")
        time.sleep(0.05)
        for sock, record in [asleep.accept(listener) for _ in peers]:
            asleep.give_back(sock, record)
        exchange(asleep, program, peers[0], b"request")
        exchange(asleep, program, peers[1], b"")
    finally:
        network.nft("device", "delete table inet wall")
