"""Sends messages composed by `forgery`, from a stranger's namespace: see `main` for the arguments.

Messages without a source leave from ADDRESS: the host is a mobile node too, and its home address's packets would
reach its targets through its own tunnel. Datagrams leave from a port of their own each, from PORT on.

It prints as JSON how many shots of each kind were "sent" and how many "failed" for which reason; a kind has " > " and the
open port where shots are aimed at one. Answers are not waited for: the capture has them.
"""

import contextlib
import errno
import json
import socket
import struct
import sys
import time
from collections import Counter, deque
from itertools import cycle
from pathlib import Path

from locum.lab.forging.forgery import Shot

TCP_PATIENCE = 0.5
GONE_PATIENCE = 0.01
"""Seconds for a connection, at first and once a target has not answered."""
OPEN_TCP = 64
OPEN_UDP = 256
FIRST_PORT, LAST_PORT = 10_000, 60_000
"""Each datagram leaves from a port of its own, so that a reply is matched with its request."""


class Stranger:
    """Sockets of every sort, opened once."""

    def __init__(self, address: str, first_port: int = FIRST_PORT) -> None:
        self._address = address
        self._udp: deque[socket.socket] = deque(maxlen=OPEN_UDP)
        self._ports = cycle(range(first_port, LAST_PORT))
        self._raw: dict[tuple[str, int], socket.socket] = {}
        self._spoof = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tcp: list[socket.socket] = []
        self._patience: dict[str, float] = {}

    def send(self, shot: Shot) -> None:
        """Raises OSError when it cannot go out."""
        if shot.via == "udp":
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            if len(self._udp) == OPEN_UDP:
                self._udp.popleft().close()
            self._udp.append(channel)
            channel.bind((shot.source or self._address, next(self._ports)))
            channel.sendto(shot.payload, (shot.target, shot.port))
        elif shot.via == "tcp":
            self._connect(shot)
        elif ":" in shot.target:
            self._raw_socket(socket.AF_INET6, shot.source or "::", shot.port).sendto(
                shot.payload, (shot.target, 0)
            )
        elif shot.source is not None:
            self._spoof.sendto(_from(shot.source, shot) + shot.payload, (shot.target, 0))
        else:
            self._raw_socket(socket.AF_INET, self._address, shot.port).sendto(shot.payload, (shot.target, 0))

    def _raw_socket(self, family: socket.AddressFamily, address: str, protocol: int) -> socket.socket:
        raw = self._raw.get((address, protocol))
        if raw is None:
            raw = self._raw[(address, protocol)] = socket.socket(family, socket.SOCK_RAW, protocol)
            raw.bind((address, 0))
        return raw

    def _connect(self, shot: Shot) -> None:
        """Send on a connection of its own, which stays open for a while as an attacker would leave it."""
        try:
            patience = self._patience.get(shot.target, TCP_PATIENCE)
            connection = socket.create_connection(
                (shot.target, shot.port), timeout=patience, source_address=(shot.source or self._address, 0)
            )
        except TimeoutError:
            # A sleeping device: its SYN is sent, no answer will come
            self._patience[shot.target] = GONE_PATIENCE
            raise
        with contextlib.suppress(ConnectionError):
            connection.sendall(shot.payload)
        self._tcp.append(connection)
        if len(self._tcp) > OPEN_TCP:
            self._tcp.pop(0).close()


def _from(source: str, shot: Shot) -> bytes:
    """An IPv4 header with a spoofed source; the kernel fills in length and checksum."""
    addresses = socket.inet_aton(source) + socket.inet_aton(shot.target)
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, shot.ttl, shot.port, 0) + addresses


def send_all(
    file: Path, rate: float, address: str, first_port: int = FIRST_PORT
) -> tuple[Counter[str], Counter[str]]:
    """Send every shot of a file at a rate (per second) from an IPv4 address; how many went out and how many did not."""
    stranger = Stranger(address, first_port)
    sent, failed = Counter[str](), Counter[str]()
    begin = time.monotonic()
    with file.open() as lines:
        for number, line in enumerate(lines):
            shot = Shot.from_line(line)
            kind = f"{shot.kind} > {shot.aimed_at}" if shot.aimed_at else shot.kind
            pause = begin + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            try:
                stranger.send(shot)
            except TimeoutError:
                failed[f"{kind} unanswered"] += 1
            except OSError as problem:
                failed[f"{kind} {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
            else:
                sent[kind] += 1
    return sent, failed


if __name__ == "__main__":
    first = int(sys.argv[4]) if len(sys.argv) > 4 else FIRST_PORT
    went_out, stayed = send_all(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], first)
    print(json.dumps({"sent": went_out, "failed": stayed}))
