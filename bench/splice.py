"""Throughput of a connection whose program got other bytes than its peer had sent, beside a plain connection, in turns.

Both are one TCP stream between two namespaces joined by a veth pair. In one the receiving socket was captured, got other
sequence numbers and the bytes that make up for them, and was given back, as after a sleep with a proxy that replaces bytes.
"""

import socket
import statistics
import sys
import time
from collections.abc import Collection
from ipaddress import ip_address

from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed, Namespace, join, namespaces, stop
from locum.sessions.tcp import FinalTcp, LiveSocket
from locum.wire.control import Flow

NAMES = ("splice",)
_PROGRAM, _PEER = "10.99.7.1", "10.99.7.2"
_REPLACED = 1000
"""Bytes that the program gets, and the peer has not sent."""
_GO = b"go"
_BLOCK = 1 << 20


def _send_all(address: str, port: int) -> None:
    """The peer: when it is told to, send until the connection ends."""
    with socket.create_connection((address, port)) as connection:
        if connection.recv(len(_GO), socket.MSG_WAITALL) != _GO:
            raise CommandFailed("the peer was not told to send")
        block = bytes(_BLOCK)
        try:
            while True:
                connection.sendall(block)
        except OSError:
            return


def _renumber(connection: socket.socket) -> float:
    """Replace bytes as a sleep would; seconds that the new numbers took."""
    local, peer = connection.getsockname(), connection.getpeername()
    flow = Flow(socket.IPPROTO_TCP, ip_address(local[0]), local[1], ip_address(peer[0]), peer[1])
    live = LiveSocket(connection, flow)
    live.capture()
    begin = time.perf_counter()
    live.agree(b"", _REPLACED, lambda _: None)
    took = time.perf_counter() - begin
    if live.inject(bytes(_REPLACED)).accepted != _REPLACED:
        raise CommandFailed("the socket has not taken the bytes")
    live.finish(FinalTcp(received=_REPLACED))
    return took


class Stream:
    """One stream after the other into a socket of this process, which is in `program` for each."""

    def __init__(self, program: Namespace, peer: Namespace, seconds: int) -> None:
        self._program, self._peer, self._seconds = program, peer, seconds
        self.took: list[float] = []

    def plain(self) -> float:
        """Gbit/s of payload."""
        return self._sample(replaced=False)

    def replaced(self) -> float:
        """Gbit/s of payload of a connection with other numbers."""
        return self._sample(replaced=True)

    def _sample(self, *, replaced: bool) -> float:
        with self._program.entered(), socket.create_server((_PROGRAM, 0)) as listener:
            port = listener.getsockname()[1]
            process = self._peer.start(sys.executable, "-m", "bench.splice", _PROGRAM, str(port))
            try:
                listener.settimeout(60)
                connection, _ = listener.accept()
                with connection:
                    if replaced:
                        self.took.append(_renumber(connection))
                        if len(connection.recv(_REPLACED, socket.MSG_WAITALL)) != _REPLACED:
                            raise CommandFailed("the program has not got the bytes")
                    connection.sendall(_GO)
                    return self._receive(connection)
            finally:
                stop(process)

    def _receive(self, connection: socket.socket) -> float:
        buffer, count = bytearray(_BLOCK), 0
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < self._seconds:
            size = connection.recv_into(buffer)
            if not size:
                raise CommandFailed("the peer has closed the connection")
            count += size
        return count * 8 / elapsed / 1e9


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row among NAMES that is wanted."""
    if not set(NAMES) & set(wanted):
        return []
    with namespaces("program", "peer") as (program, peer):
        join(program, "eth0", peer, "eth0")
        program.ip(f"address add {_PROGRAM}/24 dev eth0")
        peer.ip(f"address add {_PEER}/24 dev eth0")
        stream = Stream(program, peer, settings.seconds)
        replaced, plain = in_turns(settings.rounds, stream.replaced, stream.plain)
    notes = (
        "one TCP stream over a veth pair, the receiving program in this process",
        f"new numbers for a socket: {statistics.median(stream.took) * 1e6:.0f} us",
    )
    return [Measurement("splice", "Gbit/s", replaced, plain, notes)]


if __name__ == "__main__":
    _send_all(sys.argv[1], int(sys.argv[2]))
